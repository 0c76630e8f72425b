import { useEffect, useRef, useState } from "preact/hooks";
import { compactNumber } from "../../model/format";
import { decadesOf, SIDES, type LagPoint, type SideName } from "../../model/sync";

const HEIGHT = 190;
const LEFT = 54;
const TOP = 8;
const BOTTOM = 20;

/** How long changes took on their way to each side, over the last minutes. Lines break where nothing was changed. */
export function LagChart({ points }: { points: readonly LagPoint[] }) {
  const box = useRef<HTMLElement>(null);
  const [width, setWidth] = useState(720);
  const [hover, setHover] = useState<number | null>(null);
  useEffect(() => {
    const element = box.current;
    if (element === null) return;
    const observer = new ResizeObserver(() => setWidth(Math.max(240, element.clientWidth)));
    observer.observe(element);
    return () => observer.disconnect();
  }, []);
  const values = points.flatMap((it) => SIDES.flatMap((side) => (it[side] === null ? [] : [it[side]?.p50 ?? 0, it[side]?.p99 ?? 0])));
  const decades = decadesOf(values);
  const [lowest, highest] = [Math.log10(decades[0] ?? 1), Math.log10(decades[decades.length - 1] ?? 100)];
  const last = points[points.length - 1]?.at ?? 1;
  const span = Math.max(30_000, last - (points[0]?.at ?? 0));
  const x = (at: number): number => LEFT + ((at - (last - span)) / span) * (width - LEFT - 2);
  const y = (value: number): number => {
    const share = (Math.log10(Math.max(value, 1e-9)) - lowest) / (highest - lowest);
    return HEIGHT - BOTTOM - Math.min(1, Math.max(0, share)) * (HEIGHT - BOTTOM - TOP);
  };
  const lines = (side: SideName, which: "p50" | "p99"): string[] => {
    const runs: string[] = [];
    let run: string[] = [];
    const end = (): void => {
      // A single point is drawn as a dot, by the round ends of a line without length.
      if (run.length > 0) runs.push([...run, run[run.length - 1]].join(" "));
      run = [];
    };
    for (const point of points) {
      const value = point[side];
      if (value === null) end();
      else run.push(`${x(point.at).toFixed(1)},${y(value[which]).toFixed(1)}`);
    }
    end();
    return runs;
  };
  const shown = points[hover ?? points.length - 1];
  const words = (side: SideName): string => {
    const value = shown?.[side];
    return value == null ? "no changes" : `p50 ${milliseconds(value.p50)}, p99 ${milliseconds(value.p99)}`;
  };
  const nearest = (at: number): number => {
    let best = 0;
    points.forEach((point, index) => {
      if (Math.abs(point.at - at) < Math.abs((points[best]?.at ?? 0) - at)) best = index;
    });
    return best;
  };
  return (
    <figure ref={box} class="lag-chart" data-testid="lag-chart" data-points={points.length}>
      <figcaption class="lag-legend">
        <span class="lag-a">→ A</span> <span class="minor">{words("a")}</span> <span class="lag-b">→ B</span> <span class="minor">{words("b")}</span>
        <span class="minor lag-when">{hover !== null && shown ? new Date(shown.at).toLocaleTimeString() : "solid: p50, dashed: p99"}</span>
      </figcaption>
      <svg
        width={width}
        height={HEIGHT}
        role="img"
        aria-label={`Lag towards A: ${words("a")}. Lag towards B: ${words("b")}.`}
        onMouseLeave={() => setHover(null)}
        onMouseMove={(event) => {
          const pixel = event.clientX - event.currentTarget.getBoundingClientRect().left;
          setHover(points.length > 0 ? nearest(last - span + (pixel - LEFT) * (span / (width - LEFT - 2))) : null);
        }}
      >
        {decades.map((value) => (
          <g key={value}>
            <line class="lag-grid" x1={LEFT} x2={width} y1={y(value)} y2={y(value)} />
            <text class="lag-tick" x={LEFT - 8} y={y(value) + 4} text-anchor="end">
              {milliseconds(value)}
            </text>
          </g>
        ))}
        <text class="lag-tick" x={LEFT} y={HEIGHT - 4}>
          {Math.round(span / 1_000)} s ago
        </text>
        <text class="lag-tick" x={width} y={HEIGHT - 4} text-anchor="end">
          now
        </text>
        {SIDES.map((side) => (
          <g key={side} class={`lag-${side}`}>
            {lines(side, "p99").map((run, index) => (
              <polyline key={`p99 ${index}`} class="lag-line is-p99" points={run} />
            ))}
            {lines(side, "p50").map((run, index) => (
              <polyline key={`p50 ${index}`} class="lag-line" points={run} />
            ))}
          </g>
        ))}
        {shown !== undefined && hover !== null && <line class="lag-cursor" x1={x(shown.at)} x2={x(shown.at)} y1={TOP} y2={HEIGHT - BOTTOM} />}
      </svg>
    </figure>
  );
}

/** `850 µs`, `4.2 ms`, `1.5 s`. */
export function milliseconds(value: number): string {
  if (value >= 1_000) return `${compactNumber(value / 1_000)} s`;
  return value > 0 && value < 1 ? `${Math.round(value * 1_000)} µs` : `${compactNumber(value)} ms`;
}
