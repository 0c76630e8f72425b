// The live graph: keeps the drawn graph equal to the data, the positions to the worker's layout, and the looks to what is in focus.

import Graph from "graphology";
import Sigma from "sigma";
import type { NodeSummary } from "../api/types";
import { heatColor, mix, rankColor, type Theme } from "../model/color";
import { degreesOf, edgesOf, type Degree, type NodeMap } from "../model/delta";
import { heatLevel, type HeatScale } from "../model/metrics";
import { RibbonProgram } from "./edgeProgram";
import { iconOf } from "./icons";
import { LabelLayer, type LabelColors, type LabelItem } from "./labels";
import type { Point } from "./layout";
import type { LayoutReply, LayoutRequest } from "./layout.worker";
import LayoutWorker from "./layout.worker?worker";
import { SHAPE_NUMBER, ShapeProgram, type NodeLook } from "./nodeProgram";

/** Half of the plane that the camera's ratio 1 shows. It never changes, so positions mean the same in every picture. */
const HALF_PLANE = 500;
/** Radius of a node in the plane, and its limits on the screen. */
const NODE_RADIUS = 24;
const SMALLEST_RADIUS_PX = 2.4;
const LARGEST_RADIUS_PX = 30;
const CLOSEST_SCALE = 1.05;
const MOVE_MS = 480;
const MOST_ANIMATED = 3_000;

interface ThemeColors extends LabelColors {
  fill: string;
  edge: string;
  outgoing: string;
  incoming: string;
  selected: string;
  match: string;
}

const COLORS: Readonly<Record<Theme, ThemeColors>> = {
  dark: {
    fill: "#121a28",
    edge: "#5b6d88",
    outgoing: "#6aa8ff",
    incoming: "#4fd1a5",
    selected: "#6aa8ff",
    match: "#ffc44d",
    text: "#e8eef7",
    muted: "#8d9db5",
    halo: "#0b111b",
    surface: "#1a2435",
    line: "#33435c",
    warning: "#f5b94a",
  },
  light: {
    fill: "#ffffff",
    edge: "#93a1b5",
    outgoing: "#1d63dc",
    incoming: "#0b8a63",
    selected: "#1d63dc",
    match: "#d97706",
    text: "#142033",
    muted: "#5a6b82",
    halo: "#f4f7fb",
    surface: "#ffffff",
    line: "#cbd5e3",
    warning: "#d98a00",
  },
};

/** What stands out and what steps back. */
export interface Emphasis {
  selected: string | null;
  matches: ReadonlySet<string> | null;
  heat: HeatScale | null;
  /** Nodes that are known incompletely. */
  doubtful: ReadonlySet<string>;
}

export interface SceneEvents {
  onSelect(id: string): void;
  onClear(): void;
  onBusy(busy: boolean): void;
}

interface ViewCamera {
  x: number;
  y: number;
  ratio: number;
  isByUser: boolean;
}

type NodeAttributes = NodeLook & { x: number; y: number; size: number; color: string; type: string; label: null };
type EdgeAttributes = { size: number; color: string; alpha: number; type: string };

export class GraphScene {
  private readonly graph = new Graph<NodeAttributes, EdgeAttributes>({ type: "directed", multi: false, allowSelfLoops: false });
  private readonly sigma: Sigma<NodeAttributes, EdgeAttributes>;
  private readonly labels: LabelLayer;
  private readonly worker: Worker;
  private readonly cameras = new Map<string, ViewCamera>();
  private readonly resizing: ResizeObserver;

  private view = "";
  private nodes: NodeMap = new Map();
  private degrees = new Map<string, Degree>();
  private places = new Map<string, Point>();
  private readonly pinned = new Set<string>();
  /** A request is with the worker; what comes meanwhile waits, and only the newest picture is sent then. */
  private isLayoutRunning = false;
  private isLayoutDue = false;
  private emphasis: Emphasis = { selected: null, matches: null, heat: null, doubtful: new Set() };
  private theme: Theme = "dark";
  private hovered: string | null = null;
  private movement: number | null = null;
  private dragged: { id: string; hasMoved: boolean; start: Point } | null = null;
  private isByUser = false;
  /** Pixels on the right that a panel covers. */
  private coveredRight = 0;
  private isDestroyed = false;
  /** Whether everything that is drawn has its place in the renderer's buffers; only then can looks be changed alone. */
  private isIndexed = false;

