import { Layout, type LayoutInput, type Point } from "./layout";

/** What the page asks of the worker. */
export type LayoutRequest =
  | { kind: "update"; view: string; input: LayoutInput }
  | { kind: "arrange"; view: string }
  | { kind: "pin"; view: string; id: string; place: Point }
  | { kind: "unpin"; view: string; id: string };

/** Positions of all shown nodes: `xy[2 * i]` and `xy[2 * i + 1]` belong to `ids[i]`. */
export interface LayoutReply {
  view: string;
  ids: string[];
  xy: Float32Array;
  step: "incremental" | "full" | "none";
  final: boolean;
}

/** Every view keeps its own map, so that coming back to it shows the same picture. */
const layouts = new Map<string, Layout>();
const VIEWS_KEPT = 12;

function layoutOf(view: string): Layout {
  let layout = layouts.get(view);
  if (!layout) {
    layout = new Layout();
    layouts.set(view, layout);
    const oldest = layouts.keys().next().value;
    if (layouts.size > VIEWS_KEPT && oldest !== undefined) layouts.delete(oldest);
  }
  return layout;
}

function reply(view: string, layout: Layout, step: LayoutReply["step"], final: boolean): void {
  const positions = layout.positions();
  const ids = [...positions.keys()];
  const xy = new Float32Array(ids.length * 2);
  let at = 0;
  for (const { x, y } of positions.values()) {
    xy[at] = x;
    xy[at + 1] = y;
    at += 2;
  }
  const message: LayoutReply = { view, ids, xy, step, final };
  (self as unknown as { postMessage(message: LayoutReply, transfer: Transferable[]): void }).postMessage(message, [xy.buffer]);
}

self.onmessage = (event: MessageEvent<LayoutRequest>) => {
  const request = event.data;
  const layout = layoutOf(request.view);
  switch (request.kind) {
    case "update":
      reply(request.view, layout, layout.update(request.input), true);
      break;
    case "arrange":
      layout.unpinAll();
      layout.arrange();
      reply(request.view, layout, "full", true);
      break;
    case "pin":
      layout.pin(request.id, request.place);
      break;
    case "unpin":
      layout.unpin(request.id);
      break;
  }
};
