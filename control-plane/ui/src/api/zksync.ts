// What the page asks of the service that keeps ZooKeeper ensembles in step.

import { conflictOf, linkOf, migrationOf, threeWayOf, verificationOf, type Action, type Conflict, type Migration, type SyncLink, type ThreeWay, type Verification } from "../model/sync";
import { number, record, records, text, type Json } from "../model/safe";
import { ApiError, ask } from "./http";

const ROOT = "api/v1/zksync";
const linkPath = (id: string): string => `${ROOT}/links/${encodeURIComponent(id)}`;

export async function fetchLinks(signal: AbortSignal): Promise<SyncLink[]> {
  return records(await ask(`${ROOT}/links`, { signal })).map(linkOf);
}

export async function fetchLink(id: string, signal: AbortSignal): Promise<SyncLink> {
  return linkOf(record(await ask(linkPath(id), { signal })));
}

export interface ConflictPage {
  conflicts: Conflict[];
  total: number;
}

export async function fetchConflicts(id: string, prefix: string, signal: AbortSignal): Promise<ConflictPage> {
  const page = record(await ask(`${linkPath(id)}/conflicts?${new URLSearchParams({ prefix, limit: "1000" }).toString()}`, { signal }));
  return { conflicts: records(page["conflicts"]).map(conflictOf), total: number(page["total"]) };
}

export async function fetchThreeWay(id: string, conflict: number, signal: AbortSignal): Promise<ThreeWay> {
  return threeWayOf(await ask(`${linkPath(id)}/conflicts/${conflict}`, { signal }));
}

export interface Resolution {
  path: string;
  kind: string;
  strategy: string;
  winner: string;
  ambiguous: boolean;
  at: number | null;
  a: string;
  b: string;
}

export async function fetchResolutions(id: string, signal: AbortSignal): Promise<Resolution[]> {
  return records(record(await ask(`${linkPath(id)}/resolutions?limit=100`, { signal }))["resolutions"]).map((it) => {
    const sides = record(it["sides"]);
    return {
      path: text(it["key"]),
      kind: text(it["kind"]),
      strategy: text(it["strategy"]),
      winner: text(it["winner"]),
      ambiguous: it["ambiguous"] === true,
      at: number(it["at_ms"]) > 0 ? number(it["at_ms"]) : null,
      a: dataWords(sides["a"]),
      b: dataWords(sides["b"]),
    };
  });
}

/** Data of a record, which come as numbers. */
export function dataWords(value: unknown): string {
  if (typeof value !== "object" || value === null) return "absent";
  if (record(value)["unread"] === true) return "replaced before anybody had read it";
  const data = record(value)["data"];
  if (typeof data === "string") return data;
  if (!Array.isArray(data)) return "";
  const bytes = Uint8Array.from(data.slice(0, 4_096), (it) => number(it));
  return new TextDecoder().decode(bytes);
}

/** Decides a conflict, if it still is what was looked at. A conflict that has changed comes back as an error whose body is what it is now. */
export async function resolve(link: string, three: ThreeWay, choice: "a" | "b" | "base" | "delete" | "custom", data?: string): Promise<void> {
  const expect = { a_mzxid: three.a?.mzxid ?? null, b_mzxid: three.b?.mzxid ?? null };
  await ask(`${linkPath(link)}/conflicts/${three.conflict.id}/resolve`, { json: { choice, expect, ...(data === undefined ? {} : { data }) } });
}

export async function fetchVerification(id: string, signal: AbortSignal): Promise<Verification | null> {
  try {
    return verificationOf(await ask(`${linkPath(id)}/verifications`, { signal }));
  } catch (error) {
    // There was none yet.
    if (error instanceof ApiError && error.status === 404) return null;
    throw error;
  }
}

/** Compares both sides now: as long as that takes. */
export async function verify(id: string): Promise<Verification | null> {
  return verificationOf(await ask(`${linkPath(id)}/verifications`, { method: "POST", timeoutMs: 600_000 }));
}

export async function linkAction(id: string, action: "pause" | "resume" | "resync" | "approve-deletes"): Promise<void> {
  await ask(`${linkPath(id)}/${action}`, { method: "POST" });
}

export async function changeLink(id: string, change: { mode?: string; strategy?: string }): Promise<void> {
  await ask(linkPath(id), { method: "PATCH", json: change });
}

export async function deleteLink(id: string): Promise<void> {
  await ask(linkPath(id), { method: "DELETE" });
}

export async function createLink(definition: Json): Promise<void> {
  await ask(`${ROOT}/links`, { json: definition });
}

export async function fetchMigration(id: string, signal: AbortSignal): Promise<Migration | null> {
  try {
    return migrationOf(await ask(`${ROOT}/migrations/${encodeURIComponent(id)}`, { signal }));
  } catch (error) {
    if (error instanceof ApiError && error.status === 404) return null;
    throw error;
  }
}

export async function beginMigration(link: string, requiresNoClients: boolean): Promise<void> {
  await ask(`${ROOT}/migrations`, { json: { link, require_no_clients: requiresNoClients } });
}

export async function migrationAction(id: string, action: Action): Promise<void> {
  await ask(`${ROOT}/migrations/${encodeURIComponent(id)}/${action}`, { method: "POST" });
}
