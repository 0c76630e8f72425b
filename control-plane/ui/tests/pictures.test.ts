import { afterEach, beforeEach, expect, it, vi } from "vitest";
import type { NodeSummary } from "../src/api/types";
import type { NodeMap } from "../src/model/delta";

vi.mock("../src/graph/scene", () => ({ hasWebGl: () => true, GraphScene: class {} }));

let stop: (() => void) | null = null;

beforeEach(() => {
  vi.resetModules();
  vi.stubGlobal("window", { location: { hash: "", href: "http://test/" }, matchMedia: () => ({ matches: false }), addEventListener: () => undefined });
  vi.stubGlobal("document", { hidden: false, documentElement: { dataset: {} } });
});

afterEach(() => {
  stop?.();
  stop = null;
  vi.unstubAllGlobals();
});

const picture = (...ids: string[]): NodeMap => new Map(ids.map((id) => [id, { id, label: id, labelMinor: "", rank: id } as NodeSummary]));

/** A scene that draws as the real one does: the nodes only when told that they changed, everything anew in another view. */
async function follow() {
  const store = await import("../src/state/store");
  const { followData } = await import("../src/ui/GraphView");
  const { batch } = await import("@preact/signals");
  const scene = { view: "", drawn: [] as string[], calls: 0 };
  stop = followData({
    setPicture(view, nodes, changed) {
      scene.calls += 1;
      if (changed || view !== scene.view) scene.drawn = [...nodes.keys()];
      scene.view = view;
    },
    leave() {
      scene.view = "";
      scene.drawn = [];
    },
  });
  /** What the store does when a message comes. */
  const say = (view: string, nodes: NodeMap): void =>
    batch(() => {
      if (nodes.size !== store.nodes.value.size) store.structure.value += 1;
      store.nodes.value = nodes;
      store.nodesOf.value = view;
    });
  /** And when another view is asked for. */
  const turn = (): void =>
    batch(() => {
      store.nodes.value = new Map();
      store.nodesOf.value = null;
    });
  return { store, scene, say, turn };
}

it("draws a view empty that comes back empty after another one that never came", async () => {
  const { scene, say, turn } = await follow();
  say("containers", picture("a", "b"));
  expect(scene.drawn).toEqual(["a", "b"]);
  turn();
  expect(scene.drawn).toEqual([]);
  say("containers", picture());
  expect(scene).toMatchObject({ view: "containers", drawn: [] });
  say("containers", picture("c"));
  expect(scene.drawn).toEqual(["c"]);
});

it("draws what comes back as it was, and nothing while the graph is hidden", async () => {
  const { store, scene, say, turn } = await follow();
  say("containers", picture("a"));
  turn();
  say("hosts", picture("h"));
  turn();
  say("containers", picture("a"));
  expect(scene).toMatchObject({ view: "containers", drawn: ["a"], calls: 3 });

  store.chosenMode.value = "table";
  turn();
  say("hosts", picture());
  turn();
  say("containers", picture());
  expect(scene.calls).toBe(3);
  store.chosenMode.value = "graph";
  expect(scene).toMatchObject({ view: "containers", drawn: [], calls: 4 });
});
