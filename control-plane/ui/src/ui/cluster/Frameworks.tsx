import { teardown } from "../../api/mesos";
import { added, NOTHING, type Framework } from "../../model/cluster";
import { duration, groupedInteger } from "../../model/format";
import { refresh, staleness } from "../../state/poll";
import { go, place, question } from "../../state/shell";
import { DataTable, type Column } from "../common/DataTable";
import { Await, Button, Card, choiceOf, Choice, Facts, Missing, Page, State, Tiles, When } from "../common/pieces";
import { AmountsText, Labels, ResourceBars, useFrameworks, useSummary } from "./shared";
import { TaskTable, useTasks } from "./Tasks";

const KINDS: Readonly<Record<Framework["state"], "good" | "warn" | "bad" | "idle">> = { active: "good", inactive: "warn", disconnected: "bad", recovered: "warn", completed: "idle" };

const COLUMNS: readonly Column<Framework>[] = [
  {
    key: "name",
    label: "Name",
    width: "minmax(180px, 1.6fr)",
    sort: (it) => it.name.toLowerCase(),
    render: (it) => (
      <span class="two-lines" title={`${it.name} ${it.id}`}>
        <b>{it.name || it.id}</b> <span class="minor">{it.hostname}</span>
      </span>
    ),
  },
  { key: "state", label: "State", width: "120px", sort: (it) => it.state, render: (it) => <State kind={KINDS[it.state]}>{it.state}</State> },
  { key: "roles", label: "Roles", width: "minmax(90px, 1fr)", sort: (it) => it.roles.join(" "), render: (it) => it.roles.join(", ") },
  { key: "user", label: "User", width: "90px", sort: (it) => it.user, render: (it) => it.user },
  { key: "running", label: "Running", width: "84px", isNumber: true, sort: (it) => it.tasks.running, render: (it) => groupedInteger(it.tasks.running) },
  { key: "waiting", label: "Starting", width: "84px", isNumber: true, sort: (it) => it.tasks.waiting, render: (it) => groupedInteger(it.tasks.waiting) },
  { key: "failed", label: "Failed", width: "76px", isNumber: true, sort: (it) => it.tasks.failed, render: (it) => groupedInteger(it.tasks.failed) },
  { key: "cpus", label: "CPUs", width: "76px", isNumber: true, sort: (it) => it.used.cpus, render: (it) => <AmountsText of={{ ...NOTHING, cpus: it.used.cpus }} /> },
  { key: "mem", label: "Memory", width: "92px", isNumber: true, sort: (it) => it.used.mem, render: (it) => <AmountsText of={{ ...NOTHING, mem: it.used.mem }} /> },
  { key: "registered", label: "Registered", width: "112px", sort: (it) => it.reregistered ?? it.registered, render: (it) => <When at={it.reregistered ?? it.registered} /> },
];

export function FrameworksPage() {
  const polled = useFrameworks();
  const which = choiceOf("show", "active");
  return (
    <Await polled={polled} what="list of frameworks">
      {(all) => {
        const rows = all.filter((it) => which === "all" || (it.state === "completed") === (which === "completed"));
        return (
          <Page
            title="Frameworks"
            note={staleness(polled)}
            actions={<Choice name="show" label="Which frameworks" otherwise="active" values={[["active", "Active"], ["completed", "Completed"], ["all", "All"]]} />}
            isFull
          >
            <DataTable
              label="Frameworks"
              testId="frameworks"
              columns={COLUMNS}
              rows={rows}
              keyOf={(it) => it.id}
              search={(it) => it.row}
              filter={place.value.params["q"] ?? ""}
              initial={{ key: "name", isDescending: false }}
              onOpen={(it) => go("cluster", ["frameworks", it.id])}
              empty={which === "completed" ? "No framework has ended yet." : "No framework is registered. A scheduler subscribes at port 5050."}
            />
          </Page>
        );
      }}
    </Await>
  );
}

export function FrameworkPage({ id }: { id: string }) {
  const polled = useFrameworks();
  const summary = useSummary();
  const tasks = useTasks();
  return (
    <Await polled={polled} what="framework">
      {(all) => {
        const it = all.find((other) => other.id === id);
        if (it === undefined) return <Missing title="No such framework" text={`No framework with the id ${id} is known.`} />;
        const total = (summary.data?.agents ?? []).reduce((sum, agent) => added(sum, agent.total), NOTHING);
        return (
          <Page
            title={it.name || it.id}
            trail={[{ label: "Frameworks", to: ["cluster", "frameworks"] }]}
            state={<State kind={KINDS[it.state]}>{it.state}</State>}
            note={staleness(polled)}
            actions={
              <>
                {it.webui !== null && (
                  <a class="control" href={it.webui} target="_blank" rel="noreferrer noopener">
                    Its own page
                  </a>
                )}
                {it.state !== "completed" && (
                  <Button icon="trash" isGrave testId="framework-teardown" onClick={() => askToTearDown(it)}>
                    Tear down
                  </Button>
                )}
              </>
            }
          >
            <div class="columns">
              <Card title="Resources of the cluster">
                <ResourceBars used={it.used} offered={it.offered} total={total} />
              </Card>
              <Card title="Framework">
                <Tiles rows={[["Running", groupedInteger(it.tasks.running)], ["Starting", groupedInteger(it.tasks.waiting)], ["Ended", groupedInteger(it.tasks.finished)], ["Failed", groupedInteger(it.tasks.failed), it.tasks.failed > 0 ? "bad" : ""]]} />
                <Facts
                  rows={[
                    ["Id", <span class="mono">{it.id}</span>],
                    ["Roles", it.roles.join(", ")],
                    ["User", it.user],
                    ["Principal", it.principal],
                    ["Host", it.hostname],
                    ["Failover timeout", it.failoverTimeout > 0 ? duration(it.failoverTimeout) : "none"],
                    ["Checkpoints", it.checkpoint ? "yes" : "no"],
                    ["Registered", it.registered === null ? null : <When at={it.registered} />],
                    ["Registered again", it.reregistered === null ? null : <When at={it.reregistered} />],
                    ["Ended", it.unregistered === null ? null : <When at={it.unregistered} />],
                    ["Labels", it.labels.length === 0 ? null : <Labels all={it.labels} />],
                    ["Capabilities", it.capabilities.join(", ").toLowerCase()],
                  ]}
                />
              </Card>
            </div>
            <TaskTable title="Tasks" polled={tasks} where={(task) => task.frameworkId === id} />
          </Page>
        );
      }}
    </Await>
  );
}

function askToTearDown(it: Framework): void {
  const name = it.name || it.id;
  question.value = {
    title: `Tear down ${name}`,
    text: `All of its ${groupedInteger(it.tasks.running + it.tasks.waiting)} tasks are killed, and it can never come back under this id. This cannot be undone.`,
    action: "Tear down",
    isGrave: true,
    typed: name,
    run: async () => {
      await teardown(it.id);
      refresh("cluster/");
      return `${name} is torn down.`;
    },
  };
}
