import { fetchSearch } from "../../api/client";
import { groupedInteger } from "../../model/format";
import { actionsOf, BACK, PHASES, type Migration, type SyncLink } from "../../model/sync";
import type { Polled } from "../../state/poll";
import { go, say } from "../../state/shell";
import { now, showInView } from "../../state/store";
import { duration } from "../../model/format";
import { messageOf } from "../../api/http";
import { Button, Card, Problem, State, When } from "../common/pieces";
import { actionWords, askToAct, askToMigrate, isGrave } from "./questions";
import { VerificationView } from "./Verifications";

/** The move of all clients from A to B: where it is, what it waits for, and what can be said to it. */
export function MigrationView({ link, polled }: { link: SyncLink; polled: Polled<Migration | null> }) {
  const it = polled.data;
  if (it === null) {
    if (polled.at === null && polled.error === null) return <p class="quiet">Loading…</p>;
    if (polled.error !== null) return <Problem text={messageOf(polled.error)} />;
    return (
      <Card title="No migration is under way">
        <p class="quiet">A migration moves every client from A to B and proves at each step that nothing is lost. Nothing is switched before you say so.</p>
        <div class="control-row">
          <Button icon="play" testId="migration-begin" onClick={() => askToMigrate(link)}>
            Begin a migration
          </Button>
        </div>
      </Card>
    );
  }
  const isBack = BACK.some(([phase]) => phase === it.phase);
  const way = isBack ? BACK : PHASES;
  const at = way.findIndex(([phase]) => phase === it.phase);
  return (
    <>
      <Card
        title="Migration"
        testId="migration"
        actions={actionsOf(it).map((action) => (
          <Button key={action} testId={`migration-${action}`} isGrave={isGrave(action)} onClick={() => askToAct(link.id, it, action)}>
            {actionWords(action)}
          </Button>
        ))}
      >
        <ol class={isBack ? "phases is-back" : "phases"} data-testid="phases" data-phase={it.phase}>
          {way.map(([phase, label], index) => (
            <li key={phase} class={index < at || it.phase === "complete" ? "is-done" : index === at ? "is-now" : ""} aria-current={index === at ? "step" : undefined}>
              {label}
            </li>
          ))}
        </ol>
        <p>
          {it.paused && <State kind="idle">paused</State>} {it.waitingFor === "" ? "Nothing stands in the way." : it.waitingFor}
          <span class="minor">
            {" "}
            {it.waitsForOperator && "· it waits for somebody's word or deed "}
            {it.secondsLeft !== null && `· about ${duration(it.secondsLeft)} left `}· in this phase since <When at={it.since} />
            {it.deadline !== null && it.deadline > now.value && `, rolled back if it is not over in ${duration((it.deadline - now.value) / 1_000)}`}
          </span>
        </p>
        {it.phase !== "complete" && (
          <div class="progress-line">
            <span class="bar" role="progressbar" aria-valuemin={0} aria-valuemax={100} aria-valuenow={it.percent} aria-label="Copied">
              <span class="bar-part is-used" style={{ width: `${it.percent}%` }} />
            </span>
            <span class="minor">
              {groupedInteger(it.pairs)} znodes in step ({it.percent}%), {groupedInteger(it.backlog)} to be looked at
            </span>
          </div>
        )}
        {it.blockers.map((blocker) => (
          <Problem key={blocker} text={`Must be mended first: ${blocker}`} />
        ))}
        {it.warnings.map((warning) => (
          <p key={warning} class="minor">
            {warning}
          </p>
        ))}
      </Card>
      <Card title="Still connected to A" count={it.holdersUnknown === "" ? it.holders.length : undefined} testId="holders">
        {it.holdersUnknown !== "" ? (
          <p class="quiet">Not known: {it.holdersUnknown}</p>
        ) : it.holders.length === 0 ? (
          <p class="quiet">Nobody, as far as the probes see.</p>
        ) : (
          <table class="plain-table">
            <thead>
              <tr>
                <th>Process</th>
                <th>Host</th>
                <th>Container</th>
                <th>Server</th>
                <th class="number">Connections</th>
              </tr>
            </thead>
            <tbody>
              {it.holders.slice(0, 1_000).map((holder) => (
                <tr key={`${holder.host} ${holder.pid} ${holder.server}`}>
                  <td>
                    <button type="button" class="link-button" onClick={() => void showProcess(holder.host, holder.pid)}>
                      {holder.process} {holder.pid > 0 && <span class="minor">pid {holder.pid}</span>}
                    </button>
                  </td>
                  <td>{holder.host}</td>
                  <td class="mono">{holder.container.slice(0, 12)}</td>
                  <td class="mono">{holder.server}</td>
                  <td class="number">{groupedInteger(holder.connections)}</td>
                </tr>
              ))}
            </tbody>
          </table>
        )}
        {it.requiresNoClients && it.holders.length > 0 && <p class="minor">The migration is not confirmed before they are gone.</p>}
      </Card>
      {it.verification !== null && <VerificationView found={it.verification} />}
      <Card title="What happened" count={it.history.length}>
        <ol class="history" data-testid="migration-history">
          {[...it.history].reverse().map((note, index) => (
            <li key={index} class="history-step">
              <span class="badge">{note.phase.replaceAll("_", " ")}</span> {note.text}{" "}
              <span class="minor">
                <When at={note.at} />
              </span>
            </li>
          ))}
        </ol>
      </Card>
    </>
  );
}

/** The process on the map, if a probe reports it. */
async function showProcess(host: string, pid: number): Promise<void> {
  try {
    const page = await fetchSearch(`pid: ${pid}`, 100);
    const hit = page.hits.find((it) => it.view === "processes" && it.id === `${host};${pid}`);
    if (hit === undefined) {
      say("No probe reports this process (any more).", true);
      return;
    }
    go("map");
    showInView({ view: hit.view, id: hit.id });
  } catch (error) {
    say(messageOf(error), true);
  }
}
