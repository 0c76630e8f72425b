import type { MetricRow } from "../api/types";
import { heatColor } from "../model/color";
import { metricNumber, metricValue } from "../model/format";
import * as store from "../state/store";

const WIDTH = 176;
const HEIGHT = 44;

/** One metric: its value now, and how it came there. */
export function MetricCard({ row }: { row: MetricRow }) {
  const samples = (row.samples ?? []).filter((sample) => Number.isFinite(sample.value));
  const values = samples.map((sample) => sample.value);
  const highest = Math.max(...values, row.value, 0);
  // Room above the line; a flat zero stays at the bottom.
  const ceiling = highest > 0 ? highest * 1.15 : 1;
  const full = row.format === "percent" ? 100 : Math.max(row.max, highest, 1e-9);
  const color = heatColor(row.format === "percent" ? Math.sqrt(Math.min(1, row.value / full)) : 0.5, store.theme.value, row.format === "percent");
  const times = samples.map((sample) => Date.parse(sample.date));
  const start = times[0] ?? 0;
  const span = Math.max(1, (times[times.length - 1] ?? 1) - start);
  const points = values.map((value, index) => {
    const x = values.length === 1 ? WIDTH : (((times[index] ?? start) - start) / span) * WIDTH;
    return `${x.toFixed(1)},${(HEIGHT - (value / ceiling) * (HEIGHT - 3) - 1.5).toFixed(1)}`;
  });
  const low = values.length > 0 ? Math.min(...values) : row.value;
  return (
    <div class="metric" title={`${metricNumber(low, row.format)} to ${metricNumber(highest, row.format)} in the last ${Math.round(span / 1_000)} s`}>
      <div class="metric-head">
        <span class="metric-label">{row.label}</span>
        <span class="metric-value">{metricValue(row)}</span>
      </div>
      <svg viewBox={`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none" role="img" aria-label={`${row.label} over time, now ${metricValue(row)}`}>
        {points.length > 1 ? (
          <>
            <polygon points={`0,${HEIGHT} ${points.join(" ")} ${WIDTH},${HEIGHT}`} fill={color} opacity="0.16" />
            <polyline points={points.join(" ")} fill="none" stroke={color} stroke-width="1.6" vector-effect="non-scaling-stroke" stroke-linejoin="round" />
          </>
        ) : (
          <line x1="0" y1={HEIGHT - 1} x2={WIDTH} y2={HEIGHT - 1} stroke={color} stroke-width="1.6" opacity="0.4" vector-effect="non-scaling-stroke" />
        )}
      </svg>
      {row.max > 0 && row.format === "filesize" && row.max > highest && <div class="metric-max">of {metricValue({ value: row.max, format: row.format })}</div>}
    </div>
  );
}
