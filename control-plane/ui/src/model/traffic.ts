import type { Flow } from "../api/types";
import type { PanelRef } from "./location";

export interface FlowTotals {
  opened: number;
  active: number;
  failed: number;
  bytesSent: number;
  bytesReceived: number;
  retransmits: number;
  /** Mean over flows, weighted by their connections; `null` when nobody measured. */
  rttAverage: number | null;
  rttMax: number | null;
}

export function addUp(flows: readonly Flow[]): FlowTotals {
  const totals: FlowTotals = { opened: 0, active: 0, failed: 0, bytesSent: 0, bytesReceived: 0, retransmits: 0, rttAverage: null, rttMax: null };
  let weighted = 0;
  let weight = 0;
  for (const flow of flows) {
    totals.opened += flow.opened;
    totals.active += flow.active;
    totals.failed += flow.failed;
    totals.bytesSent += flow.bytesSent;
    totals.bytesReceived += flow.bytesReceived;
    totals.retransmits += flow.retransmits;
    if (flow.rttMicrosAverage) {
      const share = Math.max(1, flow.opened);
      weighted += flow.rttMicrosAverage * share;
      weight += share;
    }
    if (flow.rttMicrosMax) totals.rttMax = Math.max(totals.rttMax ?? 0, flow.rttMicrosMax);
  }
  if (weight > 0) totals.rttAverage = weighted / weight;
  return totals;
}

/** Which flows belong to a node: `web-1;4711` is a process, `<id>;<container>` a container; others have no flows of their own. */
export function flowQuery(panel: PanelRef): Record<string, string> | null {
  const container = /^(.+);<container>$/.exec(panel.id);
  if (container?.[1]) return { container: container[1] };
  if (panel.view !== "processes") return null;
  const process = /^(.+);(\d+)$/.exec(panel.id);
  return process?.[1] && process[2] ? { host: process[1], pid: process[2] } : null;
}
