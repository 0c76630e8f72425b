// A Mesos cluster as the page shows it, from what the master's API says.

import { bytes, compactNumber } from "./format";
import { searchable, type Searchable } from "./filter";
import { flag, number, record, records, safeUrl, text, texts, type Json } from "./safe";

/** CPUs and GPUs in pieces, memory and disk in mebibytes, as Mesos counts them. */
export interface Amounts {
  cpus: number;
  gpus: number;
  mem: number;
  disk: number;
}

export const RESOURCES = ["cpus", "mem", "disk", "gpus"] as const;
export type Resource = (typeof RESOURCES)[number];
export const RESOURCE_NAMES: Readonly<Record<Resource, string>> = { cpus: "CPUs", mem: "Memory", disk: "Disk", gpus: "GPUs" };

export function amounts(value: unknown): Amounts {
  const object = record(value);
  const read = (name: string): number => Math.max(0, number(object[name]));
  return { cpus: read("cpus"), gpus: read("gpus"), mem: read("mem"), disk: read("disk") };
}

export function added(one: Amounts, other: Amounts): Amounts {
  return { cpus: one.cpus + other.cpus, gpus: one.gpus + other.gpus, mem: one.mem + other.mem, disk: one.disk + other.disk };
}

export const NOTHING: Amounts = { cpus: 0, gpus: 0, mem: 0, disk: 0 };

/** `2.5`, `4 GB`. */
export function amount(resource: Resource, value: number): string {
  return resource === "mem" || resource === "disk" ? bytes(value * 1024 * 1024) : compactNumber(value);
}

export function share(part: number, whole: number): number {
  return whole > 0 ? Math.min(1, Math.max(0, part / whole)) : 0;
}

/** The larger of the shares of CPUs and memory: how full something is. */
export function fullness(used: Amounts, total: Amounts): number {
  return Math.max(share(used.cpus, total.cpus), share(used.mem, total.mem));
}

// ---- agents ----

export type AgentState = "active" | "draining" | "drained" | "deactivated" | "away";

export interface Agent {
  id: string;
  hostname: string;
  /** `address:port` of its own API. */
  address: string;
  state: AgentState;
  deactivated: boolean;
  version: string;
  attributes: readonly (readonly [string, string])[];
  ports: string;
  /** Milliseconds since 1970. */
  registered: number | null;
  seen: number | null;
  total: Amounts;
  used: Amounts;
  offered: Amounts;
  reserved: readonly (readonly [string, Amounts])[];
  drain: { state: string; markGone: boolean; grace: string } | null;
  tasks: TaskCounts;
  frameworks: readonly string[];
  capabilities: readonly string[];
  zone: string;
  row: Searchable;
}

export interface TaskCounts {
  running: number;
  waiting: number;
  failed: number;
  finished: number;
  unreachable: number;
}

function counts(value: Json): TaskCounts {
  const of = (...names: string[]): number => names.reduce((sum, name) => sum + number(value[`TASK_${name}`]), 0);
  return {
    running: of("RUNNING", "KILLING"),
    waiting: of("STAGING", "STARTING"),
    failed: of("FAILED", "LOST", "ERROR"),
    finished: of("FINISHED", "KILLED"),
    unreachable: of("UNREACHABLE"),
  };
}

/** Mesos tells seconds with decimals; 0 is no time. */
export function seconds(value: unknown): number | null {
  const at = number(value);
  return at > 0 ? at * 1_000 : null;
}

function zoneOf(domain: unknown): string {
  const fault = record(record(domain)["fault_domain"]);
  return [text(record(fault["region"])["name"]), text(record(fault["zone"])["name"])].filter((part) => part !== "").join(" / ");
}

