import { describe, expect, test } from "vitest";
import { liveUrl, optionQuery, pageDirectory } from "../src/api/client";
import { backoff } from "../src/api/live";
import { decodePipeLink, decodeState, EMPTY_STATE, encodeState, type PageState } from "../src/model/location";

describe("the hash", () => {
  test("remembers everything, whatever ids and terms contain", () => {
    const state: PageState = {
      view: "processes-by-name",
      mode: "table",
      options: { unconnected: "show" },
      query: "a&b=c#d+e f%20",
      pins: ["cpu > 2%", "name: x|y"],
      metric: "Load (1m)",
      panels: [
        { view: "processes-by-name", id: "/usr/bin/curl" },
        { view: "containers", id: "ab12;<container>" },
      ],
      pausedAt: Date.UTC(2026, 0, 1, 12, 30, 0, 250),
    };
    expect(decodeState(encodeState(state))).toEqual(state);
  });

  test("is short when nothing is chosen", () => {
    expect(encodeState({ ...EMPTY_STATE, view: "hosts" })).toBe("#/hosts");
  });

  test("that nobody wrote is the empty state", () => {
    for (const hash of ["", "#", "#foo", "#/", "#/%E0%A4%A?mode=x&node=&node=/&node=a/", "#!/state/{", "#!/state/null%"]) {
      expect(decodeState(hash).panels, hash).toEqual([]);
      expect(decodeState(hash).mode, hash).toBeNull();
    }
  });

  test("of Weave Scope still leads to the same picture", () => {
    const bookmark = {
      topologyId: "containers",
      topologyOptions: { containers: { system: ["all"], stopped: "both" }, processes: { unconnected: "show" } },
      topologyViewMode: "grid",
      searchQuery: "nginx",
      pinnedSearches: ["cpu > 1"],
      nodeDetails: [{ id: "a<SLASH>b", topologyId: "containers" }],
      selectedNodeId: "a<SLASH>b",
    };
    const hash = `#!/state/${encodeURIComponent(JSON.stringify(bookmark))}`;
    expect(decodeState(hash)).toEqual({
      view: "containers",
      mode: "table",
      options: { system: "all", stopped: "both" },
      query: "nginx",
      pins: ["cpu > 1"],
      metric: null,
      panels: [{ view: "containers", id: "a/b" }],
      pausedAt: null,
    });
  });

  const scope = (bookmark: unknown): string => `#!/state/${encodeURIComponent(JSON.stringify(bookmark))}`;

  test("of Weave Scope has the options of a sub-view under its parent", () => {
    const options = (bookmark: unknown): Record<string, string> => decodeState(scope(bookmark)).options;
    const chosen = { containers: { stopped: "both" }, pods: { pseudo: "show" }, "containers-by-image": { stopped: "stopped" } };
    expect(options({ topologyId: "containers-by-image", topologyViewMode: "grid", topologyOptions: chosen })).toEqual({ stopped: "both" });
    expect(options({ topologyId: "services", topologyOptions: chosen })).toEqual({ pseudo: "show" });
    expect(options({ topologyId: "containers-by-image", topologyOptions: { "containers-by-image": { stopped: "stopped" } } })).toEqual({
      stopped: "stopped",
    });
    expect(options({ topologyId: "hosts", topologyOptions: chosen })).toEqual({});
  });

  test("of Weave Scope opens the moment at which it was paused", () => {
    expect(decodeState(scope({ topologyId: "hosts", pausedAt: "2026-01-01T00:00:00.250Z" })).pausedAt).toBe(Date.UTC(2026, 0, 1, 0, 0, 0, 250));
    for (const pausedAt of [null, "", "yesterday", 17]) expect(decodeState(scope({ topologyId: "hosts", pausedAt })).pausedAt).toBeNull();
    expect(decodeState("#/hosts?at=never").pausedAt).toBeNull();
  });

  test("of Weave Scope's terminal window leads to its pipe", () => {
    expect(decodePipeLink(scope({ pipe: { id: "pipe-1", raw: true }, title: "Terminal web" }))).toEqual({ id: "pipe-1", isRaw: true, title: "Terminal web" });
    expect(decodePipeLink(scope({ pipe: { id: "pipe-1" } }))).toEqual({ id: "pipe-1", isRaw: false, title: "Terminal" });
    for (const hash of ["", "#/hosts", "#!/state/{", scope({ topologyId: "hosts" }), scope({ pipe: null }), scope({ pipe: { id: 7 } }), scope(null)]) {
      expect(decodePipeLink(hash), hash).toBeNull();
    }
  });
});

describe("addresses", () => {
  test("are relative to the directory of the page", () => {
    expect(pageDirectory("http://host:4040/")).toBe("http://host:4040/");
    expect(pageDirectory("https://host/tools/map/index.html?x=1/2#/a/b")).toBe("https://host/tools/map/");
    expect(liveUrl("https://host/tools/map/", "hosts", {}, "1s")).toBe("wss://host/tools/map/api/topology/hosts/ws?t=1s");
    expect(liveUrl("http://host:4040/", "containers", { system: "all", pseudo: "hide" }, "1s")).toBe(
      "ws://host:4040/api/topology/containers/ws?t=1s&pseudo=hide&system=all",
    );
  });

  test("have their options in a stable order", () => {
    expect(optionQuery({ b: "2", a: "1" })).toBe(optionQuery({ a: "1", b: "2" }));
  });
});

test("attempts to reconnect come ever more slowly, up to fifteen seconds", () => {
  expect([1, 2, 3, 6, 60].map((attempt) => backoff(attempt, 1))).toEqual([500, 1_000, 2_000, 15_000, 15_000]);
  expect(backoff(1, 0)).toBe(350);
});
