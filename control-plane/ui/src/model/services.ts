// Apps, groups and pods as the page shows them, from what Marathon's API says.

import { searchable, type Searchable } from "./filter";
import { flag, list, number, record, records, text, texts, type Json } from "./safe";

/** How the instances of something stand. */
export interface HealthCounts {
  healthy: number;
  unhealthy: number;
  /** Running, and nobody checks. */
  running: number;
  /** On its way. */
  staged: number;
  /** Wanted, and not there. */
  missing: number;
  /** There beyond what is wanted. */
  over: number;
  wanted: number;
}

export const NO_COUNTS: HealthCounts = { healthy: 0, unhealthy: 0, running: 0, staged: 0, missing: 0, over: 0, wanted: 0 };

export function sum(one: HealthCounts, other: HealthCounts): HealthCounts {
  return {
    healthy: one.healthy + other.healthy,
    unhealthy: one.unhealthy + other.unhealthy,
    running: one.running + other.running,
    staged: one.staged + other.staged,
    missing: one.missing + other.missing,
    over: one.over + other.over,
    wanted: one.wanted + other.wanted,
  };
}

/** From Marathon's four counts and what is wanted. */
export function healthCounts(counts: { staged: number; running: number; healthy: number; unhealthy: number; wanted: number }): HealthCounts {
  const { staged, running, healthy, unhealthy, wanted } = counts;
  const unknown = Math.max(0, running - healthy - unhealthy);
  const there = staged + healthy + unhealthy + unknown;
  return { healthy, unhealthy, running: unknown, staged, missing: Math.max(0, wanted - there), over: Math.max(0, there - wanted), wanted };
}

export type AppState = "running" | "deploying" | "waiting" | "delayed" | "suspended" | "unhealthy";

export interface App {
  kind: "app" | "pod";
  id: string;
  name: string;
  instances: number;
  cpus: number;
  mem: number;
  gpus: number;
  image: string;
  command: string;
  version: string;
  role: string;
  labels: readonly (readonly [string, string])[];
  hasChecks: boolean;
  health: HealthCounts;
  deployments: readonly string[];
  /** As the API sent it. */
  raw: Json;
  row: Searchable;
}

export interface Group {
  kind: "group";
  id: string;
  name: string;
  groups: Group[];
  apps: App[];
  health: HealthCounts;
  cpus: number;
  mem: number;
  /** Apps and pods below it, at any depth. */
  size: number;
}

/** The last part of a path; the whole of the root. */
export function lastPart(id: string): string {
  return id === "/" || id === "" ? "/" : id.slice(id.lastIndexOf("/") + 1);
}

export function segments(id: string): string[] {
  return id.split("/").filter((part) => part !== "");
}

function imageOf(app: Json): string {
  const container = record(app["container"]);
  return text(record(container["docker"])["image"]) || text(record(app["image"])["id"]);
}

export function appOf(value: Json): App {
  const id = text(value["id"]) || "/?";
  const wanted = number(value["instances"], 1);
  const container = record(value["container"]);
  const app = {
    kind: "app" as const,
    id,
    name: lastPart(id),
    instances: wanted,
    cpus: number(value["cpus"]),
    mem: number(value["mem"]),
    gpus: number(value["gpus"]),
    image: text(record(container["docker"])["image"]),
    command: text(value["cmd"]) || texts(value["args"]).join(" "),
    version: text(value["version"]),
    role: text(value["role"]),
    labels: Object.entries(record(value["labels"])).map(([key, it]) => [key, text(it)] as const),
    hasChecks: list(value["healthChecks"]).length > 0 || list(value["checks"]).length > 0,
    health: healthCounts({
      staged: number(value["tasksStaged"]),
      running: number(value["tasksRunning"]),
      healthy: number(value["tasksHealthy"]),
      unhealthy: number(value["tasksUnhealthy"]),
      wanted,
    }),
    deployments: records(value["deployments"]).map((it) => text(it["id"])),
    raw: value,
  };
  return { ...app, row: rowOf(app) };
}

function rowOf(app: Pick<App, "id" | "image" | "command" | "role" | "labels" | "kind">): Searchable {
  return searchable({ id: app.id, image: app.image, cmd: app.command, role: app.role, kind: app.kind, label: app.labels.map(([key, it]) => `${key}=${it}`).join(" ") });
}

