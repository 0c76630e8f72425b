import { useEffect, useState } from "preact/hooks";
import { messageOf } from "../../api/http";
import { destroy, fetchApp, fetchAutoscaling, fetchVersion, fetchVersions, killInstance, removeAutoscaling, restart, rollBack, scale, type AppDetails } from "../../api/marathon";
import { amount } from "../../model/cluster";
import { diffLines, hunks } from "../../model/diff";
import { compactNumber, groupedInteger } from "../../model/format";
import { appState, definitionOf, segments, whyNotPlaced, type App, type Instance, type QueueItem } from "../../model/services";
import { record, text, type Json } from "../../model/safe";
import { staleness, usePoll } from "../../state/poll";
import { go, hrefOf, place, setParams } from "../../state/shell";
import { useFrameworks } from "../cluster/shared";
import { DataTable, type Column } from "../common/DataTable";
import { Await, Button, Card, choiceOf, Choice, Facts, Long, Page, Problem, State, Tiles, When } from "../common/pieces";
import { Icon } from "../icons";
import { DeploymentRow } from "./Deployments";
import { AppBadge, askFor, EVERY_MS, HealthBar, healthWords, useDeployments, useQueue } from "./shared";

const TABS = [
  ["instances", "Instances"],
  ["configuration", "Configuration"],
  ["versions", "Versions"],
] as const;

/** One app or pod: what runs, how it is defined, what it was. */
export function AppPage({ id }: { id: string }) {
  const polled = usePoll(`apps/app${id}`, (signal) => fetchApp(id, signal), EVERY_MS);
  const queue = useQueue();
  const deployments = useDeployments();
  const tab = choiceOf("tab", "instances");
  const parts = segments(id);
  return (
    <Await polled={polled} what="service">
      {(details) => {
        const { app } = details;
        const waiting = (queue.data ?? []).find((it) => it.id === id);
        const state = appState(app, queue.data ?? []);
        const own = (deployments.data ?? []).filter((it) => it.apps.includes(id));
        return (
          <Page
            title={app.name}
            trail={[
              { label: "Services", to: ["apps"] },
              ...parts.slice(0, -1).map((part, index) => ({ label: part, to: ["apps", "group", ...parts.slice(0, index + 1)] as ["apps", ...string[]] })),
            ]}
            state={<AppBadge state={state} />}
            note={staleness(polled)}
            actions={<Actions app={app} />}
          >
            <div class="app-health">
              <HealthBar health={app.health} />
              <span class="minor" data-testid="app-health">
                {healthWords(app.health)} · {groupedInteger(app.instances)} wanted
              </span>
            </div>
            {waiting !== undefined && (waiting.count > 0 || waiting.delaySeconds > 0) && <Waiting item={waiting} />}
            {own.map((it) => (
              <DeploymentRow key={it.id} deployment={it} />
            ))}
            <LastFailure details={details} />
            <Choice name="tab" label="What is shown" otherwise="instances" values={TABS} />
            {tab === "configuration" ? <Configuration app={app} /> : tab === "versions" ? <Versions app={app} /> : <Instances details={details} />}
            {app.kind === "app" && <AutoscalingCard app={app} />}
          </Page>
        );
      }}
    </Await>
  );
}

function Actions({ app }: { app: App }) {
  return (
    <>
      <Button icon="plus" testId="app-scale" onClick={() => askToScale(app)}>
        Scale
      </Button>
      {app.instances > 0 ? (
        <Button icon="pause" isGrave testId="app-suspend" onClick={() => askToSuspend(app)}>
          Suspend
        </Button>
      ) : (
        <Button icon="play" testId="app-resume" onClick={() => askToResume(app)}>
          Resume
        </Button>
      )}
      {app.kind === "app" && (
        <Button icon="restart" isGrave testId="app-restart" onClick={() => askToRestart(app)}>
          Restart
        </Button>
      )}
      <Button icon="text" testId="app-edit" onClick={() => go("apps", ["edit", ...segments(app.id)])}>
        Edit
      </Button>
      <Button icon="trash" isGrave testId="app-destroy" onClick={() => askToDestroy(app)}>
        Destroy
      </Button>
    </>
  );
}

