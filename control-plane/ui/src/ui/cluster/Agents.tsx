import { deactivateAgent, drainAgent, reactivateAgent } from "../../api/mesos";
import { added, fullness, NOTHING, type Agent, type AgentState } from "../../model/cluster";
import { duration, groupedInteger } from "../../model/format";
import { refresh, staleness } from "../../state/poll";
import { go, place, question, say } from "../../state/shell";
import { now, showInView } from "../../state/store";
import { DataTable, type Column } from "../common/DataTable";
import { Await, Button, Card, Facts, Missing, Page, State, Tiles, When } from "../common/pieces";
import { AmountsText, FrameworkLink, Labels, ResourceBar, ResourceBars, useNames, useSummary } from "./shared";
import { TaskTable, useTasks } from "./Tasks";

const KINDS: Readonly<Record<AgentState, "good" | "warn" | "bad" | "idle">> = { active: "good", draining: "warn", drained: "idle", deactivated: "idle", away: "bad" };

export function AgentBadge({ agent }: { agent: Agent }) {
  return <State kind={KINDS[agent.state]}>{agent.state}</State>;
}

const COLUMNS: readonly Column<Agent>[] = [
  {
    key: "host",
    label: "Host",
    width: "minmax(160px, 1.6fr)",
    sort: (it) => it.hostname.toLowerCase(),
    render: (it) => (
      <span class="two-lines" title={`${it.hostname} ${it.id}`}>
        <b>{it.hostname || it.id}</b> <span class="minor">{it.address}</span>
      </span>
    ),
  },
  { key: "state", label: "State", width: "112px", sort: (it) => it.state, render: (it) => <AgentBadge agent={it} /> },
  { key: "cpus", label: "CPUs", width: "minmax(110px, 1fr)", isNumber: true, sort: (it) => it.used.cpus, render: (it) => <ResourceBar resource="cpus" used={it.used} offered={it.offered} total={it.total} /> },
  { key: "mem", label: "Memory", width: "minmax(130px, 1fr)", isNumber: true, sort: (it) => it.used.mem, render: (it) => <ResourceBar resource="mem" used={it.used} offered={it.offered} total={it.total} /> },
  { key: "disk", label: "Disk", width: "minmax(130px, 1fr)", isNumber: true, sort: (it) => it.used.disk, render: (it) => <ResourceBar resource="disk" used={it.used} offered={it.offered} total={it.total} /> },
  { key: "full", label: "Full", width: "64px", isNumber: true, sort: (it) => fullness(it.used, it.total), render: (it) => `${Math.round(fullness(it.used, it.total) * 100)}%` },
  { key: "tasks", label: "Tasks", width: "72px", isNumber: true, sort: (it) => it.tasks.running + it.tasks.waiting, render: (it) => groupedInteger(it.tasks.running + it.tasks.waiting) },
  {
    key: "attributes",
    label: "Attributes",
    width: "minmax(90px, 1.2fr)",
    sort: (it) => it.attributes.map(([name, value]) => `${name}=${value}`).join(" ") || null,
    render: (it) => <Labels all={it.attributes} />,
  },
  { key: "version", label: "Version", width: "84px", sort: (it) => it.version, render: (it) => it.version },
  { key: "seen", label: "Registered", width: "110px", sort: (it) => it.seen, render: (it) => <When at={it.seen} /> },
];

export function AgentsPage() {
  const summary = useSummary();
  return (
    <Await polled={summary} what="list of agents">
      {(data) => {
        const sum = data.agents.reduce((all, it) => ({ used: added(all.used, it.used), offered: added(all.offered, it.offered), total: added(all.total, it.total) }), { used: NOTHING, offered: NOTHING, total: NOTHING });
        const of = (...states: AgentState[]): number => data.agents.filter((it) => states.includes(it.state)).length;
        return (
          <Page title={data.cluster === "" ? "Agents" : `Agents of ${data.cluster}`} note={staleness(summary)} isFull>
            <div class="overview">
              <Tiles
                rows={[
                  ["Active", groupedInteger(of("active"))],
                  ["Draining", groupedInteger(of("draining", "drained")), of("draining") > 0 ? "warn" : ""],
                  ["Deactivated", groupedInteger(of("deactivated"))],
                  ["Away", groupedInteger(of("away")), of("away") > 0 ? "bad" : ""],
                  ["Tasks running", groupedInteger(data.agents.reduce((count, it) => count + it.tasks.running, 0))],
                ]}
              />
              <ResourceBars used={sum.used} offered={sum.offered} total={sum.total} />
            </div>
            <DataTable
              label="Agents"
              testId="agents"
              columns={COLUMNS}
              rows={data.agents}
              keyOf={(it) => it.id}
              search={(it) => it.row}
              filter={place.value.params["q"] ?? ""}
              initial={{ key: "host", isDescending: false }}
              onOpen={(it) => go("cluster", ["agents", it.id])}
              empty="No agent is registered. Start a probe with --roles run on a machine and point it at this control plane."
            />
          </Page>
        );
      }}
    </Await>
  );
}

const changed = async (work: Promise<void>, words: string): Promise<string> => {
  await work;
  refresh("cluster/");
  return words;
};

