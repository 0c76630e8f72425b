import type { ChangePage, Control, ControlReply, FlowPage, HistoryInfo, NodeDetails, ProbeList, ProbeName, SearchPage, ServerInfo, ViewDescription } from "./types";

/** Chosen values by option group, e.g. `{ system: "all" }`. */
export type Options = Readonly<Record<string, string>>;

/** The directory of the page: every request is relative to it, so any path prefix of a reverse proxy works. */
export function pageDirectory(href: string): string {
  return new URL(".", href.split(/[?#]/)[0]).href;
}

/** Options in a stable order, so that equal choices have equal URLs. */
export function optionQuery(options: Options, extra: Readonly<Record<string, string>> = {}): string {
  const parts = new URLSearchParams();
  for (const [key, value] of Object.entries(extra)) parts.append(key, value);
  for (const key of Object.keys(options).sort()) parts.append(key, options[key] ?? "");
  return parts.toString();
}

/** Percent-encodes a node id for a path segment; never with `+`, which the server reads as a space. */
export function encodeNodeId(id: string): string {
  return encodeURIComponent(id);
}

/** What a request about a moment of the past says besides its options; nothing about now. */
export type Moment = { readonly timestamp?: string };

/** The address of a view's WebSocket, of which only the nodes are shown that answer all of `queries`. */
export function liveUrl(directory: string, view: string, options: Options, interval: string, moment: Moment = {}, queries: readonly string[] = []): string {
  const url = new URL(`api/topology/${encodeURIComponent(view)}/ws`, directory);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  url.search = [optionQuery(options, { t: interval, ...moment }), ...queries.map((query) => optionQuery({ q: query }))].join("&");
  return url.href;
}

/** The address of a pipe's WebSocket. */
export function pipeUrl(directory: string, pipe: string): string {
  const url = new URL(`api/pipe/${encodeURIComponent(pipe)}`, directory);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  return url.href;
}

/** A reply that was not a success. */
export class RequestError extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
  }
}

/** A server that accepts but never answers must not stop the polling. */
const TIMEOUT_MS = 15_000;

async function get<T>(path: string, signal?: AbortSignal): Promise<T> {
  const timeout = AbortSignal.timeout(TIMEOUT_MS);
  const response = await fetch(new URL(path, pageDirectory(window.location.href)), {
    headers: { Accept: "application/json" },
    signal: signal ? AbortSignal.any([signal, timeout]) : timeout,
  });
  if (!response.ok) throw new RequestError(response.status, (await response.text()).slice(0, 300));
  return (await response.json()) as T;
}

export function fetchServer(signal?: AbortSignal): Promise<ServerInfo> {
  return get("api", signal);
}

export function fetchViews(options: Options, moment: Moment = {}, signal?: AbortSignal): Promise<ViewDescription[]> {
  // `t` is no filter; it only makes the query non-empty, because a request without any parameter is not filtered at all.
  return get(`api/topology?${optionQuery(options, { t: "1s", ...moment })}`, signal);
}

export async function fetchDetails(view: string, id: string, options: Options, moment: Moment = {}, signal?: AbortSignal): Promise<NodeDetails> {
  const path = `api/topology/${encodeURIComponent(view)}/${encodeNodeId(id)}?${optionQuery(options, { t: "1s", ...moment })}`;
  return (await get<{ node: NodeDetails }>(path, signal)).node;
}

export function fetchFlows(query: Readonly<Record<string, string>>, signal?: AbortSignal): Promise<FlowPage> {
  return get(`api/v1/flows?${new URLSearchParams(query).toString()}`, signal);
}

/** A container may take its time to stop; the server gives up after 80 s. */
const CONTROL_TIMEOUT_MS = 90_000;

/** Has a control carried out. A failure's message is what the runtime said. */
export async function runControl(control: Pick<Control, "probeId" | "nodeId" | "id">, args?: Readonly<Record<string, string>>): Promise<ControlReply> {
  const path = `api/control/${[control.probeId, control.nodeId, control.id].map(encodeNodeId).join("/")}`;
  const response = await fetch(new URL(path, pageDirectory(window.location.href)), {
    method: "POST",
    body: args ? JSON.stringify(args) : undefined,
    signal: AbortSignal.timeout(CONTROL_TIMEOUT_MS),
  });
  const text = await response.text();
  if (response.ok) return JSON.parse(text) as ControlReply;
  let message = text;
  try {
    const said: unknown = JSON.parse(text);
    if (typeof said === "string") message = said;
  } catch {
    // A proxy in between has its own way to say it.
  }
  throw new RequestError(response.status, message.slice(0, 300));
}

/** Whether a pipe has ended, so that there is nothing to come back to. */
export async function isPipeClosed(pipe: string): Promise<boolean> {
  const response = await fetch(new URL(`api/pipe/${encodeURIComponent(pipe)}/check`, pageDirectory(window.location.href)), { signal: AbortSignal.timeout(TIMEOUT_MS) });
  return response.status === 404;
}

/** Closes a pipe; also while the page is being left. */
export function closePipe(pipe: string): void {
  navigator.sendBeacon(new URL(`api/pipe/${encodeURIComponent(pipe)}`, pageDirectory(window.location.href)));
}

export function fetchProbes(signal?: AbortSignal): Promise<ProbeList> {
  return get("api/v1/probes", signal);
}

/** All probes of which something is on the map, those of Weave Scope included, which are no part of the list above. */
export function fetchEveryProbe(signal?: AbortSignal): Promise<ProbeName[]> {
  return get("api/probes", signal);
}

/** What answers a query in all views, best first. `after`: `next` of the page before. */
export function fetchSearch(query: string, limit: number, further: Moment & { readonly after?: string } = {}, signal?: AbortSignal): Promise<SearchPage> {
  return get(`api/search?${new URLSearchParams({ q: query, limit: String(limit), ...further }).toString()}`, signal);
}

export function fetchHistory(signal?: AbortSignal): Promise<HistoryInfo> {
  return get("api/v1/history", signal);
}

/** What is different in a view since a moment. */
export function fetchChanges(view: string, options: Options, from: string, after: string | null, signal?: AbortSignal): Promise<ChangePage> {
  const extra: Record<string, string> = { from, view };
  if (after !== null) extra["after"] = after;
  return get(`api/v1/changes?${optionQuery(options, extra)}`, signal);
}
