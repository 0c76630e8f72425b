// Everything that the page knows, as signals. Components read them; only the functions here change them.

import { batch, computed, effect, signal, untracked } from "@preact/signals";
import { fetchEveryProbe, fetchHistory, fetchProbes, fetchServer, fetchViews, liveUrl, optionQuery, pageDirectory, type Moment, type Options } from "../api/client";
import { LiveView, type ConnectionState } from "../api/live";
import type { DepartedProbe, HistoryInfo, OptionGroup, Probe, ProbeName, ServerInfo, ViewDescription } from "../api/types";
import { hasWebGl } from "../graph/scene";
import type { Theme } from "../model/color";
import { applyDelta, type NodeMap } from "../model/delta";
import { decodeState, encodeState, type Mode, type PageState, type PanelRef } from "../model/location";
import { heatScale } from "../model/metrics";
import { departures } from "../model/probes";
import { flatViews, firstView, viewId, type FlatView } from "../model/views";
import { adoptPlace, refreshServices, section } from "./shell";

const VIEWS_EVERY_MS = 5_000;
const SERVER_EVERY_MS = 30_000;
const SERVICES_EVERY_MS = 10_000;
const PROBES_EVERY_MS = 5_000;
const HISTORY_EVERY_MS = 10_000;
const PUSH_INTERVAL = "1s";
/** Above this the table is the better first look; the graph stays one click away. */
const MOST_NODES_IN_GRAPH = 3_000;
const MOST_EDGES_IN_GRAPH = 10_000;
/** Panels that can be stacked. */
const MOST_PANELS = 12;

// ---- what the server said ----

export const views = signal<ViewDescription[] | null>(null);
export const server = signal<ServerInfo | null>(null);
export const probes = signal<Probe[] | null>(null);
/** Probes of Weave Scope, which say nothing of what they miss. */
export const oldProbes = signal<readonly ProbeName[]>([]);
const departed = signal<readonly DepartedProbe[]>([]);
/** How far back the map can be seen; `null` until it is known. */
export const keptPast = signal<HistoryInfo | null>(null);
/** The current view's nodes, those that the pins filter out not among them. */
export const nodes = signal<NodeMap>(new Map());
/** Which view and options `nodes` belongs to; `null` until its first message. */
export const nodesOf = signal<string | null>(null);
/** Grows when a node or an edge came or went. */
export const structure = signal(0);
export const connection = signal<{ state: ConnectionState; retryAt: number | null }>({ state: "connecting", retryAt: null });
/** When the last message came. */
export const lastMessage = signal<number | null>(null);
/** The clock of the page, once a second. */
export const now = signal(Date.now());

// ---- what the user chose ----

const initial = decodeState(window.location.hash);
const chosenView = signal<string | null>(initial.view);
export const chosenMode = signal<Mode | null>(initial.mode);
const chosenOptions = signal<Record<string, string>>(initial.options);
export const query = signal(initial.query);
export const pins = signal<string[]>(initial.pins);
/** Pins that the server refuses, and why. They filter nothing. */
export const refusedPins = signal<ReadonlyMap<string, string>>(new Map());
export const metric = signal<string | null>(initial.metric);
export const panels = signal<PanelRef[]>(initial.panels);
/** The moment that is shown, and when it was chosen: it moves on from there. `null` for now. */
export const past = signal<{ at: number; chosenAt: number } | null>(momentOf(initial));
/** A link to a moment shows it as it stood still. */
export const isPaused = signal(past.peek() !== null);
export const isTimeOpen = signal(past.peek() !== null);
export const isChangesOpen = signal(false);
export const isHelpOpen = signal(false);
export const isProbesOpen = signal(false);
export const theme = signal<Theme>(initialTheme());
export const canDrawGraph = hasWebGl();

// ---- what follows from both ----

export const allViews = computed<FlatView[]>(() => flatViews(views.value ?? []));

/** The current view, once the list of views is known. */
export const view = computed<FlatView | null>(() => {
  const list = allViews.value;
  return list.find((item) => item.id === chosenView.value) ?? firstView(list);
});

/** One value for every group of a view: the chosen one or the default. Sent explicitly, so that a link means what it shows. */
export function optionsOf(groups: readonly OptionGroup[] | null | undefined): Options {
  const result: Record<string, string> = {};
  for (const group of groups ?? []) result[group.id] = chosenOptions.value[group.id] ?? group.defaultValue;
  return result;
}

