import { useEffect, useRef, useState } from "preact/hooks";
import { fetchDetails, RequestError } from "../api/client";
import type { ChildGroup, Column, ConnectionTable, MetadataRow, NodeDetails, NodeSummary, Table } from "../api/types";
import { groupedInteger, metadataValue, metricValue, middleEllipsis, shortPath, truncate } from "../model/format";
import type { PanelRef } from "../model/location";
import * as store from "../state/store";
import { shortfall } from "./Banner";
import { Controls } from "./Controls";
import { Icon, NodeGlyph } from "./icons";
import { MetricCard } from "./Sparkline";
import { Traffic } from "./Traffic";
import { taskPath } from "../model/containers";
import { hrefOf } from "../state/shell";

const POLL_MS = 3_000;
const ROWS_AT_FIRST = 8;

interface Loaded {
  ref: PanelRef;
  node: NodeDetails | null;
  isGone: boolean;
  error: string | null;
}

/** Everything about one node, kept current while it is open. */
export function Details({ panel }: { panel: PanelRef }) {
  const loaded = useDetails(panel);
  const heading = useRef<HTMLHeadingElement>(null);
  const summary: NodeSummary | null = loaded.node ?? (store.selected.value === panel.id ? (store.nodes.value.get(panel.id) ?? null) : null);
  const previous = store.panels.value[store.panels.value.length - 2];
  const isElsewhere = store.view.value?.id !== panel.view;
  useEffect(() => heading.current?.focus({ preventScroll: true }), [panel.view, panel.id]);
  return (
    <aside class="side" aria-label="Node details" data-testid="details-panel" data-node-id={panel.id} data-gone={loaded.isGone ? "true" : undefined}>
      <div class="side-head">
        {previous && (
          <button type="button" class="icon-button" data-testid="details-back" aria-label="Back" title="Back (Esc)" onClick={store.back}>
            <Icon name="back" />
          </button>
        )}
        <div class="side-title">
          {summary && <NodeGlyph node={summary} size={32} />}
          <div class="side-names">
            <h2 ref={heading} tabIndex={-1} title={summary?.label ?? panel.id}>
              {summary ? middleEllipsis(summary.label || panel.id, 64) : middleEllipsis(panel.id, 40)}
            </h2>
            <p class="minor">{summary?.labelMinor || store.describe(panel.view)?.name}</p>
          </div>
        </div>
        <CopyButton text={panel.id} />
        <button type="button" class="icon-button" data-testid="details-close" aria-label="Close" title="Close" onClick={store.closePanels}>
          <Icon name="close" />
        </button>
      </div>
      {loaded.isGone && (
        <div class="gone" role="status">
          <Icon name="warning" size={15} /> {loaded.node ? "This node is gone. What you see is the last that was known of it." : "This node is not there (any more)."}
        </div>
      )}
      {loaded.error !== null && (
        <div class="gone" role="status">
          <Icon name="warning" size={15} /> {loaded.error}
        </div>
      )}
      <div class={loaded.isGone ? "side-body is-gone" : "side-body"}>
        {loaded.node ? <Body node={loaded.node} panel={panel} isElsewhere={isElsewhere} /> : !loaded.isGone && loaded.error === null && <Skeleton />}
      </div>
    </aside>
  );
}

function useDetails(panel: PanelRef): Loaded {
  const [loaded, setLoaded] = useState<Loaded>({ ref: panel, node: null, isGone: false, error: null });
  const options = store.optionsOf(store.describe(panel.view)?.options);
  const optionKey = JSON.stringify(options);
  useEffect(() => {
    const abort = new AbortController();
    let timer: ReturnType<typeof setTimeout> | null = null;
    const poll = async (): Promise<void> => {
      if (!document.hidden && !store.isPaused.peek()) {
        try {
          const node = await fetchDetails(panel.view, panel.id, options, store.momentNow(), abort.signal);
          setLoaded({ ref: panel, node, isGone: false, error: null });
        } catch (error) {
          if (abort.signal.aborted) return;
          const isGone = error instanceof RequestError && error.status === 404;
          setLoaded((before) => ({
            ref: panel,
            node: before.ref.id === panel.id && before.ref.view === panel.view ? before.node : null,
            isGone,
            error: isGone ? null : "The control plane does not answer; this is the last that was known.",
          }));
        }
      }
      if (!abort.signal.aborted) timer = setTimeout(() => void poll(), POLL_MS);
    };
    void poll();
    return () => {
      abort.abort();
      if (timer !== null) clearTimeout(timer);
    };
  }, [panel.view, panel.id, optionKey]);
  // Until the new node answers, nothing of the one before is shown.
  return loaded.ref.view === panel.view && loaded.ref.id === panel.id ? loaded : { ref: panel, node: null, isGone: false, error: null };
}

