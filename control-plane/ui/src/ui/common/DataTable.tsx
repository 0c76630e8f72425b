import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { filterOf, type Searchable } from "../../model/filter";
import { groupedInteger } from "../../model/format";

const ROW_HEIGHT = 38;
const OVERSCAN = 8;
/** A browser cannot draw a box that is higher than about 16 million pixels. */
const ROWS_MAX = 400_000;

export interface Column<T> {
  key: string;
  label: string;
  /** A track of a CSS grid. */
  width: string;
  isNumber?: boolean;
  sort(row: T): string | number | null;
  render(row: T): preact.ComponentChildren;
}

interface Props<T> {
  /** What the rows are, for those who do not see the table. */
  label: string;
  testId: string;
  columns: readonly Column<T>[];
  rows: readonly T[];
  keyOf(row: T): string;
  search(row: T): Searchable;
  filter: string;
  initial: { key: string; isDescending: boolean };
  onOpen?: (row: T) => void;
  empty: preact.ComponentChildren;
}

/** Rows of anything, sorted and filtered. Only rows on the screen exist, so that ten thousand scroll like ten. */
export function DataTable<T>({ label, testId, columns, rows, keyOf, search, filter, initial, onOpen, empty }: Props<T>) {
  const scroller = useRef<HTMLDivElement>(null);
  const [sort, setSort] = useState(initial);
  const [top, setTop] = useState(0);
  const [height, setHeight] = useState(600);
  const [focused, setFocused] = useState(0);
  const wantsFocus = useRef(false);
  const column = columns.find((item) => item.key === sort.key) ?? columns[0];
  const found = useMemo(() => {
    const test = filterOf(filter);
    return test === null ? rows : rows.filter((row) => test(search(row)));
  }, [rows, filter]);
  const shown = useMemo(() => (column === undefined ? [...found] : sorted(found, column, keyOf, sort.isDescending).slice(0, ROWS_MAX)), [found, sort.key, sort.isDescending]);

  useEffect(() => {
    const element = scroller.current;
    if (element === null) return;
    const observer = new ResizeObserver(() => setHeight(element.clientHeight));
    observer.observe(element);
    return () => observer.disconnect();
  }, []);
  useEffect(() => {
    if (!wantsFocus.current) return;
    wantsFocus.current = false;
    scroller.current?.querySelector<HTMLElement>(`[data-index="${focused}"]`)?.focus({ preventScroll: true });
  });

  const first = Math.max(0, Math.floor(top / ROW_HEIGHT) - OVERSCAN);
  const last = Math.min(shown.length, Math.ceil((top + height) / ROW_HEIGHT) + OVERSCAN);
  const current = Math.min(focused, Math.max(0, shown.length - 1));
  const move = (to: number): void => {
    const next = Math.max(0, Math.min(shown.length - 1, to));
    const element = scroller.current;
    if (element === null || shown.length === 0) return;
    // Below the head, above the lower edge.
    if (next * ROW_HEIGHT < element.scrollTop) element.scrollTop = next * ROW_HEIGHT;
    else if ((next + 2) * ROW_HEIGHT > element.scrollTop + element.clientHeight) element.scrollTop = (next + 2) * ROW_HEIGHT - element.clientHeight;
    setTop(element.scrollTop);
    wantsFocus.current = true;
    setFocused(next);
  };
  const onKey = (event: KeyboardEvent): void => {
    const row = (event.target as HTMLElement).closest<HTMLElement>("[data-index]");
    // What stands in a row, such as a button, has its own keys.
    if (row === null || event.target !== row) return;
    const at = Number(row.dataset["index"]);
    const page = Math.max(1, Math.floor(height / ROW_HEIGHT) - 2);
    const steps: Readonly<Record<string, number>> = { ArrowDown: at + 1, ArrowUp: at - 1, PageDown: at + page, PageUp: at - page, Home: 0, End: shown.length - 1 };
    const to = steps[event.key];
    if (to !== undefined) move(to);
    else if (event.key === "Enter" || event.key === " ") row.click();
    else return;
    event.preventDefault();
  };
  return (
    <div class="data-table" data-testid={testId} data-count={shown.length} data-total={rows.length}>
      <div class="table-scroll" ref={scroller} onScroll={(event) => setTop(event.currentTarget.scrollTop)}>
        <div class="grid" role="grid" aria-label={label} aria-rowcount={shown.length + 1} style={{ "--columns": columns.map((item) => item.width).join(" ") }}>
          <div class="grid-head" role="row">
            {columns.map((item) => (
              <div
                key={item.key}
                role="columnheader"
                class={item.isNumber ? "cell number" : "cell"}
                aria-sort={sort.key === item.key ? (sort.isDescending ? "descending" : "ascending") : "none"}
              >
                {item.label !== "" && (
                  <button
                    type="button"
                    data-testid={`sort-${item.key}`}
                    onClick={() => setSort({ key: item.key, isDescending: sort.key === item.key ? !sort.isDescending : item.isNumber === true })}
                  >
                    {item.label}
                    <span class="sort-mark" aria-hidden="true">
                      {sort.key === item.key ? (sort.isDescending ? "↓" : "↑") : ""}
                    </span>
                  </button>
                )}
              </div>
            ))}
          </div>
          <div class="grid-body" style={{ height: `${shown.length * ROW_HEIGHT}px` }} onKeyDown={onKey}>
            {shown.slice(first, last).map((row, offset) => {
              const index = first + offset;
              return (
                <div
                  key={keyOf(row)}
                  role="row"
                  tabIndex={index === current ? 0 : -1}
                  class={onOpen ? "row" : "row is-plain"}
                  data-testid={`${testId}-row`}
                  data-key={keyOf(row)}
                  data-index={index}
                  aria-rowindex={index + 2}
                  style={{ transform: `translateY(${index * ROW_HEIGHT}px)` }}
                  onFocus={() => setFocused(index)}
                  onClick={(event) => {
                    if ((event.target as HTMLElement).closest("a, button, input") === null) onOpen?.(row);
                  }}
                >
                  {columns.map((item) => (
                    <div key={item.key} role="gridcell" class={item.isNumber ? "cell number" : "cell"}>
                      {item.render(row)}
                    </div>
                  ))}
                </div>
              );
            })}
          </div>
        </div>
        {shown.length === 0 && <div class="table-empty">{rows.length > 0 ? `None of ${groupedInteger(rows.length)} has “${filter}” in it.` : empty}</div>}
      </div>
      <div class="table-foot minor" aria-live="polite">
        {shown.length === rows.length ? groupedInteger(rows.length) : `${groupedInteger(found.length)} of ${groupedInteger(rows.length)}`}
        {found.length > shown.length && `, the first ${groupedInteger(shown.length)} shown`}
      </div>
    </div>
  );
}

function sorted<T>(rows: readonly T[], column: Column<T>, keyOf: (row: T) => string, isDescending: boolean): T[] {
  const direction = isDescending ? -1 : 1;
  const keyed = rows.map((row) => ({ row, value: column.sort(row), key: keyOf(row) }));
  keyed.sort((a, b) => {
    // What has no value comes last in both directions.
    if (a.value === null || b.value === null) {
      if (a.value !== b.value) return a.value === null ? 1 : -1;
    } else {
      if (a.value < b.value) return -direction;
      if (a.value > b.value) return direction;
    }
    return a.key < b.key ? -1 : a.key > b.key ? 1 : 0;
  });
  return keyed.map((item) => item.row);
}
