// Links between ZooKeeper ensembles and their migrations, as the page shows them.

import { flag, number, record, records, text, texts, type Json } from "./safe";

export type SideName = "a" | "b";
export const SIDES: readonly SideName[] = ["a", "b"];

export interface Lag {
  changes: number;
  p50: number;
  p99: number;
  max: number;
}

export interface SyncLink {
  id: string;
  a: string;
  b: string;
  mode: string;
  strategy: string;
  role: string;
  detail: string;
  /** How it stands; `null` when this control plane does not lead it. */
  status: SyncStatus | null;
  /** On the way to each side. */
  lag: Readonly<Record<SideName, Lag>>;
  definition: Json;
}

export interface SyncStatus {
  state: string;
  reason: string;
  mode: string;
  pairs: number;
  backlog: number;
  oldestMs: number;
  connected: Readonly<Record<SideName, boolean>>;
  scanning: Readonly<Record<SideName, number | null>>;
  zxid: Readonly<Record<SideName, string>>;
  conflicts: number;
  heldDeletes: number;
  blocked: readonly (readonly [string, string])[];
  blockedTotal: number;
  excluded: readonly (readonly [string, number])[];
  counters: Json;
}

function perSide<T>(value: unknown, read: (it: unknown) => T): Readonly<Record<SideName, T>> {
  const both = record(value);
  return { a: read(both["a"]), b: read(both["b"]) };
}

function lagOf(value: unknown): Lag {
  const lag = record(value);
  return { changes: number(lag["changes"]), p50: number(lag["p50_ms"]), p99: number(lag["p99_ms"]), max: number(lag["max_ms"]) };
}

export function linkOf(value: Json): SyncLink {
  const definition = record(value["definition"]);
  const status = typeof value["status"] === "object" && value["status"] !== null ? statusOf(record(value["status"])) : null;
  return {
    id: text(definition["id"]),
    a: text(record(definition["a"])["connect"]),
    b: text(record(definition["b"])["connect"]),
    mode: status?.mode || text(definition["mode"]),
    strategy: text(definition["strategy"]),
    role: text(value["role"]),
    detail: text(value["detail"]),
    status,
    lag: perSide(value["lag"], lagOf),
    definition,
  };
}

function statusOf(value: Json): SyncStatus {
  return {
    state: text(value["state"]),
    reason: text(value["reason"]),
    mode: text(value["mode"]),
    pairs: number(value["pairs"]),
    backlog: number(value["backlog"]),
    oldestMs: number(value["oldest_ms"]),
    connected: perSide(value["connected"], flag),
    scanning: perSide(value["scanning"], (it) => (it === null || it === undefined ? null : number(it))),
    zxid: perSide(value["zxid"], (it) => zxidWord(it)),
    conflicts: number(value["open_conflicts"]),
    heldDeletes: number(value["held_deletes"]),
    blocked: (Array.isArray(value["blocked"]) ? (value["blocked"] as unknown[]) : []).flatMap((it) => (Array.isArray(it) ? [[text(it[0]), text(it[1])] as const] : [])),
    blockedTotal: number(value["blocked_total"]),
    excluded: Object.entries(record(value["excluded"])).map(([reason, count]) => [reason, number(count)] as const).filter(([, count]) => count > 0),
    counters: record(value["counters"]),
  };
}

/** As ZooKeeper's tools write it. */
function zxidWord(value: unknown): string {
  const zxid = number(value, -1);
  return zxid < 0 ? "–" : `0x${zxid.toString(16)}`;
}

export function stateKind(state: string): "good" | "warn" | "bad" | "idle" | "busy" {
  switch (state) {
    case "live":
      return "good";
    case "starting":
    case "snapshot":
    case "resync":
      return "busy";
    case "paused":
      return "idle";
    case "halted":
    case "fenced":
      return "bad";
    default:
      return "warn";
  }
}

export const MODES: Readonly<Record<string, string>> = { a_to_b: "A → B", b_to_a: "B → A", both: "A ⇄ B" };
export const STRATEGIES: Readonly<Record<string, string>> = { last_write_wins: "last write wins", a_wins: "A wins", b_wins: "B wins", manual: "by hand" };

/** What was written on a side so far. */
export function written(counters: Json, side: SideName): number {
  return ["created", "updated", "deleted", "acl_changed"].reduce((sum, name) => sum + number(record(counters[name])[side]), 0);
}

// ---- the lag over time ----

export interface LagPoint {
  at: number;
  /** Half of the changes towards each side took less, and 99 of 100, in milliseconds; `null` when there were none. */
  a: { p50: number; p99: number } | null;
  b: { p50: number; p99: number } | null;
  backlog: number;
}

/** Points of a chart, the oldest first. A minute at the distance of a second, and no more than this many. */
export const POINTS_MAX = 600;

