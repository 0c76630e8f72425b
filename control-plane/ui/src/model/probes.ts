// Which probes left, and what people are told of it.

import type { DepartedProbe, Probe, ProbeName } from "../api/types";
import { ago, datetime } from "./format";

/**
 * The hosts that nobody watches any more, by the probe that left last, the latest first. A host is watched again when a probe of ours is there
 * under whatever id, and, if it was a probe of Weave Scope that fell silent, when another such reports on it: those have a new id with each start.
 */
export function departures(departed: readonly DepartedProbe[], own: readonly Probe[], old: readonly ProbeName[]): DepartedProbe[] {
  const present = new Set([...own, ...old].map((probe) => probe.id));
  const watched = new Set(own.map((probe) => probe.hostname));
  const watchedByOld = new Set(old.map((probe) => probe.hostname));
  const told = new Set<string>();
  return departed.filter(({ id, hostname, reason }) => {
    if (present.has(id) || watched.has(hostname) || told.has(hostname)) return false;
    if (reason === "silent" && watchedByOld.has(hostname)) return false;
    told.add(hostname);
    return true;
  });
}

/** What follows a host's name: how its probe left, when, and why. */
export function departure({ leftAt, reason }: DepartedProbe, now: number): string {
  const when = datetime(leftAt, now);
  switch (reason) {
    case "lost":
      return `was lost at ${when}: the connection to its probe broke, and the probe did not come back.`;
    case "goodbye":
      return `left at ${when}: its probe was stopped in good order.`;
    case "silent":
      return `was lost at ${when}: its probe of Weave Scope sent no report any more.`;
    default:
      return `left at ${when} (${reason}).`;
  }
}

/** What follows the name of a host whose probe is known still, but away. */
export function absence(probe: Probe, now: number): string {
  return `is not connected: its probe was last heard of ${ago(Date.parse(probe.lastSeen), now)}.`;
}
