import { useEffect, useState } from "preact/hooks";
import { fetchLink, fetchMigration, fetchResolutions } from "../../api/zksync";
import { groupedInteger } from "../../model/format";
import { addPoint, MODES, SIDES, STRATEGIES, written, type LagPoint, type SyncLink } from "../../model/sync";
import { staleness, usePoll } from "../../state/poll";
import { Await, Button, Card, choiceOf, Choice, Facts, Long, Page, Problem, State, Tiles, When } from "../common/pieces";
import { Conflicts } from "./Conflicts";
import { LagChart, milliseconds } from "./LagChart";
import { MigrationView } from "./MigrationView";
import { askToApproveDeletes, askToChange, askToDelete, askToPause, askToResync, resume } from "./questions";
import { Verifications } from "./Verifications";
import { LinkBadge } from "./ZooKeeperSection";

/** Points of the charts, as long as the page is open. */
const charts = new Map<string, LagPoint[]>();
const CHARTS_MAX = 32;

/** One link: how it stands, what it disputes, whether both sides are the same, and the move from one to the other. */
export function LinkPage({ id }: { id: string }) {
  const polled = usePoll(`zk/link/${id}`, (signal) => fetchLink(id, signal), 1_000);
  const migration = usePoll(`zk/migration/${id}`, (signal) => fetchMigration(id, signal), 2_000);
  const [points, setPoints] = useState<readonly LagPoint[]>(charts.get(id) ?? []);
  useEffect(() => {
    if (polled.data === null || polled.at === null) return;
    const next = addPoint(charts.get(id) ?? [], polled.data, polled.at);
    charts.delete(id);
    charts.set(id, next);
    for (const old of charts.keys()) {
      if (charts.size <= CHARTS_MAX) break;
      charts.delete(old);
    }
    setPoints(next);
  }, [polled.at]);
  const tab = choiceOf("tab", "status");
  return (
    <Await polled={polled} what="link">
      {(link) => {
        const conflicts = link.status?.conflicts ?? 0;
        return (
          <Page title={link.id} trail={[{ label: "Links", to: ["zookeeper"] }]} state={<LinkBadge link={link} />} note={staleness(polled)} actions={<Actions link={link} />}>
            {link.status === null && link.role !== "complete" && (
              <Problem text={link.role === "standby" ? `Another control plane leads this link: ${link.detail}` : `It does not run yet: ${link.detail}`} />
            )}
            {link.status !== null && link.status.reason !== "" && <Problem text={link.status.reason} />}
            {link.status !== null && link.status.heldDeletes > 0 && (
              <Problem text={`${groupedInteger(link.status.heldDeletes)} deletes are held back, because so many came at once.`}>
                <Button isGrave onClick={() => askToApproveDeletes(link)}>
                  Carry them out
                </Button>
              </Problem>
            )}
            <Choice
              name="tab"
              label="What is shown"
              otherwise="status"
              values={[
                ["status", "Status"],
                ["conflicts", conflicts > 0 ? `Conflicts ${groupedInteger(conflicts)}` : "Conflicts"],
                ["verification", "Verification"],
                ["migration", migration.data === null ? "Migration" : `Migration: ${migration.data.phase.replaceAll("_", " ")}`],
              ]}
            />
            {tab === "conflicts" ? <Conflicts link={link} /> : tab === "verification" ? <Verifications id={id} /> : tab === "migration" ? <MigrationView link={link} polled={migration} /> : <Status link={link} points={points} />}
          </Page>
        );
      }}
    </Await>
  );
}

function Actions({ link }: { link: SyncLink }) {
  if (link.status === null) return null;
  const isPaused = link.status.state === "paused";
  return (
    <>
      {isPaused ? (
        <Button icon="play" testId="link-resume" onClick={() => resume(link)}>
          Resume
        </Button>
      ) : (
        <Button icon="pause" testId="link-pause" isGrave onClick={() => askToPause(link)}>
          Pause
        </Button>
      )}
      <Button icon="restart" testId="link-resync" onClick={() => askToResync(link)}>
        Read again
      </Button>
      <Button icon="trash" isGrave testId="link-delete" onClick={() => askToDelete(link)}>
        End
      </Button>
    </>
  );
}

