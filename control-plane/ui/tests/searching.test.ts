import { afterEach, beforeEach, expect, it, vi } from "vitest";

vi.mock("../src/graph/scene", () => ({ hasWebGl: () => false }));

const STATS = { node_count: 2, nonpseudo_node_count: 2, edge_count: 0, filtered_nodes: 0 };
const VIEWS = ["Processes", "Hosts"].map((name, rank) => ({ name, rank, hide_if_empty: false, options: null, url: `/api/topology/${name.toLowerCase()}`, stats: STATS }));
const BEGIN = Date.parse("2026-01-01T12:00:00Z");

/** Sockets that are open, by what they ask for. */
let sockets: Socket[] = [];
let asked: URL[] = [];
/** What the server says of a search. */
let answer: (query: URLSearchParams) => Response = () => Response.json({ total: 0, totals: {}, hits: [], next: null });

class Socket {
  onmessage: ((event: { data: string }) => void) | null = null;
  onclose: (() => void) | null = null;
  readonly asked: URL;
  constructor(url: string) {
    this.asked = new URL(url);
    sockets.push(this);
  }
  close(): void {
    sockets = sockets.filter((it) => it !== this);
  }
  say(delta: object): void {
    this.onmessage?.({ data: JSON.stringify(delta) });
  }
  lose(): void {
    this.close();
    this.onclose?.();
  }
}

const node = (id: string): object => ({ id, label: id, labelMinor: "", rank: id });
const page = (ids: readonly string[], next: string | null = null): object => ({
  total: 30,
  totals: { processes: 30 },
  hits: ids.map((id) => ({ view: "processes", id, label: id, labelMinor: "", shape: "circle", stack: false, pseudo: false, score: 1, matches: [] })),
  next,
});
const searches = (): string[] => asked.filter((url) => url.pathname === "/api/search").map((url) => url.searchParams.toString());
const queries = (): string[][] => sockets.map((socket) => socket.asked.searchParams.getAll("q"));
const moment = (socket: Socket | undefined): string | null => socket?.asked.searchParams.get("timestamp") ?? null;

beforeEach(() => {
  vi.resetModules();
  sockets = [];
  asked = [];
  vi.useFakeTimers({ now: BEGIN });
  vi.stubGlobal("window", {
    location: { hash: "", href: "http://test/" },
    matchMedia: () => ({ matches: false }),
    addEventListener: () => undefined,
    removeEventListener: () => undefined,
  });
  vi.stubGlobal("document", { hidden: false, documentElement: { dataset: {} } });
  vi.stubGlobal("history", { replaceState: () => undefined, pushState: () => undefined });
  vi.stubGlobal("WebSocket", Socket);
  vi.stubGlobal("fetch", async (url: URL) => {
    asked.push(url);
    await Promise.resolve();
    if (url.pathname === "/api/search") return answer(url.searchParams);
    return Response.json(url.pathname === "/api/topology" ? VIEWS : { probes: [] });
  });
});

afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

async function started() {
  const store = await import("../src/state/store");
  const search = await import("../src/state/search");
  store.start();
  search.startSearch();
  await vi.advanceTimersByTimeAsync(1_000);
  return { store, search };
}

it("has the server say which nodes answer, and dims by that", async () => {
  answer = () => Response.json(page(["a"]));
  const { store, search } = await started();
  store.selectView("processes");
  sockets[0]?.say({ add: [node("a"), node("b")], reset: true });

  store.query.value = "uptime > 1h";
  await vi.advanceTimersByTimeAsync(1_000);
  expect(queries()).toEqual([[], ["uptime > 1h"]]);
  expect(search.matchesOfQuery.value).toBeNull();
  sockets[1]?.say({ add: [node("a"), node("elsewhere")], reset: true });
  expect(search.matchesOfQuery.value).toEqual(new Set(["a"]));

  // What comes to answer, and ceases to.
  sockets[1]?.say({ add: [node("b")], remove: ["a"] });
  expect(search.matchesOfQuery.value).toEqual(new Set(["b"]));
  // Another letter: the last answer stays until the next one comes.
  store.query.value = "uptime > 10h";
  await vi.advanceTimersByTimeAsync(1_000);
  expect(search.matchesOfQuery.value).toEqual(new Set(["b"]));
  sockets[1]?.say({ reset: true });
  expect(search.matchesOfQuery.value).toEqual(new Set());
  store.query.value = "";
  expect(search.matchesOfQuery.value).toBeNull();
  expect(queries()).toEqual([[]]);
});

it("has the server filter by every pin, each by itself", async () => {
  answer = () => Response.json(page([]));
  const { store } = await started();
  for (const words of ["(is", "a OR b", "uptime > 3600"]) {
    store.query.value = words;
    store.pinQuery();
  }
  await vi.advanceTimersByTimeAsync(1_000);
  expect(queries()).toEqual([["(is", "a OR b", "uptime > 3600"]]);
});

