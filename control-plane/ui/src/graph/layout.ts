// Where nodes stand. Two rules: who opens connections stands left of who accepts them, and what has a place keeps it. Pure: no DOM, no clock,
// no randomness, so that the same world always gives the same map.

import {
  forceCollide,
  forceLink,
  forceManyBody,
  forceSimulation,
  forceX,
  forceY,
  type Simulation,
  type SimulationLinkDatum,
  type SimulationNodeDatum,
} from "d3-force";

export interface Point {
  x: number;
  y: number;
}

export interface LayoutInput {
  nodes: readonly string[];
  edges: readonly (readonly [string, string])[];
}

/** What an update did: nothing moved, only new nodes were placed, or everything was laid out. */
export type LayoutStep = "none" | "incremental" | "full";

/** Centre to centre of two connected nodes. */
export const LINK_LENGTH = 112;
/** No two nodes stand closer than this. */
export const NODE_DISTANCE = 80;
/** Labels are wider than high, so the picture is stretched. */
const STRETCH = 1.5;
/** How far a placed node may give way when a neighbour arrives. */
export const GIVE_WAY = 36;
/** Places of nodes that left are kept for when they come back. */
const REMEMBERED_PLACES = 20_000;
const COMPONENT_GAP = 130;
const GRID_X = 128;
const GRID_Y = 104;

interface Body extends SimulationNodeDatum {
  index: number;
  x: number;
  y: number;
  vx: number;
  vy: number;
  degree: number;
}

type Link = SimulationLinkDatum<Body>;

/** The graph by numbers instead of names; self edges and repetitions are gone. */
interface Indexed {
  ids: readonly string[];
  out: number[][];
  into: number[][];
}

export class Layout {
  private readonly places = new Map<string, Point>();
  private readonly pinned = new Set<string>();
  private shown: LayoutInput = { nodes: [], edges: [] };
  /** Nodes with edges at the last look; one that gets its first edge leaves the shelf of lonely nodes. */
  private connected = new Set<string>();
  /** Nodes that the last full layout knew. */
  private arranged = new Set<string>();

  /** Positions of the nodes that are shown. */
  positions(): Map<string, Point> {
    const result = new Map<string, Point>();
    for (const id of this.shown.nodes) {
      const place = this.places.get(id);
      if (place) result.set(id, place);
    }
    return result;
  }

  isPinned(id: string): boolean {
    return this.pinned.has(id);
  }

  /** The user put a node somewhere; it stays there. */
  pin(id: string, place: Point): void {
    this.places.set(id, place);
    this.pinned.add(id);
  }

  unpin(id: string): void {
    this.pinned.delete(id);
  }

  unpinAll(): void {
    this.pinned.clear();
  }

  /** Takes a new picture. Places of known nodes stay, except when most of the picture is new. */
  update(input: LayoutInput): LayoutStep {
    const graph = indexed(input);
    const before = new Set(this.shown.nodes);
    const fresh: number[] = [];
    const connected = new Set<string>();
    graph.ids.forEach((id, index) => {
      const hasEdges = degree(graph, index) > 0;
      if (hasEdges) connected.add(id);
      const isNew = !this.places.has(id);
      const leavesShelf = hasEdges && !this.connected.has(id) && !this.pinned.has(id) && before.has(id);
      if (isNew || leavesShelf) fresh.push(index);
    });
    this.shown = input;
    this.connected = connected;
    if (fresh.length === 0) return "none";

    const known = graph.ids.filter((id) => this.arranged.has(id)).length;
    const strangers = graph.ids.length - known;
    if (this.arranged.size === 0 || strangers > Math.max(12, known)) {
      this.arrange();
      return "full";
    }
    placeNewNodes(graph, fresh, this.places, this.pinned);
    this.forgetOldPlaces();
    return "incremental";
  }

  /** Lays out everything that is not pinned, from scratch. */
  arrange(): void {
    const graph = indexed(this.shown);
    arrangeAll(graph, this.places, this.pinned);
    this.arranged = new Set(graph.ids);
    this.forgetOldPlaces();
  }

