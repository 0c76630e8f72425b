import { describe, expect, it } from "vitest";
import { decodePlace, encodePlace, type Place } from "../src/model/place";
import { mesosContainerOf, taskPath } from "../src/model/containers";
import { flag, list, number, record, records, safeUrl, text, texts } from "../src/model/safe";

describe("a place in the app", () => {
  it("survives the URL", () => {
    const places: Place[] = [
      { section: "cluster", path: ["tasks", "f", "a/b?c#d%e ü"], params: { q: "x & y=z", show: "all" } },
      { section: "apps", path: [], params: {} },
      { section: "zookeeper", path: ["link", "l"], params: { tab: "conflicts" } },
    ];
    for (const place of places) expect(decodePlace(encodePlace(place))).toEqual(place);
    expect(encodePlace({ section: "apps", path: ["app", "a"], params: { q: "" } })).toBe("#/apps/app/a");
  });
  it("is the map's where no other section is named", () => {
    for (const hash of ["", "#", "#/", "#/services?mode=table", "#/containers", "#!/state/{}", "#/cluster2", "#nonsense", "#/%E0%A4%A"]) expect(decodePlace(hash).section).toBe("map");
    expect(decodePlace("#/cluster/%E0%A4%A")).toMatchObject({ section: "cluster", path: ["%E0%A4%A"] });
  });
});

describe("the Mesos container of a node of the map", () => {
  it("is told by its name", () => {
    expect(mesosContainerOf(["shop", "/mesos-0f0a1b2c-0000-4000-8000-0123456789ab"])).toBe("0f0a1b2c-0000-4000-8000-0123456789ab");
    expect(mesosContainerOf(["mesos-agent", "", "mesos-0f0a"])).toBeNull();
  });
});

describe("the task of a node of the map", () => {
  const node = (fields: object) => ({ label: "x", ...fields }) as Parameters<typeof taskPath>[0];
  it("is told by its ids, or by the name of its container", () => {
    const table = (rows: [string, string][]) => [{ id: "l", label: "Labels", type: "property-list", columns: null, rows: rows.map(([label, value], index) => ({ id: String(index), entries: { label, value } })) }];
    expect(taskPath(node({ metadata: [{ id: "mesos_framework_id", label: "", value: "f" }, { id: "mesos_task_id", label: "", value: "t" }] }))).toEqual(["tasks", "f", "t"]);
    expect(taskPath(node({ tables: table([["mesos.task_id", "t"], ["mesos.framework_id", "f"]]) }))).toEqual(["tasks", "f", "t"]);
    expect(taskPath(node({ label: "mesos-0f0a1b2c-0000-4000-8000-0123456789ab" }))).toEqual(["container", "0f0a1b2c-0000-4000-8000-0123456789ab"]);
    expect(taskPath(node({ tables: [{ rows: null }, { rows: [{}] }] }))).toBeNull();
  });
});

describe("JSON that others wrote", () => {
  it("is of the kind that is wanted, or nothing", () => {
    expect([record([1]), record(null), list({}), records([1, null, { a: 1 }, []]), texts([1, "a"])]).toEqual([{}, {}, [], [{ a: 1 }], ["a"]]);
    expect([text(null), text(1), text({}), number("2.5"), number("x", 7), number(Infinity), flag("true")]).toEqual(["", "1", "", 2.5, 7, 0, false]);
    expect(safeUrl("https://a/b")).toBe("https://a/b");
  });
});
