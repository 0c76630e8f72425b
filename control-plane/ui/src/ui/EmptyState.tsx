import { absence, departure } from "../model/probes";
import * as store from "../state/store";

const ADVICE: Readonly<Record<string, { title: string; text: string }>> = {
  containers: {
    title: "No containers here",
    text: "Is Docker running on the host, and may the probe read its socket? Containers appear within a second of their start.",
  },
  processes: {
    title: "No processes with connections",
    text: "Only processes that talk to something are shown. Switch on “Unconnected” to see all, or open a connection and watch.",
  },
  hosts: {
    title: "No hosts yet",
    text: "Start a probe on a machine and point it at this control plane; the host appears as soon as its first report arrives.",
  },
  pods: { title: "No pods here", text: "Pods appear when a probe runs on a Kubernetes node." },
};

/** Says why nothing is there, and what to do about it. */
export function EmptyState() {
  const current = store.view.value;
  const state = store.connection.value.state;
  if (current === null) {
    const isOffline = state === "offline";
    return (
      <div class="empty" data-testid="empty-state">
        <h2>{isOffline ? "The control plane does not answer" : "Connecting…"}</h2>
        {isOffline && (
          <>
            <p>The page tries again every few seconds. Is the server still running?</p>
            <button type="button" class="primary" onClick={store.retryNow}>
              Try now
            </button>
          </>
        )}
      </div>
    );
  }
  if (store.nodesOf.value === null) {
    return (
      <div class="empty" data-testid="empty-state" aria-busy="true">
        <p class="quiet">{state === "offline" ? "The control plane does not answer." : `Loading ${current.description.name.toLowerCase()}…`}</p>
      </div>
    );
  }
  if (store.nodes.value.size > 0) return null;
  const count = current.description.stats.node_count;
  if (store.filters.value.length > 0 && count > 0) {
    return (
      <div class="empty" data-testid="empty-state">
        <h2>Nothing matches the filters</h2>
        <p>{count === 1 ? "One node is" : `${count} nodes are`} hidden by the pinned search terms.</p>
        <button type="button" class="primary" onClick={() => (store.pins.value = [])}>
          Remove filters
        </button>
      </div>
    );
  }
  if (store.isUnwatched.value) return <Unwatched />;
  const hidden = current.description.stats.filtered_nodes;
  const tabId = current.tab.url.slice(current.tab.url.lastIndexOf("/") + 1);
  const advice = ADVICE[tabId] ?? { title: "Nothing here yet", text: "As soon as a probe reports something of this kind, it appears." };
  return (
    <div class="empty" data-testid="empty-state">
      <h2>{advice.title}</h2>
      <p>{advice.text}</p>
      {hidden > 0 && <p class="quiet">The options above hide {hidden === 1 ? "one node" : `${hidden} nodes`}.</p>}
    </div>
  );
}

/** Hosts that are named here; the list of probes has them all. */
const MOST_HOSTS = 3;

/** No probe is connected, which explains every view. */
function Unwatched() {
  const now = store.now.value;
  const away = (store.probes.value ?? []).map((probe) => ({ id: probe.id, hostname: probe.hostname, text: absence(probe, now) }));
  const gone = store.departedProbes.value.map((probe) => ({ id: probe.id, hostname: probe.hostname, text: departure(probe, now) }));
  const all = [...away, ...gone];
  const more = all.length - MOST_HOSTS;
  return (
    <div class="empty" data-testid="empty-state" data-unwatched="true">
      <h2>No probe is connected</h2>
      {all.length === 0 && <p>Start a probe on a machine and point it at this control plane; what runs there appears with its first report.</p>}
      {all.slice(0, MOST_HOSTS).map(({ id, hostname, text }) => (
        <p key={id}>
          <b>{hostname}</b> {text}
        </p>
      ))}
      {more > 0 && (
        <button type="button" class="link-button" onClick={() => (store.isProbesOpen.value = true)}>
          {more === 1 ? "One other host" : `${more} other hosts`}
        </button>
      )}
    </div>
  );
}