  constructor(
    private readonly container: HTMLElement,
    private readonly events: SceneEvents,
  ) {
    this.sigma = new Sigma(this.graph, container, {
      allowInvalidContainer: true,
      autoCenter: true,
      autoRescale: true,
      defaultEdgeType: "ribbon",
      defaultNodeType: "shape",
      doubleClickZoomingRatio: 1,
      edgeProgramClasses: { ribbon: RibbonProgram as never },
      enableCameraRotation: false,
      enableEdgeEvents: false,
      inertiaDuration: 160,
      inertiaRatio: 2,
      itemSizesReference: "screen",
      maxCameraRatio: 60,
      minCameraRatio: 0.05,
      nodeProgramClasses: { shape: ShapeProgram as never },
      nodeHoverProgramClasses: { shape: ShapeProgram as never },
      renderEdgeLabels: false,
      renderLabels: false,
      stagePadding: 0,
      zIndex: false,
      zoomToSizeRatioFunction: (ratio) => NODE_RADIUS / this.radiusOnScreen(ratio),
      defaultDrawNodeHover: () => undefined,
    });
    // Sigma would read pixels back to find the node under the pointer, which stalls slow and software GPUs. Private in its types only.
    (this.sigma as unknown as { getNodeAtPosition(place: Point): string | null }).getNodeAtPosition = (place) => this.nodeAt(place);
    this.sigma.setCustomBBox({ x: [-HALF_PLANE, HALF_PLANE], y: [-HALF_PLANE, HALF_PLANE] });
    this.labels = new LabelLayer(container);
    // Layers that nothing is drawn on would still be composited.
    const canvases = this.sigma.getCanvases();
    for (const layer of ["edgeLabels", "labels", "hovers", "hoverNodes"]) canvases[layer]?.style.setProperty("display", "none");
    this.worker = new LayoutWorker();
    this.worker.onmessage = (event: MessageEvent<LayoutReply>) => this.onLayout(event.data);
    this.sigma.on("afterProcess", () => (this.isIndexed = true));
    this.sigma.on("afterRender", () => this.drawLabels());
    this.bindPointer();
    this.resizing = new ResizeObserver(() => {
      this.sigma.resize();
      this.sigma.scheduleRender();
      if (!this.isByUser) this.fit(false);
    });
    this.resizing.observe(container);
  }

  destroy(): void {
    this.isDestroyed = true;
    this.resizing.disconnect();
    if (this.movement !== null) cancelAnimationFrame(this.movement);
    this.worker.terminate();
    this.sigma.kill();
    this.labels.canvas.remove();
  }

  setTheme(theme: Theme): void {
    this.theme = theme;
    this.applyLooks();
  }

  setCoveredRight(pixels: number): void {
    if (this.coveredRight === pixels) return;
    this.coveredRight = pixels;
    if (!this.isByUser) this.fit(true);
  }

  /** Shows a picture. `view` names the map that its places belong to. */
  setPicture(view: string, nodes: NodeMap, structureChanged: boolean): void {
    const isOther = view !== this.view;
    if (isOther) this.changeView(view);
    this.nodes = nodes;
    if (isOther || structureChanged) {
      this.degrees = degreesOf(nodes);
      this.requestLayout();
    } else {
      this.applyLooks();
    }
  }

  /** Takes the picture away, until another one is shown: its nodes belong to a view that nobody looks at. */
  leave(): void {
    if (this.view === "") return;
    this.changeView("");
    this.nodes = new Map();
    this.degrees = new Map();
    this.isLayoutDue = false;
    this.redraw("everything");
  }

