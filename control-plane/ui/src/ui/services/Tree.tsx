import { useMemo } from "preact/hooks";
import { signal } from "@preact/signals";
import { destroyGroup, scaleGroup } from "../../api/marathon";
import { compactNumber, groupedInteger } from "../../model/format";
import { amount } from "../../model/cluster";
import { appsBelow, appState, groupAt, segments, type App, type Group, type QueueItem } from "../../model/services";
import { searchable } from "../../model/filter";
import { staleness } from "../../state/poll";
import { go, place } from "../../state/shell";
import { DataTable, type Column } from "../common/DataTable";
import { Await, Button, Missing, Page, Tiles } from "../common/pieces";
import { Icon } from "../icons";
import { AppBadge, AppLink, askFor, GroupLink, HealthCell, useQueue, useTree } from "./shared";

/** Up to so many apps, all groups are open at first. */
const OPEN_ALL = 300;

/** Groups that were opened or closed by hand. */
const chosen = signal<ReadonlyMap<string, boolean>>(new Map());

interface Row {
  node: App | Group;
  depth: number;
  order: number;
  isOpen: boolean;
}

const NO_ROW = searchable({});

function flatten(group: Group, isOpenAtFirst: boolean, rows: Row[], depth: number): void {
  for (const below of group.groups) {
    const isOpen = chosen.value.get(below.id) ?? isOpenAtFirst;
    rows.push({ node: below, depth, order: rows.length, isOpen });
    if (isOpen) flatten(below, isOpenAtFirst, rows, depth + 1);
  }
  for (const app of group.apps) rows.push({ node: app, depth, order: rows.length, isOpen: false });
}

function columnsOf(queue: readonly QueueItem[], isTree: boolean): readonly Column<Row>[] {
  const ofApp = <V extends string | number>(pick: (app: App) => V | null) => (row: Row) => (row.node.kind === "group" ? null : pick(row.node));
  return [
    {
      key: "name",
      label: "Name",
      width: "minmax(240px, 2.4fr)",
      sort: (row) => row.order,
      render: ({ node, depth, isOpen }) => (
        <span class="tree-name" style={{ paddingLeft: `${Math.min(depth, 12) * 18}px` }}>
          {node.kind === "group" ? (
            <>
              <button
                type="button"
                class="tree-toggle"
                aria-expanded={isOpen}
                aria-label={`${isOpen ? "Close" : "Open"} ${node.id}`}
                onClick={() => (chosen.value = new Map(chosen.value).set(node.id, !isOpen))}
              >
                <span class={isOpen ? "tree-mark is-open" : "tree-mark"} aria-hidden="true" />
              </button>
              <GroupLink id={node.id} label={node.name} /> <span class="minor">{groupedInteger(node.size)}</span>
            </>
          ) : (
            <>
              <span class={`kind-mark is-${node.kind}`} title={node.kind} aria-hidden="true" />
              <AppLink id={node.id} label={isTree ? node.name : node.id} />
              {node.kind === "pod" && <span class="badge">pod</span>}
            </>
          )}
        </span>
      ),
    },
    {
      key: "state",
      label: "State",
      width: "116px",
      sort: ofApp((app) => appState(app, queue)),
      render: ({ node }) => (node.kind === "group" ? null : <AppBadge state={appState(node, queue)} />),
    },
    { key: "instances", label: "Instances", width: "minmax(110px, 1fr)", isNumber: true, sort: (row) => row.node.health.wanted, render: ({ node }) => <HealthCell health={node.health} /> },
    { key: "cpus", label: "CPUs", width: "84px", isNumber: true, sort: (row) => totals(row.node).cpus, render: ({ node }) => compactNumber(totals(node).cpus) },
    { key: "mem", label: "Memory", width: "92px", isNumber: true, sort: (row) => totals(row.node).mem, render: ({ node }) => amount("mem", totals(node).mem) },
    {
      key: "what",
      label: "Image or command",
      width: "minmax(140px, 1.6fr)",
      sort: ofApp((app) => app.image || app.command || null),
      render: ({ node }) => (node.kind === "group" ? null : <span class="minor" title={node.image || node.command}>{(node.image || node.command).slice(0, 200)}</span>),
    },
    {
      key: "labels",
      label: "Labels",
      width: "minmax(80px, 1fr)",
      sort: ofApp((app) => app.labels.map(([key]) => key).join(" ") || null),
      render: ({ node }) => (node.kind === "group" ? null : <span class="minor">{node.labels.slice(0, 4).map(([key, value]) => `${key}=${value}`.slice(0, 60)).join(", ")}</span>),
    },
  ];
}

