import { ApiError } from "../../api/http";
import { fetchDeployments, fetchQueue, fetchTree } from "../../api/marathon";
import { groupedInteger } from "../../model/format";
import { segments, type AppState, type Deployment, type Group, type HealthCounts, type QueueItem } from "../../model/services";
import { refresh, usePoll, type Polled } from "../../state/poll";
import { question, type Question, type QuestionField } from "../../state/shell";
import { Bar, Link, State } from "../common/pieces";

/** The event stream tells of changes; this is for what it cannot tell. */
export const EVERY_MS = 15_000;

export const useTree = (): Polled<Group> => usePoll("apps/tree", fetchTree, EVERY_MS);
export const useDeployments = (): Polled<Deployment[]> => usePoll("apps/deployments", fetchDeployments, EVERY_MS);
export const useQueue = (): Polled<QueueItem[]> => usePoll("apps/queue", fetchQueue, EVERY_MS);

const KINDS: Readonly<Record<AppState, "good" | "warn" | "bad" | "idle" | "busy">> = { running: "good", deploying: "busy", waiting: "warn", delayed: "warn", suspended: "idle", unhealthy: "bad" };

export function AppBadge({ state, title }: { state: AppState; title?: string }) {
  return (
    <State kind={KINDS[state]} title={title ?? ""} testId="app-state">
      {state}
    </State>
  );
}

const PARTS: readonly (readonly [keyof HealthCounts, string, string])[] = [
  ["healthy", "is-healthy", "healthy"],
  ["running", "is-running", "running, not checked"],
  ["unhealthy", "is-unhealthy", "unhealthy"],
  ["staged", "is-staged", "on their way"],
  ["missing", "is-missing", "not placed"],
];

/** How the instances stand, in words. */
export function healthWords(health: HealthCounts): string {
  const parts = PARTS.filter(([key]) => health[key] > 0).map(([key, , words]) => `${groupedInteger(health[key])} ${words}`);
  return parts.length === 0 ? "no instances" : `${parts.join(", ")}${health.over > 0 ? `, ${groupedInteger(health.over)} more than wanted` : ""}`;
}

export function HealthBar({ health }: { health: HealthCounts }) {
  const whole = health.healthy + health.running + health.unhealthy + health.staged + health.missing;
  const words = healthWords(health);
  return <Bar label={words} parts={PARTS.map(([key, kind, text]) => ({ share: whole > 0 ? health[key] / whole : 0, kind, title: `${groupedInteger(health[key])} ${text}` }))} />;
}

/** `3 / 5` with a bar below. */
export function HealthCell({ health }: { health: HealthCounts }) {
  const there = health.healthy + health.running + health.unhealthy;
  return (
    <span class="bar-cell" title={healthWords(health)}>
      <span class="bar-text">
        {groupedInteger(there)} <span class="quiet">/ {groupedInteger(health.wanted)}</span>
      </span>
      <HealthBar health={health} />
    </span>
  );
}

export function AppLink({ id, label }: { id: string; label?: string }) {
  return (
    <Link to={["apps", "app", ...segments(id)]} title={id}>
      {label ?? id}
    </Link>
  );
}

export function GroupLink({ id, label }: { id: string; label?: string }) {
  const parts = segments(id);
  return (
    <Link to={parts.length === 0 ? ["apps"] : ["apps", "group", ...parts]} title={id}>
      {label ?? id}
    </Link>
  );
}

/** Asks, does it, and offers to override the deployment that is in the way. */
export function askFor(what: { title: string; text: string; action: string; isGrave?: boolean; typed?: string; fields?: readonly QuestionField[]; done: string; run(values: Readonly<Record<string, string>>, isForced: boolean): Promise<void> }): void {
  const { done, run, ...rest } = what;
  const asked: Question = {
    ...rest,
    run: async (values) => {
      try {
        await run(values, false);
      } catch (error) {
        if (!(error instanceof ApiError && error.status === 409 && error.deployments.length > 0)) throw error;
        const overriding: Question = {
          ...rest,
          title: `${rest.title}: a deployment is in the way`,
          text: `It is being changed by the deployment ${error.deployments.join(", ")}. Going on stops that deployment where it is.`,
          action: `${rest.action} all the same`,
          isGrave: true,
          run: async () => {
            await run(values, true);
            refresh("apps/");
            return done;
          },
        };
        // It replaces this one, unless whoever was asked has gone elsewhere meanwhile.
        if (question.peek() === asked) queueMicrotask(() => (question.value = overriding));
        return;
      }
      refresh("apps/");
      return done;
    },
  };
  question.value = asked;
}
