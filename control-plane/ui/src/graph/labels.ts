// Labels and icons above the graph. Labels never overlap: the more important node wins, the other's label comes when there is room.

import { ICONS, type IconName } from "./icons";

export interface LabelItem {
  id: string;
  x: number;
  y: number;
  /** Radius on the screen, in pixels. */
  radius: number;
  label: string;
  minor: string;
  color: string;
  icon: IconName | null;
  alpha: number;
  /** 3 under the pointer, 2 selected, 1 belongs to the focus, 0 the rest. */
  importance: 0 | 1 | 2 | 3;
  /** Breaks ties; number of neighbours. */
  weight: number;
  pinned: boolean;
  /** What is known of it is incomplete. */
  isDoubtful: boolean;
}

export interface LabelColors {
  text: string;
  muted: string;
  halo: string;
  surface: string;
  line: string;
  warning: string;
}

const FONT = `ui-sans-serif, system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", Ubuntu, Cantarell, "DejaVu Sans", sans-serif`;
const LABEL_SIZE = 12;
const MINOR_SIZE = 10.5;
const LINE_GAP = 2;
/** Letters of a label and of the smaller line below it, from the most that are tried to the fewest that still say something. */
const LIMITS = [
  [26, 30],
  [19, 22],
  [14, 16],
  [14, 0],
  [10, 0],
] as const;
const FEWEST = LIMITS.slice(-1);
/** Below this radius only nodes in focus are labelled. */
const SMALLEST_LABELLED = 4.5;
const SMALLEST_WITH_MINOR = 9;
const SMALLEST_WITH_ICON = 9.5;
const MOST_LABELS = 420;
const CELL = 64;
/** Nodes that are fainter than this have stepped back. */
const LIT = 0.3;

export class LabelLayer {
  readonly canvas: HTMLCanvasElement;
  private readonly context: CanvasRenderingContext2D | null;
  private readonly widths = new Map<string, number>();

  constructor(container: HTMLElement) {
    this.canvas = document.createElement("canvas");
    this.canvas.className = "label-layer";
    this.canvas.setAttribute("aria-hidden", "true");
    container.appendChild(this.canvas);
    this.context = this.canvas.getContext("2d");
  }

  draw(items: LabelItem[], width: number, height: number, colors: LabelColors): void {
    const context = this.context;
    if (!context) return;
    const ratio = window.devicePixelRatio || 1;
    if (this.canvas.width !== Math.round(width * ratio) || this.canvas.height !== Math.round(height * ratio)) {
      this.canvas.width = Math.round(width * ratio);
      this.canvas.height = Math.round(height * ratio);
    }
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    context.textBaseline = "top";
    context.lineJoin = "round";

    const taken = new Taken();
    for (const item of items) {
      if (item.icon && item.radius >= SMALLEST_WITH_ICON) drawIcon(context, item, item.icon);
      if (item.pinned) drawPin(context, item, colors);
      if (item.isDoubtful) drawWarning(context, item, colors);
      // What has stepped back may be written over.
      const side = item.radius * 0.85;
      if (item.alpha >= LIT) taken.add({ x: item.x - side, y: item.y - side, width: side * 2, height: side * 2 }, item.id);
    }
    items.sort((a, b) => b.importance - a.importance || b.weight - a.weight || (a.id < b.id ? -1 : 1));
    let drawn = 0;
    let top: (() => void) | null = null;
    const lonely: LabelItem[] = [];
    for (const item of items) {
      if (drawn >= MOST_LABELS) break;
      if (item.importance === 0 && (item.radius < SMALLEST_LABELLED || item.alpha < LIT)) continue;
      if (item.label === "") continue;
      const placed = this.place(context, item, taken, width, isLonely(item) ? FEWEST : LIMITS);
      if (placed === null) continue;
      taken.add(placed, item.id);
      drawn += 1;
      if (isLonely(item)) {
        lonely.push(item);
        continue;
      }
      // What is under the pointer is drawn last, on top.
      if (item.importance === 3) top = () => this.drawLabel(context, item, placed, colors);
      else this.drawLabel(context, item, placed, colors);
    }
    // None of a row is worth more than the next: each has room for a short name, and only then a long one spreads.
    for (const item of lonely) {
      const placed = this.place(context, item, taken, width, LIMITS);
      if (placed === null) continue;
      taken.add(placed, item.id);
      this.drawLabel(context, item, placed, colors);
    }
    top?.();
    context.globalAlpha = 1;
  }