export function agentOf(value: Json): Agent {
  const drainInfo = value["drain_info"] === undefined ? null : record(value["drain_info"]);
  const drainState = drainInfo === null ? "" : text(drainInfo["state"]);
  const config = record(drainInfo?.["config"]);
  const graceNanos = number(record(config["max_grace_period"])["nanoseconds"]);
  const isActive = value["active"] !== false;
  const isDeactivated = flag(value["deactivated"]);
  const state: AgentState = drainState === "DRAINING" ? "draining" : drainState === "DRAINED" ? "drained" : isDeactivated ? "deactivated" : isActive ? "active" : "away";
  const attributes = Object.entries(record(value["attributes"])).map(([name, it]) => [name, text(it)] as const);
  const pid = text(value["pid"]);
  const registered = seconds(value["registered_time"]);
  const agent = {
    id: text(value["id"]),
    hostname: text(value["hostname"]),
    address: pid.slice(pid.indexOf("@") + 1),
    state,
    deactivated: isDeactivated,
    version: text(value["version"]),
    attributes,
    ports: text(record(value["resources"])["ports"]),
    registered,
    seen: seconds(value["reregistered_time"]) ?? registered,
    total: amounts(value["resources"]),
    used: amounts(value["used_resources"]),
    offered: amounts(value["offered_resources"]),
    reserved: Object.entries(record(value["reserved_resources"])).map(([role, it]) => [role, amounts(it)] as const),
    drain: drainInfo === null ? null : { state: drainState, markGone: flag(config["mark_gone"]), grace: graceNanos > 0 ? `${graceNanos / 1e9} s` : "" },
    tasks: counts(value),
    frameworks: texts(value["framework_ids"]),
    capabilities: texts(value["capabilities"]),
    zone: zoneOf(value["domain"]),
  };
  const row = searchable({
    id: agent.id,
    host: agent.hostname,
    state: agent.state,
    version: agent.version,
    attribute: attributes.map(([name, it]) => `${name}=${it}`).join(" "),
    role: agent.reserved.map(([role]) => role).join(" "),
    address: agent.address,
    zone: agent.zone,
  });
  return { ...agent, row };
}

// ---- frameworks ----

export interface Framework {
  id: string;
  name: string;
  user: string;
  principal: string;
  hostname: string;
  /** Only where a link may lead there. */
  webui: string | null;
  roles: readonly string[];
  state: "active" | "inactive" | "disconnected" | "recovered" | "completed";
  used: Amounts;
  offered: Amounts;
  tasks: TaskCounts;
  agents: readonly string[];
  failoverTimeout: number;
  checkpoint: boolean;
  registered: number | null;
  reregistered: number | null;
  unregistered: number | null;
  capabilities: readonly string[];
  labels: readonly (readonly [string, string])[];
  row: Searchable;
}

export function labelsOf(value: unknown): (readonly [string, string])[] {
  const all = Array.isArray(value) ? value : record(value)["labels"];
  return records(all).map((label) => [text(label["key"]), text(label["value"])] as const);
}

/** From the operator API's description, with the counts of the summary. */
export function frameworkOf(value: Json, summary: Json | undefined, isCompleted: boolean): Framework {
  const info = record(value["framework_info"]);
  const time = (name: string): number | null => {
    const nanos = number(record(value[name])["nanoseconds"]);
    return nanos > 0 ? nanos / 1e6 : null;
  };
  const isActive = flag(value["active"]);
  const state = isCompleted ? "completed" : flag(value["recovered"]) ? "recovered" : isActive ? "active" : value["connected"] === false ? "disconnected" : "inactive";
  const multi = texts(info["roles"]);
  const role = text(info["role"]);
  const framework = {
    id: text(record(info["id"])["value"]),
    name: text(info["name"]),
    user: text(info["user"]),
    principal: text(info["principal"]),
    hostname: text(info["hostname"]),
    webui: safeUrl(info["webui_url"]),
    roles: multi.length > 0 ? multi : [role || "*"],
    state: state as Framework["state"],
    used: amounts(record(summary)["used_resources"]),
    offered: amounts(record(summary)["offered_resources"]),
    tasks: counts(record(summary)),
    agents: texts(record(summary)["slave_ids"]),
    failoverTimeout: number(info["failover_timeout"]),
    checkpoint: flag(info["checkpoint"]),
    registered: time("registered_time"),
    reregistered: time("reregistered_time"),
    unregistered: time("unregistered_time"),
    capabilities: records(info["capabilities"]).map((it) => text(it["type"])),
    labels: labelsOf(info["labels"]),
  };
  const row = searchable({
    id: framework.id,
    name: framework.name,
    user: framework.user,
    principal: framework.principal,
    host: framework.hostname,
    role: framework.roles.join(" "),
    state: framework.state,
  });
  return { ...framework, row };
}

// ---- tasks ----

export type TaskKind = "active" | "completed" | "unreachable";

export interface TaskStatus {
  state: string;
  at: number | null;
  healthy: boolean | null;
  message: string;
  reason: string;
  source: string;
}

