// The scheduler's event stream: while it speaks, nothing is asked for again and again.

import { signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { backoff } from "../api/live";
import { pageDirectory } from "../api/client";
import { record, records, text } from "../model/safe";
import { refresh } from "./poll";

/** Whatever these tell of is asked for again. */
const KINDS = [
  "status_update_event",
  "instance_changed_event",
  "instance_health_changed_event",
  "health_status_changed_event",
  "failed_health_check_event",
  "unhealthy_instance_kill_event",
  "unknown_instance_terminated_event",
  "app_terminated_event",
  "api_post_event",
  "group_change_success",
  "group_change_failed",
  "deployment_info",
  "deployment_success",
  "deployment_failed",
  "deployment_step_success",
  "deployment_step_failure",
  "pod_created_event",
  "pod_updated_event",
  "pod_deleted_event",
  "scheduler_registered_event",
  "scheduler_reregistered_event",
  "scheduler_disconnected_event",
  "autoscale_event",
] as const;

/** Not more often than so, however much happens. */
const GATHER_MS = 300;
/** While the stream is away. */
const WITHOUT_MS = 3_000;
const KEPT = 200;

export interface HeardEvent {
  /** Grows by one with each. */
  number: number;
  kind: string;
  at: number;
  /** What it is about. */
  subject: string;
  words: string;
}

export const stream = signal<"connecting" | "live" | "away">("connecting");
export const heard = signal<readonly HeardEvent[]>([]);

let source: EventSource | null = null;
let users = 0;
let attempt = 0;
let count = 0;
let gathered: HeardEvent[] = [];
let gathering: ReturnType<typeof setTimeout> | null = null;
let retry: ReturnType<typeof setTimeout> | null = null;
let without: ReturnType<typeof setInterval> | null = null;

function hear(kind: string, data: string): void {
  let value: unknown = null;
  try {
    value = JSON.parse(data);
  } catch {
    // That it happened counts all the same.
  }
  const event = record(value);
  const apps = records(record(event["plan"])["steps"]).flatMap((step) => records(step["actions"]).map((it) => text(it["app"])));
  const subject = text(event["appId"]) || text(event["runSpecId"]) || text(event["groupId"]) || text(event["uri"]) || apps[0] || "";
  const words = [text(event["taskStatus"]), text(event["condition"]), text(event["message"]), text(event["reason"])].filter((it) => it !== "").join(" · ");
  count += 1;
  gathered.push({ number: count, kind, at: Date.now(), subject, words: words.slice(0, 300) });
  if (gathered.length > KEPT) gathered.shift();
  gathering ??= setTimeout(() => {
    gathering = null;
    heard.value = [...gathered.reverse(), ...heard.peek()].slice(0, KEPT);
    gathered = [];
    refresh("apps/");
  }, GATHER_MS);
}

function connect(): void {
  if (retry !== null) clearTimeout(retry);
  retry = null;
  const own = new EventSource(new URL("api/v1/marathon/v2/events?plan-format=light", pageDirectory(window.location.href)));
  source = own;
  own.onopen = () => {
    attempt = 0;
    stream.value = "live";
    // What happened before it was open was not heard.
    refresh("apps/");
  };
  own.onerror = () => {
    // The browser's own way to come back gives up at some answers; ours does not.
    own.close();
    if (source !== own) return;
    source = null;
    stream.value = "away";
    attempt += 1;
    retry = setTimeout(connect, backoff(attempt, Math.random()));
  };
  for (const kind of KINDS) own.addEventListener(kind, (event) => hear(kind, String((event as MessageEvent).data)));
}

/** Listens while it is on the page. */
export function useEvents(): void {
  useEffect(() => {
    users += 1;
    if (users === 1) {
      connect();
      without = setInterval(() => {
        if (stream.peek() !== "live") refresh("apps/");
      }, WITHOUT_MS);
    }
    return () => {
      users -= 1;
      if (users > 0) return;
      source?.close();
      source = null;
      if (retry !== null) clearTimeout(retry);
      if (without !== null) clearInterval(without);
      retry = without = null;
      stream.value = "connecting";
    };
  }, []);
}
