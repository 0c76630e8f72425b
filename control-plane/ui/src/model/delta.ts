import type { Delta, NodeSummary } from "../api/types";

export type NodeMap = ReadonlyMap<string, NodeSummary>;

export interface Applied {
  nodes: NodeMap;
  /** A node or an edge came or went; otherwise only texts and numbers changed. */
  structureChanged: boolean;
}

/**
 * Applies one message: reset, remove, update, add, in this order. Updates of unknown nodes are ignored. The same map comes back when nothing
 * changed, so that nothing is drawn again.
 */
export function applyDelta(previous: NodeMap, delta: Delta): Applied {
  const add = delta.add ?? [];
  const update = delta.update ?? [];
  const remove = delta.remove ?? [];
  if (!delta.reset && add.length === 0 && update.length === 0 && remove.length === 0) {
    return { nodes: previous, structureChanged: false };
  }
  const nodes = new Map<string, NodeSummary>(delta.reset ? [] : previous);
  for (const id of remove) nodes.delete(id);
  for (const node of update) {
    if (nodes.has(node.id)) nodes.set(node.id, node);
  }
  for (const node of add) nodes.set(node.id, node);
  return { nodes, structureChanged: differsInStructure(previous, nodes) };
}

/** The same for ids alone. */
export function applyIds(previous: ReadonlySet<string>, delta: Delta): ReadonlySet<string> {
  const add = delta.add ?? [];
  const remove = delta.remove ?? [];
  if (!delta.reset && add.length === 0 && remove.length === 0) return previous;
  const ids = new Set<string>(delta.reset ? [] : previous);
  for (const id of remove) ids.delete(id);
  for (const node of add) ids.add(node.id);
  return ids;
}

function differsInStructure(previous: NodeMap, nodes: NodeMap): boolean {
  if (previous.size !== nodes.size) return true;
  for (const [id, node] of nodes) {
    const before = previous.get(id);
    if (before === undefined) return true;
    if (before !== node && !sameList(before.adjacency, node.adjacency)) return true;
  }
  return false;
}

function sameList(left: readonly string[] | undefined, right: readonly string[] | undefined): boolean {
  const a = left ?? [];
  const b = right ?? [];
  return a.length === b.length && a.every((value, index) => value === b[index]);
}

/** Edges between nodes of the picture, in order. Ids that are not in the picture are skipped. */
export function edgesOf(nodes: NodeMap): [string, string][] {
  const edges: [string, string][] = [];
  for (const [id, node] of nodes) {
    for (const target of node.adjacency ?? []) {
      if (nodes.has(target)) edges.push([id, target]);
    }
  }
  return edges;
}

export interface Degree {
  incoming: number;
  outgoing: number;
}

/** How many different nodes each node is connected with, itself not counted. */
export function degreesOf(nodes: NodeMap): Map<string, Degree> {
  const degrees = new Map<string, Degree>();
  for (const id of nodes.keys()) degrees.set(id, { incoming: 0, outgoing: 0 });
  for (const [source, target] of edgesOf(nodes)) {
    if (source === target) continue;
    const from = degrees.get(source);
    const to = degrees.get(target);
    if (from) from.outgoing += 1;
    if (to) to.incoming += 1;
  }
  return degrees;
}
