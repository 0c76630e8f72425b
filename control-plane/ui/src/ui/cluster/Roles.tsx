import { fetchOffers, fetchRoles, setQuota, setWeight } from "../../api/mesos";
import { amount, NOTHING, RESOURCES, share, type Amounts, type Offer, type Role } from "../../model/cluster";
import { compactNumber } from "../../model/format";
import { refresh, staleness, usePoll } from "../../state/poll";
import { place, question } from "../../state/shell";
import { DataTable, type Column } from "../common/DataTable";
import { Await, Bar, Button, Page } from "../common/pieces";
import { AgentLink, AmountsText, EVERY_MS, FrameworkLink, useNames } from "./shared";

function limits(role: Role): string {
  return RESOURCES.filter((name) => role.limit[name] !== undefined)
    .map((name) => `${amount(name, role.limit[name] ?? 0)}${name === "cpus" || name === "gpus" ? ` ${name}` : ""}`)
    .join(" · ");
}

/** How much of the guarantee is used: of the resource that is nearest to it. */
function GuaranteeBar({ role }: { role: Role }) {
  const known = RESOURCES.filter((name) => role.guarantee[name] > 0);
  if (known.length === 0) return <span class="quiet">–</span>;
  const fullest = known.reduce((best, name) => (share(role.consumed[name], role.guarantee[name]) > share(role.consumed[best], role.guarantee[best]) ? name : best));
  const words = `${amount(fullest, role.consumed[fullest])} of ${amount(fullest, role.guarantee[fullest])} ${fullest} consumed`;
  return (
    <span class="bar-cell">
      <span class="bar-text">
        <AmountsText of={role.guarantee} />
      </span>
      <Bar parts={[{ share: share(role.consumed[fullest], role.guarantee[fullest]), kind: "is-used", title: words }]} label={words} />
    </span>
  );
}

const COLUMNS: readonly Column<Role>[] = [
  { key: "name", label: "Role", width: "minmax(140px, 1.4fr)", sort: (it) => it.name, render: (it) => <b>{it.name}</b> },
  { key: "weight", label: "Weight", width: "76px", isNumber: true, sort: (it) => it.weight, render: (it) => compactNumber(it.weight) },
  { key: "guarantee", label: "Guarantee", width: "minmax(120px, 1.2fr)", sort: (it) => it.guarantee.cpus, render: (it) => <GuaranteeBar role={it} /> },
  { key: "limit", label: "Limit", width: "minmax(110px, 1fr)", sort: (it) => limits(it) || null, render: (it) => limits(it) || <span class="quiet">none</span> },
  { key: "allocated", label: "Allocated", width: "minmax(130px, 1.2fr)", sort: (it) => it.allocated.cpus, render: (it) => <AmountsText of={it.allocated} /> },
  { key: "offered", label: "Offered", width: "minmax(110px, 1fr)", sort: (it) => it.offered.cpus, render: (it) => <AmountsText of={it.offered} /> },
  { key: "reserved", label: "Reserved", width: "minmax(110px, 1fr)", sort: (it) => it.reserved.cpus, render: (it) => <AmountsText of={it.reserved} /> },
  { key: "frameworks", label: "Frameworks", width: "96px", isNumber: true, sort: (it) => it.frameworks.length, render: (it) => it.frameworks.length },
  {
    key: "actions",
    label: "",
    width: "150px",
    sort: () => null,
    render: (it) => (
      <span class="control-row is-small">
        <Button testId="role-weight" onClick={() => askForWeight(it)}>
          Weight
        </Button>
        <Button testId="role-quota" onClick={() => askForQuota(it)}>
          Quota
        </Button>
      </span>
    ),
  },
];

export function RolesPage() {
  const polled = usePoll("cluster/roles", fetchRoles, EVERY_MS);
  return (
    <Await polled={polled} what="list of roles">
      {(rows) => (
        <Page title="Roles" note={staleness(polled)} isFull>
          <DataTable
            label="Roles"
            testId="roles"
            columns={COLUMNS}
            rows={rows}
            keyOf={(it) => it.name}
            search={(it) => it.row}
            filter={place.value.params["q"] ?? ""}
            initial={{ key: "name", isDescending: false }}
            empty="No role is known: no framework is registered, and none has a weight, a quota or a reservation."
          />
        </Page>
      )}
    </Await>
  );
}

