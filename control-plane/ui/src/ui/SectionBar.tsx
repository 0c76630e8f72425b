import { heard, stream } from "../state/events";
import { hrefOf, isReachable, place } from "../state/shell";
import type { Section } from "../model/place";
import * as store from "../state/store";

const TABS: Readonly<Record<Exclude<Section, "map">, readonly (readonly [string, string])[]>> = {
  cluster: [
    ["agents", "Agents"],
    ["frameworks", "Frameworks"],
    ["tasks", "Tasks"],
    ["roles", "Roles"],
    ["offers", "Offers"],
    ["maintenance", "Maintenance"],
  ],
  apps: [
    ["", "Services"],
    ["deployments", "Deployments"],
    ["queue", "Queue"],
    ["events", "Events"],
  ],
  zookeeper: [["", "Links"]],
};

/** Which tab a page belongs to. */
export function tabOf(section: Section, page: string | undefined): string {
  if (section === "cluster") return page === undefined ? "agents" : page === "container" ? "tasks" : page;
  if (section === "apps") return page === "deployments" || page === "queue" || page === "events" ? page : "";
  return "";
}

/** The pages of a section. */
export function SectionTabs({ section }: { section: Exclude<Section, "map"> }) {
  const current = tabOf(section, place.value.path[0]);
  return (
    <nav class="tabs" aria-label="Pages">
      {TABS[section].map(([page, name]) => (
        <a key={page} class="tab" href={hrefOf(section, page === "" ? [] : [page])} data-testid={`page-${page || section}`} aria-current={page === current ? "page" : undefined}>
          {name}
        </a>
      ))}
    </nav>
  );
}

/** Whether what is shown is of now. */
export function SectionConnection({ section }: { section: Exclude<Section, "map"> }) {
  const isPaused = store.isPaused.value;
  const isThere = isReachable.value;
  const state = isPaused ? "paused" : !isThere ? "offline" : section === "apps" && stream.value === "away" ? "reconnecting" : "live";
  const words = { paused: "Paused", offline: "Offline", reconnecting: "No events", live: "Live" }[state];
  return (
    <div class="connection" role="status" data-testid="connection-state" data-state={state} title={section === "apps" ? `${heard.value.length} events heard` : undefined}>
      <span class="connection-dot" aria-hidden="true" />
      <span class="connection-text">{words}</span>
    </div>
  );
}
