import type { MetadataRow, MetricRow } from "../api/types";

/** Three significant places at most, no trailing zeros: `1.25`, `12.5`, `125`. */
export function compactNumber(value: number): string {
  if (!Number.isFinite(value)) return "–";
  const magnitude = Math.abs(value);
  const places = magnitude >= 100 ? 0 : magnitude >= 10 ? 1 : 2;
  return String(Number(value.toFixed(places)));
}

const GROUPED = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });

/** Digits in groups of three. */
export function groupedInteger(value: number): string {
  return Number.isFinite(value) ? GROUPED.format(value) : "–";
}

const BYTE_UNITS = ["B", "KB", "MB", "GB", "TB", "PB"];

/** Powers of 1024 under the names that people use. */
export function bytes(value: number): string {
  if (!Number.isFinite(value)) return "–";
  let scaled = value;
  let unit = 0;
  // 999.5 would be shown as 1000 of the smaller unit.
  while (Math.abs(scaled) >= 999.5 && unit < BYTE_UNITS.length - 1) {
    scaled /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? Math.round(scaled) : compactNumber(scaled)} ${BYTE_UNITS[unit] ?? "B"}`;
}

/** `1234` → `1.2k`: for badges. */
export function shortCount(value: number): string {
  if (value < 1_000) return String(value);
  if (value < 10_000) return `${Number((value / 1_000).toFixed(1))}k`;
  if (value < 1_000_000) return `${Math.round(value / 1_000)}k`;
  return `${Number((value / 1_000_000).toFixed(1))}M`;
}

/** The two largest units: `3d 4h`, `5m 12s`, `8s`. */
export function duration(seconds: number): string {
  if (!Number.isFinite(seconds) || seconds < 0) return "–";
  if (seconds < 1) return "0s";
  const units: [string, number][] = [
    ["d", 86_400],
    ["h", 3_600],
    ["m", 60],
    ["s", 1],
  ];
  let rest = Math.floor(seconds);
  const parts: string[] = [];
  for (const [name, size] of units) {
    const count = Math.floor(rest / size);
    rest -= count * size;
    if (count > 0) parts.push(`${count}${name}`);
    else if (parts.length > 0) break;
    if (parts.length === 2) break;
  }
  return parts.join(" ");
}

/** `850 µs`, `1.2 ms`, `2.4 s`. */
export function microseconds(value: number): string {
  if (!Number.isFinite(value)) return "–";
  if (value < 1_000) return `${Math.round(value)} µs`;
  if (value < 1_000_000) return `${compactNumber(value / 1_000)} ms`;
  return `${compactNumber(value / 1_000_000)} s`;
}

/** How long ago something was, for people: `just now`, `12s ago`. */
export function ago(then: number, now: number): string {
  const seconds = (now - then) / 1_000;
  if (!Number.isFinite(seconds)) return "never";
  return seconds < 2 ? "just now" : `${duration(seconds)} ago`;
}

/** Local date and time without a zone, and how long ago it was. */
export function datetime(text: string, now: number): string {
  const time = Date.parse(text);
  if (Number.isNaN(time)) return text;
  const date = new Date(time);
  const two = (value: number): string => String(value).padStart(2, "0");
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  const clock = `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
  return `${day} ${clock} (${ago(time, now)})`;
}

/** A metric's value in its format. */
export function metricValue(row: Pick<MetricRow, "value" | "format" | "valueEmpty">): string {
  return row.valueEmpty ? "–" : metricNumber(row.value, row.format);
}

export function metricNumber(value: number, format: string | undefined): string {
  switch (format) {
    case "percent":
      return `${compactNumber(value)}%`;
    case "filesize":
      return bytes(value);
    case "integer":
      return groupedInteger(value);
    default:
      return compactNumber(value);
  }
}

/** A metadata value by its data type. What cannot be read as that type is shown as it came. */
export function metadataValue(row: Pick<MetadataRow, "value" | "dataType">, now: number): string {
  switch (row.dataType) {
    case "number": {
      const value = Number(row.value);
      // Pids and other identifiers are numbers too; grouping starts where nobody reads them as such.
      return row.value.trim() === "" || !Number.isFinite(value) ? row.value : Number.isInteger(value) ? row.value : compactNumber(value);
    }
    case "duration": {
      const value = Number(row.value);
      return row.value.trim() === "" || !Number.isFinite(value) ? row.value : duration(value);
    }
    case "datetime":
      return datetime(row.value, now);
    default:
      return row.value;
  }
}

/** The first `limit` characters and an ellipsis; 0 and `undefined` mean all. */
export function truncate(text: string, limit: number | undefined): string {
  return limit && limit > 0 && text.length > limit ? `${text.slice(0, limit)}…` : text;
}

/** Keeps start and end of a long path or reference. */
export function middleEllipsis(text: string, limit: number): string {
  if (text.length <= limit) return text;
  const head = Math.ceil((limit - 1) / 2);
  return `${text.slice(0, head)}…${text.slice(text.length - (limit - 1 - head))}`;
}

/** The last parts of a path that fit; other texts lose their middle. */
export function shortPath(text: string, limit: number): string {
  if (text.length <= limit) return text;
  if (!text.startsWith("/")) return middleEllipsis(text, limit);
  const parts = text.split("/");
  let short = parts.pop() ?? "";
  while (parts.length > 0 && short.length + (parts[parts.length - 1] ?? "").length + 3 <= limit) short = `${parts.pop() ?? ""}/${short}`;
  return middleEllipsis(`…/${short}`, limit);
}
