import type { ViewDescription } from "../api/types";

export interface FlatView {
  id: string;
  description: ViewDescription;
  /** The tab that it belongs to; itself for a top-level view. */
  tab: ViewDescription;
}

/** A view has no id field: it is the last segment of its URL. */
export function viewId(description: ViewDescription): string {
  return description.url.slice(description.url.lastIndexOf("/") + 1);
}

/** Tabs in the order of their rank, each followed by its sub-views. */
export function flatViews(list: readonly ViewDescription[]): FlatView[] {
  return [...list]
    .sort((a, b) => a.rank - b.rank || a.name.localeCompare(b.name))
    .flatMap((tab) => [tab, ...(tab.sub_topologies ?? [])].map((description) => ({ id: viewId(description), description, tab })));
}

/** Whether a view has something to show, counting what its filters hide. */
export function isEmpty(description: ViewDescription): boolean {
  return description.stats.node_count === 0 && description.stats.filtered_nodes === 0;
}

/** Tabs to show: those that are hidden when empty are shown while they are current. */
export function visibleTabs(list: readonly FlatView[], current: string | null): FlatView[] {
  return list.filter(
    (item) =>
      item.description === item.tab &&
      (!item.description.hide_if_empty || !isEmpty(item.description) || list.some((other) => other.tab === item.tab && other.id === current)),
  );
}

/** Views that a person most likely wants first, best first; the first with something in it is opened. */
const PREFERENCE = ["ecs-services", "ecs-tasks", "kube-controllers", "services", "pods", "containers", "processes", "hosts"];

export function firstView(list: readonly FlatView[]): FlatView | null {
  for (const id of PREFERENCE) {
    const found = list.find((item) => item.id === id);
    if (found && found.description.stats.nonpseudo_node_count > 0) return found;
  }
  return list.find((item) => item.id === "containers") ?? list[0] ?? null;
}