/** All that is wanted, together. */
function totals(node: App | Group): { cpus: number; mem: number } {
  return node.kind === "group" ? node : { cpus: node.cpus * node.instances, mem: node.mem * node.instances };
}

export function TreePage({ id }: { id: string }) {
  const tree = useTree();
  const queue = useQueue();
  const filter = place.value.params["q"] ?? "";
  const group = tree.data === null ? null : groupAt(tree.data, id);
  const isTree = filter.trim() === "";
  const open = chosen.value;
  const rows = useMemo(() => {
    if (group === null) return [];
    const found: Row[] = [];
    if (isTree) flatten(group, group.size <= OPEN_ALL, found, 0);
    else for (const app of appsBelow(group)) found.push({ node: app, depth: 0, order: found.length, isOpen: false });
    return found;
  }, [group, isTree, open]);
  const columns = useMemo(() => columnsOf(queue.data ?? [], isTree), [queue.data, isTree]);
  return (
    <Await polled={tree} what="list of services">
      {() => {
        if (group === null) return <Missing title="No such group" text={`There is no group ${id}.`} />;
        const apps = appsBelow(group);
        const states = apps.map((it) => appState(it, queue.data ?? []));
        const count = (...wanted: string[]): number => states.filter((state) => wanted.includes(state)).length;
        const parts = segments(id);
        return (
          <Page
            title={id === "/" ? "Services" : (parts[parts.length - 1] ?? "")}
            trail={id === "/" ? [] : [{ label: "Services", to: ["apps"] }, ...parts.slice(0, -1).map((part, index) => ({ label: part, to: ["apps", "group", ...parts.slice(0, index + 1)] as ["apps", ...string[]] }))]}
            note={staleness(tree)}
            isFull
            actions={
              <>
                {id !== "/" && (
                  <>
                    <Button testId="group-scale" onClick={() => askToScale(group)}>
                      Scale
                    </Button>
                    <Button icon="trash" isGrave testId="group-destroy" onClick={() => askToDestroy(group)}>
                      Destroy
                    </Button>
                  </>
                )}
                <Button icon="plus" testId="app-new" onClick={() => go("apps", ["edit"], id === "/" ? {} : { group: id })}>
                  New
                </Button>
              </>
            }
          >
            <Tiles
              rows={[
                ["Running", groupedInteger(count("running"))],
                ["Deploying", groupedInteger(count("deploying"))],
                ["Waiting", groupedInteger(count("waiting", "delayed")), count("waiting", "delayed") > 0 ? "warn" : ""],
                ["Unhealthy", groupedInteger(count("unhealthy")), count("unhealthy") > 0 ? "bad" : ""],
                ["Suspended", groupedInteger(count("suspended"))],
                ["Instances", `${groupedInteger(group.health.healthy + group.health.running + group.health.unhealthy)} / ${groupedInteger(group.health.wanted)}`],
              ]}
            />
            <DataTable
              label="Services"
              testId="apps"
              columns={columns}
              rows={rows}
              keyOf={(row) => `${row.node.kind} ${row.node.id}`}
              search={(row) => (row.node.kind === "group" ? NO_ROW : row.node.row)}
              filter={filter}
              initial={{ key: "name", isDescending: false }}
              onOpen={(row) => (row.node.kind === "group" ? (chosen.value = new Map(chosen.value).set(row.node.id, !row.isOpen)) : go("apps", ["app", ...segments(row.node.id)]))}
              empty={
                <>
                  <Icon name="plus" size={14} /> Nothing runs here yet. “New” makes an app, a pod or a group.
                </>
              }
            />
          </Page>
        );
      }}
    </Await>
  );
}

function askToScale(group: Group): void {
  askFor({
    title: `Scale ${group.id}`,
    text: `The number of instances of each of its ${groupedInteger(group.size)} apps is multiplied.`,
    action: "Scale",
    fields: [{ name: "by", label: "Multiply by", kind: "number", value: "2" }],
    done: `${group.id} is being scaled.`,
    run: async (values, isForced) => {
      const by = Number(values["by"]);
      if (!(by >= 0)) throw new Error("By a number that is not negative.");
      await scaleGroup(group.id, by, isForced);
    },
  });
}

function askToDestroy(group: Group): void {
  askFor({
    title: `Destroy ${group.id}`,
    text: `All of its ${groupedInteger(group.size)} apps and pods are stopped and forgotten, with all of their versions. This cannot be undone.`,
    action: "Destroy",
    isGrave: true,
    typed: group.id,
    done: `${group.id} is being destroyed.`,
    run: async (_, isForced) => {
      await destroyGroup(group.id, isForced);
      go("apps");
    },
  });
}