  setEmphasis(emphasis: Emphasis): void {
    this.emphasis = emphasis;
    this.applyLooks();
  }

  /** Positions of what is drawn, in the plane. */
  positions(): Record<string, Point> {
    const result: Record<string, Point> = {};
    this.graph.forEachNode((id, { x, y }) => {
      result[id] = { x, y };
    });
    return result;
  }

  /** Where a drawn node is inside of the container, in pixels. */
  onScreen(id: string): Point | null {
    if (!this.graph.hasNode(id)) return null;
    const { x, y } = this.graph.getNodeAttributes(id);
    return this.sigma.graphToViewport({ x, y });
  }

  /** Lays out everything anew and forgets pins. */
  arrange(): void {
    this.pinned.clear();
    this.isByUser = false;
    this.isLayoutRunning = true;
    this.events.onBusy(true);
    this.post({ kind: "arrange", view: this.view });
  }

  zoom(factor: number): void {
    this.isByUser = true;
    const camera = this.sigma.getCamera();
    void camera.animate({ ratio: camera.getBoundedRatio(camera.ratio / factor) }, { duration: 180 });
  }

  fit(isAnimated: boolean): void {
    const target = this.fittingCamera();
    if (!target) return;
    this.isByUser = false;
    const camera = this.sigma.getCamera();
    if (isAnimated && !prefersReducedMotion()) void camera.animate(target, { duration: 320, easing: "quadraticInOut" });
    else camera.setState(target);
  }

  /** Brings a node to the middle, if it is not comfortably visible already. */
  reveal(id: string): void {
    const place = this.onScreen(id);
    if (!place) return;
    const { width, height } = this.sigma.getDimensions();
    const right = width - this.coveredRight;
    const isVisible = place.x > 60 && place.x < right - 60 && place.y > 50 && place.y < height - 70;
    if (isVisible) return;
    const camera = this.sigma.getCamera();
    const middle = this.sigma.viewportToFramedGraph({ x: place.x + this.coveredRight / 2, y: place.y });
    void camera.animate({ x: middle.x, y: middle.y }, { duration: prefersReducedMotion() ? 1 : 320 });
  }

  /** Keyboard: goes to the nearest node in a direction and puts the focus there. */
  step(dx: -1 | 0 | 1, dy: -1 | 0 | 1): string | null {
    const from = this.hovered ?? this.emphasis.selected;
    const start = from !== null && this.graph.hasNode(from) ? this.graph.getNodeAttributes(from) : null;
    let best: string | null = null;
    let bestCost = Number.POSITIVE_INFINITY;
    this.graph.forEachNode((id, at) => {
      if (id === from) return;
      const ex = at.x - (start?.x ?? 0);
      const ey = at.y - (start?.y ?? 0);
      const forward = start ? ex * dx + ey * dy : 1;
      const aside = start ? Math.abs(ex * dy) + Math.abs(ey * dx) : Math.hypot(ex, ey);
      const cost = forward + aside * 2.2;
      if (forward > 1e-3 && cost < bestCost) {
        best = id;
        bestCost = cost;
      }
    });
    if (best !== null) {
      this.hover(best);
      this.reveal(best);
    }
    return best;
  }

  hoveredNode(): string | null {
    return this.hovered;
  }

  hover(id: string | null): void {
    if (this.hovered === id) return;
    this.hovered = id;
    this.container.style.cursor = id === null ? "" : "pointer";
    this.applyLooks();
  }

  private requestLayout(): void {
    this.isLayoutDue = this.isLayoutRunning;
    if (this.isLayoutRunning) return;
    this.isLayoutRunning = true;
    this.events.onBusy(true);
    this.post({ kind: "update", view: this.view, input: { nodes: this.inOrder(), edges: edgesOf(this.nodes) } });
  }