export const options = computed<Options>(() => optionsOf(view.value?.description.options));

/** The server takes 32 queries at once: the pins, and the one that is being typed. */
export const PINS_MAX = 31;

/** The pins that filter. */
export const filters = computed<string[]>(() => pins.value.filter((pin) => !refusedPins.value.has(pin)).slice(0, PINS_MAX));
export const heat = computed(() => (metric.value === null ? null : heatScale(nodes.value, metric.value)));
export const topPanel = computed<PanelRef | null>(() => panels.value[panels.value.length - 1] ?? null);
/** The node of the current view that is selected. */
export const selected = computed<string | null>(() => {
  const id = view.value?.id;
  const top = topPanel.value;
  return top !== null && top.view === id ? top.id : null;
});

/** What the view is too large for, decided once per view so that the mode does not flip while people look. */
const automaticModes = new Map<string, Mode>();
export const mode = computed<Mode>(() => {
  if (!canDrawGraph) return "table";
  if (chosenMode.value !== null) return chosenMode.value;
  const current = view.value;
  if (current === null) return "graph";
  const known = automaticModes.get(current.id);
  if (known) return known;
  const { node_count, edge_count } = current.description.stats;
  const decided: Mode = node_count > MOST_NODES_IN_GRAPH || edge_count > MOST_EDGES_IN_GRAPH ? "table" : "graph";
  if (node_count > 0) automaticModes.set(current.id, decided);
  return decided;
});

export const degradedProbes = computed<Probe[]>(() => (probes.value ?? []).filter((probe) => isDegraded(probe)));

/** Hosts that nobody watches any more, the latest first. */
export const departedProbes = computed<DepartedProbe[]>(() => departures(departed.value, probes.value ?? [], oldProbes.value));

/** Nobody watches anything at the moment: whatever is missing on the map, this is why. Not known of the past. */
export const isUnwatched = computed<boolean>(
  () => past.value === null && probes.value !== null && oldProbes.value.length === 0 && !probes.value.some((probe) => probe.connected),
);

/** Probes that the list of our own has not. One of both kinds may watch a host: they have ids of their own. */
function othersThan(list: readonly Probe[], every: readonly ProbeName[]): ProbeName[] {
  const own = new Set(list.map((probe) => probe.id));
  return every.filter((probe) => !own.has(probe.id));
}

/** What a probe leaves out to keep to its budget is seen later, by the next look. */
export const LEFT_OUT = "looks_left_out";

/** Events that the probe knows it did not see. */
export function lostEvents(probe: Probe): number {
  const rings = Object.values(probe.losses.ringRecords ?? {}).reduce((sum, count) => sum + count, 0);
  const other = Object.entries(probe.losses.other ?? {}).reduce((sum, [cause, count]) => (cause === LEFT_OUT ? sum : sum + count), 0);
  return rings + other + (probe.losses.flowsUncounted ?? 0) + (probe.losses.tableFull ?? 0);
}

/** Whether what this probe shows is less than everything. */
export function isDegraded(probe: Probe): boolean {
  return !probe.connected || probe.capture.rung !== 1 || (probe.capture.overloadLevel ?? 0) > 0 || lostEvents(probe) > 0;
}

// ---- the past ----

/** The moment that is shown, in milliseconds since 1970; `null` for now. While paused it stands still. */
export function shownMoment(clock: number = now.value): number | null {
  const chosen = past.value;
  if (chosen === null) return null;
  return isPaused.value ? chosen.at : chosen.at + Math.max(0, clock - chosen.chosenAt);
}

/** The same for requests. */
export function momentNow(): Moment {
  const at = shownMoment();
  return at === null ? {} : { timestamp: new Date(at).toISOString() };
}

/** The moment that a link leads to; one that is not over yet is now. */
function momentOf(state: PageState): { at: number; chosenAt: number } | null {
  const at = state.pausedAt;
  return at === null || at >= Date.now() - 1_000 ? null : { at, chosenAt: Date.now() };
}

/** Shows a moment of the past, or now. */
export function showMoment(at: number | null): void {
  past.value = at === null || at >= Date.now() - 1_000 ? null : { at, chosenAt: Date.now() };
  untracked(refreshViews).catch(() => undefined);
}

/** Holds the moment, or goes on from it. */
export function togglePause(): void {
  batch(() => {
    const at = shownMoment();
    isPaused.value = !isPaused.value;
    if (at !== null) past.value = { at, chosenAt: Date.now() };
  });
}

