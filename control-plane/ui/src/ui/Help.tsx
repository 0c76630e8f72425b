import { useEffect, useRef } from "preact/hooks";
import { searchableNames } from "../model/search";
import * as store from "../state/store";
import { Icon, NodeGlyph } from "./icons";

const KEYS: readonly (readonly [string, string])[] = [
  ["1 2 3 4", "Map, cluster, services, ZooKeeper"],
  ["/", "Search, filter"],
  ["↑ ↓", "Go through what the search found; Enter opens it"],
  ["Enter", "Keep the search term as a filter"],
  ["Esc", "Close what is on top, clear the search"],
  ["G  L", "Graph, table"],
  ["+  −  F", "Zoom in, out, fit (on the map)"],
  ["R", "Arrange anew (on the map)"],
  ["← ↑ → ↓", "Move between nodes (on the map), rows (in tables)"],
  ["P", "Pause and resume"],
  ["T", "Dark or light"],
  ["?", "This help"],
];

/** In the sections besides the map. */
const FILTERS: readonly (readonly [string, string])[] = [
  ["web running", "both words, anywhere in a row"],
  ["state:failed", "only in the field “state”"],
  ["-finished", "rows without the word"],
];

const EXAMPLES: readonly (readonly [string, string])[] = [
  ["nginx|envoy", "either word, anywhere (regular expression)"],
  ["pid: 4711", "only in the field “PID”"],
  ["image: redis", "any field whose name contains “image”"],
  ["cpu > 2%", "metrics: <, =, > with %, kB, MB, GB"],
  ["memory > 200mb", "sizes count in 1024s"],
  ["uptime < 30m", "time in s, m, h, d, w"],
  ["redis AND NOT image: test", "AND, OR, NOT and parentheses"],
  ['"10.0.0.5"', "exactly these letters"],
];

export function Help() {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    dialog.current?.showModal();
  }, []);
  const close = (): void => {
    store.isHelpOpen.value = false;
  };
  const names = searchableNames(store.nodes.value);
  return (
    <dialog
      ref={dialog}
      class="help"
      data-testid="help"
      aria-labelledby="help-title"
      onClose={close}
      onClick={(event) => {
        if (event.target === dialog.current) close();
      }}
    >
      <div class="help-body">
        <div class="help-head">
          <h2 id="help-title">How to read and use it</h2>
          <button type="button" class="icon-button" aria-label="Close help" onClick={close}>
            <Icon name="close" />
          </button>
        </div>
        <div class="help-columns">
          <section>
            <h3>The map</h3>
            <ul class="help-shapes">
              <li>
                <NodeGlyph node={{ rank: "a", shape: "square" }} size={26} /> Process
              </li>
              <li>
                <NodeGlyph node={{ rank: "nginx", shape: "hexagon" }} size={26} /> Container, image
              </li>
              <li>
                <NodeGlyph node={{ rank: "example.com", shape: "circle" }} size={26} /> Host
              </li>
              <li>
                <NodeGlyph node={{ rank: "x", shape: "cloud", pseudo: true }} size={26} /> Outside of what is watched
              </li>
              <li>
                <NodeGlyph node={{ rank: "redis", shape: "hexagon", stack: true }} size={26} /> Several of a kind
              </li>
            </ul>
            <p>
              An arrow points from who opened the connection to who accepted it; who calls stands left. Of the node under the pointer,{" "}
              <span class="out">outgoing</span> and <span class="in">incoming</span> edges are coloured. Colour tells the kind: the same program or image has
              the same colour everywhere.
            </p>
            <p>Drag a node to put it somewhere, double-click it to let it go. Nodes keep their places when others come and go.</p>
          </section>
          <section>
            <h3>Search</h3>
            <dl class="help-list">
              {EXAMPLES.map(([term, meaning]) => (
                <div key={term}>
                  <dt>
                    <code>{term}</code>
                  </dt>
                  <dd>{meaning}</dd>
                </div>
              ))}
            </dl>
            <h3 class="help-more">Filters of tables</h3>
            <dl class="help-list">
              {FILTERS.map(([term, meaning]) => (
                <div key={term}>
                  <dt>
                    <code>{term}</code>
                  </dt>
                  <dd>{meaning}</dd>
                </div>
              ))}
            </dl>
            {names.fields.length > 0 && (
              <p class="help-names">
                <b>Fields here:</b> {names.fields.slice(0, 40).join(", ")}
              </p>
            )}
            {names.metrics.length > 0 && (
              <p class="help-names">
                <b>Metrics here:</b> {names.metrics.join(", ")}
              </p>
            )}
          </section>
          <section>
            <h3>Keys</h3>
            <dl class="help-list">
              {KEYS.map(([key, meaning]) => (
                <div key={key}>
                  <dt>
                    <kbd>{key}</kbd>
                  </dt>
                  <dd>{meaning}</dd>
                </div>
              ))}
            </dl>
          </section>
        </div>
        <p class="help-foot minor">
          Orchestrator {store.server.value?.version ?? ""} {store.server.value ? `on ${store.server.value.hostname}` : ""}
        </p>
      </div>
    </dialog>
  );
}
