import { cancelDeployment, resetDelay } from "../../api/marathon";
import { duration, groupedInteger } from "../../model/format";
import { amount } from "../../model/cluster";
import { actionWord, reasonWord, whyNotPlaced, type Deployment, type QueueItem } from "../../model/services";
import { heard, stream } from "../../state/events";
import { refresh, staleness } from "../../state/poll";
import { place, say } from "../../state/shell";
import { messageOf } from "../../api/http";
import { Await, Button, Card, Page, State, When } from "../common/pieces";
import { AppLink, askFor, useDeployments, useQueue } from "./shared";

/** A deployment, how far it is, and how to end it. */
export function DeploymentRow({ deployment: it }: { deployment: Deployment }) {
  return (
    <div class="deployment" data-testid="deployment" data-id={it.id}>
      <div class="deployment-head">
        <State kind="busy">
          step {it.step} of {it.steps}
        </State>
        <span class="deployment-apps">
          {it.apps.slice(0, 5).map((app) => (
            <AppLink key={app} id={app} />
          ))}
          {it.apps.length > 5 && <span class="minor">and {groupedInteger(it.apps.length - 5)} more</span>}
        </span>
        <span class="minor">{it.actions.slice(0, 5).map((action) => `${actionWord(action.action)} ${action.app}`).join(", ")}</span>
        <span class="minor deployment-since">
          <When at={Date.parse(it.version)} />
        </span>
        <Button icon="back" testId="deployment-rollback" onClick={() => askToRollBack(it)}>
          Roll back
        </Button>
        <Button icon="stop" isGrave testId="deployment-stop" onClick={() => askToStop(it)}>
          Stop
        </Button>
      </div>
      <div class="progress" role="progressbar" aria-valuemin={0} aria-valuemax={it.steps} aria-valuenow={it.step} aria-label="Progress of the deployment">
        {Array.from({ length: Math.min(it.steps, 60) }, (_, index) => (
          <span key={index} class={index + 1 < it.step ? "is-done" : index + 1 === it.step ? "is-now" : ""} />
        ))}
      </div>
    </div>
  );
}

function askToRollBack(it: Deployment): void {
  askFor({
    title: "Roll the deployment back",
    text: `A new deployment brings ${it.apps.slice(0, 3).join(", ")}${it.apps.length > 3 ? ", …" : ""} back to what was before.`,
    action: "Roll back",
    isGrave: true,
    done: "It is being rolled back.",
    run: () => cancelDeployment(it.id, false),
  });
}

function askToStop(it: Deployment): void {
  askFor({
    title: "Stop the deployment",
    text: "It ends where it is: what was started stays, what was to come does not. Nothing is rolled back.",
    action: "Stop",
    isGrave: true,
    done: "It is stopped.",
    run: () => cancelDeployment(it.id, true),
  });
}

export function DeploymentsPage() {
  const polled = useDeployments();
  return (
    <Await polled={polled} what="list of deployments">
      {(all) => {
        const filter = (place.value.params["q"] ?? "").toLowerCase();
        const shown = all.filter((it) => filter === "" || it.apps.some((app) => app.toLowerCase().includes(filter)) || it.id.includes(filter));
        return (
          <Page title="Deployments" note={staleness(polled)}>
            {shown.slice(0, 200).map((it) => (
              <DeploymentRow key={it.id} deployment={it} />
            ))}
            {shown.length > 200 && <p class="minor">{groupedInteger(shown.length - 200)} more.</p>}
            {shown.length === 0 && <p class="quiet">{all.length === 0 ? "Nothing is being deployed." : "None of them fits the filter."}</p>}
          </Page>
        );
      }}
    </Await>
  );
}

/** What waits for offers, and why it is not placed. */
export function QueuePage() {
  const polled = useQueue();
  return (
    <Await polled={polled} what="queue">
      {(all) => {
        const filter = (place.value.params["q"] ?? "").toLowerCase();
        const shown = all.filter((it) => it.id.toLowerCase().includes(filter));
        return (
          <Page title="Queue" note={staleness(polled)}>
            {shown.slice(0, 200).map((it) => (
              <Waiting key={it.id} item={it} />
            ))}
            {shown.length > 200 && <p class="minor">{groupedInteger(shown.length - 200)} more.</p>}
            {shown.length === 0 && <p class="quiet">{all.length === 0 ? "Nothing waits: every instance that is wanted is placed." : "None of them fits the filter."}</p>}
          </Page>
        );
      }}
    </Await>
  );
}