function askForWeight(role: Role): void {
  question.value = {
    title: `Weight of ${role.name}`,
    text: "A role of weight 2 gets twice the share of one of weight 1.",
    action: "Set weight",
    fields: [{ name: "weight", label: "Weight", kind: "number", value: String(role.weight) }],
    run: async (values) => {
      const weight = Number(values["weight"]);
      if (!(weight > 0)) throw new Error("A weight is a number above 0.");
      await setWeight(role.name, weight);
      refresh("cluster/");
      return `${role.name} has the weight ${compactNumber(weight)}.`;
    },
  };
}

function askForQuota(role: Role): void {
  const field = (name: string, label: string, value: number | undefined) => ({ name, label, kind: "number" as const, value: value === undefined || value === 0 ? "" : String(value) });
  question.value = {
    title: `Quota of ${role.name}`,
    text: "What is guaranteed is kept free for it; beyond a limit it is offered nothing. An empty field is no guarantee, and no limit.",
    action: "Set quota",
    fields: [
      field("guarantee.cpus", "CPUs guaranteed", role.guarantee.cpus),
      field("guarantee.mem", "Memory guaranteed, MiB", role.guarantee.mem),
      field("limit.cpus", "CPUs at most", role.limit.cpus),
      field("limit.mem", "Memory at most, MiB", role.limit.mem),
    ],
    run: async (values) => {
      // What has no field here stays as it is.
      const kept = (all: Partial<Amounts>) => Object.fromEntries(RESOURCES.filter((name) => name !== "cpus" && name !== "mem" && (all[name] ?? 0) > 0).map((name) => [name, all[name] ?? 0]));
      const read = (prefix: string) =>
        Object.fromEntries(
          (["cpus", "mem"] as const).flatMap((name) => {
            const text = values[`${prefix}.${name}`]?.trim() ?? "";
            return text === "" ? [] : [[name, Math.max(0, Number(text))]];
          }),
        );
      await setQuota(role.name, { ...kept(role.guarantee), ...read("guarantee") }, { ...kept({ ...NOTHING, ...role.limit }), ...read("limit") });
      refresh("cluster/");
      return `The quota of ${role.name} is set.`;
    },
  };
}

export function OffersPage() {
  const polled = usePoll("cluster/offers", fetchOffers, EVERY_MS);
  const names = useNames();
  const columns: readonly Column<Offer>[] = [
    { key: "framework", label: "Framework", width: "minmax(140px, 1.2fr)", sort: (it) => it.frameworkName, render: (it) => <FrameworkLink id={it.frameworkId} name={it.frameworkName} /> },
    { key: "agent", label: "Agent", width: "minmax(140px, 1.2fr)", sort: (it) => names.agent(it.agentId), render: (it) => <AgentLink id={it.agentId} name={names.agent(it.agentId)} /> },
    { key: "role", label: "Role", width: "minmax(80px, 0.8fr)", sort: (it) => it.role, render: (it) => it.role },
    { key: "resources", label: "Resources", width: "minmax(180px, 1.6fr)", sort: (it) => it.resources.cpus, render: (it) => <AmountsText of={it.resources} /> },
    { key: "ports", label: "Ports", width: "minmax(110px, 1fr)", sort: (it) => it.ports || null, render: (it) => <span title={it.ports}>{it.ports}</span> },
    { key: "id", label: "Id", width: "minmax(120px, 1fr)", sort: (it) => it.id, render: (it) => <span class="mono" title={it.id}>{it.id}</span> },
  ];
  return (
    <Await polled={polled} what="list of offers">
      {(rows) => (
        <Page title="Offers" note={staleness(polled)} isFull>
          <DataTable
            label="Offers"
            testId="offers"
            columns={columns}
            rows={rows}
            keyOf={(it) => it.id}
            search={(it) => it.row}
            filter={place.value.params["q"] ?? ""}
            initial={{ key: "framework", isDescending: false }}
            empty="Nothing is offered right now: frameworks have accepted or declined everything, or have asked for nothing."
          />
        </Page>
      )}
    </Await>
  );
}
