import { fetchMachines, machineDown, machineUp, scheduleMaintenance, unscheduleMaintenance } from "../../api/mesos";
import type { Machine } from "../../model/cluster";
import { duration } from "../../model/format";
import { refresh, staleness, usePoll } from "../../state/poll";
import { question } from "../../state/shell";
import { Await, Button, Page, State, When } from "../common/pieces";
import { EVERY_MS, useSummary } from "./shared";

const KINDS = { planned: "idle", draining: "warn", down: "bad" } as const;

const named = (it: Machine): string => it.hostname || it.ip;

async function done(work: Promise<void>, words: string): Promise<string> {
  await work;
  refresh("cluster/");
  return words;
}

export function MaintenancePage() {
  const polled = usePoll("cluster/maintenance", fetchMachines, EVERY_MS);
  const summary = useSummary();
  const hosts = (summary.data?.agents ?? []).map((it) => ({ hostname: it.hostname, ip: it.address.slice(0, it.address.lastIndexOf(":")) }));
  return (
    <Await polled={polled} what="maintenance schedule">
      {(machines) => (
        <Page
          title="Maintenance"
          note={staleness(polled)}
          actions={
            <Button icon="plus" testId="maintenance-add" onClick={() => askForWindow(hosts)}>
              Plan maintenance
            </Button>
          }
        >
          {machines.length === 0 ? (
            <p class="quiet" data-testid="maintenance-empty">
              No machine is planned to be down. Frameworks are asked to give back what they have on a machine that is, from now on until it goes down.
            </p>
          ) : (
            <table class="plain-table" data-testid="maintenance">
              <thead>
                <tr>
                  <th>Machine</th>
                  <th>State</th>
                  <th>From</th>
                  <th>For</th>
                  <th />
                </tr>
              </thead>
              <tbody>
                {machines.map((it) => (
                  <tr key={`${it.hostname} ${it.ip}`}>
                    <td>
                      <b>{named(it)}</b> <span class="minor">{it.hostname === "" ? "" : it.ip}</span>
                    </td>
                    <td>
                      <State kind={KINDS[it.state]}>{it.state}</State>
                    </td>
                    <td>{it.from === null ? "–" : it.from > Date.now() ? new Date(it.from).toLocaleString() : <When at={it.from} />}</td>
                    <td>{it.seconds === null ? "until it is up again" : duration(it.seconds)}</td>
                    <td>
                      <span class="control-row is-small">
                        {it.state === "down" ? (
                          <Button onClick={() => (question.value = { title: `${named(it)} is up again`, text: "Its agent may register again; the machine leaves the schedule.", action: "It is up", run: () => done(machineUp(it), `${named(it)} is up.`) })}>
                            Up
                          </Button>
                        ) : (
                          <>
                            <Button
                              isGrave
                              onClick={() =>
                                (question.value = {
                                  title: `Take ${named(it)} down`,
                                  text: "Its agent is told to end, and its tasks with it. It cannot register until the machine is said to be up again.",
                                  action: "Take down",
                                  isGrave: true,
                                  run: () => done(machineDown(it), `${named(it)} is down.`),
                                })
                              }
                            >
                              Down
                            </Button>
                            <Button onClick={() => (question.value = { title: `Forget the maintenance of ${named(it)}`, text: "The machine leaves the schedule.", action: "Forget", run: () => done(unscheduleMaintenance(it), `${named(it)} is not planned to be down any more.`) })}>
                              Forget
                            </Button>
                          </>
                        )}
                      </span>
                    </td>
                  </tr>
                ))}
              </tbody>
            </table>
          )}
        </Page>
      )}
    </Await>
  );
}

function askForWindow(hosts: readonly { hostname: string; ip: string }[]): void {
  const local = new Date(Date.now() - new Date().getTimezoneOffset() * 60_000).toISOString().slice(0, 16);
  question.value = {
    title: "Plan maintenance",
    text: "Frameworks are asked to leave the machine before it goes down.",
    action: "Plan",
    fields: [
      { name: "host", label: "Host name of the agent", kind: "text", value: hosts.length === 1 ? (hosts[0]?.hostname ?? "") : "" },
      { name: "from", label: "From", kind: "datetime", value: local },
      { name: "hours", label: "Hours", kind: "number", value: "1", hint: "Empty: until it is said to be up again." },
    ],
    run: (values) => {
      const wanted = (values["host"] ?? "").trim();
      if (wanted === "") throw new Error("Which host?");
      // An agent's machine is known by both of its names.
      const machine = hosts.find((it) => it.hostname === wanted || it.ip === wanted) ?? { hostname: wanted, ip: "" };
      const from = Date.parse(values["from"] ?? "");
      if (Number.isNaN(from)) throw new Error("From when?");
      const hours = (values["hours"] ?? "").trim();
      return done(scheduleMaintenance(machine, from, hours === "" ? null : Number(hours) * 3_600), `Maintenance of ${wanted} is planned.`);
    },
  };
}
