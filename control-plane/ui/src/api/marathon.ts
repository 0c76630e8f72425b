// What the page asks of the scheduler, and what it hears from it.

import { appOf, appsBelow, deploymentOf, failureOf, groupOf, instanceOf, podFailureOf, podInstanceOf, podOf, queueItemOf, segments, type App, type Deployment, type Failure, type Group, type Instance, type QueueItem } from "../model/services";
import { autoscalingOf, type Autoscaling } from "../model/autoscale";
import { record, records, text, texts, type Json } from "../model/safe";
import { ApiError, ask } from "./http";

const ROOT = "api/v1/marathon/v2";

/** `/shop/web` → `shop/web`, each part encoded. */
function pathOf(id: string): string {
  return segments(id).map(encodeURIComponent).join("/");
}

const EMBED = ["group.groups", "group.apps", "group.pods", "group.apps.counts", "group.apps.deployments"].map((it) => `embed=${it}`).join("&");

export async function fetchTree(signal: AbortSignal): Promise<Group> {
  const tree = groupOf(record(await ask(`${ROOT}/groups?${EMBED}`, { signal })));
  kinds.clear();
  for (const { id, kind } of appsBelow(tree)) kinds.set(id, kind);
  return tree;
}

/** Nothing in an id tells an app from a pod, and the wrong question is answered by an error: what was seen once is remembered. */
const kinds = new Map<string, App["kind"]>();

/** What an id is of; what is not there counts as an app. */
async function kindAt(id: string, signal: AbortSignal): Promise<App["kind"]> {
  const known = kinds.get(id);
  if (known !== undefined) return known;
  try {
    const group = await ask(`${ROOT}/groups/${pathOf(segments(id).slice(0, -1).join("/"))}?embed=group.pods`, { signal });
    return records(record(group)["pods"]).some((pod) => podOf(pod).id === id) ? "pod" : "app";
  } catch (error) {
    if (!isMissing(error)) throw error;
    return "app";
  }
}

function isMissing(error: unknown): boolean {
  return error instanceof ApiError && [404, 405].includes(error.status);
}

export async function fetchDeployments(signal: AbortSignal): Promise<Deployment[]> {
  return records(await ask(`${ROOT}/deployments`, { signal })).map(deploymentOf);
}

export async function fetchQueue(signal: AbortSignal): Promise<QueueItem[]> {
  return records(record(await ask(`${ROOT}/queue?embed=lastUnusedOffers`, { signal }))["queue"]).map(queueItemOf);
}

export interface AppDetails {
  app: App;
  instances: Instance[];
  failure: Failure | null;
}

export async function fetchApp(id: string, signal: AbortSignal): Promise<AppDetails> {
  const kind = await kindAt(id, signal);
  try {
    const details = kind === "pod" ? await fetchPod(id, signal) : await fetchOnlyApp(id, signal);
    kinds.set(id, kind);
    return details;
  } catch (error) {
    // It is gone, and another kind of thing may have its id later.
    if (isMissing(error)) kinds.delete(id);
    throw error;
  }
}

async function fetchOnlyApp(id: string, signal: AbortSignal): Promise<AppDetails> {
  const value = record(record(await ask(`${ROOT}/apps/${pathOf(id)}`, { signal }))["app"]);
  return { app: appOf(value), instances: records(value["tasks"]).map(instanceOf), failure: failureOf(value["lastTaskFailure"]) };
}

async function fetchPod(id: string, signal: AbortSignal): Promise<AppDetails> {
  const status = record(await ask(`${ROOT}/pods/${pathOf(id)}::status`, { signal }));
  return { app: podOf(status), instances: records(status["instances"]).map(podInstanceOf), failure: podFailureOf(status) };
}

export async function fetchVersions(app: App, signal: AbortSignal): Promise<string[]> {
  const path = app.kind === "app" ? `${ROOT}/apps/${pathOf(app.id)}/versions` : `${ROOT}/pods/${pathOf(app.id)}::versions`;
  const answer = await ask(path, { signal });
  const versions = Array.isArray(answer) ? texts(answer) : texts(record(answer)["versions"]);
  return versions.sort((a, b) => (a < b ? 1 : -1));
}

export async function fetchVersion(app: App, version: string, signal?: AbortSignal): Promise<Json> {
  const path = app.kind === "app" ? `${ROOT}/apps/${pathOf(app.id)}/versions/${encodeURIComponent(version)}` : `${ROOT}/pods/${pathOf(app.id)}::versions/${encodeURIComponent(version)}`;
  return record(await ask(path, signal ? { signal } : {}));
}

// ---- autoscaling ----

/** Apps whose policy was put by this page: it takes the scheduler a moment to list them. */
const lately = new Set<string>();

