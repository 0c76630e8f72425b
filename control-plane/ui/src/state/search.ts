// What the server says of the query that is being typed, and of the pins: which nodes answer, where, and what it refuses.

import { computed, effect, signal, untracked } from "@preact/signals";
import { fetchSearch, RequestError, type Moment } from "../api/client";
import { LiveView } from "../api/live";
import type { Delta, SearchHit, SearchPage } from "../api/types";
import { applyIds } from "../model/delta";
import { filters, isPaused, momentNow, nodes, past, pins, PINS_MAX, query, refusedPins, view, viewAddress, viewTarget } from "./store";

const FIRST_HITS = 12;
const MORE_HITS = 50;
/** The server is asked when nothing was typed for so long. */
const PAUSE_MS = 150;
/** Until pins are checked again that could not be: twice as long each time, for one may be too much work for the server. */
const CHECK_AGAIN_MS = 5_000;
const CHECK_AGAIN_MAX_MS = 300_000;

/** What a query finds in all views. */
export interface Everywhere {
  query: string;
  /** When; further pages are of the same moment. */
  moment: Moment;
  page: SearchPage | null;
  /** Why there is no page. */
  problem: string | null;
  /** The query makes no sense to the server, and cannot filter a view either. */
  isRefused: boolean;
}

/** Of the last query that was answered; `null` while there is none. */
export const everywhere = signal<Everywhere | null>(null);

/** The nodes of a view that answer the query. */
const answering = signal<{ view: string; ids: ReadonlySet<string> } | null>(null);

/** The server makes no sense of what is typed. */
function isRefusedNow(): boolean {
  const found = everywhere.value;
  return found !== null && found.query === query.value && found.isRefused;
}

/** Ids of the nodes of the picture that answer the query; `null` when there is none, or the server has not said yet. */
export const matchesOfQuery = computed<ReadonlySet<string> | null>(() => {
  const found = answering.value;
  if (query.value === "" || found === null || found.view !== view.value?.id || isRefusedNow()) return null;
  return new Set([...nodes.value.keys()].filter((id) => found.ids.has(id)));
});

/** Whether the query as it stands can become a filter, as far as is known. */
export function canPin(): boolean {
  return pins.value.length < PINS_MAX && !isRefusedNow();
}

/** The hits of the query as it stands; none while it is another than the one that was answered. */
function currentHits(): readonly SearchHit[] {
  const found = everywhere.value;
  return found !== null && found.page !== null && found.query === query.value ? found.page.hits : [];
}

const sameHit = (a: Pick<SearchHit, "view" | "id">, b: Pick<SearchHit, "view" | "id">): boolean => a.view === b.view && a.id === b.id;

/** The hit that the arrow keys are on, of which query. */
const marked = signal<{ query: string; view: string; id: string } | null>(null);

/** Where the arrow keys are in the list of hits; `null` in the words themselves. */
export const markedHit = computed<{ hit: SearchHit; index: number } | null>(() => {
  const mark = marked.value;
  if (mark === null || mark.query !== query.value) return null;
  const hits = currentHits();
  const index = hits.findIndex((hit) => sameHit(hit, mark));
  const hit = hits[index];
  return hit === undefined ? null : { hit, index };
});

/** Goes down or up in the list of hits, behind its ends back to the words. */
export function stepHit(by: 1 | -1): void {
  const hits = currentHits();
  const before = markedHit.value?.index ?? (by > 0 ? -1 : hits.length);
  const hit = hits[before + by];
  marked.value = hit === undefined ? null : { query: query.value, view: hit.view, id: hit.id };
}

/** Errors are bare JSON strings. */
function reason(body: string): string {
  try {
    return String(JSON.parse(body));
  } catch {
    return body;
  }
}

/** Fetches the next page behind the hits that are there. */
export async function showMore(): Promise<void> {
  const before = everywhere.peek();
  const after = before?.page?.next ?? null;
  if (before === null || before.page === null || after === null) return;
  const next = await fetchSearch(before.query, MORE_HITS, { ...before.moment, after });
  // Something else may have been typed meanwhile.
  if (everywhere.peek() !== before) return;
  everywhere.value = { ...before, page: { ...next, hits: [...before.page.hits, ...next.hits] } };
}

/** Asks what a query finds in all views while it is typed. */
function followQuery(): void {
  effect(() => {
    const words = query.value;
    // Another moment is another answer.
    void past.value;
    void isPaused.value;
    // The same words typed anew begin above the list.
    if (marked.peek()?.query !== words) marked.value = null;
    if (words.trim() === "") {
      everywhere.value = null;
      return;
    }
    const abort = new AbortController();
    const timer = setTimeout(() => {
      const moment = momentNow();
      fetchSearch(words, FIRST_HITS, moment, abort.signal).then(
        (page) => (everywhere.value = { query: words, moment, page, problem: null, isRefused: false }),
        (error: unknown) => {
          if (abort.signal.aborted) return;
          const status = error instanceof RequestError ? error.status : 0;
          const problem = error instanceof RequestError && (status === 400 || status === 503) ? reason(error.message) : "The search cannot be asked.";
          everywhere.value = { query: words, moment, page: null, problem, isRefused: status === 400 };
        },
      );
    }, PAUSE_MS);
    return () => {
      clearTimeout(timer);
      abort.abort();
    };
  });
}

/** Follows which nodes of the view answer the query. */
function followMatches(): void {
  let live: LiveView | null = null;
  /** The query, once the server has taken it. */
  const accepted = computed(() => {
    const found = everywhere.value;
    return found !== null && found.query === query.value && !found.isRefused ? found.query : null;
  });
  const target = computed(() => (accepted.value === null ? null : viewTarget([...filters.value, accepted.value])));
  effect(() => {
    const key = target.value;
    live?.close();
    live = null;
    if (query.value === "") answering.value = null;
    if (key === null) return;
    // What answered before stays until the first message: letters that are typed do not flicker.
    const words = accepted.peek();
    const id = view.peek()?.id;
    if (words === null || id === undefined) return;
    const address = (): string => untracked(() => viewAddress([...filters.value, words], Date.now())) ?? key;
    let ids: ReadonlySet<string> = new Set();
    live = new LiveView(address, {
      onDelta: (delta: Delta) => {
        ids = applyIds(ids, delta);
        answering.value = { view: id, ids };
        if (past.peek() !== null && isPaused.peek()) {
          live?.close();
          live = null;
        }
      },
      // The view itself shows how the server is.
      onState: () => undefined,
    });
  });
}

/** Finds pins that the server refuses: links may bring such, and the view would not come with them. */
function checkPins(): void {
  const known = new Set<string>();
  let pause = CHECK_AGAIN_MS;
  let timer: ReturnType<typeof setTimeout> | null = null;
  const check = (): void => {
    for (const pin of pins.peek()) {
      if (known.has(pin)) continue;
      known.add(pin);
      fetchSearch(pin, 1).catch((error: unknown) => {
        if (error instanceof RequestError && error.status === 400) {
          refusedPins.value = new Map([...refusedPins.peek(), [pin, reason(error.message)]]);
        } else {
          known.delete(pin);
          timer ??= setTimeout(() => {
            timer = null;
            check();
          }, pause);
          pause = Math.min(2 * pause, CHECK_AGAIN_MAX_MS);
        }
      });
    }
  };
  effect(() => {
    void pins.value;
    untracked(check);
  });
}

/** Called once, when the page runs. */
export function startSearch(): void {
  followQuery();
  followMatches();
  checkPins();
}
