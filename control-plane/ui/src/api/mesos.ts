// What the page asks of a Mesos master, on the port that it came from.

import { agentOf, frameworkOf, machinesOf, offersOf, roleOf, taskOf, type Agent, type Framework, type Machine, type Offer, type Role, type Task } from "../model/cluster";
import { list, number, record, records, text, type Json } from "../model/safe";
import { ApiError, ask } from "./http";

const ROOT = "api/v1/mesos";
/** Tasks of one request. */
const TASK_PAGE = 5_000;
/** Tasks that are listed at most. */
export const TASKS_MAX = 100_000;

/** A call of the operator API. */
export function operator(type: string, body: Json = {}, signal?: AbortSignal): Promise<unknown> {
  return ask(`${ROOT}/api/v1`, { json: { type, ...body }, ...(signal ? { signal } : {}) });
}

export interface ClusterSummary {
  cluster: string;
  hostname: string;
  agents: Agent[];
  /** Counts by framework. */
  frameworks: Map<string, Json>;
}

export async function fetchSummary(signal: AbortSignal): Promise<ClusterSummary> {
  const summary = record(await ask(`${ROOT}/state-summary`, { signal }));
  return {
    cluster: text(summary["cluster"]),
    hostname: text(summary["hostname"]),
    agents: records(summary["slaves"]).map(agentOf),
    frameworks: new Map(records(summary["frameworks"]).map((it) => [text(it["id"]), it])),
  };
}

export async function fetchFrameworks(signal: AbortSignal): Promise<Framework[]> {
  const [answer, summary] = await Promise.all([operator("GET_FRAMEWORKS", {}, signal), ask(`${ROOT}/state-summary`, { signal })]);
  const all = record(record(answer)["get_frameworks"]);
  const counts = new Map(records(record(summary)["frameworks"]).map((it) => [text(it["id"]), it]));
  const idOf = (it: Json): string => text(record(record(it["framework_info"])["id"])["value"]);
  return [
    ...records(all["frameworks"]).map((it) => frameworkOf(it, counts.get(idOf(it)), false)),
    ...records(all["completed_frameworks"]).map((it) => frameworkOf(it, counts.get(idOf(it)), true)),
  ];
}

export interface TaskPage {
  tasks: Task[];
  /** There are more, which are not listed. */
  isCut: boolean;
}

export async function fetchTasks(query: Readonly<Record<string, string>>, signal: AbortSignal): Promise<TaskPage> {
  const tasks: Task[] = [];
  while (tasks.length < TASKS_MAX) {
    const page = new URLSearchParams({ ...query, limit: String(TASK_PAGE), offset: String(tasks.length) }).toString();
    const found = records(record(await ask(`${ROOT}/tasks?${page}`, { signal }))["tasks"]);
    for (const it of found) tasks.push(taskOf(it));
    if (found.length < TASK_PAGE) return { tasks, isCut: false };
    // Between two pages the browser draws and hears.
    await new Promise((resolve) => setTimeout(resolve, 0));
  }
  return { tasks, isCut: true };
}

/** One task, with what its states said in words. */
export async function fetchTask(frameworkId: string, id: string, signal: AbortSignal): Promise<Task> {
  const query = new URLSearchParams({ framework_id: frameworkId, task_id: id, limit: "5", words: "true" }).toString();
  const found = records(record(await ask(`${ROOT}/tasks?${query}`, { signal }))["tasks"]);
  if (found[0] === undefined) throw new ApiError(404, "The master does not know it (any more): of a framework's tasks that are over it remembers the last thousand.");
  return taskOf(found[0]);
}

export async function fetchRoles(signal: AbortSignal): Promise<Role[]> {
  return records(record(await ask(`${ROOT}/roles`, { signal }))["roles"]).map(roleOf);
}

export async function fetchOffers(signal: AbortSignal): Promise<Offer[]> {
  // `/frameworks` has all tasks beside.
  return offersOf(record(record(await operator("GET_FRAMEWORKS", {}, signal))["get_frameworks"])["frameworks"]);
}

export async function fetchMachines(signal: AbortSignal): Promise<Machine[]> {
  const [status, schedule] = await Promise.all([ask(`${ROOT}/maintenance/status`, { signal }), ask(`${ROOT}/maintenance/schedule`, { signal })]);
  return machinesOf(status, schedule);
}

// ---- changes ----

export async function drainAgent(id: string, graceSeconds: number | null, markGone: boolean): Promise<void> {
  const grace = graceSeconds === null ? {} : { max_grace_period: { nanoseconds: Math.round(graceSeconds * 1e9) } };
  await operator("DRAIN_AGENT", { drain_agent: { agent_id: { value: id }, ...grace, mark_gone: markGone } });
}

