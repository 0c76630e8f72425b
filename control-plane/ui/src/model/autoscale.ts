// How numbers of instances are decided, as the page shows it.

import { flag, number, record, records, text, type Json } from "./safe";

export interface Signal {
  name: string;
  target: number;
  /** Of the instances that were seen; `null` when none was. */
  average: number | null;
  seen: number;
  missing: number;
  needed: number | null;
}

export interface Decision {
  at: number | null;
  action: "up" | "down" | "hold";
  /** Why nothing was done. */
  held: string;
  current: number;
  desired: number;
  /** What it was set to; the current number where nothing was done. */
  to: number;
  min: number;
  max: number;
  window: string;
  signals: readonly Signal[];
  reason: string;
  /** Why the scheduler did not carry it out. */
  refused: string;
}

export interface Autoscaling {
  app: string;
  /** `label`, or the API. */
  origin: string;
  policy: Json;
  /** What is wrong with the policy. */
  problem: string;
  isDryRun: boolean;
  /** The newest first. */
  decisions: readonly Decision[];
}

export function decisionOf(value: Json): Decision {
  const at = Date.parse(text(value["at"]));
  const action = text(value["action"]);
  const current = number(value["currentInstances"]);
  const bounds = record(value["bounds"]);
  return {
    at: Number.isNaN(at) ? null : at,
    action: action === "scaleUp" ? "up" : action === "scaleDown" ? "down" : "hold",
    held: text(value["heldBecause"]),
    current,
    desired: number(value["desiredInstances"], current),
    to: number(value["instances"], current),
    min: number(bounds["min"]),
    max: number(bounds["max"]),
    window: text(bounds["window"]),
    signals: records(value["signals"]).map((it) => ({
      name: text(it["signal"]),
      target: number(it["target"]),
      average: it["average"] === undefined || it["average"] === null ? null : number(it["average"]),
      seen: number(it["instancesSeen"]),
      missing: number(it["instancesMissing"]),
      needed: it["instancesNeeded"] === undefined || it["instancesNeeded"] === null ? null : number(it["instancesNeeded"]),
    })),
    reason: text(value["reason"]),
    refused: text(value["refused"]),
  };
}

export function autoscalingOf(value: unknown): Autoscaling {
  const all = record(value);
  const policy = record(all["policy"]);
  return { app: text(all["appId"]), origin: text(all["origin"]), policy, problem: text(all["problem"]), isDryRun: flag(policy["dryRun"]), decisions: records(all["decisions"]).slice(0, 200).map(decisionOf) };
}
