import type { NodeSummary } from "../api/types";
import type { NodeMap } from "./delta";

// Which nodes answer a query is for the server to say: it alone knows the whole language, and no expression can hold it up. Here is what is
// shown of queries.

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

/** Letters and digits of a field's name in lower case: how names are compared. */
export function reduceName(name: string): string {
  return name.toLowerCase().replace(/[^\p{L}\p{N}]/gu, "");
}

/** Something that a text can be found in. `name` is `null` where a prefix makes no difference. */
interface Field {
  name: string | null;
  value: string;
}

function* fieldsOf(node: NodeSummary): Generator<Field> {
  yield { name: "id", value: node.id };
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

/** What a query looks for letter by letter: the words between `|`, without those that only an expression describes. */
function literalWords(query: string): string[] {
  if (/(^|[\s(])(AND|OR|NOT)([\s)]|$)/.test(query)) return [];
  let text = query.trim();
  const colon = text.indexOf(":");
  // An address is the name of no field: `10.0.0.5:8080` means the port there.
  if (colon >= 0 && colon === text.lastIndexOf(":") && !/^\d{1,3}(\.\d{1,3}){3}:/.test(text)) text = text.slice(colon + 1).trim();
  else if (/[<=>]/.test(text)) return [];
  if (/^"[^"]+"$/.test(text)) return [text.slice(1, -1)];
  return text.split("|").filter((word) => word !== "" && !/[\\+*?()[\]{}^$"]/.test(word));
}

/** Letters without case, accents and compatibility forms, each with its place in the text. */
function folded(text: string): { letters: string; from: number[]; to: number[] } {
  let letters = "";
  const from: number[] = [];
  const to: number[] = [];
  let at = 0;
  for (const letter of text) {
    const plain = letter.normalize("NFKD").replace(/\p{M}/gu, "").normalize("NFC").toLowerCase();
    letters += plain;
    for (let unit = 0; unit < plain.length; unit += 1) {
      from.push(at);
      to.push(at + letter.length);
    }
    at += letter.length;
  }
  return { letters, from, to };
}

/** Where words of a query are in a label, to mark them; `null` if not there. */
export function labelMatch(query: string, label: string): { start: number; end: number } | null {
  const words = literalWords(query);
  if (words.length === 0) return null;
  const { letters, from, to } = folded(label);
  let first: { start: number; end: number } | null = null;
  for (const word of words) {
    const wanted = folded(word).letters;
    const at = wanted === "" ? -1 : letters.indexOf(wanted);
    if (at < 0) continue;
    const start = from[at] ?? 0;
    if (first === null || start < first.start) first = { start, end: to[at + wanted.length - 1] ?? label.length };
  }
  return first;
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
