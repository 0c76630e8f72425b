import { signal, type Signal } from "@preact/signals";
import { useEffect, useMemo } from "preact/hooks";
import { messageOf } from "../api/http";
import { isPaused } from "./store";

export interface Polled<T> {
  data: T | null;
  /** Why there is no newer data; `null` when there is. */
  error: unknown;
  /** When the data came. */
  at: number | null;
}

interface Entry {
  value: Signal<Polled<unknown>>;
  /** Asks now; several calls at once ask once more after the one that is under way. */
  poke(): void;
  users: number;
  stop(): void;
}

/** A question may keep the server and the page busy for a tenth of the time at most. */
const SHARE = 10;
/** The same when something was heard to have changed meanwhile. */
const HEARD_SHARE = 3;
const HEARD_MS = 250;
/** What was seen lately is shown at once when somebody comes back to it. */
const REMEMBERED = 24;

const entries = new Map<string, Entry>();

function entryOf<T>(key: string, fetch: (signal: AbortSignal) => Promise<T>, everyMs: number): Entry {
  const known = entries.get(key);
  if (known !== undefined) {
    // The least lately used goes first.
    entries.delete(key);
    entries.set(key, known);
    return known;
  }
  const value = signal<Polled<unknown>>({ data: null, error: null, at: null });
  let timer: ReturnType<typeof setTimeout> | null = null;
  let abort: AbortController | null = null;
  let isWanted = false;
  const plan = (delay: number): void => {
    if (timer !== null) clearTimeout(timer);
    timer = entry.users > 0 ? setTimeout(() => void run(), delay) : null;
  };
  const run = async (): Promise<void> => {
    if (abort !== null) {
      isWanted = true;
      return;
    }
    if ((document.hidden || isPaused.peek()) && value.peek().data !== null) {
      plan(everyMs);
      return;
    }
    const own = new AbortController();
    abort = own;
    isWanted = false;
    const begun = performance.now();
    try {
      const data = await fetch(own.signal);
      if (!own.signal.aborted) value.value = { data, error: null, at: Date.now() };
    } catch (error) {
      if (!own.signal.aborted) value.value = { ...value.peek(), error };
    }
    const took = performance.now() - begun;
    if (abort === own) abort = null;
    plan(isWanted ? Math.max(HEARD_MS, took * HEARD_SHARE) : Math.max(everyMs, took * SHARE));
  };
  const entry: Entry = {
    value,
    users: 0,
    poke: () => void run(),
    stop: () => {
      if (timer !== null) clearTimeout(timer);
      abort?.abort();
      timer = abort = null;
    },
  };
  entries.set(key, entry);
  for (const [old, other] of entries) {
    if (entries.size <= REMEMBERED) break;
    if (other.users === 0) entries.delete(old);
  }
  return entry;
}

/** Asks again and again while it is on the page. Several users of a key share the answers. */
export function usePoll<T>(key: string, fetch: (signal: AbortSignal) => Promise<T>, everyMs: number): Polled<T> {
  const entry = useMemo(() => entryOf(key, fetch, everyMs), [key]);
  useEffect(() => {
    entry.users += 1;
    if (entry.users === 1) entry.poke();
    return () => {
      entry.users -= 1;
      if (entry.users === 0) entry.stop();
    };
  }, [entry]);
  return entry.value.value as Polled<T>;
}

/** Asks now for everything whose key begins so: after something was changed, or was heard to have changed. */
export function refresh(prefix: string): void {
  for (const [key, entry] of entries) if (key.startsWith(prefix) && entry.users > 0) entry.poke();
}

/** What to say beside data that could not be renewed. */
export function staleness(polled: Polled<unknown>): string | null {
  return polled.error === null ? null : messageOf(polled.error);
}
