import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import type { NodeSummary } from "../api/types";
import { degreesOf, type Degree, type NodeMap } from "../model/delta";
import { metadataValue, metricValue, middleEllipsis, shortPath } from "../model/format";
import { metricLabels, metricOf } from "../model/metrics";
import { labelMatch } from "../model/search";
import { heatColor } from "../model/color";
import { matchesOfQuery } from "../state/search";
import * as store from "../state/store";
import { NodeGlyph } from "./icons";

const ROW_HEIGHT = 38;
const OVERSCAN = 8;

interface TableColumn {
  key: string;
  label: string;
  isNumber: boolean;
  className: string;
  sortValue(node: NodeSummary): string | number | null;
  render(node: NodeSummary): preact.ComponentChildren;
}

/** All nodes of the picture as rows. Only rows on the screen exist, so ten thousand nodes scroll like ten. */
export function TableView() {
  const nodes = store.nodes.value;
  const scroller = useRef<HTMLDivElement>(null);
  const [sort, setSort] = useState<{ key: string; isDescending: boolean }>({ key: "name", isDescending: false });
  const [top, setTop] = useState(0);
  const [height, setHeight] = useState(600);
  const degrees = useMemo(() => degreesOf(nodes), [nodes]);
  const columns = useMemo(() => columnsOf(nodes, degrees), [nodes, degrees]);
  const column = columns.find((item) => item.key === sort.key) ?? columns[0];
  const matches = matchesOfQuery.value;
  const rows = useMemo(() => sortRows(nodes, column, sort.isDescending, matches), [nodes, column, sort.isDescending, matches]);

  useEffect(() => {
    const element = scroller.current;
    if (element === null) return;
    const observer = new ResizeObserver(() => setHeight(element.clientHeight));
    observer.observe(element);
    return () => observer.disconnect();
  }, []);

  if (store.nodesOf.value === null || nodes.size === 0) return null;
  const first = Math.max(0, Math.floor(top / ROW_HEIGHT) - OVERSCAN);
  const last = Math.min(rows.length, Math.ceil((top + height) / ROW_HEIGHT) + OVERSCAN);
  const selected = store.selected.value;
  return (
    <section class="table-view" aria-label="Nodes as a table">
      <div class="table-scroll" ref={scroller} onScroll={(event) => setTop(event.currentTarget.scrollTop)} data-testid="table">
        <div class="grid" role="grid" aria-rowcount={rows.length + 1} style={{ "--columns": gridTemplate(columns) }}>
          <div class="grid-head" role="row">
            {columns.map((item) => (
              <div
                key={item.key}
                role="columnheader"
                class={`cell ${item.className}`}
                aria-sort={sort.key === item.key ? (sort.isDescending ? "descending" : "ascending") : "none"}
              >
                <button
                  type="button"
                  data-testid={`sort-${item.key}`}
                  onClick={() => setSort({ key: item.key, isDescending: sort.key === item.key ? !sort.isDescending : item.isNumber })}
                >
                  {item.label}
                  <span class="sort-mark" aria-hidden="true">
                    {sort.key === item.key ? (sort.isDescending ? "↓" : "↑") : ""}
                  </span>
                </button>
              </div>
            ))}
          </div>
          <div class="grid-body" style={{ height: `${rows.length * ROW_HEIGHT}px` }} onKeyDown={(event) => onRowKey(event, scroller.current)}>
            {rows.slice(first, last).map((node, offset) => {
              const index = first + offset;
              const isDim = matches !== null && !matches.has(node.id);
              return (
                <div
                  key={node.id}
                  role="row"
                  tabIndex={0}
                  class={`row${isDim ? " dim" : ""}`}
                  data-testid="table-row"
                  data-node-id={node.id}
                  data-index={index}
                  aria-rowindex={index + 2}
                  aria-selected={node.id === selected}
                  style={{ transform: `translateY(${index * ROW_HEIGHT}px)` }}
                  onClick={() => store.selectNode(node.id)}
                >
                  {columns.map((item) => (
                    <div key={item.key} role="gridcell" class={`cell ${item.className}`}>
                      {item.render(node)}
                    </div>
                  ))}
                </div>
              );
            })}
          </div>
        </div>
      </div>
    </section>
  );
}

function onRowKey(event: KeyboardEvent, scroller: HTMLElement | null): void {
  const row = (event.target as HTMLElement).closest<HTMLElement>("[data-index]");
  if (row === null || scroller === null) return;
  if (event.key === "Enter" || event.key === " ") {
    row.click();
    event.preventDefault();
    return;
  }
  const step = event.key === "ArrowDown" ? 1 : event.key === "ArrowUp" ? -1 : 0;
  if (step === 0) return;
  event.preventDefault();
  const next = Number(row.dataset["index"]) + step;
  scroller.querySelector<HTMLElement>(`[data-index="${next}"]`)?.focus();
}

function gridTemplate(columns: readonly TableColumn[]): string {
  return columns
    .map((column) => (column.key === "name" ? "minmax(220px, 2.2fr)" : column.className.includes("narrow") ? "64px" : column.className.includes("number") ? "minmax(84px, 0.6fr)" : "minmax(120px, 1.2fr)"))
    .join(" ");
}