function Waiting({ item: it }: { item: QueueItem }) {
  const refused = it.all.filter((reason) => reason.declined > 0);
  return (
    <Card
      title={it.id}
      testId="queue-item"
      actions={
        <>
          <AppLink id={it.id} label="The service" />
          {it.delaySeconds > 0 && (
            <Button
              icon="play"
              testId="reset-delay"
              onClick={() =>
                void resetDelay(it.id).then(
                  () => refresh("apps/"),
                  (error: unknown) => say(messageOf(error), true),
                )
              }
            >
              Try now
            </Button>
          )}
        </>
      }
    >
      <p data-testid="why" class="why">
        <State kind={it.delaySeconds > 0 ? "busy" : "warn"}>{it.count === 1 ? "1 instance waits" : `${groupedInteger(it.count)} instances wait`}</State> {whyNotPlaced(it)}
        <span class="minor">
          {" "}
          · since <When at={it.since} />
          {it.processed > 0 && ` · ${groupedInteger(it.processed)} offers looked at in all`}
        </span>
      </p>
      {refused.length > 0 && (
        <div class="funnel" role="img" aria-label="How many offers each reason refused">
          {refused.map((reason) => (
            <div key={reason.reason} class="funnel-row">
              <span>{reasonWord(reason.reason)}</span>
              <span class="bar">
                <span class="bar-part is-unhealthy" style={{ width: `${((reason.declined / Math.max(1, reason.processed)) * 100).toFixed(1)}%` }} />
              </span>
              <span class="minor">
                refused {groupedInteger(reason.declined)} of {groupedInteger(reason.processed)}
              </span>
            </div>
          ))}
        </div>
      )}
      {it.offers.length > 0 && (
        <details class="hooks">
          <summary>The last offers</summary>
          <table class="plain-table">
            <thead>
              <tr>
                <th>Host</th>
                <th class="number">CPUs</th>
                <th class="number">Memory</th>
                <th>Refused because of</th>
                <th>When</th>
              </tr>
            </thead>
            <tbody>
              {it.offers.slice(0, 50).map((offer, index) => (
                <tr key={index}>
                  <td>{offer.host}</td>
                  <td class="number">{amount("cpus", offer.cpus)}</td>
                  <td class="number">{amount("mem", offer.mem)}</td>
                  <td>{offer.reasons.map(reasonWord).join(", ")}</td>
                  <td>
                    <When at={offer.at} />
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </details>
      )}
    </Card>
  );
}

const STREAM = { live: "The event stream is open.", connecting: "The event stream is being opened.", away: "The event stream is away; it is opened again, and everything is looked at every few seconds meanwhile." } as const;

/** What the scheduler said since the page was opened. */
export function EventsPage() {
  const filter = (place.value.params["q"] ?? "").toLowerCase();
  const shown = heard.value.filter((it) => filter === "" || it.kind.includes(filter) || it.subject.toLowerCase().includes(filter) || it.words.toLowerCase().includes(filter));
  return (
    <Page title="Events" state={<State kind={stream.value === "live" ? "good" : "warn"}>{stream.value}</State>}>
      <p class="minor">{STREAM[stream.value]} The last 200 since this page was opened are listed.</p>
      <table class="plain-table" data-testid="events">
        <tbody>
          {shown.map((it) => (
            <tr key={it.number}>
              <td class="minor">{new Date(it.at).toLocaleTimeString()}</td>
              <td>{it.kind.replace(/_event$/, "").replaceAll("_", " ")}</td>
              <td>{it.subject}</td>
              <td class="minor">{it.words}</td>
            </tr>
          ))}
        </tbody>
      </table>
      {shown.length === 0 && <p class="quiet">Nothing was said yet.</p>}
      <p class="minor">{heard.value.length > 0 && `The oldest of them is ${duration((Date.now() - (heard.value[heard.value.length - 1]?.at ?? Date.now())) / 1_000)} old.`}</p>
    </Page>
  );
}