// ---- changes ----

export function selectView(id: string): void {
  batch(() => {
    chosenView.value = id;
    query.value = "";
    pins.value = [];
    const top = topPanel.value;
    if (top !== null && top.view !== id) panels.value = [];
  });
}

export function chooseOption(group: string, value: string): void {
  chosenOptions.value = { ...chosenOptions.value, [group]: value };
}

export function openPanel(ref: PanelRef): void {
  const top = topPanel.value;
  if (top !== null && top.view === ref.view && top.id === ref.id) return;
  isProbesOpen.value = false;
  panels.value = [...panels.value, ref].slice(-MOST_PANELS);
}

/** A node of the picture was chosen: it replaces whatever was open. */
export function selectNode(id: string): void {
  const current = view.value;
  if (current === null) return;
  if (selected.value === id) closePanels();
  else {
    isProbesOpen.value = false;
    panels.value = [{ view: current.id, id }];
  }
}

export function back(): void {
  panels.value = panels.value.slice(0, -1);
}

export function closePanels(): void {
  if (panels.value.length > 0) panels.value = [];
}

/** Shows a node in the view that it belongs to. */
export function showInView(ref: PanelRef): void {
  batch(() => {
    selectView(ref.view);
    panels.value = [ref];
    isProbesOpen.value = false;
  });
}

export function pinQuery(): void {
  const text = query.value.trim();
  if (text === "" || pins.value.length >= PINS_MAX) return;
  batch(() => {
    if (!pins.value.includes(text)) pins.value = [...pins.value, text];
    query.value = "";
  });
}

export function unpin(text: string): void {
  pins.value = pins.value.filter((pin) => pin !== text);
}

export function toggleTheme(): void {
  theme.value = theme.value === "dark" ? "light" : "dark";
  try {
    localStorage.setItem("orchestrator.theme", theme.value);
  } catch {
    // Storage may be forbidden; the theme then lasts as long as the page.
  }
}

function initialTheme(): Theme {
  try {
    const stored = localStorage.getItem("orchestrator.theme");
    if (stored === "dark" || stored === "light") return stored;
  } catch {
    // See above.
  }
  return window.matchMedia("(prefers-color-scheme: light)").matches ? "light" : "dark";
}

// ---- the running page ----

let live: LiveView | null = null;

/** Skips the rest of a back-off. */
export function retryNow(): void {
  live?.retryNow();
  refreshViews().catch(() => undefined);
}

/** Starts polling, the WebSocket and the URL. Called once. */
export function start(): void {
  setInterval(() => {
    now.value = Date.now();
  }, 1_000);
  every(VIEWS_EVERY_MS, refreshViews);
  every(SERVER_EVERY_MS, async () => {
    server.value = await fetchServer();
  });
  every(SERVICES_EVERY_MS, refreshServices);
  every(PROBES_EVERY_MS, async () => {
    const [list, every] = await Promise.all([fetchProbes(), fetchEveryProbe()]);
    batch(() => {
      probes.value = list.probes;
      departed.value = list.departed ?? [];
      oldProbes.value = othersThan(list.probes, every);
    });
  });
  every(HISTORY_EVERY_MS, async () => {
    if (server.value?.capabilities?.["historic_reports"] === true || isTimeOpen.value) keptPast.value = await fetchHistory();
  });
  effect(() => {
    document.documentElement.dataset["theme"] = theme.value;
  });
  followView();
  followHash();
}

/** Runs at once and then in steady distance, never twice at the same time; failures show as the state of the connection. */
function every(interval: number, task: () => Promise<void>): void {
  const run = async (): Promise<void> => {
    try {
      if (!document.hidden) await task();
    } catch {
      // The WebSocket shows whether the server is there.
    }
    setTimeout(() => void run(), interval);
  };
  void run();
}

async function refreshViews(): Promise<void> {
  try {
    views.value = await fetchViews(options.value, momentNow());
  } catch (error) {
    if (views.value === null) connection.value = { state: "offline", retryAt: Date.now() + VIEWS_EVERY_MS };
    throw error;
  }
}

/**
 * Where a WebSocket of the current view is at a moment of the page's clock, for the nodes that answer `queries`; `null` when there is no view.
 */
