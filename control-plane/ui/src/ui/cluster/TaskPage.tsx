import { useEffect } from "preact/hooks";
import { fetchTask } from "../../api/mesos";
import { sandboxPaths, stateKind, stateWord, type Task, type TaskStatus } from "../../model/cluster";
import { duration } from "../../model/format";
import { showContainer } from "../../state/links";
import { staleness, usePoll } from "../../state/poll";
import { go, hrefOf } from "../../state/shell";
import { Await, Button, Card, Facts, Long, Missing, Page, State, When } from "../common/pieces";
import { Sandbox } from "./Sandbox";
import { AgentLink, AmountsText, EVERY_MS, FrameworkLink, Labels, useNames } from "./shared";
import { TaskBadge, useTasks } from "./Tasks";

/** One task: what became of it, where it runs, what it wrote. */
export function TaskPage({ frameworkId, id }: { frameworkId: string; id: string }) {
  const polled = usePoll(`cluster/task/${frameworkId}/${id}`, (signal) => fetchTask(frameworkId, id, signal), EVERY_MS);
  const names = useNames();
  return (
    <Await polled={polled} what="task">
      {(task) => {
        return (
          <Page
            title={task.name || task.id}
            trail={[{ label: "Tasks", to: ["cluster", "tasks"] }]}
            state={<TaskBadge task={task} />}
            note={staleness(polled)}
            actions={
              <>
                <Button icon="graph" testId="task-on-map" onClick={() => void showContainer(task.containers, task.frameworkId, task.id)}>
                  On the map
                </Button>
                {names.framework(frameworkId) === "marathon" && (
                  <a class="control" href={hrefOf("apps", appPath(task))} data-testid="task-app">
                    Its service
                  </a>
                )}
              </>
            }
          >
            <div class="columns">
              <Card title="Task">
                <Facts
                  rows={[
                    ["Id", <span class="mono">{task.id}</span>],
                    ["Framework", <FrameworkLink id={task.frameworkId} name={names.framework(task.frameworkId)} />],
                    ["Agent", <AgentLink id={task.agentId} name={names.agent(task.agentId)} />],
                    ["Executor", task.executorId === "" ? null : <span class="mono">{task.executorId}</span>],
                    ["Resources", <AmountsText of={task.resources} />],
                    ["Ports", task.ports],
                    ["Addresses", task.addresses.join(", ")],
                    ["Image", task.image],
                    ["Container", task.containers[0] === undefined ? null : <span class="mono">{task.containers[0]}</span>],
                    ["Role", task.role],
                    ["User", task.user],
                    ["Labels", task.labels.length === 0 ? null : <Labels all={task.labels} />],
                  ]}
                />
              </Card>
              <Card title="What became of it" testId="task-history">
                <ol class="history">
                  {task.statuses.map((status, index) => (
                    <Step key={index} status={status} before={task.statuses[index - 1]} isLast={index === task.statuses.length - 1} />
                  ))}
                </ol>
                {task.statuses.length === 0 && <p class="quiet">Nothing was heard of it yet.</p>}
              </Card>
            </div>
            <Sandbox agentId={task.agentId} roots={sandboxPaths(task)} />
          </Page>
        );
      }}
    </Await>
  );
}

function Step({ status, before, isLast }: { status: TaskStatus; before: TaskStatus | undefined; isLast: boolean }) {
  const took = before?.at != null && status.at !== null ? (status.at - before.at) / 1_000 : null;
  return (
    <li class="history-step">
      <State kind={isLast ? stateKind(status.state, status.healthy) : "idle"}>{stateWord(status.state)}</State>
      <span class="minor">
        <When at={status.at} />
        {took !== null && took >= 0 && `, after ${took < 1 ? `${Math.round(took * 1_000)} ms` : duration(took)}`}
        {status.healthy !== null && (status.healthy ? ", healthy" : ", unhealthy")}
      </span>
      {(status.message !== "" || status.reason !== "") && (
        <p class="history-words">
          {status.reason !== "" && <span class="badge">{status.reason.replace(/^REASON_/, "").toLowerCase().replaceAll("_", " ")}</span>} <Long text={status.message} limit={300} />
        </p>
      )}
    </li>
  );
}

/** The app that a task of Marathon belongs to: `shop_web.instance-…` is of `/shop/web`. */
export function appPath(task: Pick<Task, "id">): string[] {
  const name = task.id.split(".").slice(0, task.id.includes(".instance-") ? task.id.split(".instance-")[0]?.split(".").length : 1).join(".");
  return ["app", ...name.split("_")];
}

/** The way back from the map: the task whose container this is. */
export function ContainerPage({ id }: { id: string }) {
  const tasks = useTasks();
  const found = tasks.data?.tasks.find((task) => task.containers.includes(id));
  useEffect(() => {
    if (found !== undefined) go("cluster", ["tasks", found.frameworkId, found.id], {}, true);
  }, [found?.id]);
  return (
    <Await polled={tasks} what="task">
      {() => (found === undefined ? <Missing title="No task has this container" text={`The master of this control plane knows no task in the container ${id}. Its task may be over, or belong to another cluster.`} /> : null)}
    </Await>
  );
}
