// From what a cluster knows to what the map shows of it, and back.

import { fetchDetails, fetchSearch, RequestError } from "../api/client";
import type { PanelRef } from "../model/location";
import { go, say } from "./shell";
import { showInView } from "./store";

/** The node of a view that the words lead to best. */
export async function findOnMap(view: string, words: string): Promise<PanelRef | null> {
  const page = await fetchSearch(quoted(words), 50);
  const inView = page.hits.filter((hit) => hit.view === view && hit.pseudo !== true);
  const best = inView.find((hit) => hit.label === words || hit.id.startsWith(words)) ?? inView[0];
  return best === undefined ? null : { view, id: best.id };
}

/** Words as the search language takes them literally. */
function quoted(words: string): string {
  return `"${words.replace(/["\\]/g, " ")}"`;
}

/** The node of a task. Other frameworks may have tasks of the same id, and other ids may begin with it. */
export async function findTask(frameworkId: string, taskId: string): Promise<PanelRef | null> {
  const ref = { view: "tasks", id: `${taskId};${frameworkId};<mesos_task>` };
  try {
    await fetchDetails(ref.view, ref.id, {});
    return ref;
  } catch (error) {
    if (error instanceof RequestError && error.status === 404) return null;
    throw error;
  }
}

/** Shows a task's container on the map. `containers`: its id and those of the containers around it. */
export async function showContainer(containers: readonly string[], frameworkId: string, taskId: string): Promise<void> {
  try {
    // Our own agents label their containers, and the map has a view of them.
    const task = await findTask(frameworkId, taskId);
    if (task !== null) {
      go("map");
      showInView(task);
      return;
    }
    for (const words of [...containers.map((id) => `mesos-${id}`), ...containers]) {
      if (words === "") continue;
      const found = await findOnMap("containers", words);
      if (found !== null) {
        go("map");
        showInView(found);
        return;
      }
    }
    say("No probe reports a container of this task: it is over, or no probe watches its host.", true);
  } catch {
    say("The map cannot be searched.", true);
  }
}
