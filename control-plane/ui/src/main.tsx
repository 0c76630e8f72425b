import { render } from "preact";
import { edgesOf } from "./model/delta";
import { shown, start } from "./state/store";
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
  nodes: () => [...shown.peek().keys()],
  edges: () => edgesOf(shown.peek()),
  positions: () => currentScene()?.positions() ?? {},
  screen: (id) => currentScene()?.onScreen(id) ?? null,
};

start();
const root = document.getElementById("app");
if (root) render(<App />, root);
