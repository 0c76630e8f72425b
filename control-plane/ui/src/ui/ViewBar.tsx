import type { OptionGroup } from "../api/types";
import { groupedInteger, metricNumber } from "../model/format";
import { metricLabels } from "../model/metrics";
import { isEmpty, viewId } from "../model/views";
import * as store from "../state/store";
import { Icon } from "./icons";

/** Sub-views, options, metric, mode: everything about how the current view is shown. */
export function ViewBar() {
  const current = store.view.value;
  if (current === null) return null;
  const subViews = (current.tab.sub_topologies ?? []).filter((item) => !item.hide_if_empty || !isEmpty(item) || item === current.description);
  const family = [current.tab, ...subViews];
  const groups = current.description.options ?? [];
  return (
    <section class="viewbar" aria-label="What is shown, and how">
      {family.length > 1 && (
        <div class="segments" role="group" aria-label="Grouping">
          {family.map((description, index) => {
            const id = viewId(description);
            return (
              <button
                key={id}
                type="button"
                data-testid={`view-sub-${id}`}
                aria-pressed={id === current.id}
                onClick={() => store.selectView(id)}
                title={`${description.stats.node_count} nodes`}
              >
                {index === 0 ? "all" : description.name}
              </button>
            );
          })}
        </div>
      )}
      {groups.map((group) => (
        <OptionToggle key={group.id} group={group} />
      ))}
      <div class="viewbar-end">
        <Counts />
        <MetricPicker />
        <div class="segments" role="group" aria-label="Mode">
          <button
            type="button"
            data-testid="mode-graph"
            aria-pressed={store.mode.value === "graph"}
            disabled={!store.canDrawGraph}
            title={store.canDrawGraph ? "Graph (G)" : "This browser cannot draw the graph: WebGL is missing"}
            onClick={() => (store.chosenMode.value = "graph")}
          >
            <Icon name="graph" size={15} /> Graph
          </button>
          <button type="button" data-testid="mode-table" aria-pressed={store.mode.value === "table"} title="Table (L)" onClick={() => (store.chosenMode.value = "table")}>
            <Icon name="table" size={15} /> Table
          </button>
        </div>
      </div>
    </section>
  );
}

/** "Running containers", "Stopped containers": the common last word is said once, by the view. */
function shortLabels(group: OptionGroup): string[] {
  const labels = (group.options ?? []).map((option) => option.label);
  const short = labels.map((label) => label.replace(/\s+containers$/i, ""));
  return new Set(short).size === labels.length ? short : labels;
}

function OptionToggle({ group }: { group: OptionGroup }) {
  const options = group.options ?? [];
  if (options.length === 0) return null;
  const value = store.options.value[group.id] ?? group.defaultValue;
  if (group.selectType === "union") return <UnionOptions group={group} value={value} />;
  const isSwitch = options.length === 2 && options.some((option) => option.value === "show") && options.some((option) => option.value === "hide");
  if (isSwitch) {
    const isOn = value === "show";
    const noun = (options.find((option) => option.value === "show")?.label ?? group.id).replace(/^show\s+/i, "");
    return (
      <button
        type="button"
        class="switch"
        role="switch"
        aria-checked={isOn}
        data-testid={`option-${group.id}`}
        onClick={() => store.chooseOption(group.id, isOn ? "hide" : "show")}
      >
        <span class="switch-track" aria-hidden="true" />
        {noun.charAt(0).toUpperCase() + noun.slice(1)}
      </button>
    );
  }
  const labels = shortLabels(group);
  return (
    <div class="segments" role="group" aria-label={group.id}>
      {options.map((option, index) => (
        <button
          key={option.value}
          type="button"
          data-testid={`option-${group.id}-${option.value}`}
          aria-pressed={option.value === value}
          title={option.label}
          onClick={() => store.chooseOption(group.id, option.value)}
        >
          {labels[index]}
        </button>
      ))}
    </div>
  );
}

function UnionOptions({ group, value }: { group: OptionGroup; value: string }) {
  const chosen = new Set(value.split(",").filter((item) => item !== ""));
  const toggle = (item: string): void => {
    const next = new Set(chosen);
    if (!next.delete(item)) next.add(item);
    store.chooseOption(group.id, [...next].join(","));
  };
  return (
    <details class="menu">
      <summary data-testid={`option-${group.id}`}>{chosen.size === 0 ? (group.noneLabel ?? "All") : [...chosen].join(", ")}</summary>
      <div class="menu-list">
        <label>
          <input type="checkbox" checked={chosen.size === 0} onChange={() => store.chooseOption(group.id, "")} /> {group.noneLabel ?? "All"}
        </label>
        {(group.options ?? []).map((option) => (
          <label key={option.value}>
            <input type="checkbox" checked={chosen.has(option.value)} onChange={() => toggle(option.value)} /> {option.label}
          </label>
        ))}
      </div>
    </details>
  );
}

function Counts() {
  const shown = store.nodes.value.size;
  // The numbers of a view are of all its nodes, and a few seconds old.
  const total = store.filters.value.length > 0 ? Math.max(shown, store.view.value?.description.stats.node_count ?? 0) : shown;
  const filtered = store.view.value?.description.stats.filtered_nodes ?? 0;
  return (
    <span class="counts" title={filtered > 0 ? `${groupedInteger(filtered)} more hidden by the options` : undefined}>
      <b data-testid="node-count" data-count={shown}>
        {groupedInteger(shown)}
      </b>{" "}
      {shown !== total ? `of ${groupedInteger(total)} nodes` : shown === 1 ? "node" : "nodes"}
      {filtered > 0 && <span class="counts-hidden wide-only">{groupedInteger(filtered)} hidden</span>}
    </span>
  );
}

function MetricPicker() {
  const labels = metricLabels(store.nodes.value).slice(0, 4);
  const current = store.metric.value;
  if (labels.length === 0 && current === null) return null;
  const scale = store.heat.value;
  return (
    <div class="segments" role="group" aria-label="Colour nodes by metric">
      {labels.map((label) => (
        <button
          key={label}
          type="button"
          data-testid={`metric-${label.toLowerCase().replace(/[^a-z0-9]/g, "")}`}
          aria-pressed={current === label}
          title={current === label && scale ? `Full is ${metricNumber(scale.max, scale.format)}` : `Fill nodes by ${label}`}
          onClick={() => (store.metric.value = current === label ? null : label)}
        >
          {label}
        </button>
      ))}
    </div>
  );
}