  private forgetOldPlaces(): void {
    let surplus = this.places.size - this.shown.nodes.length - REMEMBERED_PLACES;
    if (surplus <= 0) return;
    const shown = new Set(this.shown.nodes);
    for (const id of this.places.keys()) {
      if (surplus <= 0) break;
      if (shown.has(id)) continue;
      this.places.delete(id);
      this.pinned.delete(id);
      surplus -= 1;
    }
  }
}

function indexed(input: LayoutInput): Indexed {
  const numbers = new Map(input.nodes.map((id, index) => [id, index]));
  const out: number[][] = input.nodes.map(() => []);
  const into: number[][] = input.nodes.map(() => []);
  const seen = new Set<number>();
  for (const [from, to] of input.edges) {
    const source = numbers.get(from);
    const target = numbers.get(to);
    if (source === undefined || target === undefined || source === target) continue;
    const key = source * input.nodes.length + target;
    if (seen.has(key)) continue;
    seen.add(key);
    out[source]?.push(target);
    into[target]?.push(source);
  }
  return { ids: input.nodes, out, into };
}

function degree(graph: Indexed, index: number): number {
  return (graph.out[index]?.length ?? 0) + (graph.into[index]?.length ?? 0);
}

function neighbours(graph: Indexed, index: number): number[] {
  return [...(graph.out[index] ?? []), ...(graph.into[index] ?? [])];
}

/** Connected parts, the largest first; lonely nodes are parts of one. */
function components(graph: Indexed): number[][] {
  const seen = new Uint8Array(graph.ids.length);
  const parts: number[][] = [];
  for (let start = 0; start < graph.ids.length; start += 1) {
    if (seen[start]) continue;
    seen[start] = 1;
    const part = [start];
    for (let at = 0; at < part.length; at += 1) {
      for (const next of neighbours(graph, part[at] ?? start)) {
        if (seen[next]) continue;
        seen[next] = 1;
        part.push(next);
      }
    }
    parts.push(part);
  }
  return parts.sort((a, b) => b.length - a.length || (a[0] ?? 0) - (b[0] ?? 0));
}

/** Column of each node: one more than that of whoever opens connections to it. Edges that close a circle do not count. */
function columns(graph: Indexed, part: readonly number[]): Map<number, number> {
  const column = new Map<number, number>();
  const state = new Map<number, "open" | "done">();
  const order: number[] = [];
  const backward = new Set<string>();
  // Start where nothing arrives, so that the natural direction wins in circles.
  const starts = [...part].sort((a, b) => (graph.into[a]?.length ?? 0) - (graph.into[b]?.length ?? 0) || a - b);
  for (const start of starts) {
    if (state.has(start)) continue;
    const stack: { node: number; next: number }[] = [{ node: start, next: 0 }];
    state.set(start, "open");
    while (stack.length > 0) {
      const top = stack[stack.length - 1];
      if (!top) break;
      const target = graph.out[top.node]?.[top.next];
      top.next += 1;
      if (target === undefined) {
        state.set(top.node, "done");
        order.push(top.node);
        stack.pop();
      } else if (state.get(target) === "open") {
        backward.add(`${top.node} ${target}`);
      } else if (!state.has(target)) {
        state.set(target, "open");
        stack.push({ node: target, next: 0 });
      }
    }
  }
  for (const node of order.reverse()) {
    const own = column.get(node) ?? 0;
    column.set(node, own);
    for (const target of graph.out[node] ?? []) {
      if (backward.has(`${node} ${target}`)) continue;
      column.set(target, Math.max(column.get(target) ?? 0, own + 1));
    }
  }
  return pullTowardsTargets(graph, column, order, backward);
}

/** A client of something far to the right stands directly before it, not at the far left. */
function pullTowardsTargets(graph: Indexed, column: Map<number, number>, order: number[], backward: Set<string>): Map<number, number> {
  for (const node of [...order].reverse()) {
    let nearest = Number.POSITIVE_INFINITY;
    for (const target of graph.out[node] ?? []) {
      if (!backward.has(`${node} ${target}`)) nearest = Math.min(nearest, column.get(target) ?? 0);
    }
    if (nearest !== Number.POSITIVE_INFINITY && (graph.into[node]?.length ?? 0) === 0) column.set(node, nearest - 1);
  }
  return column;
}

