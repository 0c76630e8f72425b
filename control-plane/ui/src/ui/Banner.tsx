import { useState } from "preact/hooks";
import type { Probe } from "../api/types";
import { groupedInteger } from "../model/format";
import * as store from "../state/store";
import { Icon } from "./icons";

/** Says what the map does not show. Dismissing it lasts until the situation is another one. */
export function Banner() {
  const [dismissed, setDismissed] = useState("");
  if (!store.canDrawGraph && dismissed !== "webgl") {
    return (
      <div class="banner" role="status" data-testid="banner">
        <Icon name="warning" />
        <span>This browser cannot draw the graph (WebGL is missing or switched off), so everything is shown as a table.</span>
        <button type="button" class="icon-button" aria-label="Dismiss" onClick={() => setDismissed("webgl")}>
          <Icon name="close" size={14} />
        </button>
      </div>
    );
  }
  const degraded = store.degradedProbes.value;
  const key = degraded.map((probe) => `${probe.id} ${probe.capture.rung} ${String(probe.connected)} ${probe.capture.overloadLevel ?? 0} ${store.lostEvents(probe) > 0 ? "lost" : ""}`).join();
  const first = degraded[0];
  if (first === undefined || dismissed === key) return null;
  return (
    <div class="banner" role="status" data-testid="banner">
      <Icon name="warning" />
      <span>
        <b>{degraded.length === 1 ? first.hostname : `${degraded.length} hosts`}</b>{" "}
        {degraded.length === 1 ? shortfall(first) : "show less than everything: some probes stand on a lower rung, are overloaded, lost events, or are away."}
      </span>
      <button type="button" class="link-button" onClick={() => (store.isProbesOpen.value = true)}>
        What is missing?
      </button>
      <button type="button" class="icon-button" aria-label="Dismiss" onClick={() => setDismissed(key)}>
        <Icon name="close" size={14} />
      </button>
    </div>
  );
}

/** In one sentence, what is missing on a host. */
export function shortfall(probe: Probe): string {
  if (!probe.connected) return "is not connected: what you see of it is old and will fade.";
  if (probe.capture.rung !== 1) {
    const spots = probe.capture.blindSpots[0];
    return `sees by ${probe.capture.description || `rung ${probe.capture.rung}`}${spots ? `: ${spots}` : ""}.`;
  }
  if ((probe.capture.overloadLevel ?? 0) > 0) {
    return `has more to tell than its probe may use resources for (level ${probe.capture.overloadLevel}): what you see is late, or a sum.`;
  }
  const lost = store.lostEvents(probe);
  return `lost ${groupedInteger(lost)} ${lost === 1 ? "event" : "events"}: numbers of connections may be too low.`;
}
