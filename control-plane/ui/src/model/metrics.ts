import type { MetricRow, NodeSummary } from "../api/types";
import type { NodeMap } from "./delta";

/** A node's metric by its label, which is what CPU of a host and CPU of a process have in common. */
export function metricOf(node: NodeSummary, label: string): MetricRow | null {
  return node.metrics?.find((row) => row.label === label && !row.valueEmpty) ?? null;
}

/** Labels of the metrics in a picture, the most common first. */
export function metricLabels(nodes: NodeMap): string[] {
  const counts = new Map<string, number>();
  for (const node of nodes.values()) {
    for (const row of node.metrics ?? []) counts.set(row.label, (counts.get(row.label) ?? 0) + 1);
  }
  return [...counts].sort((a, b) => b[1] - a[1] || a[0].localeCompare(b[0])).map(([label]) => label);
}

/** How the values of one metric are turned into levels between 0 and 1. */
export interface HeatScale {
  label: string;
  format: string | undefined;
  max: number;
}

/**
 * The scale of a metric over a picture. Percentages are absolute. Everything else is relative to the largest value shown, because limits such
 * as "all memory of the machine" would leave every process empty.
 */
export function heatScale(nodes: NodeMap, label: string): HeatScale | null {
  let format: string | undefined;
  let largest = 0;
  let found = false;
  for (const node of nodes.values()) {
    const row = metricOf(node, label);
    if (row === null) continue;
    found = true;
    format ??= row.format;
    largest = Math.max(largest, row.value);
  }
  if (!found) return null;
  return { label, format, max: format === "percent" ? 100 : largest || 1 };
}

/** Level of a node on a scale; `null` when it has no such metric. Percentages are bent, since a busy process on many cores is at 5 %. */
export function heatLevel(node: NodeSummary, scale: HeatScale): number | null {
  const row = metricOf(node, scale.label);
  if (row === null) return null;
  const share = Math.min(1, Math.max(0, row.value / scale.max));
  return Math.sqrt(share);
}
