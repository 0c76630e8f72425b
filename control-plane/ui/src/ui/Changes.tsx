import { useEffect, useState } from "preact/hooks";
import { fetchChanges } from "../api/client";
import type { ChangePage, NodeChange } from "../api/types";
import { groupedInteger, middleEllipsis } from "../model/format";
import * as store from "../state/store";
import { Icon } from "./icons";

const SIGNS: Readonly<Record<NodeChange["kind"], string>> = { appeared: "+", vanished: "−", changed: "~" };
const FIELDS_AT_FIRST = 4;

/** What is different in the current view between the moment that was chosen and now. */
export function Changes() {
  const view = store.view.value;
  const chosen = store.past.value;
  const from = chosen === null ? null : new Date(chosen.at).toISOString();
  const [page, setPage] = useState<ChangePage | null>(null);
  const [error, setError] = useState(false);
  const key = `${view?.id ?? ""} ${from ?? ""} ${JSON.stringify(store.options.value)}`;
  useEffect(() => {
    setPage(null);
    setError(false);
    if (view === null || from === null) return;
    const abort = new AbortController();
    fetchChanges(view.id, store.options.peek(), from, null, abort.signal).then(setPage, () => {
      if (!abort.signal.aborted) setError(true);
    });
    return () => abort.abort();
  }, [key]);
  const more = (): void => {
    if (view === null || from === null || page === null) return;
    fetchChanges(view.id, store.options.peek(), from, page.next).then(
      (next) => setPage({ ...next, changes: [...page.changes, ...next.changes] }),
      () => setError(true),
    );
  };
  return (
    <aside class="side" aria-label="Changes" data-testid="changes-panel">
      <div class="side-head">
        <div class="side-title">
          <Icon name="clock" size={22} />
          <div>
            <h2>Changes</h2>
            <p class="minor">
              {view?.description.name}
              {from !== null && ` since ${new Date(from).toLocaleTimeString()}`}
            </p>
          </div>
        </div>
        <button type="button" class="icon-button" aria-label="Close" onClick={() => (store.isChangesOpen.value = false)}>
          <Icon name="close" />
        </button>
      </div>
      <div class="side-body">
        {from === null && <div class="empty-section">Choose a moment of the past: what has changed since then is listed here.</div>}
        {error && <div class="empty-section">The history cannot be read.</div>}
        {page !== null && (
          <p class="changes-sums" data-testid="changes-sums">
            {groupedInteger(page.appeared)} appeared, {groupedInteger(page.vanished)} vanished, {groupedInteger(page.changed)} changed
          </p>
        )}
        <ul class="changes">
          {page?.changes.map((change) => (
            <Row key={change.id} change={change} view={page.view} />
          ))}
        </ul>
        {page !== null && page.next !== null && (
          <button type="button" class="pill-button" data-testid="changes-more" onClick={more}>
            More
          </button>
        )}
      </div>
    </aside>
  );
}

function Row({ change, view }: { change: NodeChange; view: string }) {
  return (
    <li class={`change change-${change.kind}`} data-testid="change" data-kind={change.kind} data-node-id={change.id}>
      <button type="button" class="link-button" onClick={() => store.openPanel({ view, id: change.id })}>
        <b aria-hidden="true">{SIGNS[change.kind]}</b> {middleEllipsis(change.label || change.id, 48)} <span class="minor">{change.labelMinor}</span>
      </button>
      {change.fields.slice(0, FIELDS_AT_FIRST).map((field) => (
        <div key={field.field} class="change-field">
          {field.field}: <del>{middleEllipsis(field.before, 40)}</del> <ins>{middleEllipsis(field.after, 40)}</ins>
        </div>
      ))}
      {change.connected.length > 0 && <div class="change-field">new connections to {change.connected.length} nodes</div>}
      {change.disconnected.length > 0 && <div class="change-field">no more connections to {change.disconnected.length} nodes</div>}
    </li>
  );
}