export interface Task {
  id: string;
  name: string;
  frameworkId: string;
  agentId: string;
  executorId: string;
  state: string;
  kind: TaskKind;
  healthy: boolean | null;
  resources: Amounts;
  ports: string;
  role: string;
  user: string;
  labels: readonly (readonly [string, string])[];
  statuses: readonly TaskStatus[];
  /** Ids of its container and of those around it, the innermost first. */
  containers: readonly string[];
  addresses: readonly string[];
  image: string;
  started: number | null;
  updated: number | null;
  row: Searchable;
}

const OVER = ["TASK_FINISHED", "TASK_FAILED", "TASK_KILLED", "TASK_ERROR", "TASK_LOST", "TASK_DROPPED", "TASK_GONE", "TASK_GONE_BY_OPERATOR"];
const AWAY = ["TASK_UNREACHABLE", "TASK_UNKNOWN"];

export function taskKind(state: string): TaskKind {
  return OVER.includes(state) ? "completed" : AWAY.includes(state) ? "unreachable" : "active";
}

/** `TASK_RUNNING` → `running`. */
export function stateWord(state: string): string {
  return state.replace(/^TASK_/, "").toLowerCase().replaceAll("_", " ");
}

export function stateKind(state: string, healthy: boolean | null): "good" | "warn" | "bad" | "idle" | "busy" {
  switch (state) {
    case "TASK_RUNNING":
      return healthy === false ? "bad" : "good";
    case "TASK_STAGING":
    case "TASK_STARTING":
    case "TASK_KILLING":
      return "busy";
    case "TASK_FINISHED":
    case "TASK_KILLED":
      return "idle";
    case "TASK_UNREACHABLE":
    case "TASK_UNKNOWN":
      return "warn";
    default:
      return "bad";
  }
}

/** A container and those that it is in. Bounded, because nobody promises that there is no circle. */
function containerChain(value: unknown): string[] {
  const chain: string[] = [];
  let at = record(value);
  while (chain.length < 16) {
    const id = text(at["value"]);
    if (id === "") break;
    chain.push(id);
    at = record(at["parent"]);
  }
  return chain;
}

export function taskOf(value: Json): Task {
  const statuses = records(value["statuses"]).map((status): TaskStatus => {
    return {
      state: text(status["state"]),
      at: seconds(status["timestamp"]),
      healthy: typeof status["healthy"] === "boolean" ? status["healthy"] : null,
      message: text(status["message"]),
      reason: text(status["reason"]),
      source: text(status["source"]),
    };
  });
  const containerStatus = records(value["statuses"]).map((status) => record(status["container_status"]));
  const chain = containerStatus.map((status) => containerChain(status["container_id"])).filter((ids) => ids.length > 0).pop() ?? [];
  const addresses = containerStatus.flatMap((status) => records(status["network_infos"]).flatMap((info) => records(info["ip_addresses"]).map((it) => text(it["ip_address"]))));
  const container = record(value["container"]);
  const state = text(value["state"]) || "TASK_UNKNOWN";
  const running = statuses.find((status) => status.state === "TASK_RUNNING") ?? statuses[0];
  const last = statuses[statuses.length - 1];
  const task = {
    id: text(value["id"]),
    name: text(value["name"]),
    frameworkId: text(value["framework_id"]),
    agentId: text(value["slave_id"]),
    executorId: text(value["executor_id"]),
    state,
    kind: taskKind(state),
    healthy: last?.healthy ?? null,
    resources: amounts(value["resources"]),
    ports: text(record(value["resources"])["ports"]),
    role: text(value["role"]),
    user: text(value["user"]),
    labels: labelsOf(value["labels"]),
    statuses,
    containers: chain,
    addresses: [...new Set(addresses.filter((it) => it !== ""))],
    image: text(record(container["docker"])["image"]) || text(record(record(record(container["mesos"])["image"])["docker"])["name"]),
    started: running?.at ?? null,
    updated: last?.at ?? null,
  };
  const row = searchable({
    id: task.id,
    name: task.name,
    framework: task.frameworkId,
    agent: task.agentId,
    state: stateWord(state),
    role: task.role,
    user: task.user,
    image: task.image,
    label: task.labels.map(([key, it]) => `${key}=${it}`).join(" "),
    container: task.containers.join(" "),
    address: task.addresses.join(" "),
  });
  return { ...task, row };
}