/** A pod's status, or its definition. */
export function podOf(status: Json): App {
  const spec = status["spec"] === undefined ? status : record(status["spec"]);
  const id = text(status["id"]) || text(spec["id"]) || "/?";
  const containers = records(spec["containers"]);
  const total = (name: string): number => containers.reduce((all, it) => all + number(record(it["resources"])[name]), 0);
  const instances = records(status["instances"]);
  const states = instances.map((it) => text(it["status"]).toUpperCase());
  const wanted = number(record(spec["scaling"])["instances"], 1);
  const of = (...names: string[]): number => states.filter((state) => names.includes(state)).length;
  const app = {
    kind: "pod" as const,
    id,
    name: lastPart(id),
    instances: wanted,
    cpus: total("cpus"),
    mem: total("mem"),
    gpus: total("gpus"),
    image: containers.map(imageOf).filter((it) => it !== "").join(", "),
    command: containers.map((it) => text(record(record(it["exec"])["command"])["shell"])).filter((it) => it !== "").join("; "),
    version: text(spec["version"]),
    role: text(spec["role"]),
    labels: Object.entries(record(spec["labels"])).map(([key, it]) => [key, text(it)] as const),
    hasChecks: containers.some((it) => it["healthCheck"] !== undefined),
    // What is pending waits for an offer, as apps' instances do that are not there.
    health: healthCounts({ staged: of("STAGING"), running: of("STABLE", "DEGRADED"), healthy: of("STABLE"), unhealthy: of("DEGRADED"), wanted }),
    deployments: [] as string[],
    raw: status,
  };
  return { ...app, row: rowOf(app) };
}

/** A group with everything below it. Deeper than any path may be, nothing is looked for. */
export function groupOf(value: Json, depth = 0): Group {
  const id = text(value["id"]) || "/";
  const groups = depth > 64 ? [] : records(value["groups"]).map((it) => groupOf(it, depth + 1));
  const apps = [...records(value["apps"]).map(appOf), ...records(value["pods"]).map(podOf)];
  const byName = (a: { name: string }, b: { name: string }): number => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0);
  groups.sort(byName);
  apps.sort(byName);
  const all = (pick: (it: Group) => number, own: (it: App) => number): number => groups.reduce((count, it) => count + pick(it), 0) + apps.reduce((count, it) => count + own(it), 0);
  return {
    kind: "group",
    id,
    name: lastPart(id),
    groups,
    apps,
    health: [...groups, ...apps].reduce((counts, it) => sum(counts, it.health), NO_COUNTS),
    cpus: all((it) => it.cpus, (it) => it.cpus * it.instances),
    mem: all((it) => it.mem, (it) => it.mem * it.instances),
    size: all((it) => it.size, () => 1),
  };
}

/** The group with this id. */
export function groupAt(root: Group, id: string): Group | null {
  let at: Group = root;
  for (const part of segments(id)) {
    const below = at.groups.find((it) => it.name === part);
    if (below === undefined) return null;
    at = below;
  }
  return at;
}

/** Every app and pod below a group. */
export function appsBelow(group: Group): App[] {
  return [...group.groups.flatMap(appsBelow), ...group.apps];
}

export function appState(app: App, queue: readonly QueueItem[]): AppState {
  const waiting = queue.find((it) => it.id === app.id);
  if (app.deployments.length > 0) return waiting !== undefined && waiting.delaySeconds > 0 ? "delayed" : "deploying";
  if (waiting !== undefined && waiting.delaySeconds > 0) return "delayed";
  if (waiting !== undefined && app.health.missing > 0) return "waiting";
  if (app.health.unhealthy > 0) return "unhealthy";
  if (app.instances === 0 && app.health.over === 0) return "suspended";
  return "running";
}

// ---- instances ----

export interface Instance {
  id: string;
  state: string;
  /** `null` when nobody checks, or no result is there yet. */
  healthy: boolean | null;
  cause: string;
  host: string;
  agentId: string;
  ports: readonly number[];
  addresses: readonly string[];
  version: string;
  staged: number | null;
  started: number | null;
  zone: string;
  row: Searchable;
}

function time(value: unknown): number | null {
  const at = Date.parse(text(value));
  return Number.isNaN(at) ? null : at;
}

export function instanceOf(value: Json): Instance {
  const results = records(value["healthCheckResults"]);
  const failing = results.find((it) => it["alive"] !== true);
  const instance = {
    id: text(value["id"]),
    state: text(value["state"]),
    healthy: results.length === 0 ? null : failing === undefined,
    cause: text(failing?.["lastFailureCause"]),
    host: text(value["host"]),
    agentId: text(value["slaveId"]),
    ports: list(value["ports"]).map((port) => number(port)),
    addresses: records(value["ipAddresses"]).map((it) => text(it["ipAddress"])),
    version: text(value["version"]),
    staged: time(value["stagedAt"]),
    started: time(value["startedAt"]),
    zone: text(value["zone"]),
  };
  return { ...instance, row: searchable({ id: instance.id, host: instance.host, state: instance.state, version: instance.version, ports: instance.ports.join(" ") }) };
}