  /** Where there is room for it, the shorter the less there is; `null` if nowhere. */
  private place(context: CanvasRenderingContext2D, item: LabelItem, taken: Taken, viewportWidth: number, limits: readonly (readonly [number, number])[]): PlacedLabel | null {
    let before: string | null = null;
    for (const [limit, minorLimit] of limits) {
      const isFull = item.importance >= 3;
      const showsMinor = item.minor !== "" && (item.radius >= SMALLEST_WITH_MINOR || item.importance >= 2);
      const label = isFull ? item.label : shorten(item.label, limit);
      const minor = !showsMinor || minorLimit === 0 ? "" : isFull ? item.minor : shorten(item.minor, minorLimit);
      // What is short already gets no shorter.
      if (before === `${label}\n${minor}`) continue;
      before = `${label}\n${minor}`;
      const placed = this.placeText(context, item, label, minor, taken, viewportWidth);
      if (placed !== null) return placed;
    }
    return null;
  }

  /** Below the node if there is room, else beside or above it; `null` if nowhere. */
  private placeText(context: CanvasRenderingContext2D, item: LabelItem, label: string, minor: string, taken: Taken, viewportWidth: number): PlacedLabel | null {
    const width = Math.max(this.width(context, label, true), minor ? this.width(context, minor, false) : 0) + 4;
    const height = LABEL_SIZE + (minor ? MINOR_SIZE + LINE_GAP : 0) + 3;
    const gap = item.importance >= 2 ? item.radius * 1.42 + 5 : item.radius + (item.importance === 1 ? 8 : 5);
    const below: PlacedLabel = { x: item.x - width / 2, y: item.y + gap, width, height, label, minor, align: "center" };
    if (item.importance >= 2) return below;
    // Lonely nodes stand in rows; a label beside one would look like the heading of its row.
    if (isLonely(item)) return taken.overlaps(below, item.id) ? null : below;
    const choices: PlacedLabel[] = [
      below,
      { ...below, x: item.x + gap, y: item.y - height / 2, align: "left" },
      { ...below, y: item.y - gap - height },
      { ...below, x: item.x - gap - width, y: item.y - height / 2, align: "right" },
    ];
    const isInside = (choice: Box): boolean => choice.x >= 2 && choice.x + choice.width <= viewportWidth - 2;
    return choices.find((choice) => (choice === below || isInside(choice)) && !taken.overlaps(choice, item.id)) ?? null;
  }

  private width(context: CanvasRenderingContext2D, text: string, isLabel: boolean): number {
    const key = (isLabel ? "l" : "m") + text;
    let width = this.widths.get(key);
    if (width === undefined) {
      context.font = isLabel ? labelFont() : minorFont();
      width = context.measureText(text).width;
      if (this.widths.size > 20_000) this.widths.clear();
      this.widths.set(key, width);
    }
    return width;
  }

  private drawLabel(context: CanvasRenderingContext2D, item: LabelItem, box: PlacedLabel, colors: LabelColors): void {
    const x = box.align === "center" ? box.x + box.width / 2 : box.align === "left" ? box.x : box.x + box.width;
    context.textAlign = box.align;
    context.globalAlpha = item.alpha;
    if (item.importance === 3) {
      context.fillStyle = colors.surface;
      context.strokeStyle = colors.line;
      context.lineWidth = 1;
      context.beginPath();
      context.roundRect(Math.round(box.x - 6) + 0.5, Math.round(box.y - 3) + 0.5, Math.round(box.width + 12), Math.round(box.height + 7), 6);
      context.fill();
      context.stroke();
    }
    context.strokeStyle = colors.halo;
    context.lineWidth = 3.5;
    context.font = labelFont();
    if (item.importance !== 3) context.strokeText(box.label, x, box.y);
    context.fillStyle = colors.text;
    context.fillText(box.label, x, box.y);
    if (box.minor) {
      const y = box.y + LABEL_SIZE + LINE_GAP + 1;
      context.font = minorFont();
      if (item.importance !== 3) context.strokeText(box.minor, x, y);
      context.fillStyle = colors.muted;
      context.fillText(box.minor, x, y);
    }
  }
}

