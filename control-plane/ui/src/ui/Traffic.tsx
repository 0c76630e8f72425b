import { useEffect, useRef, useState } from "preact/hooks";
import { fetchFlows } from "../api/client";
import type { Flow } from "../api/types";
import { bytes, groupedInteger, microseconds, middleEllipsis, shortCount } from "../model/format";
import type { PanelRef } from "../model/location";
import { addUp, flowQuery, type FlowTotals } from "../model/traffic";
import * as store from "../state/store";
import { Icon } from "./icons";

const POLL_MS = 3_000;
const LIMIT = 200;
const ROWS_AT_FIRST = 6;

interface Seen {
  totals: FlowTotals;
  flows: Flow[];
  isCut: boolean;
  sentPerSecond: number | null;
  receivedPerSecond: number | null;
}

/** Bytes both ways, latency and trouble of a process or a container. */
export function Traffic({ panel }: { panel: PanelRef }) {
  const seen = useFlows(panel);
  const [isAll, setAll] = useState(false);
  if (seen === null || seen.flows.length === 0) return null;
  const { totals } = seen;
  const sorted = [...seen.flows].sort((a, b) => b.bytesSent + b.bytesReceived - (a.bytesSent + a.bytesReceived) || b.active - a.active);
  const shown = isAll ? sorted : sorted.slice(0, ROWS_AT_FIRST);
  return (
    <section class="section" data-testid="traffic">
      <h3>
        Traffic{" "}
        <span class="section-count">
          {groupedInteger(seen.flows.length)}
          {seen.isCut ? "+" : ""}
        </span>
      </h3>
      <dl class="stats">
        <Total label="Sent" value={bytes(totals.bytesSent)} rate={seen.sentPerSecond} />
        <Total label="Received" value={bytes(totals.bytesReceived)} rate={seen.receivedPerSecond} />
        <div title={`largest ${totals.rttMax === null ? "unknown" : microseconds(totals.rttMax)}`}>
          <dt>Round trip</dt>
          <dd>{totals.rttAverage === null ? "–" : microseconds(totals.rttAverage)}</dd>
          <dd class="stat-sub">{totals.rttMax === null ? "" : `max ${microseconds(totals.rttMax)}`}</dd>
        </div>
        <div>
          <dt>Connections</dt>
          <dd>{shortCount(totals.active)} open</dd>
          <dd class="stat-sub">{shortCount(totals.opened)} in all</dd>
        </div>
        <div class={totals.retransmits > 0 ? "warn" : undefined}>
          <dt>Retransmits</dt>
          <dd>{shortCount(totals.retransmits)}</dd>
        </div>
        <div class={totals.failed > 0 ? "bad" : undefined}>
          <dt>Failed</dt>
          <dd>{shortCount(totals.failed)}</dd>
        </div>
      </dl>
      <table class="mini flows">
        <thead>
          <tr>
            <th>Peer</th>
            <th class="number">Sent</th>
            <th class="number">Received</th>
            <th class="number">RTT</th>
            <th class="number">Open</th>
          </tr>
        </thead>
        <tbody>
          {shown.map((flow) => (
            <FlowRow key={flowKey(flow)} flow={flow} />
          ))}
        </tbody>
      </table>
      {sorted.length > ROWS_AT_FIRST && (
        <button type="button" class="more" onClick={() => setAll(!isAll)}>
          {isAll ? "Show fewer" : `Show ${groupedInteger(sorted.length - ROWS_AT_FIRST)} more`}
        </button>
      )}
    </section>
  );
}

function Total({ label, value, rate }: { label: string; value: string; rate: number | null }) {
  return (
    <div>
      <dt>{label}</dt>
      <dd>{value}</dd>
      <dd class="stat-sub">{rate === null ? " " : `${bytes(rate)}/s`}</dd>
    </div>
  );
}

function flowKey(flow: Flow): string {
  return [flow.host, flow.pid, flow.processStartTime, flow.direction, flow.clientAddress, flow.serverAddress, flow.serverPort, flow.protocol, flow.containerId].join(" ");
}

