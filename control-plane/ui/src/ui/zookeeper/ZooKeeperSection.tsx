import { fetchLinks } from "../../api/zksync";
import { groupedInteger } from "../../model/format";
import { MODES, stateKind, STRATEGIES, type SyncLink } from "../../model/sync";
import { searchable } from "../../model/filter";
import { staleness, usePoll } from "../../state/poll";
import { go, place, services } from "../../state/shell";
import { sentence } from "../cluster/ClusterSection";
import { DataTable, type Column } from "../common/DataTable";
import { Await, Button, Missing, Page, State } from "../common/pieces";
import { milliseconds } from "./LagChart";
import { LinkPage } from "./LinkPage";
import { askForLink } from "./questions";

/** Ensembles that are kept in step, and clients that are moved from one to another. */
export default function ZooKeeperSection() {
  const zksync = services.value?.zksync;
  if (zksync !== undefined && !zksync.runs) {
    return <Missing title="ZooKeeper sync does not run in this control plane" text={`${sentence(zksync.detail)} Start one with zksync among them to keep two ensembles in step.`} testId="section-off" />;
  }
  const [page, id] = place.value.path;
  if (page === "link" && id !== undefined) return <LinkPage key={id} id={id} />;
  return <LinksPage />;
}

export function LinkBadge({ link }: { link: SyncLink }) {
  const state = link.status?.state ?? link.role;
  return (
    <State kind={link.role === "complete" ? "good" : link.status === null ? "idle" : stateKind(state)} title={link.status?.reason ?? link.detail} testId="link-state">
      {state}
    </State>
  );
}

const COLUMNS: readonly Column<SyncLink>[] = [
  { key: "id", label: "Link", width: "minmax(120px, 1fr)", sort: (it) => it.id, render: (it) => <b>{it.id}</b> },
  { key: "state", label: "State", width: "112px", sort: (it) => it.status?.state ?? it.role, render: (it) => <LinkBadge link={it} /> },
  {
    key: "sides",
    label: "Ensembles",
    width: "minmax(220px, 2.4fr)",
    sort: (it) => it.a,
    render: (it) => (
      <span class="mono minor" title={`A ${it.a}\nB ${it.b}`}>
        {it.a} {(MODES[it.mode] ?? it.mode).replace(/[AB ]/g, "")} {it.b}
      </span>
    ),
  },
  { key: "strategy", label: "Conflicts are decided", width: "minmax(110px, 1fr)", sort: (it) => it.strategy, render: (it) => STRATEGIES[it.strategy] ?? it.strategy },
  { key: "pairs", label: "Znodes", width: "90px", isNumber: true, sort: (it) => it.status?.pairs ?? null, render: (it) => (it.status === null ? "–" : groupedInteger(it.status.pairs)) },
  { key: "backlog", label: "Backlog", width: "84px", isNumber: true, sort: (it) => it.status?.backlog ?? null, render: (it) => (it.status === null ? "–" : groupedInteger(it.status.backlog)) },
  { key: "lag", label: "Lag p99", width: "90px", isNumber: true, sort: (it) => Math.max(it.lag.a.p99, it.lag.b.p99), render: (it) => (it.lag.a.changes + it.lag.b.changes === 0 ? <span class="quiet">–</span> : milliseconds(Math.max(it.lag.a.p99, it.lag.b.p99))) },
  { key: "conflicts", label: "Conflicts", width: "88px", isNumber: true, sort: (it) => it.status?.conflicts ?? null, render: (it) => <span class={(it.status?.conflicts ?? 0) > 0 ? "is-warn" : ""}>{groupedInteger(it.status?.conflicts ?? 0)}</span> },
];

function LinksPage() {
  const polled = usePoll("zk/links", fetchLinks, 2_000);
  return (
    <Await polled={polled} what="list of links">
      {(links) => (
        <Page
          title="Links between ensembles"
          note={staleness(polled)}
          isFull
          actions={
            <Button icon="plus" testId="link-new" onClick={askForLink}>
              New link
            </Button>
          }
        >
          <DataTable
            label="Links"
            testId="links"
            columns={COLUMNS}
            rows={links}
            keyOf={(it) => it.id}
            search={(it) => searchable({ id: it.id, a: it.a, b: it.b, state: it.status?.state ?? it.role })}
            filter={place.value.params["q"] ?? ""}
            initial={{ key: "id", isDescending: false }}
            onOpen={(it) => go("zookeeper", ["link", it.id])}
            empty="No ensembles are kept in step. “New link” names two, and copies what the first has to the second."
          />
        </Page>
      )}
    </Await>
  );
}
