// From a node of the map to the Mesos task that it is, or whose container it is.

import type { NodeDetails } from "../api/types";

/** What Mesos' Docker containerizer calls its containers. */
const NAME = /mesos-([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})/i;
/** Values of a table that are looked at. */
const VALUES_MAX = 2_000;

/** The Mesos container that the texts of a node tell of; `null` when it is none. */
export function mesosContainerOf(texts: readonly string[]): string | null {
  for (const text of texts) {
    const match = NAME.exec(text);
    if (match?.[1] !== undefined) return match[1];
  }
  return null;
}

/** The page of the task: by its ids where the node tells them, else by the name of its container. `null` when it is no task. */
export function taskPath(node: Pick<NodeDetails, "label" | "metadata" | "tables">): string[] | null {
  const rows = node.metadata ?? [];
  const values = (node.tables ?? []).flatMap((table) => (table.rows ?? []).map((row) => row.entries ?? {})).slice(0, VALUES_MAX);
  const told = (metadata: string, label: string): string | undefined =>
    rows.find((row) => row.id === metadata)?.value || values.find((entries) => (entries["label"] ?? "").trim() === label)?.["value"];
  const framework = told("mesos_framework_id", "mesos.framework_id");
  const task = told("mesos_task_id", "mesos.task_id");
  if (framework && task) return ["tasks", framework, task];
  // Agents that are not ours write no labels.
  const container = mesosContainerOf([node.label, ...rows.map((row) => row.value), ...values.flatMap((entries) => Object.values(entries))]);
  return container === null ? null : ["container", container];
}