function FlowRow({ flow }: { flow: Flow }) {
  const isClient = flow.direction === "client";
  const address = isClient ? hostPort(flow.serverAddress, flow.serverPort) : flow.clientAddress;
  const name = isClient ? flow.serverName : flow.clientName;
  const others = flow.others ?? 0;
  const shown = others > 0 ? `and ${groupedInteger(others)} others` : name ? (isClient ? `${name}:${flow.serverPort}` : name) : address;
  const peer = flow.peers[0];
  const trouble = [
    flow.failed > 0 ? `${groupedInteger(flow.failed)} failed` : null,
    flow.retransmits > 0 ? `${groupedInteger(flow.retransmits)} segments sent again` : null,
    name && others === 0 ? address : null,
    flow.originalServer ? `meant for ${flow.originalServer}` : null,
    ...(flow.translations ?? []).map((it) =>
      it.source === "endpoints" ? `perhaps taken to ${it.server}` : `taken to ${it.server}${it.client ? ` as ${it.client}` : ""} (${it.source})`,
    ),
    ...(flow.applications ?? []).map(
      (it) =>
        `${it.protocol}: ${groupedInteger(it.requests)} requests, ${groupedInteger(it.errors)} errors` +
        (it.latencyMicrosAverage === null ? "" : `, ${microseconds(it.latencyMicrosAverage)} each`),
    ),
    flow.origin === "snapshot" ? "already open when the probe started" : null,
  ].filter((text) => text !== null);
  const label = (
    <>
      <span class={isClient ? "direction out" : "direction in"} title={isClient ? "outgoing" : "incoming"}>
        <Icon name={isClient ? "arrowOut" : "arrowIn"} size={12} />
      </span>
      <span class="mono">{middleEllipsis(shown, 30)}</span>
      {!isClient && <span class="minor">on :{flow.serverPort}</span>}
      {flow.failed > 0 && <span class="badge bad">{shortCount(flow.failed)} failed</span>}
    </>
  );
  return (
    <tr title={trouble.join(", ") || undefined}>
      <td class="link-cell">
        {peer === undefined ? (
          <span class="node-link plain">{label}</span>
        ) : (
          <button type="button" class="node-link" onClick={() => store.openPanel({ view: "processes", id: peer })}>
            {label}
          </button>
        )}
        <FlowNotes flow={flow} />
      </td>
      <td class="number">{bytes(flow.bytesSent)}</td>
      <td class="number">{bytes(flow.bytesReceived)}</td>
      <td class="number">{flow.rttMicrosAverage ? microseconds(flow.rttMicrosAverage) : "–"}</td>
      <td class="number">{shortCount(flow.active)}</td>
    </tr>
  );
}

/** What few flows have, below their peer. */
function FlowNotes({ flow }: { flow: Flow }) {
  const taken = (flow.translations ?? []).filter((it) => it.source !== "endpoints" && it.server !== hostPort(flow.serverAddress, flow.serverPort));
  const notes = [
    flow.protocol === "tcp" ? null : flow.protocol,
    taken[0] ? `to ${taken[0].server}${taken.length > 1 ? ` and ${taken.length - 1} more` : ""}` : null,
    ...(flow.applications ?? []).map((it) => `${it.protocol} ${shortCount(it.requests)}${it.errors > 0 ? `, ${shortCount(it.errors)} failed` : ""}`),
  ].filter((text) => text !== null);
  return notes.length === 0 ? null : <div class="flow-notes">{notes.join(" · ")}</div>;
}

function hostPort(address: string, port: number): string {
  return address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`;
}

function useFlows(panel: PanelRef): Seen | null {
  const [seen, setSeen] = useState<{ id: string; seen: Seen } | null>(null);
  const before = useRef<{ id: string; at: number; totals: FlowTotals } | null>(null);
  useEffect(() => {
    const query = flowQuery(panel);
    if (query === null) return;
    const abort = new AbortController();
    let timer: ReturnType<typeof setTimeout> | null = null;
    const poll = async (): Promise<void> => {
      if (!document.hidden && !store.isPaused.peek()) {
        try {
          const page = await fetchFlows({ ...query, limit: String(LIMIT) }, abort.signal);
          const totals = addUp(page.flows);
          const at = performance.now();
          const last = before.current?.id === panel.id ? before.current : null;
          const rate = (value: number, old: number | undefined): number | null =>
            last === null || old === undefined || value < old || at - last.at < 500 ? null : ((value - old) * 1_000) / (at - last.at);
          setSeen({
            id: panel.id,
            seen: {
              totals,
              flows: page.flows,
              isCut: page.next !== null && page.next !== undefined,
              sentPerSecond: rate(totals.bytesSent, last?.totals.bytesSent),
              receivedPerSecond: rate(totals.bytesReceived, last?.totals.bytesReceived),
            },
          });
          before.current = { id: panel.id, at, totals };
        } catch {
          if (abort.signal.aborted) return;
        }
      }
      if (!abort.signal.aborted) timer = setTimeout(() => void poll(), POLL_MS);
    };
    void poll();
    return () => {
      abort.abort();
      if (timer !== null) clearTimeout(timer);
    };
  }, [panel.view, panel.id]);
  return seen !== null && seen.id === panel.id ? seen.seen : null;
}
