// What the URL's hash remembers, so that a link shows the same picture.

export type Mode = "graph" | "table";

export interface PanelRef {
  view: string;
  id: string;
}

export interface PageState {
  view: string | null;
  mode: Mode | null;
  /** Only what differs from the default. */
  options: Record<string, string>;
  query: string;
  pins: string[];
  metric: string | null;
  /** Open panels, the top one last. */
  panels: PanelRef[];
  /** The moment at which the map stands still, in milliseconds since 1970; `null` when it shows what is. */
  pausedAt: number | null;
}

export const EMPTY_STATE: PageState = { view: null, mode: null, options: {}, query: "", pins: [], metric: null, panels: [], pausedAt: null };

/** `#/containers?mode=table&o.system=all&q=nginx&pin=cpu>2&at=2026-01-01T00:00:00.000Z&node=containers/abc` */
export function encodeState(state: PageState): string {
  const parts = new URLSearchParams();
  if (state.mode) parts.append("mode", state.mode);
  for (const key of Object.keys(state.options).sort()) parts.append(`o.${key}`, state.options[key] ?? "");
  if (state.metric) parts.append("metric", state.metric);
  if (state.query) parts.append("q", state.query);
  for (const pin of state.pins) parts.append("pin", pin);
  if (state.pausedAt !== null) parts.append("at", new Date(state.pausedAt).toISOString());
  for (const panel of state.panels) parts.append("node", `${panel.view}/${panel.id}`);
  const query = parts.toString();
  return `#/${encodeURIComponent(state.view ?? "")}${query ? `?${query}` : ""}`;
}

/** Reads our own hash, and the bookmarks of Weave Scope. Anything else is the empty state. */
export function decodeState(hash: string): PageState {
  if (hash.startsWith(SCOPE_BOOKMARK)) return decodeScopeBookmark(hash.slice(SCOPE_BOOKMARK.length));
  const match = /^#\/([^?]*)(?:\?(.*))?$/.exec(hash);
  if (!match) return { ...EMPTY_STATE };
  const parts = new URLSearchParams(match[2] ?? "");
  const options: Record<string, string> = {};
  for (const [key, value] of parts) {
    if (key.startsWith("o.") && key.length > 2) options[key.slice(2)] = value;
  }
  const mode = parts.get("mode");
  return {
    view: safeDecode(match[1] ?? "") || null,
    mode: mode === "graph" || mode === "table" ? mode : null,
    options,
    query: parts.get("q") ?? "",
    pins: parts.getAll("pin").filter((pin) => pin !== ""),
    metric: parts.get("metric"),
    panels: parts.getAll("node").flatMap((text) => {
      const slash = text.indexOf("/");
      return slash > 0 && slash < text.length - 1 ? [{ view: text.slice(0, slash), id: text.slice(slash + 1) }] : [];
    }),
    pausedAt: moment(parts.get("at")),
  };
}

/** A moment in ISO 8601, in milliseconds since 1970. */
function moment(text: string | null): number | null {
  const at = text === null ? NaN : Date.parse(text);
  return Number.isNaN(at) ? null : at;
}

function safeDecode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

interface ScopeBookmark {
  topologyId?: unknown;
  topologyOptions?: unknown;
  topologyViewMode?: unknown;
  searchQuery?: unknown;
  pinnedSearches?: unknown;
  nodeDetails?: unknown;
  selectedNodeId?: unknown;
  pausedAt?: unknown;
  /** Only of its terminal window. */
  pipe?: unknown;
  title?: unknown;
}

const SCOPE_BOOKMARK = "#!/state/";

function parseScopeBookmark(encoded: string): ScopeBookmark | null {
  try {
    const parsed: unknown = JSON.parse(safeDecode(encoded).replaceAll("<SLASH>", "/").replaceAll("<PERCENT>", "%"));
    return typeof parsed === "object" && parsed !== null ? parsed : null;
  } catch {
    return null;
  }
}

/** A pipe that a link leads to. */
export interface PipeLink {
  id: string;
  isRaw: boolean;
  title: string;
}

/** The pipe of Weave Scope's terminal window, which was a page of its own: `terminal.html#!/state/{"pipe":{"id":…}}`. */
export function decodePipeLink(hash: string): PipeLink | null {
  const bookmark = hash.startsWith(SCOPE_BOOKMARK) ? parseScopeBookmark(hash.slice(SCOPE_BOOKMARK.length)) : null;
  const pipe = bookmark?.pipe;
  if (typeof pipe !== "object" || pipe === null) return null;
  const { id, raw } = pipe as { id?: unknown; raw?: unknown };
  if (typeof id !== "string" || id === "") return null;
  return { id, isRaw: raw === true, title: typeof bookmark?.title === "string" ? bookmark.title : "Terminal" };
}

function decodeScopeBookmark(encoded: string): PageState {
  const bookmark = parseScopeBookmark(encoded);
  if (bookmark === null) return { ...EMPTY_STATE };
  const text = (value: unknown): string | null => (typeof value === "string" && value !== "" ? value : null);
  const view = text(bookmark.topologyId);
  return {
    view,
    mode: bookmark.topologyViewMode === "grid" ? "table" : bookmark.topologyViewMode === "topo" ? "graph" : null,
    options: scopeOptions(bookmark.topologyOptions, view),
    query: text(bookmark.searchQuery) ?? "",
    pins: Array.isArray(bookmark.pinnedSearches) ? bookmark.pinnedSearches.filter((pin) => typeof pin === "string") : [],
    metric: null,
    panels: scopePanels(bookmark, view),
    pausedAt: moment(text(bookmark.pausedAt)),
  };
}

/** Sub-views of Weave Scope, and the views whose options they share: its bookmarks have these under the name of the parent alone. */
const SCOPE_PARENTS: Readonly<Record<string, string>> = {
  "processes-by-name": "processes",
  "containers-by-hostname": "containers",
  "containers-by-image": "containers",
  "kube-controllers": "pods",
  services: "pods",
  "ecs-services": "ecs-tasks",
  weave: "hosts",
};

function scopeOptions(all: unknown, view: string | null): Record<string, string> {
  const options: Record<string, string> = {};
  if (typeof all !== "object" || all === null || view === null) return options;
  const byView = all as Record<string, unknown>;
  const own = byView[SCOPE_PARENTS[view] ?? view] ?? byView[view];
  if (typeof own !== "object" || own === null) return options;
  for (const [key, value] of Object.entries(own)) {
    if (typeof value === "string") options[key] = value;
    else if (Array.isArray(value)) options[key] = value.join(",");
  }
  return options;
}

function scopePanels(bookmark: ScopeBookmark, view: string | null): PanelRef[] {
  const details = Array.isArray(bookmark.nodeDetails) ? (bookmark.nodeDetails as { id?: unknown; topologyId?: unknown }[]) : [];
  const panels = details.flatMap((item) =>
    typeof item.id === "string" && typeof item.topologyId === "string" ? [{ view: item.topologyId, id: item.id }] : [],
  );
  if (panels.length === 0 && view !== null && typeof bookmark.selectedNodeId === "string") {
    return [{ view, id: bookmark.selectedNodeId }];
  }
  return panels;
}