/** The policy of an app and what was decided; `null` when it has none, or this scheduler knows no such thing. */
export async function fetchAutoscaling(id: string, signal: AbortSignal): Promise<Autoscaling | null> {
  try {
    // An app without a policy answers by an error: only those of the list are asked.
    const all = records(record(await ask(`${ROOT}/autoscale`, { signal }))["apps"]);
    if (all.some((it) => text(it["appId"]) === id)) lately.delete(id);
    else if (!lately.has(id)) return null;
    return autoscalingOf(await ask(`${ROOT}/apps/${pathOf(id)}/autoscale`, { signal }));
  } catch (error) {
    if (!isMissing(error)) throw error;
    lately.delete(id);
    return null;
  }
}

export async function setAutoscaling(id: string, policy: unknown): Promise<void> {
  await ask(`${ROOT}/apps/${pathOf(id)}/autoscale`, { method: "PUT", json: policy });
  lately.add(id);
}

export async function removeAutoscaling(id: string): Promise<void> {
  await ask(`${ROOT}/apps/${pathOf(id)}/autoscale`, { method: "DELETE" });
  lately.delete(id);
}

// ---- changes ----

const forced = (isForced: boolean): string => (isForced ? "force=true" : "");

/** Scales, suspends, resumes. */
export async function scale(app: App, instances: number, isForced: boolean): Promise<void> {
  if (app.kind === "app") {
    await ask(`${ROOT}/apps/${pathOf(app.id)}?${forced(isForced)}`, { method: "PUT", json: { instances } });
    return;
  }
  const spec = record(app.raw["spec"]);
  await ask(`${ROOT}/pods/${pathOf(app.id)}?${forced(isForced)}`, { method: "PUT", json: { ...spec, scaling: { ...record(spec["scaling"]), kind: "fixed", instances } } });
}

export async function restart(id: string, isForced: boolean): Promise<void> {
  await ask(`${ROOT}/apps/${pathOf(id)}/restart?${forced(isForced)}`, { method: "POST" });
}

export async function destroy(app: App, isForced: boolean): Promise<void> {
  await ask(`${ROOT}/${app.kind}s/${pathOf(app.id)}?${forced(isForced)}`, { method: "DELETE" });
}

export async function destroyGroup(id: string, isForced: boolean): Promise<void> {
  await ask(`${ROOT}/groups/${pathOf(id)}?${forced(isForced)}`, { method: "DELETE" });
}

export async function scaleGroup(id: string, by: number, isForced: boolean): Promise<void> {
  await ask(`${ROOT}/groups/${pathOf(id)}?${forced(isForced)}`, { method: "PUT", json: { scaleBy: by } });
}

/** Goes back to a version of an app. */
export async function rollBack(app: App, version: string, isForced: boolean): Promise<void> {
  if (app.kind === "app") {
    await ask(`${ROOT}/apps/${pathOf(app.id)}?${forced(isForced)}`, { method: "PUT", json: { version } });
    return;
  }
  const { version: _, ...spec } = await fetchVersion(app, version);
  await ask(`${ROOT}/pods/${pathOf(app.id)}?${forced(isForced)}`, { method: "PUT", json: spec });
}

/** Makes, or replaces as a whole, what a definition says: an app, a pod or a group. */
export async function save(definition: unknown, isNew: boolean, isForced: boolean): Promise<string> {
  const value = record(definition);
  const kind = kindOf(value);
  const id = text(value["id"]);
  if (isNew) await ask(`${ROOT}/${kind}?${forced(isForced)}`, { method: "POST", json: definition });
  else {
    // An app's update keeps whatever it does not name, unless it says that it is all there is. Pods and groups have no other way.
    const query = [kind === "apps" ? "partialUpdate=false" : "", forced(isForced)].filter((it) => it !== "").join("&");
    await ask(`${ROOT}/${kind}/${pathOf(id)}?${query}`, { method: "PUT", json: definition });
  }
  return id;
}

/** What a definition is of, by what only one of them has. */
export function kindOf(value: Json): "apps" | "pods" | "groups" {
  if (Array.isArray(value["apps"]) || Array.isArray(value["groups"])) return "groups";
  return Array.isArray(value["containers"]) ? "pods" : "apps";
}

export async function killInstance(app: App, id: string, isScaling: boolean, isWiping: boolean): Promise<void> {
  if (app.kind === "app") {
    const query = new URLSearchParams({ ...(isScaling ? { scale: "true" } : {}), ...(isWiping ? { wipe: "true" } : {}) }).toString();
    await ask(`${ROOT}/apps/${pathOf(app.id)}/tasks/${encodeURIComponent(id)}?${query}`, { method: "DELETE" });
    return;
  }
  await ask(`${ROOT}/pods/${pathOf(app.id)}::instances/${encodeURIComponent(id)}`, { method: "DELETE" });
}

/** Ends a deployment: back to how it was, or left as it is now. */
export async function cancelDeployment(id: string, isForced: boolean): Promise<void> {
  await ask(`${ROOT}/deployments/${encodeURIComponent(id)}?${forced(isForced)}`, { method: "DELETE" });
}

export async function resetDelay(id: string): Promise<void> {
  await ask(`${ROOT}/queue/${pathOf(id)}/delay`, { method: "DELETE" });
}