function sortRows(nodes: NodeMap, column: TableColumn | undefined, isDescending: boolean, matches: ReadonlySet<string> | null): NodeSummary[] {
  const rows = [...nodes.values()].map((node) => ({ node, value: column?.sortValue(node) ?? null }));
  const direction = isDescending ? -1 : 1;
  rows.sort((a, b) => {
    // Matches of the search come first; what has no value comes last in both directions.
    if (matches !== null && matches.has(a.node.id) !== matches.has(b.node.id)) return matches.has(a.node.id) ? -1 : 1;
    if (a.value === null || b.value === null) return a.value === b.value ? byId(a.node, b.node) : a.value === null ? 1 : -1;
    if (a.value < b.value) return -direction;
    if (a.value > b.value) return direction;
    return byId(a.node, b.node);
  });
  return rows.map((row) => row.node);
}

function byId(a: NodeSummary, b: NodeSummary): number {
  return a.id < b.id ? -1 : a.id > b.id ? 1 : 0;
}

function columnsOf(nodes: NodeMap, degrees: Map<string, Degree>): TableColumn[] {
  return [
    {
      key: "name",
      label: "Name",
      isNumber: false,
      className: "name",
      sortValue: (node) => node.label.toLowerCase(),
      render: (node) => (
        <>
          <NodeGlyph node={node} size={18} />
          <span class="name-text" title={`${node.label} ${node.labelMinor}`}>
            <Marked text={node.label} limit={44} />
            <span class="minor">{node.labelMinor}</span>
          </span>
        </>
      ),
    },
    ...metadataColumns(nodes),
    ...metricColumns(nodes),
    degreeColumn("in", "In", (id) => degrees.get(id)?.incoming ?? 0),
    degreeColumn("out", "Out", (id) => degrees.get(id)?.outgoing ?? 0),
  ];
}

/** Rows that say the most at a glance; everything else is in the panel. */
const KEY_METADATA = [
  "docker_image_name",
  "docker_container_state_human",
  "docker_container_uptime",
  "docker_container_ips",
  "pid",
  "cmdline",
  "kernel_version",
  "os",
  "uptime",
  "kubernetes_namespace",
  "kubernetes_state",
  "kubernetes_ip",
  "container",
];
const MOST_METADATA_COLUMNS = 3;

function metadataColumns(nodes: NodeMap): TableColumn[] {
  const found = new Map<string, { label: string; dataType: string | undefined }>();
  for (const node of nodes.values()) {
    for (const row of node.metadata ?? []) if (!found.has(row.id)) found.set(row.id, { label: row.label, dataType: row.dataType });
  }
  const ids = KEY_METADATA.filter((id) => found.has(id)).slice(0, MOST_METADATA_COLUMNS);
  return ids.map((id) => {
    const { label, dataType } = found.get(id) ?? { label: id, dataType: undefined };
    const isNumber = dataType === "number" || dataType === "duration";
    const rowOf = (node: NodeSummary) => node.metadata?.find((row) => row.id === id);
    return {
      key: id,
      label,
      isNumber,
      className: isNumber ? "number" : "text",
      sortValue: (node: NodeSummary) => {
        const value = rowOf(node)?.value;
        return value === undefined ? null : isNumber ? Number(value) : value.toLowerCase();
      },
      render: (node: NodeSummary) => {
        const row = rowOf(node);
        if (!row) return <span class="quiet">–</span>;
        const text = metadataValue(row, store.now.peek());
        return <span title={text}>{middleEllipsis(text, 60)}</span>;
      },
    };
  });
}

function metricColumns(nodes: NodeMap): TableColumn[] {
  const labels = metricLabels(nodes)
    .filter((label) => label === "CPU" || label === "Memory")
    .sort();
  return labels.map((label) => {
    let largest = 0;
    for (const node of nodes.values()) largest = Math.max(largest, metricOf(node, label)?.value ?? 0);
    return {
      key: label.toLowerCase(),
      label,
      isNumber: true,
      className: "number",
      sortValue: (node: NodeSummary) => metricOf(node, label)?.value ?? null,
      render: (node: NodeSummary) => {
        const row = metricOf(node, label);
        if (row === null) return <span class="quiet">–</span>;
        const full = row.format === "percent" ? 100 : largest || 1;
        const share = Math.sqrt(Math.min(1, Math.max(0, row.value / full)));
        return (
          <span class="meter">
            <span class="meter-bar" style={{ width: `${(share * 100).toFixed(1)}%`, background: heatColor(share, store.theme.value, row.format === "percent") }} />
            <span class="meter-text">{metricValue(row)}</span>
          </span>
        );
      },
    };
  });
}

function degreeColumn(key: string, label: string, of: (id: string) => number): TableColumn {
  return {
    key,
    label,
    isNumber: true,
    className: "number narrow",
    sortValue: (node) => of(node.id),
    render: (node) => (of(node.id) === 0 ? <span class="quiet">0</span> : of(node.id)),
  };
}

/** A label with the found part marked. */
export function Marked({ text, limit }: { text: string; limit: number }) {
  const found = store.query.value === "" ? null : labelMatch(store.query.value, text);
  if (found === null) return <span class="label">{shortPath(text, limit)}</span>;
  return (
    <span class="label">
      {text.slice(0, found.start)}
      <mark>{text.slice(found.start, found.end)}</mark>
      {text.slice(found.end)}
    </span>
  );
}
