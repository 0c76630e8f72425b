import type { Probe } from "../api/types";
import { ago, groupedInteger, metricNumber } from "../model/format";
import { departure } from "../model/probes";
import * as store from "../state/store";
import { shortfall } from "./Banner";
import { Icon } from "./icons";

/** Old probes that are named. */
const MOST_NAMES = 20;

/** Where every probe stands, and what it cannot see from there. */
export function Probes() {
  const list = [...(store.probes.value ?? [])].sort(
    (a, b) => Number(store.isDegraded(b)) - Number(store.isDegraded(a)) || a.hostname.localeCompare(b.hostname),
  );
  const old = store.oldProbes.value;
  const gone = store.departedProbes.value;
  return (
    <aside class="side" aria-label="Probes" data-testid="probes-panel">
      <div class="side-head">
        <div class="side-title">
          <Icon name="probe" size={22} />
          <div>
            <h2>Probes</h2>
            <p class="minor">What each host's probe sees, and what it does not</p>
          </div>
        </div>
        <button type="button" class="icon-button" aria-label="Close" onClick={() => (store.isProbesOpen.value = false)}>
          <Icon name="close" />
        </button>
      </div>
      <div class="side-body">
        {old.length > 0 && (
          <p class="minor" data-testid="old-probes">
            {old.length === 1 ? "One probe of Weave Scope reports, too" : `${old.length} probes of Weave Scope report, too`}:{" "}
            {old.slice(0, MOST_NAMES).map((probe) => probe.hostname).join(", ")}
            {old.length > MOST_NAMES ? " and others" : ""}. Such a probe does not say what it misses.
          </p>
        )}
        {list.length === 0 && old.length === 0 && (
          <div class="empty-section">No probe is connected.{gone.length === 0 && " Start one on a machine and point it at this control plane."}</div>
        )}
        {list.map((probe) => (
          <ProbeCard key={probe.id} probe={probe} />
        ))}
        {gone.length > 0 && (
          <section class="departed">
            <h3>No longer watched</h3>
            <ul>
              {gone.map((probe) => (
                <li key={probe.id} data-testid="departed-probe" data-reason={probe.reason}>
                  <b>{probe.hostname}</b> {departure(probe, store.now.value)}
                </li>
              ))}
            </ul>
          </section>
        )}
      </div>
    </aside>
  );
}

const LOSS_LABELS: readonly (readonly [keyof Probe["losses"], string, string])[] = [
  ["flowsUncounted", "Flow ends not counted", "The kernel's table of flows was full."],
  ["tableFull", "Records dropped", "The probe had no room for more."],
  ["socketsUnowned", "Ends without an owner", "Connections whose process could not be told."],
  ["reportsMerged", "Reports merged", "Sent later as one snapshot, nothing lost."],
];

function ProbeCard({ probe }: { probe: Probe }) {
  const isDegraded = store.isDegraded(probe);
  const completeness = completenessOf(probe);
  const rings = Object.entries(probe.losses.ringRecords ?? {}).filter(([, count]) => count > 0);
  const losses: { label: string; hint: string; count: number }[] = LOSS_LABELS.flatMap(([key, label, hint]) => {
    const count = probe.losses[key];
    return typeof count === "number" && count > 0 ? [{ label, hint, count }] : [];
  });
  for (const [cause, count] of Object.entries(probe.losses.other ?? {})) {
    if (count <= 0) continue;
    const isLate = cause === store.LEFT_OUT;
    losses.push(
      isLate
        ? { label: "Looks left out", hint: "The probe kept to its budget of processor time: what it did not look at then, it saw later.", count }
        : { label: `Lost: ${cause}`, hint: "As the probe names the cause.", count },
    );
  }
  const refused = probe.counts.recordsRefused ?? 0;
  if (refused > 0) losses.push({ label: "Records refused", hint: "The control plane had no room or did not believe them.", count: refused });
  const broken = probe.capture.hooks.filter((hook) => hook.error);
  return (
    <article class="probe" data-testid="probe-card" data-degraded={isDegraded ? "true" : undefined}>
      <div class="probe-head">
        <span class={`state-dot ${probe.connected ? (isDegraded ? "warn" : "good") : "bad"}`} aria-hidden="true" />
        <button type="button" class="probe-name" onClick={() => store.showInView({ view: "hosts", id: `${probe.hostname};<host>` })}>
          {probe.hostname}
        </button>
        <span class="minor">v{probe.version}</span>
        <span class="probe-seen minor">{probe.connected ? "connected" : `last seen ${ago(Date.parse(probe.lastSeen), store.now.value)}`}</span>
      </div>
      <div class="rungs" role="img" aria-label={`Rung ${probe.capture.rung}: ${probe.capture.description}`}>
        <span class={`rung ${probe.capture.rung === 1 ? "best" : ""}`}>Rung {probe.capture.rung}</span>
        <span>{probe.capture.description}</span>
      </div>
      {isDegraded && (
        <p class="probe-warning">
          <Icon name="warning" size={14} /> This host {shortfall(probe)}
        </p>
      )}
      {probe.capture.reason && (
        <p class="probe-reason">
          <b>Why not higher:</b> {probe.capture.reason}
        </p>
      )}
      {probe.capture.blindSpots.length > 0 && (
        <div class="probe-spots">
          <b>Cannot see</b>
          <ul>
            {probe.capture.blindSpots.map((spot) => (
              <li key={spot}>{spot}</li>
            ))}
          </ul>
        </div>
      )}
      {(probe.capture.missingCapabilities ?? []).length > 0 && (
        <p class="probe-reason">
          <b>Lacks:</b> {(probe.capture.missingCapabilities ?? []).join(", ")}
        </p>
      )}
      <dl class="stats">
        <Stat label="Processes" value={groupedInteger(probe.counts.processes)} />
        <Stat label="Containers" value={groupedInteger(probe.counts.containers)} />
        <Stat label="Flows" value={groupedInteger(probe.counts.flows)} />
        <Stat label="Complete" value={completeness === null ? "–" : metricNumber(Math.floor(completeness * 10_000) / 100, "percent")} />
      </dl>
      {(rings.length > 0 || losses.length > 0) && (
        <table class="mini">
          <tbody>
            {rings.map(([ring, count]) => (
              <tr key={ring}>
                <td title="The ring buffer between kernel and probe was full">Ring “{ring}” overran</td>
                <td class="number">{groupedInteger(count)}</td>
              </tr>
            ))}
            {losses.map((loss) => (
              <tr key={loss.label}>
                <td title={loss.hint}>{loss.label}</td>
                <td class="number">{groupedInteger(loss.count)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
      <details class="hooks">
        <summary>
          {probe.capture.hooks.length - broken.length} of {probe.capture.hooks.length} hooks attached
        </summary>
        <ul>
          {probe.capture.hooks.map((hook) => (
            <li key={hook.name} class={hook.error ? "bad" : ""}>
              <code>{hook.name}</code> {hook.error ? <span>{hook.error}</span> : <Icon name="check" size={13} />}
            </li>
          ))}
        </ul>
      </details>
    </article>
  );
}

/** Share of the connection ends seen by the kernel that reached the map. */
function completenessOf(probe: Probe): number | null {
  if (typeof probe.losses.completeness === "number") return probe.losses.completeness;
  const { endsSeen, endsReported } = probe.losses;
  return endsSeen && endsReported !== undefined ? Math.min(1, endsReported / endsSeen) : null;
}

function Stat({ label, value }: { label: string; value: string }) {
  return (
    <div>
      <dt>{label}</dt>
      <dd>{value}</dd>
    </div>
  );
}
