import { afterEach, beforeEach, expect, it, vi } from "vitest";

vi.mock("../src/graph/scene", () => ({ hasWebGl: () => false }));

const OPTIONS = [
  {
    id: "unconnected",
    defaultValue: "hide",
    options: [
      { value: "show", label: "Show unconnected" },
      { value: "hide", label: "Hide unconnected" },
    ],
  },
];
const STATS = { node_count: 1, nonpseudo_node_count: 1, edge_count: 0, filtered_nodes: 0 };
const ANSWER_MS = 10;

let asked: string[] = [];

beforeEach(() => {
  asked = [];
  vi.useFakeTimers();
  vi.stubGlobal("window", {
    location: { hash: "", href: "http://test/" },
    matchMedia: () => ({ matches: false }),
    addEventListener: () => undefined,
    removeEventListener: () => undefined,
  });
  vi.stubGlobal("document", { hidden: false, documentElement: { dataset: {} } });
  vi.stubGlobal("history", { replaceState: () => undefined, pushState: () => undefined });
  vi.stubGlobal(
    "WebSocket",
    class {
      close(): void {}
    },
  );
  vi.stubGlobal("fetch", async (url: URL) => {
    asked.push(`${url.pathname}${url.search}`);
    await new Promise((resolve) => setTimeout(resolve, ANSWER_MS));
    const isList = url.pathname === "/api/topology";
    return Response.json(isList ? [{ name: "Processes", rank: 1, hide_if_empty: false, options: OPTIONS, url: "/api/topology/processes", stats: STATS }] : { probes: [] });
  });
});

afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

it("asks for the list of views every five seconds, and at once when an option is chosen", async () => {
  const store = await import("../src/state/store");
  const lists = () => asked.filter((url) => url.startsWith("/api/topology?"));
  store.start();
  await vi.advanceTimersByTimeAsync(1_000);
  asked = [];
  await vi.advanceTimersByTimeAsync(20_000);
  expect(lists()).toHaveLength(4);

  asked = [];
  store.chooseOption("unconnected", "show");
  await vi.advanceTimersByTimeAsync(ANSWER_MS);
  expect(lists()).toEqual(["/api/topology?t=1s&unconnected=show"]);
});
