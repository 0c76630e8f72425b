import { fetchFrameworks, fetchSummary, type ClusterSummary } from "../../api/mesos";
import { amount, RESOURCE_NAMES, RESOURCES, share, type Amounts, type Framework, type Resource } from "../../model/cluster";
import { middleEllipsis } from "../../model/format";
import { usePoll, type Polled } from "../../state/poll";
import { Bar, Link, type BarPart } from "../common/pieces";

export const EVERY_MS = 3_000;

export function useSummary(): Polled<ClusterSummary> {
  return usePoll("cluster/summary", fetchSummary, EVERY_MS);
}

export function useFrameworks(): Polled<Framework[]> {
  return usePoll("cluster/frameworks", fetchFrameworks, EVERY_MS);
}

/** Names of agents and frameworks by their ids. */
export function useNames(): { agent(id: string): string; framework(id: string): string } {
  const summary = useSummary();
  const frameworks = useFrameworks();
  return {
    agent: (id) => summary.data?.agents.find((it) => it.id === id)?.hostname ?? "",
    framework: (id) => frameworks.data?.find((it) => it.id === id)?.name ?? "",
  };
}

function parts(resource: Resource, used: number, offered: number, total: number): BarPart[] {
  return [
    { share: share(used, total), kind: "is-used", title: `${amount(resource, used)} used` },
    { share: share(offered, total), kind: "is-offered", title: `${amount(resource, offered)} offered` },
  ];
}

/** One resource: used and offered of all there is. */
export function ResourceBar({ resource, used, offered, total }: { resource: Resource; used: Amounts; offered: Amounts; total: Amounts }) {
  if (total[resource] <= 0) return <span class="quiet">–</span>;
  const words = `${amount(resource, used[resource])} used, ${amount(resource, offered[resource])} offered of ${amount(resource, total[resource])} ${RESOURCE_NAMES[resource]}`;
  return (
    <span class="bar-cell">
      <span class="bar-text">
        {amount(resource, used[resource])} <span class="quiet">/ {amount(resource, total[resource])}</span>
      </span>
      <Bar parts={parts(resource, used[resource], offered[resource], total[resource])} label={words} />
    </span>
  );
}

/** All resources below each other. */
export function ResourceBars({ used, offered, total }: { used: Amounts; offered: Amounts; total: Amounts }) {
  return (
    <div class="resource-bars">
      {RESOURCES.filter((resource) => total[resource] > 0).map((resource) => (
        <div key={resource} class="resource-bar">
          <span class="resource-name">{RESOURCE_NAMES[resource]}</span>
          <Bar
            parts={parts(resource, used[resource], offered[resource], total[resource])}
            label={`${RESOURCE_NAMES[resource]}: ${amount(resource, used[resource])} used, ${amount(resource, offered[resource])} offered of ${amount(resource, total[resource])}`}
          />
          <span class="minor">
            {amount(resource, used[resource])}
            {offered[resource] > 0 && ` + ${amount(resource, offered[resource])} offered`} of {amount(resource, total[resource])}
          </span>
        </div>
      ))}
      <p class="minor bar-key">
        <span class="bar-part is-used" /> used <span class="bar-part is-offered" /> offered
      </p>
    </div>
  );
}

/** Amounts in a line: `2 CPUs · 4 GB`. */
export function AmountsText({ of }: { of: Amounts }) {
  const shown = RESOURCES.filter((resource) => of[resource] > 0);
  if (shown.length === 0) return <span class="quiet">–</span>;
  return <>{shown.map((resource) => `${amount(resource, of[resource])}${resource === "cpus" || resource === "gpus" ? ` ${RESOURCE_NAMES[resource]}` : resource === "disk" ? " disk" : ""}`).join(" · ")}</>;
}

/** An agent by its host's name. */
export function AgentLink({ id, name }: { id: string; name: string }) {
  if (id === "") return <span class="quiet">–</span>;
  return (
    <Link to={["cluster", "agents", id]} title={id}>
      {name || middleEllipsis(id, 24)}
    </Link>
  );
}

export function FrameworkLink({ id, name }: { id: string; name: string }) {
  if (id === "") return <span class="quiet">–</span>;
  return (
    <Link to={["cluster", "frameworks", id]} title={id}>
      {name || middleEllipsis(id, 24)}
    </Link>
  );
}

/** Labels as chips. */
export function Labels({ all }: { all: readonly (readonly [string, string])[] }) {
  if (all.length === 0) return null;
  return (
    <span class="labels">
      {all.slice(0, 200).map(([key, value], index) => (
        <span class="label-chip" key={`${key} ${index}`} title={`${key}=${value}`.slice(0, 2_000)}>
          {middleEllipsis(key, 60)}
          {value !== "" && <b>{middleEllipsis(value, 80)}</b>}
        </span>
      ))}
      {all.length > 200 && <span class="minor">{all.length - 200} more</span>}
    </span>
  );
}
