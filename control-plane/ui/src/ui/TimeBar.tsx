import { useEffect } from "preact/hooks";
import { fetchHistory } from "../api/client";
import { duration } from "../model/format";
import * as store from "../state/store";
import { Icon } from "./icons";

const JUMPS: readonly (readonly [string, number])[] = [
  ["1 min", 60],
  ["10 min", 600],
  ["1 h", 3_600],
];

/** What the map was: a slider over the time that is kept, and what has changed since. */
export function TimeBar() {
  const info = store.keptPast.value;
  useEffect(() => {
    fetchHistory().then(
      (history) => (store.keptPast.value = history),
      () => undefined,
    );
  }, []);
  const now = store.now.value;
  const first = info?.from ? Date.parse(info.from) : null;
  if (info !== null && first === null) {
    return (
      <section class="timebar" aria-label="The past" data-testid="timebar">
        <span>{info.problem ?? "Nothing is kept of the past yet."}</span>
      </section>
    );
  }
  if (first === null) return <section class="timebar" aria-label="The past" data-testid="timebar" />;
  const shown = store.shownMoment();
  const at = shown ?? now;
  const gap = info?.gaps.find((it) => Date.parse(it.from) < at && at < Date.parse(it.to));
  const clock = (moment: number): string => new Date(moment).toLocaleTimeString();
  return (
    <section class="timebar" aria-label="The past" data-testid="timebar" data-moment={shown === null ? "now" : new Date(shown).toISOString()}>
      <span class="minor">{clock(first)}</span>
      <input
        type="range"
        data-testid="time-slider"
        aria-label="Moment that is shown"
        aria-valuetext={shown === null ? "now" : clock(shown)}
        min={first}
        max={now}
        step={1_000}
        value={at}
        onChange={(event) => store.showMoment(Number(event.currentTarget.value))}
      />
      <span class="timebar-moment" data-testid="time-moment">
        {shown === null ? "now" : `${clock(shown)} · ${duration(Math.max(0, (now - shown) / 1_000))} ago`}
      </span>
      {gap && <span class="timebar-gap">nothing is known of this time: the last before it is shown</span>}
      {JUMPS.filter(([, seconds]) => now - seconds * 1_000 > first).map(([text, seconds]) => (
        <button key={text} type="button" class="pill-button" data-testid={`time-back-${seconds}`} onClick={() => store.showMoment(now - seconds * 1_000)}>
          −{text}
        </button>
      ))}
      <button type="button" class="pill-button" data-testid="time-live" aria-pressed={shown === null} onClick={() => store.showMoment(null)}>
        Now
      </button>
      <button
        type="button"
        class="pill-button"
        data-testid="changes-toggle"
        aria-pressed={store.isChangesOpen.value}
        disabled={shown === null}
        title={shown === null ? "Choose a moment first" : "What has changed since this moment"}
        onClick={() => (store.isChangesOpen.value = !store.isChangesOpen.value)}
      >
        <Icon name="arrange" size={14} /> Changes since
      </button>
    </section>
  );
}