/** The way to the Mesos task that this is, or whose container it is. */
function TaskLink({ node }: { node: NodeDetails }) {
  const path = taskPath(node);
  if (path === null) return null;
  return (
    <a class="show-in-view" data-testid="show-task" href={hrefOf("cluster", path)}>
      <Icon name="cluster" size={15} /> Its task in the cluster
    </a>
  );
}

function Body({ node, panel, isElsewhere }: { node: NodeDetails; panel: PanelRef; isElsewhere: boolean }) {
  const metrics = (node.metrics ?? []).filter((row) => !row.valueEmpty);
  return (
    <>
      {isElsewhere && (
        <button type="button" class="show-in-view" data-testid="show-in-view" onClick={() => store.showInView(panel)}>
          <Icon name="graph" size={15} /> Show in {store.describe(panel.view)?.name ?? panel.view}
        </button>
      )}
      <TaskLink node={node} />
      <HostBanner node={node} panel={panel} />
      <Controls controls={node.controls ?? []} label={node.label || node.id} />
      {(node.parents ?? []).length > 0 && (
        <div class="parents">
          {(node.parents ?? []).map((parent) => (
            <button
              key={`${parent.topologyId} ${parent.id}`}
              type="button"
              class="parent"
              title={store.describe(parent.topologyId)?.name}
              onClick={() => store.openPanel({ view: parent.topologyId, id: parent.id })}
            >
              <span class="parent-kind">{singular(store.describe(parent.topologyId)?.name ?? parent.topologyId)}</span> {middleEllipsis(parent.label, 34)}
            </button>
          ))}
        </div>
      )}
      {metrics.length > 0 && (
        <div class="metrics" data-count={metrics.length}>
          {metrics.map((row) => (
            <MetricCard key={row.id} row={row} />
          ))}
        </div>
      )}
      <Metadata rows={node.metadata ?? []} />
      <Traffic panel={panel} />
      {(node.connections ?? []).map((table) => (
        <Connections key={table.id} table={table} />
      ))}
      {(node.children ?? []).map((group) => (
        <Children key={group.topologyId + group.label} group={group} />
      ))}
      {(node.tables ?? []).map((table) => (
        <PropertyTable key={table.id} table={table} />
      ))}
    </>
  );
}

/** `by image` and `Containers` as what one of them is called. */
function singular(name: string): string {
  return name.replace(/^by /, "").replace(/s$/, "").toLowerCase();
}

function HostBanner({ node, panel }: { node: NodeDetails; panel: PanelRef }) {
  if (panel.view !== "hosts") return null;
  const probe = store.degradedProbes.value.find((item) => `${item.hostname};<host>` === node.id);
  if (!probe) return null;
  return (
    <div class="host-warning" data-testid="host-warning">
      <Icon name="warning" size={15} />
      <span>This host {shortfall(probe)}</span>
      <button type="button" class="link-button" onClick={() => (store.isProbesOpen.value = true)}>
        Details
      </button>
    </div>
  );
}

function Metadata({ rows }: { rows: readonly MetadataRow[] }) {
  if (rows.length === 0) return null;
  return (
    <dl class="metadata">
      {rows.map((row) => {
        const text = metadataValue(row, store.now.value);
        return (
          <div key={row.id}>
            <dt>{row.label}</dt>
            <dd title={text} class={isTrouble(row) ? "trouble" : row.dataType === "number" || row.dataType === "ip" || row.truncate ? "mono" : undefined}>
              <Expandable text={truncate(text, row.truncate)} full={text} />
            </dd>
          </div>
        );
      })}
    </dl>
  );
}

/** What somebody who opens the panel wants to see first. */
function isTrouble(row: MetadataRow): boolean {
  return row.id === "docker_container_oom" || (row.id === "docker_container_health" && row.value === "unhealthy") || (row.id === "exit" && row.value.includes("memory"));
}

