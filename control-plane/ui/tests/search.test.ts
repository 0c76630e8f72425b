import { describe, expect, test } from "vitest";
import type { NodeSummary } from "../src/api/types";
import { labelMatch, markedParts, reduceName, searchableNames } from "../src/model/search";

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

describe("in a label, what is marked", () => {
  const marked = (query: string, label: string): string | null => {
    const found = labelMatch(query, label);
    return found === null ? null : label.slice(found.start, found.end);
  };

  test("is what the words of a query say letter by letter", () => {
    expect(labelMatch("INX", "nginx")).toEqual({ start: 2, end: 5 });
    expect(labelMatch("label: ng", "nginx")).toEqual({ start: 0, end: 2 });
    expect(marked("redis|gin", "nginx")).toBe("gin");
    expect(marked("10.0.0.5:80", "10.0.0.5:8080")).toBe("10.0.0.5:80");
    expect(marked('"a|b"', "xa|bx")).toBe("a|b");
  });

  test("is without case, accents and forms, as on the server", () => {
    expect(marked("cafe", "le Café")).toBe("Café");
    expect(marked("café", "cafe-1")).toBe("cafe");
    expect(marked("ｗｅｂ", "web")).toBe("web");
    expect(marked("한국", "한국-web")).toBe("한국");
  });

  test("is nothing of expressions, comparisons and combinations", () => {
    for (const query of ["x*", "cpu > 1", "a AND nginx", "NOT nginx", "", "label:"]) expect(labelMatch(query, "nginx cpu"), query).toBeNull();
  });

  test("is found in no time, whatever the expression", () => {
    const began = performance.now();
    expect(labelMatch("(a+)+$", `${"a".repeat(5_000)}b`)).toBeNull();
    expect(performance.now() - began).toBeLessThan(1_000);
  });
});

test("searchable names are listed once, sorted", () => {
  expect(searchableNames(WORLD)).toEqual({
    fields: ["comdomainteam", "command", "hosts", "id", "imagename", "label", "labelminor"],
    metrics: ["cpu", "load1m", "memory"],
  });
  expect(reduceName("Größe (東京) #")).toBe("größe東京");
});

test("places count characters and not code units", () => {
  expect(markedParts("𝒳東京 web", [[1, 3]])).toEqual([
    { text: "𝒳", isMarked: false },
    { text: "東京", isMarked: true },
    { text: " web", isMarked: false },
  ]);
  expect(markedParts("abc", [])).toEqual([{ text: "abc", isMarked: false }]);
});