  /** Ids by kind and name: nodes that are placed one after the other then stand with their like. */
  private inOrder(): string[] {
    const list = [...this.nodes.values()];
    const order = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);
    return list.sort((a, b) => order(a.rank, b.rank) || order(a.label, b.label) || order(a.id, b.id)).map((node) => node.id);
  }

  /** The topmost node whose shape, or a finger's width around its middle, covers a place on the screen. */
  private nodeAt(place: Point): string | null {
    const at = this.sigma.viewportToGraph(place);
    const scale = this.sigma.getGraphToViewportRatio();
    let found: string | null = null;
    let nearest = Number.POSITIVE_INFINITY;
    this.graph.forEachNode((id, { x, y, size }) => {
      const reach = Math.max(this.sigma.scaleSize(size) * 1.05, 6) / scale;
      const distance = Math.max(Math.abs(x - at.x), Math.abs(y - at.y));
      if (distance < reach && distance < nearest) {
        found = id;
        nearest = distance;
      }
    });
    return found;
  }

  private post(request: LayoutRequest): void {
    this.worker.postMessage(request);
  }

  private changeView(view: string): void {
    if (this.view) this.cameras.set(this.view, { ...this.sigma.getCamera().getState(), isByUser: this.isByUser });
    this.view = view;
    this.hovered = null;
    this.places = new Map();
    this.pinned.clear();
    this.graph.clear();
    this.isIndexed = false;
    const camera = this.cameras.get(view);
    this.isByUser = camera?.isByUser ?? false;
    if (camera) this.sigma.getCamera().setState({ x: camera.x, y: camera.y, ratio: camera.ratio });
  }

  private onLayout(reply: LayoutReply): void {
    if (this.isDestroyed) return;
    this.isLayoutRunning = false;
    if (this.isLayoutDue) this.requestLayout();
    else this.events.onBusy(false);
    if (reply.view !== this.view) return;
    const isFirst = this.places.size === 0;
    const targets = new Map<string, Point>();
    reply.ids.forEach((id, index) => {
      targets.set(id, { x: reply.xy[2 * index] ?? 0, y: reply.xy[2 * index + 1] ?? 0 });
    });
    this.places = targets;
    this.syncGraph();
    this.applyLooks();
    this.moveToPlaces(isFirst || reply.ids.length > MOST_ANIMATED || prefersReducedMotion());
    if (!this.isByUser) this.keepInSight(isFirst || reply.step === "full");
  }

  /** Makes the drawn graph equal to the data, as far as places are known. */
  private syncGraph(): void {
    const graph = this.graph;
    graph.forEachNode((id) => {
      if (!this.nodes.has(id)) graph.dropNode(id);
    });
    for (const [id] of this.nodes) {
      const place = this.places.get(id);
      if (!place || graph.hasNode(id)) continue;
      const start = this.startingPoint(id) ?? place;
      graph.addNode(id, { ...PLAIN_NODE, x: start.x, y: start.y });
    }
    const wanted = new Set<string>();
    for (const [source, target] of edgesOf(this.nodes)) {
      if (source === target || !graph.hasNode(source) || !graph.hasNode(target)) continue;
      const key = `${source}\u0000${target}`;
      wanted.add(key);
      if (!graph.hasEdge(key)) graph.addEdgeWithKey(key, source, target, { ...PLAIN_EDGE });
    }
    graph.forEachEdge((key) => {
      if (!wanted.has(key)) graph.dropEdge(key);
    });
    if (this.hovered !== null && !graph.hasNode(this.hovered)) this.hovered = null;
    this.isIndexed = false;
  }

  /** Draws again at the next frame. Attributes are written in place, without an event for each, so the renderer must be told. */
  private redraw(what: "looks" | "everything"): void {
    if (what === "looks" && this.isIndexed) {
      this.sigma.refresh({ partialGraph: { nodes: this.graph.nodes(), edges: this.graph.edges() }, skipIndexation: true, schedule: true });
    } else {
      this.isIndexed = false;
      this.sigma.refresh({ schedule: true });
    }
  }

  /** New nodes grow out of a neighbour that is already drawn. */
  private startingPoint(id: string): Point | null {
    if (this.graph.order === 0) return null;
    const own = this.nodes.get(id)?.adjacency ?? [];
    for (const other of own) {
      if (other !== id && this.graph.hasNode(other)) return this.graph.getNodeAttributes(other);
    }
    return null;
  }

  private moveToPlaces(atOnce: boolean): void {
    if (this.movement !== null) cancelAnimationFrame(this.movement);
    this.movement = null;
    const moves: { id: string; from: Point; to: Point }[] = [];
    this.graph.forEachNode((id, { x, y }) => {
      const to = this.places.get(id);
      if (to && (Math.abs(to.x - x) > 0.01 || Math.abs(to.y - y) > 0.01) && id !== this.dragged?.id) moves.push({ id, from: { x, y }, to });
    });
    if (moves.length === 0) return;
    const byId = new Map(moves.map((move) => [move.id, move]));
    const apply = (share: number): void => {
      this.graph.forEachNode((id, attributes) => {
        const move = byId.get(id);
        if (!move || id === this.dragged?.id) return;
        attributes.x = move.from.x + (move.to.x - move.from.x) * share;
        attributes.y = move.from.y + (move.to.y - move.from.y) * share;
      });
      this.redraw("everything");
    };
    if (atOnce) {
      apply(1);
      return;
    }
    const start = performance.now();
    const frame = (now: number): void => {
      const share = Math.min(1, (now - start) / MOVE_MS);
      apply(1 - (1 - share) ** 3);
      this.movement = share < 1 ? requestAnimationFrame(frame) : null;
    };
    this.movement = requestAnimationFrame(frame);
  }

  /** Zooms out when something left the screen, and fits after a new layout. */
  private keepInSight(isNew: boolean): void {
    const target = this.fittingCamera();
    if (!target) return;
    const camera = this.sigma.getCamera();
    const now = camera.getState();
    const isFar = now.ratio > target.ratio * 1.6 || now.ratio < target.ratio * 0.98 || Math.hypot(now.x - target.x, now.y - target.y) > target.ratio * 0.2;
    if (isNew || isFar) this.fit(!isNew || this.graph.order < 3);
  }

  private fittingCamera(): { x: number; y: number; ratio: number } | null {
    const { width, height } = this.sigma.getDimensions();
    let [minX, minY, maxX, maxY] = [Infinity, Infinity, -Infinity, -Infinity];
    for (const [id, { x, y }] of this.places) {
      if (!this.nodes.has(id)) continue;
      minX = Math.min(minX, x);
      maxX = Math.max(maxX, x);
      minY = Math.min(minY, y);
      maxY = Math.max(maxY, y);
    }
    if (minX === Infinity || width === 0 || height === 0) return null;
    const unit = Math.min(width, height) / (2 * HALF_PLANE);
    const free = Math.max(200, width - this.coveredRight);
    const ratio = Math.max(
      ((maxX - minX) * unit) / Math.max(80, free - 170),
      ((maxY - minY) * unit) / Math.max(80, height - 150),
      unit / CLOSEST_SCALE,
    );
    const scale = unit / ratio;
    const centreX = (minX + maxX) / 2 + this.coveredRight / 2 / scale;
    // Labels hang below the nodes.
    const centreY = (minY + maxY) / 2 - 12 / scale;
    return { x: 0.5 + centreX / (2 * HALF_PLANE), y: 0.5 + centreY / (2 * HALF_PLANE), ratio };
  }

  private radiusOnScreen(ratio: number): number {
    const { width, height } = this.sigma?.getDimensions() ?? { width: 1_000, height: 1_000 };
    const scale = Math.min(width, height) / (2 * HALF_PLANE) / ratio;
    return Math.min(LARGEST_RADIUS_PX, Math.max(SMALLEST_RADIUS_PX, NODE_RADIUS * scale));
  }

  /** Who is in focus: the node under the pointer or the selected one, and its neighbours. */
  private focus(): { centre: string; near: Set<string>; isHover: boolean } | null {
    const centre = this.hovered ?? this.emphasis.selected;
    if (centre === null || !this.graph.hasNode(centre)) return null;
    const near = new Set(this.graph.neighbors(centre));
    near.add(centre);
    return { centre, near, isHover: this.hovered !== null };
  }

  private applyLooks(): void {
    const colors = COLORS[this.theme];
    const { selected, matches, heat } = this.emphasis;
    const focus = this.focus();
    const stepBack = focus?.isHover ? 0.16 : 0.26;
    this.graph.forEachNode((id, attributes) => {
        const node = this.nodes.get(id);
        if (!node) return;
        const isNear = focus === null || focus.near.has(id);
        const isMatch = matches === null || matches.has(id);
        const isLit = (focus !== null && isNear) || (focus === null && isMatch) || (focus !== null && !focus.isHover && isMatch && matches !== null);
        this.paint(attributes, node, heat, colors);
        attributes.alpha = isLit ? 1 : stepBack;
        attributes.ring = id === selected ? 2 : id === this.hovered || (matches !== null && isMatch) ? 1 : 0;
        attributes.ringColor = id === selected || id === this.hovered ? colors.selected : colors.match;
    });
    const isDense = this.graph.size > 1_500;
    this.graph.forEachEdge((_key, attributes, source, target) => {
        const isOut = focus !== null && source === focus.centre;
        const isIn = focus !== null && target === focus.centre;
        const isLit = isOut || isIn;
        attributes.color = isOut ? colors.outgoing : isIn ? colors.incoming : colors.edge;
        attributes.size = isLit ? 2.2 : isDense ? 1 : 1.4;
        const isDimmed = focus !== null || (matches !== null && !(matches.has(source) && matches.has(target)));
        attributes.alpha = isLit ? 0.95 : isDimmed ? 0.1 : isDense ? 0.34 : 0.6;
    });
    this.redraw("looks");
  }

  private paint(attributes: NodeAttributes, node: NodeSummary, heat: HeatScale | null, colors: ThemeColors): void {
    const color = rankColor(node.rank, node.pseudo === true, this.theme);
    const level = heat ? heatLevel(node, heat) : null;
    attributes.shapeNumber = SHAPE_NUMBER[node.shape ?? "circle"] ?? 0;
    attributes.stack = node.stack === true;
    attributes.color = heat && level === null ? mix(color, colors.edge, 0.7) : color;
    attributes.fill = mix(colors.fill, color, this.theme === "dark" ? 0.16 : 0.08);
    attributes.level = level ?? -1;
    attributes.heat = heatColor(level ?? 0, this.theme, heat?.format === "percent");
    attributes.size = node.shape === "cloud" ? NODE_RADIUS * 1.28 : node.pseudo ? NODE_RADIUS * 0.9 : NODE_RADIUS;
  }

  private drawLabels(): void {
    const { width, height } = this.sigma.getDimensions();
    const focus = this.focus();
    const items: LabelItem[] = [];
    this.graph.forEachNode((id, attributes) => {
      const node = this.nodes.get(id);
      if (!node) return;
      const at = this.sigma.graphToViewport(attributes);
      if (at.x < -80 || at.x > width + 80 || at.y < -60 || at.y > height + 30) return;
      const degree = this.degrees.get(id);
      const isMatch = this.emphasis.matches?.has(id) ?? false;
      const importance = id === this.hovered ? 3 : id === this.emphasis.selected ? 2 : focus?.near.has(id) || isMatch ? 1 : 0;
      items.push({
        id,
        x: at.x,
        y: at.y,
        radius: this.sigma.scaleSize(attributes.size),
        label: node.label,
        minor: node.labelMinor,
        color: attributes.color,
        // On a level the drawing would be hard to see.
        icon: this.emphasis.heat === null ? iconOf(node.shape) : null,
        alpha: attributes.alpha,
        importance,
        weight: (degree?.incoming ?? 0) + (degree?.outgoing ?? 0),
        pinned: this.pinned.has(id),
        isDoubtful: this.emphasis.doubtful.has(id),
      });
    });
    this.labels.draw(items, width, height, COLORS[this.theme]);
  }

  private bindPointer(): void {
    const sigma = this.sigma;
    sigma.on("enterNode", ({ node }) => {
      if (!this.dragged) this.hover(node);
    });
    sigma.on("leaveNode", () => {
      if (!this.dragged) this.hover(null);
    });
    sigma.on("wheelStage", () => (this.isByUser = true));
    sigma.on("wheelNode", () => (this.isByUser = true));
    sigma.on("downStage", () => (this.isByUser = true));
    sigma.on("doubleClickStage", (payload) => payload.preventSigmaDefault());
    sigma.on("doubleClickNode", (payload) => {
      payload.preventSigmaDefault();
      this.pinned.delete(payload.node);
      this.post({ kind: "unpin", view: this.view, id: payload.node });
      sigma.scheduleRender();
    });
    sigma.on("downNode", ({ node, event }) => {
      this.dragged = { id: node, hasMoved: false, start: { x: event.x, y: event.y } };
    });
    sigma.on("moveBody", ({ event }) => this.drag(event));
    const release = (): void => this.release();
    sigma.on("upNode", release);
    sigma.on("upStage", release);
    sigma.getMouseCaptor().on("mouseup", release);
    let wasDrag = false;
    sigma.getMouseCaptor().on("mousedown", () => (wasDrag = false));
    sigma.on("moveBody", () => {
      if (this.dragged?.hasMoved) wasDrag = true;
    });
    sigma.on("clickNode", ({ node }) => {
      if (!wasDrag) this.events.onSelect(node);
    });
    sigma.on("clickStage", () => this.events.onClear());
  }

  private drag(event: { x: number; y: number; preventSigmaDefault(): void; original: Event }): void {
    const dragged = this.dragged;
    if (!dragged || !this.graph.hasNode(dragged.id)) return;
    if (!dragged.hasMoved && Math.hypot(event.x - dragged.start.x, event.y - dragged.start.y) < 4) {
      event.preventSigmaDefault();
      return;
    }
    dragged.hasMoved = true;
    const place = this.sigma.viewportToGraph(event);
    this.graph.mergeNodeAttributes(dragged.id, place);
    event.preventSigmaDefault();
    event.original.preventDefault();
    event.original.stopPropagation();
  }

  private release(): void {
    const dragged = this.dragged;
    this.dragged = null;
    if (!dragged?.hasMoved || !this.graph.hasNode(dragged.id)) return;
    const { x, y } = this.graph.getNodeAttributes(dragged.id);
    this.isByUser = true;
    this.pinned.add(dragged.id);
    this.places.set(dragged.id, { x, y });
    this.post({ kind: "pin", view: this.view, id: dragged.id, place: { x, y } });
    this.sigma.scheduleRender();
  }
}

const PLAIN_NODE: Omit<NodeAttributes, "x" | "y"> = {
  size: NODE_RADIUS,
  color: "#888888",
  fill: "#888888",
  heat: "#888888",
  level: -1,
  stack: false,
  ring: 0,
  ringColor: "#888888",
  alpha: 1,
  shapeNumber: 0,
  type: "shape",
  label: null,
};

const PLAIN_EDGE: EdgeAttributes = { size: 1.4, color: "#888888", alpha: 0.6, type: "ribbon" };

function prefersReducedMotion(): boolean {
  return window.matchMedia("(prefers-reduced-motion: reduce)").matches;
}

/** Whether this browser can draw the graph at all. */
export function hasWebGl(): boolean {
  try {
    const canvas = document.createElement("canvas");
    return (canvas.getContext("webgl2") ?? canvas.getContext("webgl")) !== null;
  } catch {
    return false;
  }
}