/** Connected with nothing, and in no focus. */
function isLonely(item: LabelItem): boolean {
  return item.weight === 0 && item.importance === 0;
}

interface Box {
  x: number;
  y: number;
  width: number;
  height: number;
}

interface PlacedLabel extends Box {
  label: string;
  minor: string;
  align: "center" | "left" | "right";
}

function labelFont(): string {
  return `550 ${LABEL_SIZE}px ${FONT}`;
}

function minorFont(): string {
  return `400 ${MINOR_SIZE}px ${FONT}`;
}

/** Of a path to a program the last part says what it is; the rest is shown under the pointer. */
function shorten(text: string, limit: number): string {
  const last = text.startsWith("/") ? text.slice(text.lastIndexOf("/") + 1) : "";
  const short = last === "" ? text : last;
  return short.length <= limit ? short : `${short.slice(0, limit - 1)}…`;
}

function drawIcon(context: CanvasRenderingContext2D, item: LabelItem, name: IconName): void {
  const size = item.radius * 0.92;
  context.save();
  context.translate(item.x - size / 2, item.y - size / 2);
  context.scale(size / 24, size / 24);
  context.globalAlpha = item.alpha;
  context.strokeStyle = item.color;
  context.lineWidth = 2;
  context.lineCap = "round";
  context.stroke(ICONS[name]);
  context.restore();
}

function drawPin(context: CanvasRenderingContext2D, item: LabelItem, colors: LabelColors): void {
  context.globalAlpha = item.alpha;
  context.fillStyle = colors.text;
  context.strokeStyle = colors.halo;
  context.lineWidth = 2;
  context.beginPath();
  context.arc(item.x + item.radius * 0.75, item.y - item.radius * 0.75, 3.2, 0, Math.PI * 2);
  context.stroke();
  context.fill();
}

function drawWarning(context: CanvasRenderingContext2D, item: LabelItem, colors: LabelColors): void {
  const x = item.x + item.radius * 0.78;
  const y = item.y - item.radius * 0.72;
  const size = Math.max(5, Math.min(8, item.radius * 0.36));
  context.globalAlpha = item.alpha;
  context.fillStyle = colors.warning;
  context.strokeStyle = colors.halo;
  context.lineWidth = 2.5;
  context.beginPath();
  context.moveTo(x, y - size);
  context.lineTo(x + size, y + size * 0.8);
  context.lineTo(x - size, y + size * 0.8);
  context.closePath();
  context.stroke();
  context.fill();
}

/** Rectangles that are taken, found by cell. */
class Taken {
  private readonly cells = new Map<number, (Box & { id: string })[]>();

  add(box: Box, id: string): void {
    const owned = { x: box.x, y: box.y, width: box.width, height: box.height, id };
    this.someCell(box, (key) => {
      const list = this.cells.get(key);
      if (list) list.push(owned);
      else this.cells.set(key, [owned]);
      return false;
    });
  }

  /** Whether something else stands there already. */
  overlaps(box: Box, id: string): boolean {
    return this.someCell(box, (key) =>
      (this.cells.get(key) ?? []).some(
        (other) =>
          other.id !== id && box.x < other.x + other.width && box.x + box.width > other.x && box.y < other.y + other.height && box.y + box.height > other.y,
      ),
    );
  }

  private someCell(box: Box, visit: (key: number) => boolean): boolean {
    for (let cx = Math.floor(box.x / CELL); cx <= Math.floor((box.x + box.width) / CELL); cx += 1) {
      for (let cy = Math.floor(box.y / CELL); cy <= Math.floor((box.y + box.height) / CELL); cy += 1) {
        if (visit(cx * 4_096 + cy)) return true;
      }
    }
    return false;
  }
}