it("leaves out the pins that the server refuses, and says why", async () => {
  answer = (query) => (query.get("q") === "a AND" ? Response.json("an operator has no operand", { status: 400 }) : Response.json(page([])));
  const { store, search } = await started();
  store.pins.value = ["web", "a AND"];
  await vi.advanceTimersByTimeAsync(1_000);
  expect(store.refusedPins.value).toEqual(new Map([["a AND", "an operator has no operand"]]));
  expect(queries()).toEqual([["web"]]);

  store.query.value = "a AND";
  await vi.advanceTimersByTimeAsync(1_000);
  expect(search.canPin()).toBe(false);
  expect(search.everywhere.value?.problem).toBe("an operator has no operand");
  expect(queries()).toEqual([["web"]]);
});

it("says why a search was given up, which does not keep it from filtering", async () => {
  answer = () => Response.json("the query takes longer than a search may", { status: 503 });
  const { store, search } = await started();
  store.query.value = "[0-9]{4} OR [0-9]{5}";
  await vi.advanceTimersByTimeAsync(1_000);
  expect(search.everywhere.value?.problem).toBe("the query takes longer than a search may");
  expect(search.canPin()).toBe(true);
});

it("begins at the moment that is shown with every connection to the past", async () => {
  answer = () => Response.json(page(["a"]));
  const { store } = await started();
  store.showMoment(BEGIN - 3_600_000);
  const chosenAt = Date.now();
  expect(moment(sockets[0])).toBe("2026-01-01T11:00:00.000Z");
  // Ten minutes of the past are played; the server speaks at every tick.
  for (let second = 0; second < 600; second += 5) {
    await vi.advanceTimersByTimeAsync(5_000);
    sockets[0]?.say({});
  }
  expect(moment(sockets[0])).toBe("2026-01-01T11:00:00.000Z");
  store.selectView("hosts");
  expect(Date.parse(moment(sockets[0]) ?? "")).toBe(BEGIN - 3_600_000 + Date.now() - chosenAt);

  // The same when the connection is lost, and when a query is followed.
  sockets[0]?.lose();
  await vi.advanceTimersByTimeAsync(1_000);
  const lost = Date.parse(moment(sockets[0]) ?? "") - BEGIN + 3_600_000;
  expect(lost).toBeGreaterThan(600_000);
  expect(lost).toBeLessThanOrEqual(Date.now() - chosenAt);
  store.query.value = "x";
  await vi.advanceTimersByTimeAsync(1_000);
  expect(Date.parse(moment(sockets[1]) ?? "") - BEGIN + 3_600_000).toBeGreaterThan(600_000);

  // What stands still stands still.
  store.togglePause();
  const held = store.shownMoment();
  await vi.advanceTimersByTimeAsync(60_000);
  store.selectView("processes");
  expect(Date.parse(moment(sockets[0]) ?? "")).toBe(held);
});

it("searches the moment that is shown, and shows further pages of it", async () => {
  answer = (query) => Response.json(query.has("after") ? page(["b"]) : page(["a"], "4000.1.2"));
  const { store, search } = await started();
  store.query.value = "web";
  await vi.advanceTimersByTimeAsync(1_000);
  expect(searches()).toEqual(["q=web&limit=12"]);
  await search.showMore();
  expect(searches()).toEqual(["q=web&limit=12", "q=web&limit=50&after=4000.1.2"]);
  expect(search.everywhere.value?.page?.hits.map((hit) => hit.id)).toEqual(["a", "b"]);
  expect(search.everywhere.value?.page?.next).toBeNull();

  asked = [];
  store.showMoment(Date.now() - 3_600_000);
  const chosenAt = Date.now();
  await vi.advanceTimersByTimeAsync(1_000);
  const then = new URLSearchParams(searches()[0]).get("timestamp");
  expect(Date.parse(then ?? "")).toBeLessThanOrEqual(chosenAt - 3_599_000);
  await vi.advanceTimersByTimeAsync(10_000);
  await search.showMore();
  expect(new URLSearchParams(searches()[1]).get("timestamp")).toBe(then);
});