/** Where the agent shows a task's sandbox: the places to try, the best first. */
export function sandboxPaths(task: Pick<Task, "frameworkId" | "executorId" | "id">): string[] {
  const executor = task.executorId === "" ? task.id : task.executorId;
  const of = `/frameworks/${task.frameworkId}/executors/${executor}`;
  const own = `${of}/runs/latest`;
  // A group of tasks shares an executor, and each task has a sandbox of its own.
  return executor === task.id ? [own] : [`${of}/tasks/${task.id}`, `${own}/tasks/${task.id}`, own];
}

// ---- roles, offers, maintenance ----

export interface Role {
  name: string;
  weight: number;
  guarantee: Amounts;
  limit: Partial<Amounts>;
  consumed: Amounts;
  allocated: Amounts;
  offered: Amounts;
  reserved: Amounts;
  frameworks: readonly string[];
  row: Searchable;
}

function given(value: unknown): Partial<Amounts> {
  const object = record(value);
  return Object.fromEntries(RESOURCES.filter((name) => object[name] !== undefined).map((name) => [name, Math.max(0, number(object[name]))]));
}

export function roleOf(value: Json): Role {
  const quota = record(value["quota"]);
  const name = text(value["name"]);
  return {
    name,
    weight: number(value["weight"], 1),
    guarantee: amounts(quota["guarantee"]),
    limit: given(quota["limit"]),
    consumed: amounts(quota["consumed"]),
    allocated: amounts(value["allocated"] ?? value["resources"]),
    offered: amounts(value["offered"]),
    reserved: amounts(value["reserved"]),
    frameworks: texts(value["frameworks"]),
    row: searchable({ name, framework: texts(value["frameworks"]).join(" ") }),
  };
}

export interface Offer {
  id: string;
  frameworkId: string;
  frameworkName: string;
  agentId: string;
  role: string;
  resources: Amounts;
  ports: string;
  row: Searchable;
}

/** Of frameworks as the operator API has them. */
export function offersOf(frameworks: unknown): Offer[] {
  const idOf = (value: unknown): string => text(record(value)["value"]);
  return records(frameworks).flatMap((framework) => {
    const info = record(framework["framework_info"]);
    return records(framework["offers"]).map((offer) => {
      const resources = records(offer["resources"]);
      const scalars: Record<string, number> = {};
      for (const one of resources) {
        const name = text(one["name"]);
        if (one["scalar"] !== undefined) scalars[name] = (scalars[name] ?? 0) + number(record(one["scalar"])["value"]);
      }
      const ports = resources.filter((one) => one["name"] === "ports").flatMap((one) => records(record(one["ranges"])["range"]));
      const it = {
        id: idOf(offer["id"]),
        frameworkId: idOf(info["id"]),
        frameworkName: text(info["name"]),
        agentId: idOf(offer["agent_id"]),
        role: text(record(offer["allocation_info"])["role"]),
        resources: amounts(scalars),
        ports: ports.length === 0 ? "" : `[${ports.map((range) => `${number(range["begin"])}-${number(range["end"])}`).join(", ")}]`,
      };
      return { ...it, row: searchable({ id: it.id, framework: `${it.frameworkId} ${it.frameworkName}`, agent: it.agentId, role: it.role }) };
    });
  });
}

export interface Machine {
  hostname: string;
  ip: string;
  state: "planned" | "draining" | "down";
  /** Milliseconds since 1970. */
  from: number | null;
  seconds: number | null;
}

/** Machines of the schedule, with how they stand. */
export function machinesOf(status: unknown, schedule: unknown): Machine[] {
  const key = (machine: Json): string => `${text(machine["hostname"])} ${text(machine["ip"])}`;
  const down = new Set(records(record(status)["down_machines"]).map(key));
  const draining = new Set(records(record(status)["draining_machines"]).map((it) => key(record(it["id"]))));
  const machines = records(record(schedule)["windows"]).flatMap((window) => {
    const unavailability = record(window["unavailability"]);
    const begin = number(record(unavailability["start"])["nanoseconds"]);
    const length = number(record(unavailability["duration"])["nanoseconds"]);
    return records(window["machine_ids"]).map((machine): Machine => {
      const state = down.has(key(machine)) ? "down" : draining.has(key(machine)) ? "draining" : "planned";
      return { hostname: text(machine["hostname"]), ip: text(machine["ip"]), state, from: begin > 0 ? begin / 1e6 : null, seconds: length > 0 ? length / 1e9 : null };
    });
  });
  return machines;
}