const LONG_TEXT = 140;

/** Long values are cut until someone asks. */
function Expandable({ text, full }: { text: string; full: string }) {
  const [isOpen, setOpen] = useState(false);
  if (text === full && full.length <= LONG_TEXT) return <>{text}</>;
  const short = text === full ? `${full.slice(0, LONG_TEXT)}…` : text;
  return (
    <button type="button" class="expandable" aria-expanded={isOpen} onClick={() => setOpen(!isOpen)}>
      {isOpen ? full : short}
    </button>
  );
}

function Section({ title, count, children }: { title: string; count?: number; children: preact.ComponentChildren }) {
  return (
    <section class="section">
      <h3>
        {title} {count !== undefined && <span class="section-count">{groupedInteger(count)}</span>}
      </h3>
      {children}
    </section>
  );
}

interface Cell {
  text: string;
  sort: string | number;
}

/** Neighbours on one side, by port. */
function Connections({ table }: { table: ConnectionTable }) {
  if (table.connections.length === 0) return null;
  const isInbound = table.id.startsWith("incoming");
  const rows = table.connections.map((row) => ({
    key: row.id,
    label: row.label,
    minor: row.labelMinor ?? "",
    glyph: store.nodes.value.get(row.nodeId) ?? null,
    open: () => store.openPanel({ view: table.topologyId, id: row.nodeId }),
    cells: table.columns.map((column) => cellOf(column, row.metadata.find((item) => item.id === column.id))),
  }));
  return (
    <Section title={isInbound ? "Inbound" : "Outbound"} count={rows.length}>
      <LinkTable testId={table.id} columns={table.columns} rows={rows} nameLabel={isInbound ? "From" : "To"} />
    </Section>
  );
}

function cellOf(column: Column, row: MetadataRow | undefined): Cell {
  if (row === undefined) return { text: "–", sort: column.dataType === "number" ? -1 : "" };
  const text = metadataValue({ value: row.value, dataType: row.dataType ?? column.dataType }, store.now.peek());
  return { text, sort: column.dataType === "number" ? Number(row.value) : row.value };
}

/** What a node consists of. */
function Children({ group }: { group: ChildGroup }) {
  const nodes = group.nodes ?? [];
  if (nodes.length === 0) return null;
  const rows = nodes.map((node) => ({
    key: node.id,
    label: node.label,
    minor: node.labelMinor,
    glyph: node,
    open: () => store.openPanel({ view: group.topologyId, id: node.id }),
    cells: group.columns.map((column) => childCell(column, node)),
  }));
  return (
    <Section title={group.label} count={nodes.length}>
      <LinkTable testId={`children-${group.topologyId}`} columns={group.columns} rows={rows} nameLabel="Name" />
    </Section>
  );
}

function childCell(column: Column, node: NodeSummary): Cell {
  const metric = node.metrics?.find((row) => row.id === column.id);
  if (metric && !metric.valueEmpty) return { text: metricValue(metric), sort: metric.value };
  return cellOf(
    column,
    node.metadata?.find((row) => row.id === column.id),
  );
}

interface LinkRow {
  key: string;
  label: string;
  minor: string;
  glyph: NodeSummary | null;
  open(): void;
  cells: Cell[];
}

