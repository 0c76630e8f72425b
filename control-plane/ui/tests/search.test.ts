import { describe, expect, test } from "vitest";
import type { NodeSummary } from "../src/api/types";
import { filterByPins, findMatches, isCombined, labelMatch, markedParts, matches, parseAmount, parseQuery, searchableNames, serverQuery } from "../src/model/search";

const WEB: NodeSummary = {
  id: "ab12;<container>",
  label: "web",
  labelMinor: "host-1",
  rank: "nginx",
  metadata: [
    { id: "docker_image_name", label: "Image name", value: "library/nginx" },
    { id: "docker_container_command", label: "Command", value: "nginx -g 'daemon off;'" },
  ],
  parents: [{ id: "host-1;<host>", label: "host-1", topologyId: "hosts" }],
  metrics: [
    { id: "docker_cpu_total_usage", label: "CPU", value: 2.5, samples: null, min: 0, max: 100 },
    { id: "docker_memory_usage", label: "Memory", value: 20 * 1024 * 1024, samples: null, min: 0, max: 0 },
    { id: "load1", label: "Load (1m)", value: 4.5, samples: null, min: 0, max: 0 },
  ],
  tables: [
    { id: "docker_label_", label: "Docker labels", type: "property-list", columns: null, rows: [{ id: "x", entries: { label: "com.domain.Team", value: "payments" } }] },
    { id: "multi", label: "", type: "multicolumn-table", columns: [], rows: [{ id: "y", entries: { a: "cell-text" } }] },
  ],
};
const DB: NodeSummary = { id: "db", label: "db", labelMinor: "host-2", rank: "postgres" };
const WORLD = new Map([WEB, DB].map((node) => [node.id, node]));

const hits = (text: string): boolean => {
  const query = parseQuery(text);
  return query !== null && matches(query, WEB);
};

describe("free text", () => {
  test("is a regular expression, case-insensitive and unanchored", () => {
    expect(hits("NGINX")).toBe(true);
    expect(hits("redis|ngin.")).toBe(true);
    expect(hits("^inx")).toBe(false);
  });

  test("that is no regular expression is taken literally", () => {
    expect(hits("(")).toBe(false);
    expect(hits("'daemon off;'")).toBe(true);
  });

  test("finds labels, metadata, parents, properties and cells, but no ids, ranks or metrics", () => {
    expect(hits("host-1")).toBe(true);
    expect(hits("payments")).toBe(true);
    expect(hits("cell-text")).toBe(true);
    expect(hits("ab12")).toBe(false);
    expect(hits("^nginx$")).toBe(false);
    expect(hits("2\\.5")).toBe(false);
  });

  test("with two colons is not a prefix query", () => {
    expect(parseQuery("a:b:c")?.kind).toBe("text");
    expect(parseQuery("10.0.0.5:8080")?.kind).toBe("text");
    expect(parseQuery("ports: 10.0.0.5")?.kind).toBe("prefix");
  });

  test("that is empty is no query", () => {
    expect(parseQuery("")).toBeNull();
    expect(findMatches("", WORLD)).toBeNull();
  });
});

describe("a prefix", () => {
  test("matches names reduced to lower-case letters and digits", () => {
    expect(hits("imagename: nginx")).toBe(true);
    expect(hits("image:nginx")).toBe(true);
    expect(hits("domainteam: payments")).toBe(true);
    expect(hits("labelMinor: host")).toBe(true);
    expect(hits("hosts: host-1")).toBe(true);
    expect(hits("command: web")).toBe(false);
  });

  test("without two sides is no query", () => {
    expect(parseQuery("image:")).toBeNull();
    expect(parseQuery(" : nginx")).toBeNull();
  });

  test("is ignored by cells of tables with several columns", () => {
    expect(hits("nosuchname: cell-text")).toBe(true);
  });
});

describe("a comparison", () => {
  test("compares metrics by their reduced label", () => {
    expect(hits("cpu > 2%")).toBe(true);
    expect(hits("CPU < 2")).toBe(false);
    expect(hits("cpu = 2.5")).toBe(true);
    expect(hits("load1m > 4")).toBe(true);
    expect(hits("load > 4")).toBe(false);
    expect([hits("cpu >= 2.5"), hits("cpu <= 2.5"), hits("cpu != 2.5")]).toEqual([true, true, false]);
  });

  test("understands sizes", () => {
    expect(hits("memory > 19mb")).toBe(true);
    expect(hits("memory > 21MB")).toBe(false);
    expect(hits("memory < 1g")).toBe(true);
    expect(hits("memory = 20m")).toBe(true);
  });

  test("that makes no sense is no query", () => {
    for (const text of ["> 2", "cpu >", "cpu > x", "1 < cpu < 3"]) expect(parseQuery(text), text).toBeNull();
  });

  test("reads amounts as people write them", () => {
    expect([parseAmount("50%"), parseAmount("10kB"), parseAmount("1m"), parseAmount("2 GB"), parseAmount("1.5t"), parseAmount("x")]).toEqual([
      50,
      10_240,
      1_048_576,
      2 * 1024 ** 3,
      1.5 * 1024 ** 4,
      null,
    ]);
  });
});

describe("pins", () => {
  test("keep only what matches every one of them", () => {
    expect([...filterByPins(["host", "web"], WORLD).keys()]).toEqual([WEB.id]);
    expect(filterByPins(["host", "nothing-like-this"], WORLD).size).toBe(0);
  });

  test("that cannot be understood are ignored", () => {
    expect(filterByPins(["> 2", ":"], WORLD)).toBe(WORLD);
  });
});

test("a found part of a label can be marked", () => {
  expect(labelMatch("INX", "nginx")).toEqual({ start: 2, end: 5 });
  expect(labelMatch("label: ng", "nginx")).toEqual({ start: 0, end: 2 });
  expect(labelMatch("cpu > 1", "cpu")).toBeNull();
  expect(labelMatch("x*", "nginx")).toBeNull();
});

test("searchable names are listed once, sorted", () => {
  expect(searchableNames(WORLD)).toEqual({
    fields: ["comdomainteam", "command", "hosts", "imagename", "label", "labelminor"],
    metrics: ["cpu", "load1m", "memory"],
  });
});

describe("what only the server understands", () => {
  test("is told by words in capitals and quotes", () => {
    for (const text of ["a AND b", "NOT x", "(a OR b)", '"exactly this"']) expect(isCombined(text), text).toBe(true);
    for (const text of ["nginx", "and or not", "BRAND", "pid: 42", "cpu > 2%"]) expect(isCombined(text), text).toBe(false);
  });

  test("becomes one query, and the other pins stay with the page", () => {
    expect(serverQuery(["nginx", "pid: 1"])).toBeNull();
    expect(serverQuery(["nginx", "a OR b"])).toBe("a OR b");
    expect(serverQuery(["a OR b", "NOT c"])).toBe("( a OR b ) AND ( NOT c )");
  });

  test("marks places that count characters and not code units", () => {
    expect(markedParts("𝒳東京 web", [[1, 3]])).toEqual([
      { text: "𝒳", isMarked: false },
      { text: "東京", isMarked: true },
      { text: " web", isMarked: false },
    ]);
    expect(markedParts("abc", [])).toEqual([{ text: "abc", isMarked: false }]);
  });
});
