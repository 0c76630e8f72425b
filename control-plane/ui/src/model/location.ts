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
}

export const EMPTY_STATE: PageState = { view: null, mode: null, options: {}, query: "", pins: [], metric: null, panels: [] };

/** `#/containers?mode=table&o.system=all&q=nginx&pin=cpu>2&node=containers/abc` */
export function encodeState(state: PageState): string {
  const parts = new URLSearchParams();
  if (state.mode) parts.append("mode", state.mode);
  for (const key of Object.keys(state.options).sort()) parts.append(`o.${key}`, state.options[key] ?? "");
  if (state.metric) parts.append("metric", state.metric);
  if (state.query) parts.append("q", state.query);
  for (const pin of state.pins) parts.append("pin", pin);
  for (const panel of state.panels) parts.append("node", `${panel.view}/${panel.id}`);
  const query = parts.toString();
  return `#/${encodeURIComponent(state.view ?? "")}${query ? `?${query}` : ""}`;
}

/** Reads our own hash, and the bookmarks of Weave Scope. Anything else is the empty state. */
export function decodeState(hash: string): PageState {
  if (hash.startsWith("#!/state/")) return decodeScopeBookmark(hash.slice("#!/state/".length));
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
  };
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
}

function decodeScopeBookmark(encoded: string): PageState {
  let bookmark: ScopeBookmark;
  try {
    bookmark = JSON.parse(safeDecode(encoded).replaceAll("<SLASH>", "/").replaceAll("<PERCENT>", "%")) as ScopeBookmark;
  } catch {
    return { ...EMPTY_STATE };
  }
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
  };
}

function scopeOptions(all: unknown, view: string | null): Record<string, string> {
  const options: Record<string, string> = {};
  if (typeof all !== "object" || all === null || view === null) return options;
  const own = (all as Record<string, unknown>)[view];
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
