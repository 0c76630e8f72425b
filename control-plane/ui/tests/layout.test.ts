import { describe, expect, test } from "vitest";
import { GIVE_WAY, Layout, NODE_DISTANCE, type LayoutInput, type Point } from "../src/graph/layout";

/** A chain of tiers as in a shop: everyone talks to a few of the next tier. */
function shop(width: number, tiers = 4): LayoutInput {
  const nodes: string[] = [];
  const edges: [string, string][] = [];
  for (let tier = 0; tier < tiers; tier += 1) {
    for (let at = 0; at < width; at += 1) {
      nodes.push(`${tier}-${at}`);
      if (tier > 0) for (const from of [at, (at + 1) % width]) edges.push([`${tier - 1}-${from}`, `${tier}-${at}`]);
    }
  }
  return { nodes, edges };
}

const plus = (input: LayoutInput, nodes: string[], edges: [string, string][]): LayoutInput => ({ nodes: [...input.nodes, ...nodes], edges: [...input.edges, ...edges] });
const distance = (a: Point | undefined, b: Point | undefined): number => Math.hypot((a?.x ?? Infinity) - (b?.x ?? 0), (a?.y ?? Infinity) - (b?.y ?? 0));

function moved(before: Map<string, Point>, after: Map<string, Point>): { id: string; by: number }[] {
  return [...before].flatMap(([id, place]) => (after.has(id) ? [{ id, by: distance(place, after.get(id)) }] : []));
}

describe("the layout", () => {
  test("is the same for the same world", () => {
    const [first, second] = [new Layout(), new Layout()];
    first.update(shop(6));
    second.update(shop(6));
    expect(first.positions()).toEqual(second.positions());
  });

  test("puts who calls to the left of who is called", () => {
    const layout = new Layout();
    const input = shop(5);
    layout.update(input);
    const places = layout.positions();
    const forward = input.edges.filter(([from, to]) => (places.get(from)?.x ?? 0) < (places.get(to)?.x ?? 0));
    expect(forward.length / input.edges.length).toBeGreaterThan(0.95);
  });

  test("gives every node a finite place of its own", () => {
    const layout = new Layout();
    layout.update(plus(shop(8), ["lonely-1", "lonely-2", "pair-1", "pair-2"], [["pair-1", "pair-2"]]));
    const places = [...layout.positions().values()];
    expect(places.length).toBe(36);
    let closest = Infinity;
    places.forEach((a, index) => {
      expect(Number.isFinite(a.x) && Number.isFinite(a.y)).toBe(true);
      for (const b of places.slice(index + 1)) closest = Math.min(closest, distance(a, b));
    });
    expect(closest).toBeGreaterThan(NODE_DISTANCE * 0.5);
  });

  test("survives circles, self edges, repeated edges and edges to nowhere", () => {
    const layout = new Layout();
    const edges: [string, string][] = [["a", "b"], ["b", "c"], ["c", "a"], ["a", "a"], ["a", "b"], ["a", "nowhere"]];
    expect(layout.update({ nodes: ["a", "b", "c"], edges })).toBe("full");
    expect(layout.positions().size).toBe(3);
  });
});

describe("an update", () => {
  test("that brings the same world moves nothing", () => {
    const layout = new Layout();
    layout.update(shop(6));
    const before = layout.positions();
    expect(layout.update(shop(6))).toBe("none");
    expect(layout.positions()).toEqual(before);
  });

  test("that takes nodes and edges away moves nothing", () => {
    const layout = new Layout();
    const input = shop(6);
    layout.update(input);
    const before = layout.positions();
    expect(layout.update({ nodes: input.nodes.slice(3), edges: input.edges.slice(4) })).toBe("none");
    expect(moved(before, layout.positions()).every(({ by }) => by === 0)).toBe(true);
  });

  test("that brings a node lets only its neighbours give way, and only a little", () => {
    const layout = new Layout();
    const input = shop(6);
    layout.update(input);
    const before = layout.positions();
    expect(layout.update(plus(input, ["new"], [["1-2", "new"]]))).toBe("incremental");
    const movements = moved(before, layout.positions()).filter(({ by }) => by > 0);
    expect(movements.every(({ id }) => id === "1-2")).toBe(true);
    expect(movements.every(({ by }) => by <= GIVE_WAY + 1e-9)).toBe(true);
  });

  test("puts a new node near its neighbour and on no other node", () => {
    const layout = new Layout();
    const input = shop(6);
    layout.update(input);
    layout.update(plus(input, ["new"], [["1-2", "new"]]));
    const places = layout.positions();
    const others = [...places].filter(([id]) => id !== "new").map(([, place]) => place);
    expect(distance(places.get("new"), places.get("1-2"))).toBeLessThan(320);
    expect(Math.min(...others.map((place) => distance(place, places.get("new"))))).toBeGreaterThan(NODE_DISTANCE * 0.45);
  });

  test("brings a node that was away back to where it stood", () => {
    const layout = new Layout();
    const input = shop(4);
    layout.update(input);
    const before = layout.positions().get("2-1");
    layout.update({ nodes: input.nodes.filter((id) => id !== "2-1"), edges: input.edges });
    expect(layout.positions().has("2-1")).toBe(false);
    layout.update(input);
    expect(layout.positions().get("2-1")).toEqual(before);
  });

  test("a hundred times over, of churn, keeps what stays in place", () => {
    const layout = new Layout();
    const input = shop(10);
    layout.update(input);
    const before = layout.positions();
    for (let round = 0; round < 100; round += 1) layout.update(plus(input, [`job-${round}`], [[`job-${round}`, `2-${round % 10}`]]));
    const after = moved(before, layout.positions());
    const targets = new Set(Array.from({ length: 10 }, (_, at) => `2-${at}`));
    expect(after.filter(({ id }) => !targets.has(id)).every(({ by }) => by === 0)).toBe(true);
    expect(Math.max(...after.map(({ by }) => by))).toBeLessThan(GIVE_WAY * 10);
  });

  test("moves a lonely node to its first neighbour", () => {
    const layout = new Layout();
    const input = plus(shop(8), ["lonely"], []);
    layout.update(input);
    const far = distance(layout.positions().get("lonely"), layout.positions().get("0-0"));
    layout.update(plus(input, [], [["lonely", "0-0"]]));
    expect(distance(layout.positions().get("lonely"), layout.positions().get("0-0"))).toBeLessThan(far);
  });

  test("that replaces most of the world is a new picture", () => {
    const layout = new Layout();
    layout.update(shop(2, 2));
    expect(layout.update(shop(12))).toBe("full");
  });

  test("never moves a pinned node", () => {
    const layout = new Layout();
    const input = shop(6);
    layout.update(input);
    layout.pin("1-2", { x: 5_000, y: 5_000 });
    layout.update(plus(input, ["new"], [["1-2", "new"]]));
    expect(layout.positions().get("1-2")).toEqual({ x: 5_000, y: 5_000 });
    layout.arrange();
    expect(layout.positions().get("1-2")).toEqual({ x: 5_000, y: 5_000 });
    layout.unpinAll();
    layout.arrange();
    expect(layout.positions().get("1-2")).not.toEqual({ x: 5_000, y: 5_000 });
  });
});