function askToDrain(agent: Agent): void {
  question.value = {
    title: `Drain ${agent.hostname}`,
    text: `Its ${agent.tasks.running + agent.tasks.waiting} tasks are told to end, and nothing of it is offered any more. Frameworks start them elsewhere.`,
    action: "Drain",
    isGrave: true,
    fields: [
      { name: "grace", label: "Tasks may take at most so many seconds to end", kind: "number", value: "", hint: "Empty: as long as each task's own kill policy says." },
      { name: "gone", label: "Remove the agent for good when it is drained", kind: "checkbox", value: "false", hint: "It can never register under this id again." },
    ],
    run: (values) => {
      const grace = values["grace"]?.trim() ?? "";
      return changed(drainAgent(agent.id, grace === "" ? null : Math.max(0, Number(grace)), values["gone"] === "true"), `${agent.hostname} drains.`);
    },
  };
}

function askToDeactivate(agent: Agent): void {
  question.value = {
    title: `Deactivate ${agent.hostname}`,
    text: "Nothing of it is offered any more. Its tasks go on.",
    action: "Deactivate",
    isGrave: true,
    run: () => changed(deactivateAgent(agent.id), `${agent.hostname} is deactivated.`),
  };
}

function askToReactivate(agent: Agent): void {
  question.value = {
    title: `Reactivate ${agent.hostname}`,
    text: "What it has is offered again.",
    action: "Reactivate",
    run: () => changed(reactivateAgent(agent.id), `${agent.hostname} is active again.`),
  };
}

/** One agent: what it has, who uses it, what runs there. */
export function AgentPage({ id }: { id: string }) {
  const summary = useSummary();
  const names = useNames();
  const tasks = useTasks();
  return (
    <Await polled={summary} what="agent">
      {(data) => {
        const agent = data.agents.find((it) => it.id === id);
        if (agent === undefined) return <Missing title="No such agent" text={`No agent with the id ${id} is registered: it left, or was never here.`} />;
        const isOffered = agent.state === "active" || agent.state === "away";
        return (
          <Page
            title={agent.hostname || agent.id}
            trail={[{ label: "Agents", to: ["cluster", "agents"] }]}
            state={<AgentBadge agent={agent} />}
            note={staleness(summary)}
            actions={
              <>
                <Button icon="graph" testId="agent-on-map" onClick={() => showOnMap(agent.hostname)}>
                  On the map
                </Button>
                {isOffered && (
                  <>
                    <Button icon="down" testId="agent-drain" isGrave onClick={() => askToDrain(agent)}>
                      Drain
                    </Button>
                    <Button icon="pause" testId="agent-deactivate" isGrave onClick={() => askToDeactivate(agent)}>
                      Deactivate
                    </Button>
                  </>
                )}
                {!isOffered && (
                  <Button icon="play" testId="agent-reactivate" onClick={() => askToReactivate(agent)}>
                    Reactivate
                  </Button>
                )}
              </>
            }
          >
            <div class="columns">
              <Card title="Resources">
                <ResourceBars used={agent.used} offered={agent.offered} total={agent.total} />
                {agent.reserved.length > 0 && (
                  <Facts rows={agent.reserved.map(([role, of]) => [`Reserved for ${role}`, <AmountsText of={of} />] as const)} />
                )}
              </Card>
              <Card title="Agent">
                <Facts
                  rows={[
                    ["Id", <span class="mono">{agent.id}</span>],
                    ["Address", <span class="mono">{agent.address}</span>],
                    ["Version", agent.version],
                    ["Region / zone", agent.zone],
                    ["Attributes", agent.attributes.length > 0 ? <Labels all={agent.attributes} /> : null],
                    ["Ports", agent.ports],
                    ["First registered", agent.registered === null ? null : <When at={agent.registered} />],
                    ["Last registered", agent.seen === null ? null : `${duration((now.value - agent.seen) / 1_000)} ago${agent.state === "away" ? ", not connected now" : ", connected since"}`],
                    ["Draining", agent.drain === null ? null : `${agent.drain.state.toLowerCase()}${agent.drain.grace === "" ? "" : `, grace ${agent.drain.grace}`}${agent.drain.markGone ? ", removed when done" : ""}`],
                    ["Frameworks", agent.frameworks.length === 0 ? null : <>{agent.frameworks.map((it) => <span key={it} class="in-line"><FrameworkLink id={it} name={names.framework(it)} /> </span>)}</>],
                    ["Capabilities", agent.capabilities.join(", ").toLowerCase()],
                  ]}
                />
              </Card>
            </div>
            <TaskTable title="Tasks" polled={tasks} where={(it) => it.agentId === id} />
          </Page>
        );
      }}
    </Await>
  );
}

/** The host of this name on the map, if the probes know it. */
function showOnMap(hostname: string): void {
  const short = hostname.split(".")[0] ?? hostname;
  import("../../state/links").then(
    async ({ findOnMap }) => {
      const found = (await findOnMap("hosts", hostname)) ?? (await findOnMap("hosts", short));
      if (found === null) say(`No probe reports a host ${hostname}.`, true);
      else {
        go("map");
        showInView(found);
      }
    },
    () => undefined,
  );
}
