import { describe, expect, test } from "vitest";
import type { NodeSummary } from "../src/api/types";
import { applyDelta, degreesOf, edgesOf, type NodeMap } from "../src/model/delta";

const node = (id: string, adjacency: string[] = [], label = id): NodeSummary => ({ id, label, labelMinor: "", rank: id, adjacency });
const mapOf = (...list: NodeSummary[]): NodeMap => new Map(list.map((item) => [item.id, item]));
const NOTHING = { add: null, update: null, remove: null };

describe("a delta", () => {
  test("that is empty gives back the same map", () => {
    const before = mapOf(node("a"));
    expect(applyDelta(before, NOTHING)).toEqual({ nodes: before, structureChanged: false });
    expect(applyDelta(before, NOTHING).nodes).toBe(before);
    expect(applyDelta(before, { add: [], update: [], remove: [] }).nodes).toBe(before);
  });

  test("adds, updates and removes without touching the map before", () => {
    const before = mapOf(node("a"), node("b"));
    const { nodes } = applyDelta(before, { add: [node("c")], update: [node("a", [], "renamed")], remove: ["b"] });
    expect([...nodes.keys()].sort()).toEqual(["a", "c"]);
    expect(nodes.get("a")?.label).toBe("renamed");
    expect([...before.keys()]).toEqual(["a", "b"]);
    expect(before.get("a")?.label).toBe("a");
  });

  test("with reset drops what was known, even when it brings nothing", () => {
    expect([...applyDelta(mapOf(node("a")), { add: [node("b")], update: null, remove: null, reset: true }).nodes.keys()]).toEqual(["b"]);
    expect(applyDelta(mapOf(node("a")), { ...NOTHING, reset: true }).nodes.size).toBe(0);
  });

  test("updates nothing that it does not know", () => {
    expect(applyDelta(mapOf(), { add: null, update: [node("ghost")], remove: null }).nodes.size).toBe(0);
  });

  test("applies remove before update before add", () => {
    const { nodes } = applyDelta(mapOf(node("a")), { add: [node("a", [], "new")], update: [node("a", [], "old")], remove: ["a"] });
    expect(nodes.get("a")?.label).toBe("new");
  });

  test("changes the structure only when a node or an edge came or went", () => {
    const before = mapOf(node("a", ["b"]), node("b"));
    const changed = (delta: Parameters<typeof applyDelta>[1]): boolean => applyDelta(before, delta).structureChanged;
    expect(changed({ ...NOTHING, update: [node("a", ["b"], "renamed")] })).toBe(false);
    expect(changed({ ...NOTHING, update: [node("a", [])] })).toBe(true);
    expect(changed({ ...NOTHING, add: [node("c")] })).toBe(true);
    expect(changed({ ...NOTHING, remove: ["b"] })).toBe(true);
    // A reconnect that brings the same world moves nothing.
    expect(changed({ add: [node("a", ["b"]), node("b")], update: null, remove: null, reset: true })).toBe(false);
  });
});

describe("edges", () => {
  test("lead only to nodes of the picture", () => {
    expect(edgesOf(mapOf(node("a", ["b", "gone"]), node("b", ["b"])))).toEqual([
      ["a", "b"],
      ["b", "b"],
    ]);
  });

  test("to the node itself do not count as a neighbour", () => {
    const degrees = degreesOf(mapOf(node("a", ["a", "b"]), node("b", ["a"])));
    expect(degrees.get("a")).toEqual({ incoming: 1, outgoing: 1 });
  });
});
