import { beforeEach, expect, it, vi } from "vitest";
import { LabelLayer, type LabelColors, type LabelItem } from "../src/graph/labels";

const COLORS: LabelColors = { text: "", muted: "", halo: "", surface: "", line: "", warning: "" };
/** What stands on the canvas, and where; a letter is 6 pixels wide. */
let written: { text: string; x: number; y: number }[] = [];

beforeEach(() => {
  written = [];
  const context = new Proxy(
    { measureText: (text: string) => ({ width: text.length * 6 }), fillText: (text: string, x: number, y: number) => void written.push({ text, x, y }) },
    { get: (target, name) => Reflect.get(target, name) ?? (() => undefined), set: () => true },
  );
  vi.stubGlobal("window", { devicePixelRatio: 1 });
  vi.stubGlobal("document", { createElement: () => ({ setAttribute: () => undefined, getContext: () => context }) });
});

function draw(labels: readonly string[], distance: number, more: Partial<LabelItem> = {}): string[] {
  written = [];
  const layer = new LabelLayer({ appendChild: () => undefined } as unknown as HTMLElement);
  const item = (label: string, index: number): LabelItem => ({
    id: `${index}`,
    x: 100 + index * distance,
    y: 100,
    radius: 24,
    label,
    minor: "",
    color: "",
    icon: null,
    alpha: 1,
    importance: 0,
    weight: 0,
    pinned: false,
    isDoubtful: false,
    ...more,
  });
  layer.draw(labels.map(item), 1_000, 600, COLORS);
  return [...written].sort((a, b) => a.x - b.x).map(({ text }) => text);
}

const LONG = "a-name-that-somebody-generated-from-other-names";

it("shortens a long name between two others as far as it must", () => {
  const [first, long, last] = draw(["os-hostnet", LONG, "os-tty"], 134);
  expect([first, last]).toEqual(["os-hostnet", "os-tty"]);
  expect(long).toMatch(/^a-name-that.*…$/);
});

it("names every node of a row of long names", () => {
  expect(draw([LONG, LONG, LONG, LONG], 134)).toHaveLength(4);
  expect(draw([LONG, LONG, "os-hostnet", "os-redis"], 110)).toHaveLength(4);
});

it("keeps a name whole where there is room, and leaves it out where there is none at all", () => {
  expect(draw(["short", LONG], 400)).toEqual(["short", `${LONG.slice(0, 25)}…`]);
  expect(draw(["one", "two", "three"], 10).length).toBeLessThan(3);
});

it("shortens the second line with the first, and gives it up before the name", () => {
  const minor = "a-host-whose-name-is-long-too";
  expect(draw(["one", "two"], 150, { minor })).toEqual(["one", minor, "two", "a-host-whose-na…"]);
  const names = draw([LONG, LONG, LONG], 134, { minor }).filter((text) => text.startsWith("a-name"));
  expect(names).toHaveLength(3);
});