export function addPoint(points: readonly LagPoint[], link: SyncLink, at: number): LagPoint[] {
  const of = (side: SideName) => (link.lag[side].changes > 0 ? { p50: link.lag[side].p50, p99: link.lag[side].p99 } : null);
  return [...points, { at, a: of("a"), b: of("b"), backlog: link.status?.backlog ?? 0 }].slice(-POINTS_MAX);
}

/** The powers of ten, in milliseconds, between which all values lie: lags differ a hundredfold, and each is to be seen. */
export function decadesOf(values: readonly number[]): number[] {
  const known = values.filter((value) => Number.isFinite(value) && value > 0);
  const low = Math.min(0, ...known.map((value) => Math.floor(Math.log10(value))));
  const high = Math.max(low + 2, ...known.map((value) => Math.ceil(Math.log10(value))));
  const first = Math.max(low, -2);
  return Array.from({ length: Math.min(high, 7) - first + 1 }, (_, index) => 10 ** (first + index));
}

// ---- conflicts ----

export interface Conflict {
  id: number;
  path: string;
  kind: string;
  firstSeen: number | null;
  lastChange: number | null;
}

export function conflictOf(value: Json): Conflict {
  const time = (name: string): number | null => (number(value[name]) > 0 ? number(value[name]) : null);
  return { id: number(value["id"], -1), path: text(value["key"]), kind: text(value["kind"]), firstSeen: time("first_seen_ms"), lastChange: time("last_change_ms") };
}

export interface SideValue {
  /** Of the transaction that wrote it: as it came, to be sent back. */
  mzxid: number;
  version: number;
  mtime: number | null;
  size: number;
  /** `null` when it is no text, or too long. */
  text: string | null;
  hash: string;
  acl: readonly string[];
}

function sideValue(value: unknown): SideValue | null {
  if (typeof value !== "object" || value === null) return null;
  const it = record(value);
  return {
    mzxid: number(it["mzxid"]),
    version: number(it["version"]),
    mtime: number(it["mtime"]) > 0 ? number(it["mtime"]) : null,
    size: number(it["size"]),
    text: typeof it["text"] === "string" ? it["text"] : null,
    hash: text(it["hash"]),
    acl: texts(it["acl"]),
  };
}

export interface ThreeWay {
  conflict: Conflict;
  baseHash: string | null;
  /** The data of the base, when they were kept and are text. */
  baseText: string | null;
  /** Whether they were kept at all. */
  isBaseKept: boolean;
  base: Readonly<Record<SideName, { version: number; mzxid: number }>> | null;
  a: SideValue | null;
  b: SideValue | null;
}

export function threeWayOf(value: unknown): ThreeWay {
  const all = record(value);
  const conflict = record(all["conflict"]);
  const base = typeof conflict["base"] === "object" && conflict["base"] !== null ? perSide(conflict["base"], (it) => ({ version: number(record(it)["version"]), mzxid: number(record(it)["mzxid"]) })) : null;
  return { conflict: conflictOf(conflict), baseHash: typeof all["base_hash"] === "string" ? all["base_hash"] : null, baseText: typeof all["base_text"] === "string" ? all["base_text"] : null, isBaseKept: typeof all["base_text"] === "string" || typeof all["base_base64"] === "string", base, a: sideValue(all["a"]), b: sideValue(all["b"]) };
}

/** What became of a side since both agreed. */
export function changeOf(three: ThreeWay, side: SideName): "same" | "changed" | "deleted" | "absent" | "new" | "unknown" {
  const value = three[side];
  if (value === null) return three.base === null && three.baseHash === null ? "absent" : "deleted";
  if (three.baseHash !== null) return value.hash === three.baseHash ? "same" : "changed";
  return three.base === null ? "new" : "unknown";
}

// ---- comparisons ----

export interface Difference {
  path: string;
  what: string;
}

export interface Verification {
  at: number | null;
  tookMs: number;
  strict: boolean;
  equal: boolean;
  nodes: Readonly<Record<SideName, number>>;
  bytes: Readonly<Record<SideName, number>>;
  root: Readonly<Record<SideName, string>>;
  differing: number;
  differences: readonly Difference[];
  excluded: readonly (readonly [string, number])[];
  counters: readonly { path: string; a: number; b: number }[];
}

