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
}

export interface LabelColors {
  text: string;
  muted: string;
  halo: string;
  surface: string;
  line: string;
}

const FONT = `ui-sans-serif, system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", Ubuntu, Cantarell, "DejaVu Sans", sans-serif`;
const LABEL_SIZE = 12;
const MINOR_SIZE = 10.5;
const LINE_GAP = 2;
const LABEL_LIMIT = 26;
const MINOR_LIMIT = 30;
/** Below this radius only nodes in focus are labelled. */
const SMALLEST_LABELLED = 4.5;
const SMALLEST_WITH_MINOR = 9;
const SMALLEST_WITH_ICON = 9.5;
const MOST_LABELS = 420;
const CELL = 64;

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
    context.textAlign = "center";
    context.textBaseline = "top";
    context.lineJoin = "round";

    for (const item of items) {
      if (item.icon && item.radius >= SMALLEST_WITH_ICON) drawIcon(context, item, item.icon);
      if (item.pinned) drawPin(context, item, colors);
    }
    const taken = new Taken();
    for (const item of items) taken.add(item.x - item.radius * 0.8, item.y - item.radius * 0.8, item.radius * 1.6, item.radius * 1.6, item.id);
    items.sort((a, b) => b.importance - a.importance || b.weight - a.weight || (a.id < b.id ? -1 : 1));
    let drawn = 0;
    const late: (() => void)[] = [];
    for (const item of items) {
      if (drawn >= MOST_LABELS) break;
      if (item.importance === 0 && (item.radius < SMALLEST_LABELLED || item.alpha < 0.3)) continue;
      if (item.label === "") continue;
      const box = this.measure(context, item);
      const isForced = item.importance >= 2;
      if (!isForced && taken.overlaps(box.x, box.y, box.width, box.height, item.id)) continue;
      taken.add(box.x, box.y, box.width, box.height, item.id);
      drawn += 1;
      // What is in focus is drawn last, on top.
      if (item.importance === 3) late.unshift(() => this.drawLabel(context, item, box, colors));
      else this.drawLabel(context, item, box, colors);
    }
    for (const draw of late) draw();
    context.globalAlpha = 1;
  }

  private measure(context: CanvasRenderingContext2D, item: LabelItem): Box {
    const isFull = item.importance >= 3;
    const label = isFull ? item.label : shorten(item.label, LABEL_LIMIT);
    const showsMinor = item.minor !== "" && (item.radius >= SMALLEST_WITH_MINOR || item.importance >= 2);
    const minor = showsMinor ? (isFull ? item.minor : shorten(item.minor, MINOR_LIMIT)) : "";
    const width = Math.max(this.width(context, label, true), minor ? this.width(context, minor, false) : 0) + 4;
    const height = LABEL_SIZE + (minor ? MINOR_SIZE + LINE_GAP : 0) + 3;
    return { x: item.x - width / 2, y: item.y + item.radius + 5, width, height, label, minor };
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

  private drawLabel(context: CanvasRenderingContext2D, item: LabelItem, box: Box, colors: LabelColors): void {
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
    if (item.importance !== 3) context.strokeText(box.label, item.x, box.y);
    context.fillStyle = colors.text;
    context.fillText(box.label, item.x, box.y);
    if (box.minor) {
      const y = box.y + LABEL_SIZE + LINE_GAP + 1;
      context.font = minorFont();
      if (item.importance !== 3) context.strokeText(box.minor, item.x, y);
      context.fillStyle = colors.muted;
      context.fillText(box.minor, item.x, y);
    }
  }
}

interface Box {
  x: number;
  y: number;
  width: number;
  height: number;
  label: string;
  minor: string;
}

function labelFont(): string {
  return `550 ${LABEL_SIZE}px ${FONT}`;
}

function minorFont(): string {
  return `400 ${MINOR_SIZE}px ${FONT}`;
}

/** Paths keep their end, which says more than their beginning. */
function shorten(text: string, limit: number): string {
  if (text.length <= limit) return text;
  if (text.startsWith("/")) return `…${text.slice(text.length - limit + 1)}`;
  return `${text.slice(0, limit - 1)}…`;
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

/** Rectangles that are taken, found by cell. */
class Taken {
  private readonly cells = new Map<number, { x: number; y: number; right: number; bottom: number; id: string }[]>();

  add(x: number, y: number, width: number, height: number, id: string): void {
    const box = { x, y, right: x + width, bottom: y + height, id };
    this.forCells(x, y, width, height, (key) => {
      const list = this.cells.get(key);
      if (list) list.push(box);
      else this.cells.set(key, [box]);
      return false;
    });
  }

  overlaps(x: number, y: number, width: number, height: number, id: string): boolean {
    return this.forCells(x, y, width, height, (key) =>
      (this.cells.get(key) ?? []).some((box) => box.id !== id && x < box.right && x + width > box.x && y < box.bottom && y + height > box.y),
    );
  }

  private forCells(x: number, y: number, width: number, height: number, visit: (key: number) => boolean): boolean {
    for (let cx = Math.floor(x / CELL); cx <= Math.floor((x + width) / CELL); cx += 1) {
      for (let cy = Math.floor(y / CELL); cy <= Math.floor((y + height) / CELL); cy += 1) {
        if (visit(cx * 4_096 + cy)) return true;
      }
    }
    return false;
  }
}