export function viewAddress(queries: readonly string[], clock: number): string | null {
  const current = view.value;
  // Nobody looks at the map while another section is open.
  if (section.value !== "map") return null;
  if (current === null) return null;
  const at = shownMoment(clock);
  return liveUrl(pageDirectory(window.location.href), current.id, options.value, PUSH_INTERVAL, at === null ? {} : { timestamp: new Date(at).toISOString() }, queries);
}

/** Equal for as long as one WebSocket serves: its address at the moment when the past was chosen, from which it moves on by itself. */
export function viewTarget(queries: readonly string[]): string | null {
  const chosenAt = past.value?.chosenAt ?? 0;
  const address = viewAddress(queries, chosenAt);
  return address === null ? null : `${address} ${chosenAt}`;
}

/** Keeps the WebSocket on the current view with the current options. */
function followView(): void {
  const target = computed(() => viewTarget(filters.value));
  /** What the picture that is shown answers. */
  let shown: string | null = null;
  effect(() => {
    const key = target.value;
    const isStopped = isPaused.value && past.value === null;
    live?.close();
    live = null;
    // A picture that stands still stays, until something else is to be seen.
    if (key === null || (isStopped && key === shown)) return;
    const id = view.peek()?.id ?? "";
    const address = (): string => untracked(() => viewAddress(filters.value, Date.now())) ?? key;
    if (nodesOf.peek() !== id) {
      batch(() => {
        nodes.value = new Map();
        nodesOf.value = null;
      });
    }
    live = new LiveView(address, {
      onDelta: (delta) => {
        const applied = applyDelta(nodes.peek(), delta);
        shown = key;
        batch(() => {
          nodes.value = applied.nodes;
          if (applied.structureChanged) structure.value += 1;
          nodesOf.value = id;
          lastMessage.value = Date.now();
        });
        // A moment that stands still is looked at once.
        if (isPaused.peek()) {
          live?.close();
          live = null;
        }
      },
      onState: (state, retryAt) => {
        connection.value = { state, retryAt };
      },
    });
  });
  // New counts for the tabs when options change. By their text: the reply makes the options anew, and must not ask for itself again.
  const chosen = computed(() => optionQuery(options.value));
  effect(() => {
    void chosen.value;
    untracked(refreshViews).catch(() => undefined);
  });
}

/** Keeps the hash equal to the state, and the state equal to a hash that the user changed. */
function followHash(): void {
  let own = "";
  let lastView: string | null = null;
  effect(() => {
    const current = view.value;
    // The other sections write their own.
    if (current === null || section.value !== "map") return;
    const defaults = new Map((current.description.options ?? []).map((group) => [group.id, group.defaultValue]));
    const differing = Object.fromEntries(Object.entries(chosenOptions.value).filter(([key, value]) => defaults.has(key) && defaults.get(key) !== value));
    own = encodeState({
      view: current.id,
      mode: chosenMode.value,
      options: differing,
      query: query.value,
      pins: pins.value,
      metric: metric.value,
      panels: panels.value,
      // A moment that moves on is another one by the time somebody follows the link.
      pausedAt: isPaused.value ? (past.value?.at ?? null) : null,
    });
    if (own === window.location.hash) return;
    // Views are steps that the browser's back button undoes; the rest is not.
    if (lastView !== null && lastView !== current.id) history.pushState(null, "", own);
    else history.replaceState(null, "", own);
    lastView = current.id;
  });
  window.addEventListener("hashchange", () => adoptHash(own));
  window.addEventListener("popstate", () => adoptHash(own));
}

function adoptHash(own: string): void {
  if (window.location.hash === own && section.peek() === "map") return;
  const state = decodeState(window.location.hash);
  batch(() => {
    if (adoptPlace(window.location.hash).section !== "map") return;
    chosenView.value = state.view;
    chosenMode.value = state.mode;
    chosenOptions.value = state.options;
    query.value = state.query;
    pins.value = state.pins;
    metric.value = state.metric;
    panels.value = state.panels;
    const moment = momentOf(state);
    if (moment?.at === past.peek()?.at) return;
    // Away from a moment that stood still; one that moves on is in no link.
    if (moment === null && !isPaused.peek()) return;
    past.value = moment;
    isPaused.value = moment !== null;
    if (moment !== null) isTimeOpen.value = true;
  });
}

/** The description of a view by its id, for panels of other views. */
export function describe(id: string): ViewDescription | null {
  return allViews.value.find((item) => item.id === id)?.description ?? null;
}

export { viewId };