export function verificationOf(value: unknown): Verification | null {
  const report = record(value);
  if (Object.keys(report).length === 0) return null;
  const found = record(report["found"]);
  return {
    at: number(report["started_ms"]) > 0 ? number(report["started_ms"]) : null,
    tookMs: number(report["took_ms"]),
    strict: flag(report["strict"]),
    equal: flag(found["equal"]),
    nodes: { a: number(found["nodes_a"]), b: number(found["nodes_b"]) },
    bytes: { a: number(found["bytes_a"]), b: number(found["bytes_b"]) },
    root: { a: text(found["root_a"]), b: text(found["root_b"]) },
    differing: number(found["differing"]),
    differences: records(found["differences"]).slice(0, 10_000).map((it) => ({ path: text(it["key"]) || text(it["path"]), what: text(it["kind"]) || text(it["what"]) })),
    excluded: Object.entries(record(report["excluded"])).map(([reason, count]) => [reason, number(count)] as const).filter(([, count]) => count > 0),
    counters: records(report["counters"]).slice(0, 1_000).map((it) => ({ path: text(it["path"]), a: number(it["a"]), b: number(it["b"]) })),
  };
}

// ---- migrations ----

export interface Migration {
  phase: string;
  since: number | null;
  deadline: number | null;
  paused: boolean;
  waitingFor: string;
  history: readonly { at: number | null; phase: string; text: string }[];
  holders: readonly { host: string; pid: number; process: string; container: string; server: string; connections: number }[];
  holdersUnknown: string;
  verification: Verification | null;
  blockers: readonly string[];
  warnings: readonly string[];
  pairs: number;
  backlog: number;
  percent: number;
  /** Of the phase, about; `null` when that cannot be told. */
  secondsLeft: number | null;
  /** It goes on when somebody says or does something. */
  waitsForOperator: boolean;
  requiresNoClients: boolean;
}

export function migrationOf(value: unknown): Migration {
  const page = record(value);
  const it = record(page["migration"]);
  const progress = record(page["progress"]);
  const preparation = record(page["preparation"]);
  return {
    phase: text(it["phase"]),
    since: number(it["since_ms"]) > 0 ? number(it["since_ms"]) : null,
    deadline: number(it["deadline_ms"]) > 0 ? number(it["deadline_ms"]) : null,
    paused: flag(it["paused"]),
    waitingFor: text(it["waiting_for"]),
    history: records(it["history"]).map((note) => ({ at: number(note["at_ms"]) > 0 ? number(note["at_ms"]) : null, phase: text(note["phase"]), text: text(note["text"]) })),
    holders: records(page["holders"]).map((holder) => ({
      host: text(holder["host"]),
      pid: number(holder["pid"]),
      process: text(holder["process"]),
      container: text(holder["container"]),
      server: text(holder["server"]),
      connections: number(holder["connections"]),
    })),
    holdersUnknown: text(page["holders_unknown"]),
    verification: verificationOf(page["verification"]),
    blockers: texts(preparation["blockers"]),
    warnings: texts(preparation["warnings"]),
    pairs: number(progress["pairs"]),
    backlog: number(progress["backlog"]),
    percent: Math.min(100, Math.max(0, number(progress["percent"]))),
    secondsLeft: typeof progress["seconds_left"] === "number" ? number(progress["seconds_left"]) : null,
    waitsForOperator: flag(progress["waits_for_operator"]),
    requiresNoClients: record(it["plan"])["require_no_clients"] !== false,
  };
}

/** The way of a migration, in order. */
export const PHASES: readonly (readonly [string, string])[] = [
  ["prepare", "Prepare"],
  ["snapshot", "Snapshot"],
  ["catch_up", "Catch up"],
  ["verify", "Verify"],
  ["ready", "Ready"],
  ["freeze", "Freeze"],
  ["final_sync", "Final sync"],
  ["align", "Align"],
  ["final_verify", "Final check"],
  ["switch", "Switch"],
  ["confirm", "Confirm"],
  ["drain", "Drain"],
  ["complete", "Complete"],
];

/** The way back. */
export const BACK: readonly (readonly [string, string])[] = [
  ["rollback_freeze", "Freeze"],
  ["rollback_sync", "Sync back"],
  ["rollback_verify", "Verify"],
  ["rollback_switch", "Move back"],
  ["rolled_back", "Rolled back"],
];

export type Action = "cutover" | "advance" | "complete" | "pause" | "resume" | "rollback";

/** What can be asked of a migration now. The server has the last word. */
export function actionsOf(it: Pick<Migration, "phase" | "paused">): Action[] {
  const isOver = it.phase === "complete" || it.phase === "rolled_back";
  const isBack = BACK.some(([phase]) => phase === it.phase);
  const all: readonly (readonly [Action, boolean])[] = [
    ["cutover", it.phase === "ready" && !it.paused],
    ["advance", (it.phase === "switch" || it.phase === "rollback_switch") && !it.paused],
    ["complete", it.phase === "drain"],
    ["pause", !isOver && !it.paused],
    ["resume", it.paused],
    // What was written on the new ensemble while the clients were moved back is carried over, too.
    ["rollback", !isOver && (!isBack || it.phase === "rollback_switch")],
  ];
  return all.filter(([, isPossible]) => isPossible).map(([action]) => action);
}