function askToScale(app: App): void {
  askFor({
    title: `Scale ${app.id}`,
    text: `It has ${groupedInteger(app.instances)} now.`,
    action: "Scale",
    fields: [{ name: "instances", label: "Instances", kind: "number", value: String(app.instances) }],
    done: `${app.id} is being scaled.`,
    run: async (values, isForced) => {
      const wanted = Number(values["instances"]);
      if (!Number.isInteger(wanted) || wanted < 0) throw new Error("A whole number that is not negative.");
      await scale(app, wanted, isForced);
    },
  });
}

/** How many there were before it was suspended, for as long as the page knows. */
const before = new Map<string, number>();

function askToSuspend(app: App): void {
  askFor({
    title: `Suspend ${app.id}`,
    text: `All of its ${groupedInteger(app.instances)} instances are stopped; its definition stays.`,
    action: "Suspend",
    isGrave: true,
    done: `${app.id} is being suspended.`,
    run: async (_, isForced) => {
      await scale(app, 0, isForced);
      before.set(app.id, app.instances);
    },
  });
}

function askToResume(app: App): void {
  askFor({
    title: `Resume ${app.id}`,
    text: "",
    action: "Resume",
    fields: [{ name: "instances", label: "Instances", kind: "number", value: String(before.get(app.id) ?? 1) }],
    done: `${app.id} is being started.`,
    run: (values, isForced) => scale(app, Math.max(1, Math.floor(Number(values["instances"]) || 1)), isForced),
  });
}

function askToRestart(app: App): void {
  askFor({
    title: `Restart ${app.id}`,
    text: `New instances replace the ${groupedInteger(app.instances)} that run, as its upgrade strategy says.`,
    action: "Restart",
    isGrave: true,
    done: `${app.id} is being restarted.`,
    run: (_, isForced) => restart(app.id, isForced),
  });
}

function askToDestroy(app: App): void {
  askFor({
    title: `Destroy ${app.id}`,
    text: "All of its instances are stopped, and it is forgotten with all of its versions. This cannot be undone.",
    action: "Destroy",
    isGrave: true,
    typed: app.id,
    done: `${app.id} is being destroyed.`,
    run: async (_, isForced) => {
      await destroy(app, isForced);
      go("apps");
    },
  });
}

function Waiting({ item }: { item: QueueItem }) {
  return (
    <Problem text={`${item.count === 1 ? "1 instance waits" : `${groupedInteger(item.count)} instances wait`}: ${whyNotPlaced(item)}.`}>
      <a class="inner-link" href={hrefOf("apps", ["queue"])}>
        The queue
      </a>
    </Problem>
  );
}

function LastFailure({ details: { failure } }: { details: AppDetails }) {
  if (failure === null) return null;
  return (
    <div class="last-failure" data-testid="last-failure">
      <Icon name="warning" size={15} />
      <div>
        <b>Last failure</b> <When at={failure.at} /> on {failure.host || "an unknown host"}: <State kind="bad">{failure.state.replace(/^TASK_/, "").toLowerCase()}</State>
        <p class="minor">
          <Long text={failure.message || "It left no message."} limit={400} />
        </p>
      </div>
    </div>
  );
}