/** Places by columns, each column ordered by where its neighbours are, so that few edges cross before forces start. */
function seedByColumns(graph: Indexed, part: readonly number[]): Map<number, Point> {
  const column = columns(graph, part);
  const byColumn = new Map<number, number[]>();
  for (const node of part) {
    const list = byColumn.get(column.get(node) ?? 0);
    if (list) list.push(node);
    else byColumn.set(column.get(node) ?? 0, [node]);
  }
  const row = new Map<number, number>();
  const keys = [...byColumn.keys()].sort((a, b) => a - b);
  const spread = (list: number[]): void => list.forEach((node, index) => row.set(node, index - (list.length - 1) / 2));
  for (const list of byColumn.values()) spread(list);
  for (let sweep = 0; sweep < 6; sweep += 1) {
    for (const key of sweep % 2 === 0 ? keys : [...keys].reverse()) {
      const list = byColumn.get(key) ?? [];
      const centre = new Map<number, number>();
      for (const node of list) {
        const around = neighbours(graph, node);
        const sum = around.reduce((total, other) => total + (row.get(other) ?? 0), 0);
        centre.set(node, around.length > 0 ? sum / around.length : (row.get(node) ?? 0));
      }
      list.sort((a, b) => (centre.get(a) ?? 0) - (centre.get(b) ?? 0) || a - b);
      spread(list);
    }
  }
  const places = new Map<number, Point>();
  for (const node of part) {
    const height = byColumn.get(column.get(node) ?? 0)?.length ?? 1;
    // Tall columns are folded so that the seed is not a needle.
    const pitch = NODE_DISTANCE * Math.min(1, 24 / Math.sqrt(height * 24));
    places.set(node, { x: (column.get(node) ?? 0) * LINK_LENGTH * 1.3, y: (row.get(node) ?? 0) * pitch });
  }
  return places;
}

/** Keeps the target of an edge to the right of its source, as far as other forces allow. */
function flowForce(links: readonly Link[], strength: number): (alpha: number) => void {
  return (alpha) => {
    for (const link of links) {
      const source = link.source as Body;
      const target = link.target as Body;
      const missing = LINK_LENGTH * 0.75 - (target.x - source.x);
      if (missing <= 0) continue;
      const push = (Math.min(missing, LINK_LENGTH * 2) * strength * alpha) / 2;
      const total = source.degree + target.degree;
      source.vx -= push * (target.degree / total) * 2;
      target.vx += push * (source.degree / total) * 2;
    }
  };
}

function simulate(bodies: Body[], links: Link[]): Simulation<Body, Link> {
  const large = bodies.length > 1_200;
  return forceSimulation<Body, Link>(bodies)
    .stop()
    .randomSource(deterministicRandom())
    .alphaDecay(0)
    .velocityDecay(0.42)
    .force(
      "link",
      forceLink<Body, Link>(links)
        .distance((link) => LINK_LENGTH + Math.min(80, 5 * Math.sqrt(Math.min((link.source as Body).degree, (link.target as Body).degree))))
        .strength((link) => 0.85 / Math.max(1, Math.min((link.source as Body).degree, (link.target as Body).degree))),
    )
    .force(
      "charge",
      forceManyBody<Body>()
        .strength((body) => -420 - 26 * Math.min(body.degree, 20))
        .distanceMax(large ? 700 : 1_100)
        .theta(large ? 1.2 : 0.9),
    )
    .force("collide", forceCollide<Body>(NODE_DISTANCE / 2).strength(0.8))
    .force("x", forceX<Body>(0).strength(0.01))
    .force("y", forceY<Body>(0).strength(0.055))
    .force("flow", flowForce(links, 0.55));
}

/** d3 only draws random numbers to separate nodes that stand on the same spot. */
function deterministicRandom(): () => number {
  let state = 42;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 4_294_967_296;
  };
}

interface Box {
  minX: number;
  minY: number;
  maxX: number;
  maxY: number;
}

