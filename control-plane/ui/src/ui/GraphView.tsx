import { effect } from "@preact/signals";
import { useEffect, useRef, useState } from "preact/hooks";
import { GraphScene } from "../graph/scene";
import type { NodeMap } from "../model/delta";
import { groupedInteger, metricNumber } from "../model/format";
import { matchesOfQuery } from "../state/search";
import * as store from "../state/store";
import { Icon } from "./icons";

const PANEL_WIDTH = 440;

let scene: GraphScene | null = null;

/** The scene that is on the page; for tests. */
export function currentScene(): GraphScene | null {
  return scene;
}

/** The graph stays alive while the table is shown, so that coming back finds everything in its place. */
export function GraphView({ isVisible }: { isVisible: boolean }) {
  const container = useRef<HTMLDivElement>(null);
  const [isBusy, setBusy] = useState(false);

  useEffect(() => {
    if (container.current === null) return;
    const own = new GraphScene(container.current, {
      onSelect: store.selectNode,
      onClear: store.closePanels,
      onBusy: setBusy,
    });
    scene = own;
    const stops = [effect(() => own.setTheme(store.theme.value)), followData(own), followEmphasis(own), followPanel(own)];
    return () => {
      for (const stop of stops) stop();
      own.destroy();
      scene = null;
    };
  }, []);

  return (
    <section class="graph" hidden={!isVisible} aria-label="Map">
      <div
        ref={container}
        class="graph-canvas"
        data-testid="graph"
        data-busy={isBusy ? "true" : "false"}
        role="application"
        tabIndex={0}
        aria-label="Graph. Arrow keys move between nodes, Enter opens a node, plus and minus zoom, F fits."
        onKeyDown={onKey}
        onBlur={() => scene?.hover(null)}
      />
      {isBusy && store.nodes.value.size > 0 && (
        <div class="graph-busy" role="status" data-testid="graph-busy">
          Arranging {store.nodes.value.size === 1 ? "one node" : `${groupedInteger(store.nodes.value.size)} nodes`}…
        </div>
      )}
      <Legend />
      <div class="graph-tools" role="toolbar" aria-label="Map controls">
        <button type="button" data-testid="zoom-in" title="Zoom in (+)" aria-label="Zoom in" onClick={() => scene?.zoom(1.4)}>
          <Icon name="plus" />
        </button>
        <button type="button" data-testid="zoom-out" title="Zoom out (−)" aria-label="Zoom out" onClick={() => scene?.zoom(1 / 1.4)}>
          <Icon name="minus" />
        </button>
        <button type="button" data-testid="zoom-fit" title="Fit everything (F)" aria-label="Fit everything" onClick={() => scene?.fit(true)}>
          <Icon name="fit" />
        </button>
        <button type="button" data-testid="arrange" title="Arrange anew (R); forgets moved nodes" aria-label="Arrange anew" onClick={() => scene?.arrange()}>
          <Icon name="arrange" />
        </button>
      </div>
    </section>
  );
}

function onKey(event: KeyboardEvent): void {
  if (scene === null || event.ctrlKey || event.metaKey || event.altKey) return;
  switch (event.key) {
    case "ArrowLeft":
      scene.step(-1, 0);
      break;
    case "ArrowRight":
      scene.step(1, 0);
      break;
    case "ArrowUp":
      scene.step(0, 1);
      break;
    case "ArrowDown":
      scene.step(0, -1);
      break;
    case "Enter": {
      const id = scene.hoveredNode();
      if (id === null) return;
      store.selectNode(id);
      break;
    }
    case "+":
    case "=":
      scene.zoom(1.4);
      break;
    case "-":
      scene.zoom(1 / 1.4);
      break;
    case "f":
      scene.fit(true);
      break;
    case "r":
      scene.arrange();
      break;
    default:
      return;
  }
  event.preventDefault();
}

/** Hands every new picture to the scene, saying whether nodes or edges changed. For tests, too. */
export function followData(own: Pick<GraphScene, "setPicture" | "leave">): () => void {
  let drawn: { view: string; structure: number; nodes: NodeMap } | null = null;
  return effect(() => {
    const view = store.nodesOf.value;
    const nodes = store.nodes.value;
    const structure = store.structure.value;
    // Another view is on its way. The one before may come back as another one, be it empty: what was drawn of it says nothing then.
    if (view === null) {
      drawn = null;
      own.leave();
      return;
    }
    // A hidden graph costs nothing, and catches up when it is shown.
    if (store.mode.value !== "graph") return;
    if (drawn !== null && drawn.view === view && drawn.nodes === nodes) return;
    const changed = drawn === null || drawn.view !== view || drawn.structure !== structure;
    drawn = { view, structure, nodes };
    own.setPicture(view, nodes, changed);
  });
}

function followEmphasis(own: GraphScene): () => void {
  return effect(() => {
    own.setEmphasis({
      selected: store.selected.value,
      matches: matchesOfQuery.value,
      heat: store.heat.value,
      doubtful: new Set(store.degradedProbes.value.map((probe) => `${probe.hostname};<host>`)),
    });
  });
}

/** A panel covers the right of the map: what was selected must not be under it. */
function followPanel(own: GraphScene): () => void {
  return effect(() => {
    const isOpen = store.isProbesOpen.value || store.topPanel.value !== null;
    own.setCoveredRight(isOpen && window.innerWidth > 900 ? PANEL_WIDTH : 0);
    const id = store.selected.value;
    if (id !== null) requestAnimationFrame(() => own.reveal(id));
  });
}

function Legend() {
  const scale = store.heat.value;
  if (scale === null) return null;
  return (
    <div class="legend" aria-label={`${scale.label} scale`}>
      <span class="legend-title">{scale.label}</span>
      <span>0</span>
      <span class={scale.format === "percent" ? "legend-ramp" : "legend-ramp amount"} aria-hidden="true" />
      <span title="Levels grow with the square root, so that small shares can be told apart">{metricNumber(scale.max, scale.format)}</span>
    </div>
  );
}
