import { describe, expect, test } from "vitest";
import type { Flow, NodeSummary, ViewDescription } from "../src/api/types";
import { heatLevel, heatScale, metricLabels } from "../src/model/metrics";
import { addUp, flowQuery } from "../src/model/traffic";
import { firstView, flatViews, visibleTabs } from "../src/model/views";

const view = (id: string, rank: number, hide: boolean, count: number, subs: ViewDescription[] = [], filtered = 0): ViewDescription => ({
  name: id,
  rank,
  hide_if_empty: hide,
  options: null,
  url: `/api/topology/${id}`,
  sub_topologies: subs,
  stats: { node_count: count, nonpseudo_node_count: count, edge_count: 0, filtered_nodes: filtered },
});

describe("views", () => {
  const list = flatViews([
    view("containers", 2, false, 0, [view("containers-by-image", 0, false, 0)]),
    view("hosts", 4, false, 1),
    view("pods", 3, true, 0),
    view("processes", 1, true, 0, [view("processes-by-name", 0, true, 0)], 5),
  ]);

  test("are ordered by rank, sub-views after their tab", () => {
    expect(list.map((item) => item.id)).toEqual(["processes", "processes-by-name", "containers", "containers-by-image", "pods", "hosts"]);
  });

  test("that hide when empty are hidden, unless a filter or the user says otherwise", () => {
    expect(visibleTabs(list, null).map((item) => item.id)).toEqual(["processes", "containers", "hosts"]);
    expect(visibleTabs(list, "pods").map((item) => item.id)).toEqual(["processes", "containers", "pods", "hosts"]);
  });

  test("with something in them are opened first", () => {
    expect(firstView(list)?.id).toBe("hosts");
    expect(firstView(flatViews([view("containers", 2, false, 0)]))?.id).toBe("containers");
    expect(firstView([])).toBeNull();
  });
});

describe("heat", () => {
  const node = (id: string, cpu: number | null, memory: number): NodeSummary => ({
    id,
    label: id,
    labelMinor: "",
    rank: id,
    metrics: [
      ...(cpu === null ? [] : [{ id: "cpu", label: "CPU", format: "percent", value: cpu, samples: null, min: 0, max: 400 }]),
      { id: "mem", label: "Memory", format: "filesize", value: memory, samples: null, min: 0, max: 1e12 },
    ],
  });
  const nodes = new Map([node("a", 25, 100), node("b", null, 400)].map((item) => [item.id, item]));
  const at = (label: string, id: string): number | null => {
    const scale = heatScale(nodes, label);
    const found = nodes.get(id);
    return scale && found ? heatLevel(found, scale) : null;
  };

  test("of a percentage is absolute, of everything else relative to the largest", () => {
    expect(at("CPU", "a")).toBe(0.5);
    expect(at("Memory", "b")).toBe(1);
    expect(at("Memory", "a")).toBe(0.5);
  });

  test("is nothing where there is no such metric", () => {
    expect(at("CPU", "b")).toBeNull();
    expect(heatScale(nodes, "Load")).toBeNull();
    expect(metricLabels(nodes)).toEqual(["Memory", "CPU"]);
  });
});

describe("traffic", () => {
  const flow = (part: Partial<Flow>): Flow => ({
    host: "h", pid: 1, processStartTime: 1, processName: "x", containerId: null, cgroupId: 0, direction: "client", protocol: "tcp",
    clientAddress: "::1", serverAddress: "::1", serverPort: 80, origin: "event", opened: 0, closed: 0, failed: 0, active: 0, bytesSent: 0,
    bytesReceived: 0, retransmits: 0, rttMicrosAverage: null, rttMicrosMax: null, firstSeen: "", lastActive: "", peers: [], ...part,
  });

  test("is the sum of the flows, latency weighted by connections", () => {
    const totals = addUp([
      flow({ opened: 3, active: 1, bytesSent: 10, bytesReceived: 1, rttMicrosAverage: 100, rttMicrosMax: 900 }),
      flow({ opened: 1, failed: 2, bytesSent: 5, retransmits: 7, rttMicrosAverage: 500, rttMicrosMax: 600 }),
      flow({ opened: 100 }),
    ]);
    expect(totals).toEqual({ opened: 104, active: 1, failed: 2, bytesSent: 15, bytesReceived: 1, retransmits: 7, rttAverage: 200, rttMax: 900 });
  });

  test("belongs to processes and containers", () => {
    expect(flowQuery({ view: "processes", id: "web;1;4711" })).toEqual({ host: "web;1", pid: "4711" });
    expect(flowQuery({ view: "containers", id: "ab;<container>" })).toEqual({ container: "ab" });
    expect(flowQuery({ view: "hosts", id: "web;<host>" })).toBeNull();
    expect(flowQuery({ view: "processes", id: "in-theinternet" })).toBeNull();
    expect(flowQuery({ view: "processes-by-name", id: "a;1" })).toBeNull();
  });
});