export async function deactivateAgent(id: string): Promise<void> {
  await operator("DEACTIVATE_AGENT", { deactivate_agent: { agent_id: { value: id } } });
}

export async function reactivateAgent(id: string): Promise<void> {
  await operator("REACTIVATE_AGENT", { reactivate_agent: { agent_id: { value: id } } });
}

export async function teardown(frameworkId: string): Promise<void> {
  await ask(`${ROOT}/teardown`, { form: { frameworkId } });
}

export async function setWeight(role: string, weight: number): Promise<void> {
  await ask(`${ROOT}/weights`, { method: "PUT", json: [{ role, weight }] });
}

export async function setQuota(role: string, guarantees: Readonly<Record<string, number>>, limits: Readonly<Record<string, number>>): Promise<void> {
  const scalars = (all: Readonly<Record<string, number>>) => Object.fromEntries(Object.entries(all).map(([name, value]) => [name, { value }]));
  await operator("UPDATE_QUOTA", { update_quota: { force: false, quota_configs: [{ role, guarantees: scalars(guarantees), limits: scalars(limits) }] } });
}

/** Adds a window to the schedule as it is now. */
export async function scheduleMaintenance(machine: { hostname: string; ip: string }, from: number, durationSeconds: number | null): Promise<void> {
  const schedule = record(await ask(`${ROOT}/maintenance/schedule`));
  const duration = durationSeconds === null ? {} : { duration: { nanoseconds: Math.round(durationSeconds * 1e9) } };
  const window = { machine_ids: [named(machine)], unavailability: { start: { nanoseconds: Math.round(from * 1e6) }, ...duration } };
  await ask(`${ROOT}/maintenance/schedule`, { json: { windows: [...list(schedule["windows"]), window] } });
}

/** Takes a machine out of the schedule. */
export async function unscheduleMaintenance(machine: { hostname: string; ip: string }): Promise<void> {
  const schedule = record(await ask(`${ROOT}/maintenance/schedule`));
  const isOther = (it: Json): boolean => text(it["hostname"]) !== machine.hostname || text(it["ip"]) !== machine.ip;
  const windows = records(schedule["windows"])
    .map((window) => ({ ...window, machine_ids: records(window["machine_ids"]).filter(isOther) }))
    .filter((window) => window.machine_ids.length > 0);
  await ask(`${ROOT}/maintenance/schedule`, { json: { windows } });
}

export async function machineDown(machine: { hostname: string; ip: string }): Promise<void> {
  await ask(`${ROOT}/machine/down`, { json: [named(machine)] });
}

export async function machineUp(machine: { hostname: string; ip: string }): Promise<void> {
  await ask(`${ROOT}/machine/up`, { json: [named(machine)] });
}

function named({ hostname, ip }: { hostname: string; ip: string }): Json {
  return { ...(hostname === "" ? {} : { hostname }), ...(ip === "" ? {} : { ip }) };
}

// ---- files of tasks ----

export interface FileEntry {
  path: string;
  name: string;
  isDirectory: boolean;
  size: number;
  mode: string;
  owner: string;
  /** Milliseconds since 1970. */
  changed: number | null;
}

export function fileEntry(value: Json): FileEntry {
  const path = text(value["path"]);
  const mode = text(value["mode"]);
  const modified = number(value["mtime"]);
  return {
    path,
    name: path.slice(path.lastIndexOf("/") + 1),
    isDirectory: mode.startsWith("d"),
    size: number(value["size"]),
    mode,
    owner: [text(value["uid"]), text(value["gid"])].filter((part) => part !== "").join(":"),
    changed: modified > 0 ? modified * 1_000 : null,
  };
}

const filesOf = (agentId: string, operation: string, query: Readonly<Record<string, string>>): string =>
  `api/v1/agents/${encodeURIComponent(agentId)}/files/${operation}?${new URLSearchParams(query).toString()}`;

export async function browse(agentId: string, path: string, signal: AbortSignal): Promise<FileEntry[]> {
  return records(await ask(filesOf(agentId, "browse", { path }), { signal })).map(fileEntry);
}

export interface Piece {
  data: string;
  offset: number;
}

/** A piece of a file; `offset` -1 answers with the length of the file as the offset. */
export async function read(agentId: string, path: string, offset: number, length: number, signal: AbortSignal): Promise<Piece> {
  const answer = record(await ask(filesOf(agentId, "read", { path, offset: String(offset), ...(offset < 0 ? {} : { length: String(length) }) }), { signal }));
  return { data: typeof answer["data"] === "string" ? answer["data"] : "", offset: number(answer["offset"]) };
}

export function downloadUrl(agentId: string, path: string): string {
  return filesOf(agentId, "download", { path });
}