function Status({ link, points }: { link: SyncLink; points: readonly LagPoint[] }) {
  const status = link.status;
  return (
    <>
      {status !== null && (
        <Tiles
          rows={[
            ["Znodes in step", groupedInteger(status.pairs)],
            ["Backlog", groupedInteger(status.backlog), status.oldestMs > 5_000 ? "warn" : ""],
            ["Oldest waits", status.backlog > 0 ? milliseconds(status.oldestMs) : "–"],
            ["Lag to A, p99", link.lag.a.changes > 0 ? milliseconds(link.lag.a.p99) : "–"],
            ["Lag to B, p99", link.lag.b.changes > 0 ? milliseconds(link.lag.b.p99) : "–"],
            ["Conflicts", groupedInteger(status.conflicts), status.conflicts > 0 ? "warn" : ""],
            ["Cannot be copied", groupedInteger(status.blockedTotal), status.blockedTotal > 0 ? "bad" : ""],
          ]}
        />
      )}
      <Card title="Lag">
        <LagChart points={points} />
      </Card>
      <div class="columns">
        {SIDES.map((side) => (
          <Card key={side} title={side.toUpperCase()}>
            <Facts
              rows={[
                ["Ensemble", <span class="mono">{link[side]}</span>],
                ["Connection", status === null ? "not ours" : status.connected[side] ? <State kind="good">connected</State> : <State kind="bad">not reached</State>],
                ["Being read", status?.scanning[side] == null ? null : `${groupedInteger(status.scanning[side] ?? 0)} znodes so far`],
                ["Newest transaction", status === null ? null : <span class="mono">{status.zxid[side]}</span>],
                ["Changes written here", status === null ? null : groupedInteger(written(status.counters, side))],
                ["Changes on their way", link.lag[side].changes === 0 ? "none lately" : `${groupedInteger(link.lag[side].changes)} lately, p50 ${milliseconds(link.lag[side].p50)}, at most ${milliseconds(link.lag[side].max)}`],
              ]}
            />
          </Card>
        ))}
        <Card title="Rules">
          <Facts
            rows={[
              ["Direction", MODES[link.mode] ?? link.mode],
              ["Conflicts", STRATEGIES[link.strategy] ?? link.strategy],
              ["Not copied", status === null || status.excluded.length === 0 ? null : status.excluded.map(([reason, count]) => `${groupedInteger(count)} ${reason.replaceAll("_", " ")}`).join(", ")],
            ]}
          />
          <div class="control-row">
            {link.mode !== "both" && <Button onClick={() => askToChange(link, { mode: "both" }, "From now on changes of both sides are carried to the other, until the link is started again.")}>Both directions</Button>}
            {link.mode !== "a_to_b" && <Button onClick={() => askToChange(link, { mode: "a_to_b" }, "From now on only changes of A are carried.")}>Only A → B</Button>}
            {link.strategy !== "manual" && <Button onClick={() => askToChange(link, { strategy: "manual" }, "From now on conflicts wait for a person.")}>Decide conflicts by hand</Button>}
          </div>
        </Card>
      </div>
      {status !== null && status.blocked.length > 0 && (
        <Card title="Cannot be copied" count={status.blockedTotal}>
          <table class="plain-table">
            <tbody>
              {status.blocked.map(([path, reason]) => (
                <tr key={path}>
                  <td class="mono">{path}</td>
                  <td>
                    <Long text={reason} />
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </Card>
      )}
      <Resolutions id={link.id} />
    </>
  );
}

function Resolutions({ id }: { id: string }) {
  const polled = usePoll(`zk/resolutions/${id}`, (signal) => fetchResolutions(id, signal), 5_000);
  const rows = polled.data ?? [];
  if (rows.length === 0) return null;
  return (
    <Card title="How conflicts were decided" count={rows.length}>
      <table class="plain-table" data-testid="resolutions">
        <thead>
          <tr>
            <th>Znode</th>
            <th>What collided</th>
            <th>Winner</th>
            <th>A had</th>
            <th>B had</th>
            <th>When</th>
          </tr>
        </thead>
        <tbody>
          {rows.map((it, index) => (
            <tr key={index}>
              <td class="mono">{it.path}</td>
              <td>{it.kind.replaceAll("_", " ")}</td>
              <td>
                <b>{it.winner.toUpperCase()}</b> <span class="minor">{STRATEGIES[it.strategy] ?? it.strategy}{it.ambiguous ? ", the clocks could not tell" : ""}</span>
              </td>
              <td class="mono">
                <Long text={it.a} limit={60} />
              </td>
              <td class="mono">
                <Long text={it.b} limit={60} />
              </td>
              <td>
                <When at={it.at} />
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </Card>
  );
}