/** How the containers of a pod's instance ended that did not end well: `main: Command exited with status 4`. */
function endOf(instance: Json): string {
  const ended = records(instance["containers"]).filter((it) => ["TASK_FAILED", "TASK_ERROR", "TASK_LOST", "TASK_GONE", "TASK_DROPPED"].includes(text(it["status"])));
  return ended.map((it) => `${text(it["name"])}: ${text(record(it["termination"])["message"]) || text(it["message"]) || text(it["status"])}`).join("; ");
}

/** A pod's instances, each with its containers' states. */
export function podInstanceOf(value: Json): Instance {
  const status = text(value["status"]).toUpperCase();
  const instance = {
    id: text(value["id"]),
    state: status,
    healthy: status === "STABLE" ? true : status === "DEGRADED" ? false : null,
    cause: text(value["message"]) || endOf(value),
    host: text(value["agentHostname"]),
    agentId: text(value["agentId"]),
    ports: records(value["containers"]).flatMap((it) => records(it["endpoints"]).map((endpoint) => number(endpoint["allocatedHostPort"]))).filter((port) => port > 0),
    addresses: records(value["networks"]).flatMap((it) => texts(it["addresses"])),
    version: text(value["specReference"]).split("::").pop() ?? "",
    staged: time(value["statusSince"]),
    started: time(value["statusSince"]),
    zone: text(value["agentZone"]),
  };
  return { ...instance, row: searchable({ id: instance.id, host: instance.host, state: instance.state, version: instance.version, ports: instance.ports.join(" ") }) };
}

export interface Failure {
  at: number | null;
  host: string;
  message: string;
  state: string;
  taskId: string;
  version: string;
}

export function failureOf(value: unknown): Failure | null {
  const failure = record(value);
  if (Object.keys(failure).length === 0) return null;
  return {
    at: time(failure["timestamp"]),
    host: text(failure["host"]),
    message: text(failure["message"]),
    state: text(failure["state"]),
    taskId: text(failure["taskId"]),
    version: text(failure["version"]),
  };
}

/** The latest end of an instance that a pod's status tells of. */
export function podFailureOf(status: Json): Failure | null {
  const last = records(status["terminationHistory"])[0];
  if (last === undefined) return null;
  const containers = records(last["containers"]);
  // Of several, the others were ended because of it.
  const failed = containers.find((it) => !["TASK_KILLED", "TASK_FINISHED"].includes(text(it["lastKnownState"]))) ?? containers[0] ?? {};
  const instance = records(status["instances"]).find((it) => text(it["id"]) === text(last["instanceID"]));
  return {
    at: time(last["terminatedAt"]),
    host: text(instance?.["agentHostname"]),
    message: text(record(failed["termination"])["message"]) || text(last["message"]),
    state: text(failed["lastKnownState"]),
    taskId: text(failed["containerId"]),
    version: "",
  };
}

// ---- deployments ----

export interface Deployment {
  id: string;
  version: string;
  apps: readonly string[];
  step: number;
  steps: number;
  actions: readonly { action: string; app: string }[];
}

export function deploymentOf(value: Json): Deployment {
  return {
    id: text(value["id"]),
    version: text(value["version"]),
    apps: [...texts(value["affectedApps"]), ...texts(value["affectedPods"])],
    step: number(value["currentStep"]),
    steps: Math.max(1, number(value["totalSteps"], 1)),
    actions: records(value["currentActions"]).map((it) => ({ action: text(it["action"]), app: text(it["app"]) || text(it["pod"]) })),
  };
}

/** `ScaleApplication` → `scale`. */
export function actionWord(action: string): string {
  return action.replace(/(Application|Pod)$/, "").replace(/([a-z])([A-Z])/g, "$1 $2").toLowerCase();
}

// ---- the queue ----

export interface Refusal {
  reason: string;
  declined: number;
  processed: number;
}

export interface QueueItem {
  id: string;
  count: number;
  since: number | null;
  delaySeconds: number;
  overdue: boolean;
  processed: number;
  unused: number;
  lastUnused: number | null;
  lastUsed: number | null;
  /** Of the last offers that were looked at. */
  last: readonly Refusal[];
  /** Of all since the instances wait. */
  all: readonly Refusal[];
  /** The offers themselves, the newest first. */
  offers: readonly { host: string; reasons: readonly string[]; at: number | null; cpus: number; mem: number }[];
}