function boxOf(places: Iterable<Point>): Box | null {
  let box: Box | null = null;
  for (const { x, y } of places) {
    if (box === null) box = { minX: x, minY: y, maxX: x, maxY: y };
    else {
      box.minX = Math.min(box.minX, x);
      box.minY = Math.min(box.minY, y);
      box.maxX = Math.max(box.maxX, x);
      box.maxY = Math.max(box.maxY, y);
    }
  }
  return box;
}

function arrangeAll(graph: Indexed, places: Map<string, Point>, pinned: ReadonlySet<string>): void {
  const parts = components(graph);
  const drawn = parts.filter((part) => part.length > 1).map((part) => ({ part, places: arrangePart(graph, part) }));
  const lonely = parts.filter((part) => part.length === 1).map((part) => part[0] ?? 0);
  const put = (node: number, place: Point): void => {
    const id = graph.ids[node];
    if (id !== undefined && !pinned.has(id)) places.set(id, place);
  };

  const boxes = drawn.map((item) => boxOf(item.places.values()) ?? { minX: 0, minY: 0, maxX: 0, maxY: 0 });
  const widths = boxes.map((box) => box.maxX - box.minX);
  const area = boxes.reduce((sum, box) => sum + (box.maxX - box.minX + COMPONENT_GAP) * (box.maxY - box.minY + COMPONENT_GAP), 0);
  const shelf = Math.max(...widths, Math.sqrt(area * 1.9), GRID_X * Math.ceil(Math.sqrt(lonely.length * 1.6)), 1);
  let x = 0;
  let top = 0;
  let height = 0;
  drawn.forEach((item, index) => {
    const box = boxes[index];
    if (!box) return;
    const width = box.maxX - box.minX;
    if (x > 0 && x + width > shelf) {
      x = 0;
      top -= height + COMPONENT_GAP;
      height = 0;
    }
    // y grows upwards; shelves are filled downwards.
    for (const [node, place] of item.places) put(node, { x: x + place.x - box.minX, y: top - (box.maxY - place.y) });
    x += width + COMPONENT_GAP * 1.2;
    height = Math.max(height, box.maxY - box.minY);
  });
  if (drawn.length > 0) top -= height + COMPONENT_GAP;
  const across = Math.max(1, Math.floor(shelf / GRID_X) + 1);
  lonely.forEach((node, index) => put(node, { x: (index % across) * GRID_X, y: top - Math.floor(index / across) * GRID_Y }));
}

/** One connected part, around its own origin. */
function arrangePart(graph: Indexed, part: readonly number[]): Map<number, Point> {
  const seed = seedByColumns(graph, part);
  const bodies = new Map<number, Body>();
  for (const node of part) {
    const at = seed.get(node) ?? { x: 0, y: 0 };
    bodies.set(node, { index: node, x: at.x, y: at.y, vx: 0, vy: 0, degree: degree(graph, node) });
  }
  const list = [...bodies.values()];
  const links: Link[] = [];
  for (const node of part) {
    for (const target of graph.out[node] ?? []) {
      const source = bodies.get(node);
      const end = bodies.get(target);
      if (source && end) links.push({ source, target: end });
    }
  }
  const steps = Math.round(Math.min(320, Math.max(70, 140_000 / list.length)));
  const simulation = simulate(list, links);
  for (let step = 0; step < steps; step += 1) {
    simulation.alpha(Math.max(0.02, (1 - step / steps) ** 1.6));
    simulation.tick();
  }
  return new Map(part.map((node) => [node, { x: (bodies.get(node)?.x ?? 0) * STRETCH, y: bodies.get(node)?.y ?? 0 }]));
}

