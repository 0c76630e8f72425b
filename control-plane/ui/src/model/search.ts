import type { NodeSummary } from "../api/types";
import type { NodeMap } from "./delta";

// The grammar is Weave Scope's, so that saved links mean the same: free text is a regular expression, `field: text` restricts it to fields,
// and `metric < number` compares.

export type Query =
  | { kind: "text"; pattern: RegExp }
  | { kind: "prefix"; prefix: RegExp; pattern: RegExp }
  | { kind: "metric"; metric: string; comparison: Comparison; value: number };

type Comparison = "<=" | ">=" | "!=" | "<" | "=" | ">";

/** In the order in which they are looked for. Scope has only the last three. */
const COMPARISONS: readonly Comparison[] = ["<=", ">=", "!=", "<", "=", ">"];

/** Whether a query has words or quotes that only the server understands. */
export function isCombined(text: string): boolean {
  return /(^|[\s(])(AND|OR|NOT)([\s)]|$)|"/.test(text);
}

/** The pins that only the server understands, as one query; `null` when there is none. */
export function serverQuery(pins: readonly string[]): string | null {
  const combined = pins.filter(isCombined);
  if (combined.length <= 1) return combined[0] ?? null;
  return combined.map((pin) => `( ${pin} )`).join(" AND ");
}

/** Cuts a text at places that count Unicode characters, so that what was found can be marked. */
export function markedParts(text: string, ranges: readonly (readonly [number, number])[]): { text: string; isMarked: boolean }[] {
  const letters = [...text];
  const parts: { text: string; isMarked: boolean }[] = [];
  let at = 0;
  for (const [from, to] of ranges) {
    if (from < at) continue;
    if (from > at) parts.push({ text: letters.slice(at, from).join(""), isMarked: false });
    parts.push({ text: letters.slice(from, to).join(""), isMarked: true });
    at = to;
  }
  if (at < letters.length) parts.push({ text: letters.slice(at).join(""), isMarked: false });
  return parts;
}

/** Understands one term; `null` for nothing to search for. */
export function parseQuery(text: string): Query | null {
  const parts = text.split(":");
  // An address is the name of no field: `10.0.0.5:8080` means the port there.
  const isPlace = /^\s*\d{1,3}(\.\d{1,3}){3}$/.test(parts[0] ?? "");
  if (parts.length === 2 && !isPlace) {
    const prefix = (parts[0] ?? "").trim();
    const pattern = (parts[1] ?? "").trim();
    return prefix && pattern ? { kind: "prefix", prefix: toPattern(prefix), pattern: toPattern(pattern) } : null;
  }
  if (/[<=>]/.test(text)) return parseComparison(text);
  return text === "" ? null : { kind: "text", pattern: toPattern(text) };
}

function parseComparison(text: string): Query | null {
  for (const comparison of COMPARISONS) {
    const sides = text.split(comparison);
    if (sides.length !== 2) continue;
    const metric = reduceName((sides[0] ?? "").trim());
    const value = parseAmount(sides[1] ?? "");
    if (metric && value !== null) return { kind: "metric", metric, comparison, value };
  }
  return null;
}

/** `10kB` is 10240, `50%` is 50: a leading number, and the first of k, m, g, t anywhere multiplies. */
export function parseAmount(text: string): number | null {
  const value = Number.parseFloat(text);
  if (Number.isNaN(value)) return null;
  const exponent = ["k", "m", "g", "t"].findIndex((letter) => text.toLowerCase().includes(letter));
  return value * 1024 ** (exponent + 1);
}

/** Lower-case letters and digits of a field's name: how names are compared. */
export function reduceName(name: string): string {
  return name.toLowerCase().replace(/[^a-z0-9]/g, "");
}

function toPattern(text: string): RegExp {
  try {
    return new RegExp(text, "i");
  } catch {
    return new RegExp(text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"), "i");
  }
}

/** Something that a text can be found in. `name` is `null` where a prefix makes no difference. */
interface Field {
  name: string | null;
  value: string;
}

function* fieldsOf(node: NodeSummary): Generator<Field> {
  yield { name: "label", value: node.label };
  yield { name: "labelMinor", value: node.labelMinor };
  for (const row of node.metadata ?? []) yield { name: row.label, value: row.value };
  for (const parent of node.parents ?? []) yield { name: parent.topologyId, value: parent.label };
  for (const table of node.tables ?? []) {
    const isPropertyList = table.type === "property-list";
    for (const row of table.rows) {
      if (isPropertyList) {
        yield { name: row.entries["label"] ?? "", value: row.entries["value"] ?? "" };
      } else {
        for (const value of Object.values(row.entries)) yield { name: null, value };
      }
    }
  }
}

/** Whether a node answers a query. */
export function matches(query: Query, node: NodeSummary): boolean {
  if (query.kind === "metric") {
    return (node.metrics ?? []).some((row) => {
      if (row.valueEmpty || reduceName(row.label) !== query.metric) return false;
      return holds(row.value, query.comparison, query.value);
    });
  }
  for (const field of fieldsOf(node)) {
    if (query.kind === "prefix" && field.name !== null && !query.prefix.test(reduceName(field.name))) continue;
    if (query.pattern.test(field.value)) return true;
  }
  return false;
}

function holds(left: number, comparison: Comparison, right: number): boolean {
  switch (comparison) {
    case "<=":
      return left <= right;
    case ">=":
      return left >= right;
    case "!=":
      return left !== right;
    case "<":
      return left < right;
    case ">":
      return left > right;
    case "=":
      return left === right;
  }
}

/** Ids of the nodes that match; `null` when there is nothing to search for. */
export function findMatches(text: string, nodes: NodeMap): Set<string> | null {
  const query = parseQuery(text);
  if (query === null) return null;
  const found = new Set<string>();
  for (const [id, node] of nodes) {
    if (matches(query, node)) found.add(id);
  }
  return found;
}

/** The nodes that match every pinned term. A term that cannot be understood is ignored. */
export function filterByPins(pins: readonly string[], nodes: NodeMap): NodeMap {
  const queries = pins.filter((pin) => !isCombined(pin)).map(parseQuery).filter((query) => query !== null);
  if (queries.length === 0) return nodes;
  const kept = new Map<string, NodeSummary>();
  for (const [id, node] of nodes) {
    if (queries.every((query) => matches(query, node))) kept.set(id, node);
  }
  return kept;
}

/** Where the text of a query was found in a label, to mark it; `null` if not there. */
export function labelMatch(text: string, label: string): { start: number; end: number } | null {
  const query = parseQuery(text);
  if (query === null || query.kind === "metric") return null;
  const found = query.pattern.exec(label);
  return found && found[0].length > 0 ? { start: found.index, end: found.index + found[0].length } : null;
}

/** Names that can stand before a colon or a comparison in this picture, sorted. */
export function searchableNames(nodes: NodeMap): { fields: string[]; metrics: string[] } {
  const fields = new Set<string>();
  const metrics = new Set<string>();
  for (const node of nodes.values()) {
    for (const field of fieldsOf(node)) {
      if (field.name !== null && field.value !== "") fields.add(reduceName(field.name));
    }
    for (const row of node.metrics ?? []) metrics.add(reduceName(row.label));
  }
  fields.delete("");
  return { fields: [...fields].sort(), metrics: [...metrics].sort() };
}