function Instances({ details: { app, instances } }: { details: AppDetails }) {
  const frameworks = useFrameworks();
  const marathon = frameworks.data?.find((it) => it.name === "marathon")?.id;
  const columns: readonly Column<Instance>[] = [
    {
      key: "id",
      label: "Instance",
      width: "minmax(180px, 2fr)",
      sort: (it) => it.id,
      render: (it) => (
        <span class="mono" title={it.id}>
          {shortId(it.id)}
        </span>
      ),
    },
    { key: "state", label: "State", width: "116px", sort: (it) => it.state, render: (it) => <State kind={it.state === "TASK_RUNNING" || it.state === "STABLE" ? "good" : "busy"} title={it.cause}>{it.state.replace(/^TASK_/, "").toLowerCase()}</State> },
    {
      key: "health",
      label: "Health",
      width: "104px",
      sort: (it) => (it.healthy === null ? null : Number(it.healthy)),
      render: (it) =>
        it.healthy === null ? (
          <span class="quiet">{app.hasChecks ? "not yet" : "no check"}</span>
        ) : (
          <State kind={it.healthy ? "good" : "bad"} title={it.cause}>
            {it.healthy ? "healthy" : "unhealthy"}
          </State>
        ),
    },
    { key: "host", label: "Host", width: "minmax(110px, 1fr)", sort: (it) => it.host, render: (it) => (it.agentId === "" ? it.host : <a class="inner-link" href={hrefOf("cluster", ["agents", it.agentId])}>{it.host}</a>) },
    { key: "ports", label: "Ports", width: "minmax(80px, 0.8fr)", sort: (it) => it.ports[0] ?? null, render: (it) => <span class="mono">{it.ports.join(", ")}</span> },
    { key: "version", label: "Version", width: "minmax(120px, 1fr)", sort: (it) => it.version, render: (it) => <span class={it.version === app.version ? "" : "is-old"} title={it.version === app.version ? it.version : `${it.version}, not the newest`}>{clock(it.version)}</span> },
    { key: "started", label: "Started", width: "104px", isNumber: true, sort: (it) => it.started, render: (it) => <When at={it.started} /> },
    {
      key: "actions",
      label: "",
      width: "150px",
      sort: () => null,
      render: (it) => (
        <span class="control-row is-small">
          {marathon !== undefined && app.kind === "app" && (
            <a class="control" data-testid="instance-logs" href={hrefOf("cluster", ["tasks", marathon, it.id], { file: "stdout" })}>
              Logs
            </a>
          )}
          <Button testId="instance-kill" isGrave onClick={() => askToKill(app, it)}>
            Kill
          </Button>
        </span>
      ),
    },
  ];
  return (
    <div class="table-box" style={{ height: `${Math.min(640, Math.max(3, instances.length + 2) * 38 + 30)}px` }}>
      <DataTable
        label="Instances"
        testId="instances"
        columns={columns}
        rows={instances}
        keyOf={(it) => it.id}
        search={(it) => it.row}
        filter={place.value.params["q"] ?? ""}
        initial={{ key: "started", isDescending: true }}
        empty={app.instances === 0 ? "It is suspended." : "No instance is placed yet."}
      />
    </div>
  );
}

/** What tells instances of an app apart. */
function shortId(id: string): string {
  const at = id.indexOf(".instance-");
  return at < 0 ? id : id.slice(at + 1);
}