/** Finds a place for new nodes beside their neighbours; known nodes stay, and direct neighbours may give way a little. */
function placeNewNodes(graph: Indexed, fresh: readonly number[], places: Map<string, Point>, pinned: ReadonlySet<string>): void {
  const isFresh = new Set(fresh);
  const placeOf = (node: number): Point | undefined => (isFresh.has(node) && !placed.has(node) ? undefined : places.get(graph.ids[node] ?? ""));
  const placed = new Set<number>();
  const crowd = new Crowd();
  graph.ids.forEach((id, node) => {
    const place = places.get(id);
    if (place && !isFresh.has(node)) crowd.add(place);
  });

  // Best connected first, so that the rest of a new group finds neighbours that already stand.
  const waiting = [...fresh].sort((a, b) => degree(graph, b) - degree(graph, a) || a - b);
  const lonely: number[] = [];
  while (waiting.length > 0) {
    let at = waiting.findIndex((node) => neighbours(graph, node).some((other) => placeOf(other)));
    if (at < 0) at = waiting.findIndex((node) => degree(graph, node) > 0);
    if (at < 0) {
      lonely.push(...waiting.splice(0));
      break;
    }
    const node = waiting.splice(at, 1)[0] ?? 0;
    const wish = besideNeighbours(graph, node, placeOf) ?? belowEverything(places, graph.ids);
    const spot = crowd.nearestFree(wish);
    crowd.add(spot);
    places.set(graph.ids[node] ?? "", spot);
    placed.add(node);
  }
  if (placed.size > 0) relax(graph, placed, places, pinned);
  shelve(graph, lonely, places);
}

function besideNeighbours(graph: Indexed, node: number, placeOf: (node: number) => Point | undefined): Point | null {
  let x = 0;
  let y = 0;
  let count = 0;
  const add = (others: readonly number[], offset: number): void => {
    for (const other of others) {
      const place = placeOf(other);
      if (!place) continue;
      x += place.x + offset * LINK_LENGTH * STRETCH;
      y += place.y;
      count += 1;
    }
  };
  add(graph.out[node] ?? [], -1);
  add(graph.into[node] ?? [], 1);
  return count > 0 ? { x: x / count, y: y / count } : null;
}

function belowEverything(places: Map<string, Point>, ids: readonly string[]): Point {
  const box = boxOf(ids.flatMap((id) => places.get(id) ?? []));
  return box ? { x: box.minX, y: box.minY - COMPONENT_GAP } : { x: 0, y: 0 };
}

/** New lonely nodes go to the shelf of lonely nodes, or below everything if there is none. */
function shelve(graph: Indexed, lonely: readonly number[], places: Map<string, Point>): void {
  if (lonely.length === 0) return;
  const isWaiting = new Set(lonely);
  const standing = graph.ids.filter((_, node) => !isWaiting.has(node));
  const shelf = graph.ids.flatMap((id, node) => (!isWaiting.has(node) && degree(graph, node) === 0 ? (places.get(id) ?? []) : []));
  const all = boxOf(standing.flatMap((id) => places.get(id) ?? []));
  const box = boxOf(shelf);
  const left = box?.minX ?? all?.minX ?? 0;
  const top = box?.maxY ?? (all ? all.minY - COMPONENT_GAP : 0);
  const width = Math.max((all?.maxX ?? 0) - left, GRID_X * 5);
  const across = Math.floor(width / GRID_X) + 1;
  const crowd = new Crowd();
  for (const id of standing) {
    const place = places.get(id);
    if (place) crowd.add(place);
  }
  let cell = 0;
  for (const node of lonely) {
    let spot: Point;
    do {
      spot = { x: left + (cell % across) * GRID_X, y: top - Math.floor(cell / across) * GRID_Y };
      cell += 1;
    } while (crowd.isTaken(spot));
    crowd.add(spot);
    places.set(graph.ids[node] ?? "", spot);
  }
}