function refusals(value: unknown): Refusal[] {
  return records(value).map((it) => ({ reason: text(it["reason"]), declined: number(it["declined"]), processed: number(it["processed"]) }));
}

export function queueItemOf(value: Json): QueueItem {
  const summary = record(value["processedOffersSummary"]);
  const delay = record(value["delay"]);
  const spec = value["app"] === undefined ? record(value["pod"]) : record(value["app"]);
  const offers = records(value["lastUnusedOffers"]).map((it) => {
    const offer = record(it["offer"]);
    const scalar = (name: string): number => records(offer["resources"]).filter((item) => item["name"] === name).reduce((total, item) => total + number(item["scalar"]), 0);
    return { host: text(offer["hostname"]), reasons: texts(it["reason"]), at: time(it["timestamp"]), cpus: scalar("cpus"), mem: scalar("mem") };
  });
  offers.sort((a, b) => (b.at ?? 0) - (a.at ?? 0));
  return {
    id: text(spec["id"]),
    count: number(value["count"]),
    since: time(value["since"]),
    delaySeconds: flag(delay["overdue"]) ? 0 : number(delay["timeLeftSeconds"]),
    overdue: flag(delay["overdue"]),
    processed: number(summary["processedOffersCount"]),
    unused: number(summary["unusedOffersCount"]),
    lastUnused: time(summary["lastUnusedOfferAt"]),
    lastUsed: time(summary["lastUsedOfferAt"]),
    last: refusals(summary["rejectSummaryLastOffers"]),
    all: refusals(summary["rejectSummaryLaunchAttempt"]),
    offers,
  };
}

const REASONS: Readonly<Record<string, string>> = {
  UnfulfilledRole: "role",
  UnfulfilledConstraint: "constraint",
  NoCorrespondingReservationFound: "reservation",
  AgentMaintenance: "maintenance",
  AgentDraining: "draining",
  InsufficientCpus: "cpus",
  InsufficientMemory: "memory",
  InsufficientDisk: "disk",
  InsufficientGpus: "gpus",
  InsufficientPorts: "ports",
  DeclinedScarceResources: "kept for those who need scarce resources",
};

/** A reason in a word or two. */
export function reasonWord(reason: string): string {
  return REASONS[reason] ?? reason.replace(/^Insufficient|^Unfulfilled/, "").replace(/([a-z])([A-Z])/g, "$1 $2").toLowerCase();
}

/** Why instances are not placed: `3 offers refused: 2 cpus, 1 constraint`. */
export function whyNotPlaced(item: QueueItem): string {
  if (item.delaySeconds > 0) return `tried again in ${item.delaySeconds} s, because it failed before`;
  // The last offers say what is wrong now; all of them what was wrong so far.
  const lately = item.last.filter((it) => it.declined > 0);
  const found = lately.length > 0 ? lately : item.all.filter((it) => it.declined > 0);
  if (found.length === 0) return item.processed === 0 ? "no offer came yet" : `${offersWord(item.processed)} looked at, none refused`;
  const refused = found.reduce((total, it) => total + it.declined, 0);
  const parts = [...found].sort((a, b) => b.declined - a.declined).map((it) => `${it.declined} ${reasonWord(it.reason)}`);
  return `${offersWord(refused)} refused: ${parts.join(", ")}`;
}

function offersWord(count: number): string {
  return count === 1 ? "1 offer" : `${count} offers`;
}

// ---- definitions ----

/** What the API adds to a definition, and what an editor must not send back. */
const ADDED = ["version", "versionInfo", "tasksStaged", "tasksRunning", "tasksHealthy", "tasksUnhealthy", "deployments", "tasks", "lastTaskFailure", "readinessCheckResults", "taskStats", "fetch_"];

/** A definition as somebody would write it: without what the API adds, and without what is empty. */
export function definitionOf(app: Json): Json {
  return Object.fromEntries(Object.entries(app).filter(([key, value]) => !ADDED.includes(key) && value !== null && !isEmpty(key, value)));
}

/** Empty lists and objects say nothing, except where they replace something that is there by itself. */
function isEmpty(key: string, value: unknown): boolean {
  if (key === "networks" || key === "portDefinitions") return false;
  return (Array.isArray(value) && value.length === 0) || (typeof value === "object" && value !== null && Object.keys(value).length === 0);
}
