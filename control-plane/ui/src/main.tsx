import { render } from "preact";
import { edgesOf } from "./model/delta";
import { decodePipeLink } from "./model/location";
import { startSearch } from "./state/search";
import { nodes, start } from "./state/store";
import { openLink } from "./state/windows";
import { App } from "./ui/App";
import { currentScene } from "./ui/GraphView";
import "./styles.css";
import "./sections.css";

declare global {
  interface Window {
    /** For tests in a browser: what the page shows. */
    __orchestrator?: {
      nodes(): string[];
      edges(): [string, string][];
      positions(): Record<string, { x: number; y: number }>;
      screen(id: string): { x: number; y: number } | null;
    };
  }
}

window.__orchestrator = {
  nodes: () => [...nodes.peek().keys()],
  edges: () => edgesOf(nodes.peek()),
  positions: () => currentScene()?.positions() ?? {},
  screen: (id) => currentScene()?.onScreen(id) ?? null,
};

// Before the page writes a hash of its own.
const pipeLink = decodePipeLink(window.location.hash);
start();
startSearch();
if (pipeLink !== null) openLink(pipeLink);
const root = document.getElementById("app");
if (root) render(<App />, root);