/** A few gentle steps in the surroundings of new nodes. */
function relax(graph: Indexed, fresh: ReadonlySet<number>, places: Map<string, Point>, pinned: ReadonlySet<string>): void {
  const near = surroundings(graph, fresh, places);
  const before = new Map<number, Point>();
  const bodies = new Map<number, Body>();
  const yielding = new Set<number>();
  for (const node of fresh) for (const other of neighbours(graph, node)) yielding.add(other);
  for (const node of near) {
    const place = places.get(graph.ids[node] ?? "");
    if (!place) continue;
    before.set(node, place);
    const body: Body = { index: node, x: place.x / STRETCH, y: place.y, vx: 0, vy: 0, degree: Math.max(1, degree(graph, node)) };
    const stays = pinned.has(graph.ids[node] ?? "") || !(fresh.has(node) || yielding.has(node));
    if (stays) {
      body.fx = body.x;
      body.fy = body.y;
    }
    bodies.set(node, body);
  }
  const links: Link[] = [];
  for (const [node, source] of bodies) {
    for (const target of graph.out[node] ?? []) {
      const end = bodies.get(target);
      if (end && (fresh.has(node) || fresh.has(target))) links.push({ source, target: end });
    }
  }
  const simulation = simulate([...bodies.values()], links);
  // The places around were made by the same repulsion; in full it would only push newcomers out of the picture.
  simulation.force("x", null).force("y", null).force("charge", forceManyBody<Body>().strength(-110).distanceMax(LINK_LENGTH * 2));
  for (let step = 0; step < 50; step += 1) {
    simulation.alpha(0.35 * (1 - step / 50));
    simulation.tick();
  }
  for (const [node, body] of bodies) {
    const id = graph.ids[node] ?? "";
    if (body.fx !== undefined || pinned.has(id)) continue;
    const old = before.get(node) ?? { x: 0, y: 0 };
    const moved = { x: body.x * STRETCH, y: body.y };
    places.set(id, fresh.has(node) ? moved : within(old, moved, GIVE_WAY));
  }
}

/** `to`, or the point in its direction that is at most `limit` away from `from`. */
function within(from: Point, to: Point, limit: number): Point {
  const distance = Math.hypot(to.x - from.x, to.y - from.y);
  if (distance <= limit) return to;
  return { x: from.x + ((to.x - from.x) * limit) / distance, y: from.y + ((to.y - from.y) * limit) / distance };
}

/** New nodes, their neighbours, and what stands near them. */
function surroundings(graph: Indexed, fresh: ReadonlySet<number>, places: Map<string, Point>): Set<number> {
  const near = new Set(fresh);
  for (const node of fresh) for (const other of neighbours(graph, node)) near.add(other);
  const reach = LINK_LENGTH * 3;
  const cells = new Set<string>();
  const cell = (value: number): number => Math.floor(value / reach);
  for (const node of fresh) {
    const place = places.get(graph.ids[node] ?? "");
    if (!place) continue;
    for (let dx = -1; dx <= 1; dx += 1) for (let dy = -1; dy <= 1; dy += 1) cells.add(`${cell(place.x) + dx} ${cell(place.y) + dy}`);
  }
  graph.ids.forEach((id, node) => {
    const place = places.get(id);
    if (place && cells.has(`${cell(place.x)} ${cell(place.y)}`)) near.add(node);
  });
  return near;
}

/** Who stands where, to find free spots. */
class Crowd {
  private readonly cells = new Map<string, Point[]>();

  add(place: Point): void {
    const key = Crowd.key(Crowd.cell(place.x), Crowd.cell(place.y));
    const list = this.cells.get(key);
    if (list) list.push(place);
    else this.cells.set(key, [place]);
  }

  isTaken(spot: Point): boolean {
    const cx = Crowd.cell(spot.x);
    const cy = Crowd.cell(spot.y);
    for (let dx = -1; dx <= 1; dx += 1) {
      for (let dy = -1; dy <= 1; dy += 1) {
        for (const other of this.cells.get(Crowd.key(cx + dx, cy + dy)) ?? []) {
          if (Math.hypot(other.x - spot.x, other.y - spot.y) < NODE_DISTANCE) return true;
        }
      }
    }
    return false;
  }

  /** The wished spot or one on growing rings around it. */
  nearestFree(wish: Point): Point {
    if (!this.isTaken(wish)) return wish;
    for (let ring = 1; ring < 80; ring += 1) {
      const count = 6 * ring;
      for (let step = 0; step < count; step += 1) {
        const angle = (2 * Math.PI * step) / count + ring;
        const spot = { x: wish.x + Math.cos(angle) * ring * NODE_DISTANCE * 0.6, y: wish.y + Math.sin(angle) * ring * NODE_DISTANCE * 0.6 };
        if (!this.isTaken(spot)) return spot;
      }
    }
    return wish;
  }

  private static cell(value: number): number {
    return Math.floor(value / NODE_DISTANCE);
  }

  private static key(x: number, y: number): string {
    return `${x} ${y}`;
  }
}