it("goes through the hits by arrow keys, and behind both ends back to the words", async () => {
  answer = () => Response.json(page(["a", "b"], "4000.1.2"));
  const { store, search } = await started();
  const marked = (): string | null => search.markedHit.value?.hit.id ?? null;
  search.stepHit(1);
  expect(marked()).toBeNull();
  store.query.value = "web";
  await vi.advanceTimersByTimeAsync(1_000);
  const down = [1, 1, 1, 1].map(() => (search.stepHit(1), marked()));
  expect(down).toEqual(["a", "b", null, "a"]);
  const up = [1, 1, 1].map(() => (search.stepHit(-1), marked()));
  expect(up).toEqual([null, "b", "a"]);

  // Further hits move nothing. Other words do: what is listed until their answer comes is not theirs, and Enter must not open it.
  answer = () => Response.json(page(["c"]));
  await search.showMore();
  expect(search.markedHit.value?.index).toBe(0);
  store.query.value = "webs";
  expect(marked()).toBeNull();
  search.stepHit(1);
  expect(marked()).toBeNull();
  await vi.advanceTimersByTimeAsync(1_000);
  expect(marked()).toBeNull();
  search.stepHit(1);
  expect(marked()).toBe("c");
  // The same words, typed anew.
  store.query.value = "";
  store.query.value = "webs";
  await vi.advanceTimersByTimeAsync(1_000);
  expect(marked()).toBeNull();
});

it("filters and dims a picture that stands still", async () => {
  answer = () => Response.json(page(["a"]));
  const { store, search } = await started();
  store.selectView("processes");
  sockets[0]?.say({ add: [node("a"), node("b")], reset: true });
  store.togglePause();
  expect(queries()).toEqual([]);

  store.pins.value = ["web"];
  await vi.advanceTimersByTimeAsync(1_000);
  expect(queries()).toEqual([["web"]]);
  sockets[0]?.say({ add: [node("a")], reset: true });
  expect([...store.nodes.value.keys()]).toEqual(["a"]);
  expect(queries()).toEqual([]);

  store.query.value = "x";
  await vi.advanceTimersByTimeAsync(1_000);
  expect(queries()).toEqual([["web", "x"]]);
  sockets[0]?.say({ add: [node("a"), node("b")], reset: true });
  expect(search.matchesOfQuery.value).toEqual(new Set(["a"]));
  store.query.value = "";
  store.togglePause();
  expect(queries()).toEqual([["web"]]);
});

it("forgets what answered when what is typed makes no sense", async () => {
  answer = (query) => (query.get("q") === "redis(" ? Response.json("a parenthesis is open", { status: 400 }) : Response.json(page(["a"])));
  const { store, search } = await started();
  store.selectView("processes");
  sockets[0]?.say({ add: [node("a"), node("b")], reset: true });
  store.query.value = "redis";
  await vi.advanceTimersByTimeAsync(1_000);
  sockets[1]?.say({ add: [node("a")], reset: true });
  expect(search.matchesOfQuery.value).toEqual(new Set(["a"]));
  store.query.value = "redis(";
  await vi.advanceTimersByTimeAsync(1_000);
  expect(search.matchesOfQuery.value).toBeNull();
});

it("takes no more filters than the server does", async () => {
  answer = () => Response.json(page([]));
  const { store, search } = await started();
  store.pins.value = Array.from({ length: 40 }, (_, n) => `pin${n}`);
  await vi.advanceTimersByTimeAsync(1_000);
  expect(queries()[0]).toHaveLength(31);
  store.query.value = "one more";
  await vi.advanceTimersByTimeAsync(1_000);
  expect(queries()[1]).toHaveLength(32);
  expect(search.canPin()).toBe(false);
});

it("asks for pins that cannot be checked ever more rarely", async () => {
  answer = () => Response.json("the query takes longer than a search may", { status: 503 });
  const { store } = await started();
  store.pins.value = ["slow", "slower"];
  await vi.advanceTimersByTimeAsync(600_000);
  expect(searches().length).toBeLessThan(24);
});

it("knows that nobody watches, now and not in the past, and who watched last", async () => {
  answer = () => Response.json(page([]));
  let probes: object = { probes: [], departed: [{ id: "p1", hostname: "web-1", leftAt: "2026-01-01T11:59:42Z", reason: "lost" }] };
  const before = fetch;
  vi.stubGlobal("fetch", async (url: URL) => {
    if (url.pathname === "/api/v1/probes") return Response.json(probes);
    return url.pathname === "/api/probes" ? Response.json([]) : before(url);
  });
  const { store } = await started();
  expect(store.isUnwatched.value).toBe(true);
  expect(store.departedProbes.value.map((probe) => probe.hostname)).toEqual(["web-1"]);
  store.showMoment(Date.now() - 3_600_000);
  expect(store.isUnwatched.value).toBe(false);
  store.showMoment(null);

  // A control plane that does not say who left.
  const probe = { id: "p1", hostname: "web-1", connected: true, capture: { rung: 1 }, losses: {} };
  probes = { probes: [probe] };
  await vi.advanceTimersByTimeAsync(6_000);
  expect(store.isUnwatched.value).toBe(false);
  expect(store.departedProbes.value).toEqual([]);
  probes = { probes: [{ ...probe, connected: false }] };
  await vi.advanceTimersByTimeAsync(6_000);
  expect(store.isUnwatched.value).toBe(true);
});