function LinkTable({ testId, columns, rows, nameLabel }: { testId: string; columns: readonly Column[]; rows: readonly LinkRow[]; nameLabel: string }) {
  const initial = columns.findIndex((column) => column.defaultSort);
  const [sort, setSort] = useState({ at: initial, isDescending: true });
  const [isAll, setAll] = useState(false);
  const sorted = [...rows].sort((a, b) => {
    const x = sort.at < 0 ? a.label : (a.cells[sort.at]?.sort ?? "");
    const y = sort.at < 0 ? b.label : (b.cells[sort.at]?.sort ?? "");
    const order = x < y ? -1 : x > y ? 1 : a.key < b.key ? -1 : 1;
    return sort.isDescending && sort.at >= 0 ? (x === y ? order : -order) : sort.at < 0 && sort.isDescending && initial >= 0 ? order : order;
  });
  const shown = isAll ? sorted : sorted.slice(0, ROWS_AT_FIRST);
  const mark = (at: number): string => (sort.at === at ? (at < 0 ? " ↑" : sort.isDescending ? " ↓" : " ↑") : "");
  return (
    <>
      <table class="mini" data-testid={testId}>
        <thead>
          <tr>
            <th>
              <button type="button" onClick={() => setSort({ at: -1, isDescending: false })}>
                {nameLabel}
                {mark(-1)}
              </button>
            </th>
            {columns.map((column, at) => (
              <th key={column.id} class={column.dataType === "number" ? "number" : undefined}>
                <button type="button" onClick={() => setSort({ at, isDescending: sort.at === at ? !sort.isDescending : true })}>
                  {column.label}
                  {mark(at)}
                </button>
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {shown.map((row) => (
            <tr key={row.key}>
              <td class="link-cell">
                <button type="button" class="node-link" onClick={row.open} title={`${row.label}${row.minor ? ` · ${row.minor}` : ""}`}>
                  {row.glyph && <NodeGlyph node={row.glyph} size={15} />}
                  <span class="node-link-text">{shortPath(row.label, 36)}</span>
                  {row.minor && <span class="minor">{row.minor}</span>}
                </button>
              </td>
              {row.cells.map((cell, at) => (
                <td key={columns[at]?.id} class={columns[at]?.dataType === "number" ? "number" : "text"} title={cell.text}>
                  {cell.text}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
      {rows.length > ROWS_AT_FIRST && (
        <button type="button" class="more" onClick={() => setAll(!isAll)}>
          {isAll ? "Show fewer" : `Show ${groupedInteger(rows.length - ROWS_AT_FIRST)} more`}
        </button>
      )}
    </>
  );
}

/** Labels, environment and other tables. */
function PropertyTable({ table }: { table: Table }) {
  const [isAll, setAll] = useState(false);
  if (table.rows.length === 0) return null;
  const columns = table.type === "property-list" || table.columns === null ? null : table.columns;
  const rows = isAll ? table.rows : table.rows.slice(0, ROWS_AT_FIRST);
  return (
    <Section title={table.label || "Table"} count={table.rows.length}>
      <table class="mini properties">
        {columns && (
          <thead>
            <tr>
              {columns.map((column) => (
                <th key={column.id}>{column.label}</th>
              ))}
            </tr>
          </thead>
        )}
        <tbody>
          {rows.map((row) => (
            <tr key={row.id}>
              {columns ? (
                columns.map((column) => <td key={column.id}>{linked(row.entries[column.id] ?? "")}</td>)
              ) : (
                <>
                  <th scope="row" title={row.entries["label"]}>
                    {(row.entries["label"] ?? "").trim()}
                  </th>
                  <td class="mono">{linked(row.entries["value"] ?? "")}</td>
                </>
              )}
            </tr>
          ))}
        </tbody>
      </table>
      {table.rows.length > ROWS_AT_FIRST && (
        <button type="button" class="more" onClick={() => setAll(!isAll)}>
          {isAll ? "Show fewer" : `Show ${groupedInteger(table.rows.length - ROWS_AT_FIRST)} more`}
        </button>
      )}
      {(table.truncationCount ?? 0) > 0 && <p class="minor">{groupedInteger(table.truncationCount ?? 0)} more were cut by the server.</p>}
    </Section>
  );
}

function linked(value: string): preact.ComponentChildren {
  if (/^https?:\/\/\S+$/.test(value)) {
    return (
      <a href={value} target="_blank" rel="noreferrer noopener">
        {value}
      </a>
    );
  }
  return <Expandable text={value} full={value} />;
}

function CopyButton({ text }: { text: string }) {
  const [isDone, setDone] = useState(false);
  const copy = async (): Promise<void> => {
    await copyText(text);
    setDone(true);
    setTimeout(() => setDone(false), 1_500);
  };
  return (
    <button type="button" class="icon-button" data-testid="copy-id" title={`Copy id ${text}`} aria-label="Copy id" onClick={() => void copy()}>
      <Icon name={isDone ? "check" : "copy"} />
    </button>
  );
}

/** The clipboard API exists only on secure pages; plain HTTP is this product's default. */
async function copyText(text: string): Promise<void> {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = document.createElement("textarea");
    area.value = text;
    area.style.position = "fixed";
    area.style.opacity = "0";
    document.body.appendChild(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
}

function Skeleton() {
  return (
    <div class="skeleton" aria-busy="true" aria-label="Loading">
      <span />
      <span />
      <span />
      <span />
    </div>
  );
}
