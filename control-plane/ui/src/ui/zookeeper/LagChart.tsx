import { useState } from "preact/hooks";
import { compactNumber } from "../../model/format";
import { ceilingOf, SIDES, type LagPoint } from "../../model/sync";

const WIDTH = 720;
const HEIGHT = 150;
const LEFT = 44;
const BOTTOM = 18;

/** How long changes took on their way to each side, over the last minutes. Lines break where nothing was changed. */
export function LagChart({ points }: { points: readonly LagPoint[] }) {
  const [hover, setHover] = useState<number | null>(null);
  const values = points.flatMap((it) => SIDES.flatMap((side) => (it[side] === null ? [] : [it[side]?.p99 ?? 0])));
  const ceiling = ceilingOf(values);
  const first = points[0]?.at ?? 0;
  const last = points[points.length - 1]?.at ?? 1;
  const span = Math.max(30_000, last - first);
  const x = (at: number): number => LEFT + ((at - (last - span)) / span) * (WIDTH - LEFT - 4);
  const y = (value: number): number => HEIGHT - BOTTOM - (Math.min(value, ceiling) / ceiling) * (HEIGHT - BOTTOM - 8);
  const line = (side: "a" | "b", which: "p50" | "p99"): string[] => {
    const runs: string[] = [];
    let run: string[] = [];
    for (const point of points) {
      const value = point[side];
      if (value === null) {
        if (run.length > 0) runs.push(run.join(" "));
        run = [];
      } else run.push(`${x(point.at).toFixed(1)},${y(value[which]).toFixed(1)}`);
    }
    if (run.length > 0) runs.push(run.join(" "));
    return runs;
  };
  const shown = hover === null ? points[points.length - 1] : points[hover];
  const words = (side: "a" | "b"): string => {
    const value = shown?.[side];
    return value == null ? "no changes" : `p50 ${milliseconds(value.p50)}, p99 ${milliseconds(value.p99)}`;
  };
  return (
    <figure class="lag-chart" data-testid="lag-chart" data-points={points.length}>
      <figcaption class="lag-legend">
        <span class="lag-a">→ A</span> <span class="minor">{words("a")}</span> <span class="lag-b">→ B</span> <span class="minor">{words("b")}</span>
        <span class="minor lag-when">{hover !== null && shown ? new Date(shown.at).toLocaleTimeString() : "now"}</span>
      </figcaption>
      <svg
        viewBox={`0 0 ${WIDTH} ${HEIGHT}`}
        role="img"
        aria-label={`Lag towards A: ${words("a")}. Lag towards B: ${words("b")}.`}
        onMouseLeave={() => setHover(null)}
        onMouseMove={(event) => {
          const box = event.currentTarget.getBoundingClientRect();
          const at = last - span + (((event.clientX - box.left) / box.width) * WIDTH - LEFT) * (span / (WIDTH - LEFT - 4));
          let best = 0;
          points.forEach((point, index) => {
            if (Math.abs(point.at - at) < Math.abs((points[best]?.at ?? 0) - at)) best = index;
          });
          setHover(points.length > 0 ? best : null);
        }}
      >
        {[0, 0.5, 1].map((share) => (
          <g key={share}>
            <line class="lag-grid" x1={LEFT} x2={WIDTH} y1={y(share * ceiling)} y2={y(share * ceiling)} />
            <text class="lag-tick" x={LEFT - 6} y={y(share * ceiling) + 3} text-anchor="end">
              {milliseconds(share * ceiling)}
            </text>
          </g>
        ))}
        <text class="lag-tick" x={LEFT} y={HEIGHT - 4}>
          {Math.round(span / 1_000)} s ago
        </text>
        <text class="lag-tick" x={WIDTH} y={HEIGHT - 4} text-anchor="end">
          now
        </text>
        {SIDES.map((side) => (
          <g key={side} class={`lag-${side}`}>
            {line(side, "p99").map((run, index) => (
              <polyline key={`p99 ${index}`} class="lag-line is-p99" points={run} />
            ))}
            {line(side, "p50").map((run, index) => (
              <polyline key={`p50 ${index}`} class="lag-line" points={run} />
            ))}
          </g>
        ))}
        {shown !== undefined && hover !== null && <line class="lag-cursor" x1={x(shown.at)} x2={x(shown.at)} y1={4} y2={HEIGHT - BOTTOM} />}
      </svg>
    </figure>
  );
}

export function milliseconds(value: number): string {
  if (value >= 1_000) return `${compactNumber(value / 1_000)} s`;
  return value > 0 && value < 1 ? `${Math.round(value * 1_000)} µs` : `${compactNumber(value)} ms`;
}