function clock(version: string): string {
  const at = Date.parse(version);
  return Number.isNaN(at) ? version : new Date(at).toLocaleString([], { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit" });
}

function askToKill(app: App, it: Instance): void {
  askFor({
    title: `Kill ${shortId(it.id)}`,
    text: `It runs on ${it.host}. Another instance takes its place, unless the number is lowered, too.`,
    action: "Kill",
    isGrave: true,
    fields: app.kind === "app" ? [{ name: "scale", label: "Lower the number of instances by one", kind: "checkbox", value: "false" }] : [],
    done: "It is being killed.",
    run: (values) => killInstance(app, it.id, values["scale"] === "true", false),
  });
}

function Configuration({ app }: { app: App }) {
  const raw = app.kind === "pod" ? record(app.raw["spec"] ?? app.raw) : app.raw;
  const info = record(raw["versionInfo"]);
  return (
    <div class="columns">
      <Card title="At a glance">
        <Facts
          rows={[
            ["Image", app.image],
            ["Command", app.command === "" ? null : <span class="mono"><Long text={app.command} limit={300} /></span>],
            ["Each instance", `${compactNumber(app.cpus)} CPUs · ${amount("mem", app.mem)}${app.gpus > 0 ? ` · ${compactNumber(app.gpus)} GPUs` : ""}`],
            ["Role", app.role],
            ["Labels", app.labels.map(([key, value]) => `${key}=${value}`).join("\n")],
            ["Version", app.version],
            ["Last scaled", text(info["lastScalingAt"])],
            ["Last changed", text(info["lastConfigChangeAt"])],
          ]}
        />
      </Card>
      <Card title="Definition">
        <pre class="code" tabIndex={0} data-testid="definition">
          {JSON.stringify(definitionOf(raw), null, 2)}
        </pre>
      </Card>
    </div>
  );
}

/** What it was, and what has changed since. */
function Versions({ app }: { app: App }) {
  const polled = usePoll(`apps/versions${app.id}`, (signal) => fetchVersions(app, signal), EVERY_MS);
  const chosen = place.value.params["version"] ?? "";
  return (
    <Await polled={polled} what="list of versions">
      {(versions) => (
        <div class="columns is-narrow-first">
          <Card title="Versions" count={versions.length}>
            <ul class="pick-list" data-testid="versions">
              {versions.slice(0, 500).map((version) => (
                <li key={version}>
                  <button type="button" data-testid="version" aria-pressed={version === chosen} onClick={() => setParams({ version: version === chosen ? "" : version })}>
                    {clock(version)} {version === app.version && <span class="badge">current</span>}
                  </button>
                </li>
              ))}
            </ul>
          </Card>
          {chosen === "" ? <p class="quiet">Choose a version to see what has changed since.</p> : <Comparison app={app} version={chosen} />}
        </div>
      )}
    </Await>
  );
}

function Comparison({ app, version }: { app: App; version: string }) {
  const [loaded, setLoaded] = useState<{ version: string; old: Json; now: Json } | null>(null);
  const [problem, setProblem] = useState<string | null>(null);
  useEffect(() => {
    const abort = new AbortController();
    setProblem(null);
    Promise.all([fetchVersion(app, version, abort.signal), fetchVersion(app, app.version, abort.signal)]).then(
      ([old, now]) => setLoaded({ version, old, now }),
      (error: unknown) => {
        if (!abort.signal.aborted) setProblem(messageOf(error));
      },
    );
    return () => abort.abort();
  }, [app.id, app.version, version]);
  if (problem !== null) return <Problem text={problem} />;
  if (loaded === null || loaded.version !== version) return <p class="quiet">Loading…</p>;
  const lines = hunks(diffLines(sortedText(loaded.old), sortedText(loaded.now)));
  return (
    <Card
      title={`From ${clock(version)} to now`}
      actions={
        version === app.version ? null : (
          <Button icon="back" testId="roll-back" isGrave onClick={() => askToRollBack(app, version)}>
            Roll back to it
          </Button>
        )
      }
    >
      {lines.every((line) => line === null) ? (
        <p class="quiet">{version === app.version ? "This is the current version." : "The definitions are the same."}</p>
      ) : (
        <pre class="code diff" tabIndex={0} data-testid="diff">
          {lines.map((line, index) =>
            line === null ? (
              <span key={index} class="diff-gap">
                ⋯{"\n"}
              </span>
            ) : (
              <span key={index} class={`diff-line is-${line.kind}`}>
                {line.kind === "added" ? "+ " : line.kind === "removed" ? "− " : "  "}
                {line.text}
                {"\n"}
              </span>
            ),
          )}
        </pre>
      )}
    </Card>
  );
}

/** Keys in order, so that only what differs differs. */
function sortedText(value: Json): string {
  const ordered = (it: unknown): unknown =>
    Array.isArray(it) ? it.map(ordered) : typeof it === "object" && it !== null ? Object.fromEntries(Object.entries(it).sort(([a], [b]) => (a < b ? -1 : 1)).map(([key, inner]) => [key, ordered(inner)])) : it;
  return JSON.stringify(ordered(definitionOf(value)), null, 2);
}

function askToRollBack(app: App, version: string): void {
  askFor({
    title: `Roll ${app.id} back`,
    text: `It becomes again what it was at ${clock(version)}, as a new version.`,
    action: "Roll back",
    isGrave: true,
    done: `${app.id} is being rolled back.`,
    run: (_, isForced) => rollBack(app, version, isForced),
  });
}

const HELD: Readonly<Record<string, string>> = { dryRun: "dry run" };

/** The policy by which its number follows the load, where there is one, and what was decided by it. */
function AutoscalingCard({ app }: { app: App }) {
  const polled = usePoll(`apps/autoscale${app.id}`, (signal) => fetchAutoscaling(app.id, signal), 2 * EVERY_MS);
  const found = polled.data;
  if (found === null) {
    return polled.at === null ? null : (
      <p class="minor">
        Its number of instances is set by hand.{" "}
        <a class="inner-link" href={hrefOf("apps", ["edit", ...segments(app.id)], { what: "autoscale" })}>
          Let it follow the load
        </a>
      </p>
    );
  }
  const latest = found.decisions[0];
  return (
    <Card
      title={found.isDryRun ? "Autoscaling, dry run" : "Autoscaling"}
      testId="autoscaling"
      actions={
        <>
          <Button onClick={() => go("apps", ["edit", ...segments(app.id)], { what: "autoscale" })}>Edit</Button>
          <Button
            isGrave
            onClick={() =>
              askFor({
                title: `Autoscaling of ${app.id}`,
                text: "The policy is removed; the number of instances stays as it is now.",
                action: "Remove",
                isGrave: true,
                done: "The policy is removed.",
                run: () => removeAutoscaling(app.id),
              })
            }
          >
            Remove
          </Button>
        </>
      }
    >
      {found.problem !== "" && <Problem text={found.problem} />}
      <div class="columns">
        <div class="history">
          {latest !== undefined && (
            <>
              <Tiles
                rows={[
                  ["Instances", groupedInteger(latest.current)],
                  ["Wanted by the load", groupedInteger(latest.desired), latest.desired !== latest.current ? "warn" : ""],
                  ["At least, at most", `${groupedInteger(latest.min)} – ${groupedInteger(latest.max)}`],
                ]}
              />
              <table class="plain-table" data-testid="signals">
                <thead>
                  <tr>
                    <th>Signal</th>
                    <th class="number">Now, each</th>
                    <th class="number">Target, each</th>
                    <th class="number">Calls for</th>
                    <th class="number">Seen</th>
                  </tr>
                </thead>
                <tbody>
                  {latest.signals.map((it) => (
                    <tr key={it.name}>
                      <td>{spaced(it.name)}</td>
                      <td class="number">{it.average === null ? "–" : compactNumber(it.average)}</td>
                      <td class="number">{compactNumber(it.target)}</td>
                      <td class="number">{it.needed === null ? "–" : groupedInteger(it.needed)}</td>
                      <td class="number">{it.missing > 0 ? `${it.seen} of ${it.seen + it.missing}` : it.seen}</td>
                    </tr>
                  ))}
                </tbody>
              </table>
            </>
          )}
          <pre class="code" tabIndex={0}>
            {JSON.stringify(found.policy, null, 2)}
          </pre>
        </div>
        <div>
          {found.decisions.length === 0 && <p class="quiet">Nothing was decided yet.</p>}
          <ol class="history">
            {found.decisions.slice(0, 50).map((it, index) => (
              <li key={index} class="history-step">
                <State kind={it.refused !== "" ? "bad" : it.action === "up" ? "good" : it.action === "down" ? "warn" : "idle"}>
                  {it.action === "hold" ? `stays at ${it.current}` : `${it.current} → ${it.to}`}
                  {it.held !== "" && `, ${HELD[it.held] ?? spaced(it.held)}`}
                </State>
                <span class="minor">
                  <When at={it.at} />
                  {it.window !== "" && `, ${it.window}`}
                </span>
                <p class="history-words">
                  {it.refused !== "" && <b>Not carried out: {it.refused} </b>}
                  <Long text={it.reason} limit={300} />
                </p>
              </li>
            ))}
          </ol>
        </div>
      </div>
    </Card>
  );
}

/** `connectionsPerSecond` → `connections per second`. */
function spaced(key: string): string {
  return key.replace(/([a-z])([A-Z])/g, "$1 $2").replaceAll("_", " ").toLowerCase();
}
