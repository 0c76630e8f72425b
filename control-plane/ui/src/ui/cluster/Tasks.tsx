import { useMemo } from "preact/hooks";
import { fetchTasks, type TaskPage } from "../../api/mesos";
import { amount, stateKind, stateWord, type Task } from "../../model/cluster";
import { groupedInteger } from "../../model/format";
import { staleness, usePoll, type Polled } from "../../state/poll";
import { go, place } from "../../state/shell";
import { DataTable, type Column } from "../common/DataTable";
import { Await, Card, Choice, choiceOf, Page, Problem, State, When } from "../common/pieces";
import { AgentLink, EVERY_MS, FrameworkLink, useNames } from "./shared";

const fetchAll = (signal: AbortSignal): Promise<TaskPage> => fetchTasks({}, signal);

/** All tasks that the master knows. */
export function useTasks(): Polled<TaskPage> {
  return usePoll("cluster/tasks", fetchAll, EVERY_MS);
}

export function TaskBadge({ task }: { task: Pick<Task, "state" | "healthy"> }) {
  return (
    <State kind={stateKind(task.state, task.healthy)} title={task.healthy === null ? "" : task.healthy ? "healthy" : "unhealthy"}>
      {stateWord(task.state)}
      {task.healthy === false && task.state === "TASK_RUNNING" && ", unhealthy"}
    </State>
  );
}

function useColumns(): readonly Column<Task>[] {
  const names = useNames();
  return [
    {
      key: "name",
      label: "Task",
      width: "minmax(200px, 2fr)",
      sort: (it) => (it.name || it.id).toLowerCase(),
      render: (it) => (
        <span class="two-lines" title={`${it.name} ${it.id}`}>
          <b>{it.name || it.id}</b> <span class="minor">{it.id}</span>
        </span>
      ),
    },
    { key: "state", label: "State", width: "132px", sort: (it) => stateWord(it.state), render: (it) => <TaskBadge task={it} /> },
    { key: "framework", label: "Framework", width: "minmax(100px, 1fr)", sort: (it) => names.framework(it.frameworkId) || it.frameworkId, render: (it) => <FrameworkLink id={it.frameworkId} name={names.framework(it.frameworkId)} /> },
    { key: "agent", label: "Agent", width: "minmax(110px, 1fr)", sort: (it) => names.agent(it.agentId) || it.agentId, render: (it) => <AgentLink id={it.agentId} name={names.agent(it.agentId)} /> },
    { key: "role", label: "Role", width: "minmax(60px, 0.6fr)", sort: (it) => it.role || null, render: (it) => it.role },
    { key: "cpus", label: "CPUs", width: "64px", isNumber: true, sort: (it) => it.resources.cpus, render: (it) => amount("cpus", it.resources.cpus) },
    { key: "mem", label: "Memory", width: "88px", isNumber: true, sort: (it) => it.resources.mem, render: (it) => amount("mem", it.resources.mem) },
    { key: "started", label: "Started", width: "104px", isNumber: true, sort: (it) => it.started, render: (it) => <When at={it.started} /> },
    { key: "updated", label: "Last update", width: "112px", isNumber: true, sort: (it) => it.updated, render: (it) => <When at={it.updated} /> },
  ];
}

const open = (it: Task): void => go("cluster", ["tasks", it.frameworkId, it.id]);
const keyOf = (it: Task): string => `${it.frameworkId} ${it.id}`;

export function TasksPage() {
  const polled = useTasks();
  const columns = useColumns();
  const which = choiceOf("show", "active");
  const all = polled.data?.tasks;
  const rows = useMemo(() => (all ?? []).filter((it) => which === "all" || it.kind === which), [all, which]);
  const count = (kind: Task["kind"]): number => (all ?? []).reduce((sum, it) => sum + (it.kind === kind ? 1 : 0), 0);
  const counts = useMemo(() => [count("active"), count("completed"), count("unreachable")] as const, [all]);
  return (
    <Await polled={polled} what="list of tasks">
      {(data) => (
        <Page
          title="Tasks"
          note={staleness(polled)}
          actions={
            <Choice
              name="show"
              label="Which tasks"
              otherwise="active"
              values={[
                ["active", `Active ${groupedInteger(counts[0])}`],
                ["completed", `Completed ${groupedInteger(counts[1])}`],
                ["unreachable", `Unreachable ${groupedInteger(counts[2])}`],
                ["all", "All"],
              ]}
            />
          }
          isFull
        >
          {data.isCut && <Problem text={`Only the ${groupedInteger(data.tasks.length)} newest tasks are listed.`} />}
          <DataTable
            label="Tasks"
            testId="tasks"
            columns={columns}
            rows={rows}
            keyOf={keyOf}
            search={(it) => it.row}
            filter={place.value.params["q"] ?? ""}
            initial={{ key: "updated", isDescending: true }}
            onOpen={open}
            empty={which === "active" ? "No task runs." : "There are none."}
          />
        </Page>
      )}
    </Await>
  );
}

/** The tasks of an agent or of a framework. */
export function TaskTable({ title, polled, where }: { title: string; polled: Polled<TaskPage>; where: (task: Task) => boolean }) {
  const columns = useColumns();
  const all = polled.data?.tasks;
  const which = choiceOf("show", "active");
  const rows = useMemo(() => (all ?? []).filter((it) => where(it) && (which === "all" || it.kind === which)), [all, which, place.value.path.join("/")]);
  return (
    <Card
      title={title}
      actions={<Choice name="show" label="Which tasks" otherwise="active" values={[["active", "Active"], ["completed", "Completed"], ["unreachable", "Unreachable"], ["all", "All"]]} />}
    >
      <div class="table-box" style={{ height: `${Math.min(620, Math.max(3, rows.length + 2) * 38 + 30)}px` }}>
        <DataTable
          label={title}
          testId="tasks"
          columns={columns}
          rows={rows}
          keyOf={keyOf}
          search={(it) => it.row}
          filter={place.value.params["q"] ?? ""}
          initial={{ key: "updated", isDescending: true }}
          onOpen={open}
          empty={polled.data === null ? "Loading…" : "There are none."}
        />
      </div>
    </Card>
  );
}
