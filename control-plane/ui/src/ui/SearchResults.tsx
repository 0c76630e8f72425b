import { useEffect, useState } from "preact/hooks";
import { fetchSearch, RequestError } from "../api/client";
import type { SearchHit, SearchPage } from "../api/types";
import { groupedInteger, middleEllipsis } from "../model/format";
import { markedParts } from "../model/search";
import * as store from "../state/store";
import { NodeGlyph } from "./icons";

const LIMIT = 12;
/** The server is asked when nothing was typed for so long. */
const PAUSE_MS = 150;

/** What a query finds in all views. */
export interface Everywhere {
  query: string;
  page: SearchPage | null;
  /** Why the server does not take it. */
  problem: string | null;
}

/** Asks the server for a query while it is typed; `null` while there is none, or the server has not answered yet. */
export function useEverywhere(query: string): Everywhere | null {
  const [found, setFound] = useState<Everywhere | null>(null);
  useEffect(() => {
    if (query.trim() === "") {
      setFound(null);
      return;
    }
    const abort = new AbortController();
    const timer = setTimeout(() => {
      fetchSearch(query, LIMIT, abort.signal).then(
        (page) => setFound({ query, page, problem: null }),
        (error: unknown) => {
          if (abort.signal.aborted) return;
          setFound({ query, page: null, problem: error instanceof RequestError && error.status === 400 ? reason(error.message) : "The search cannot be asked." });
        },
      );
    }, PAUSE_MS);
    return () => {
      clearTimeout(timer);
      abort.abort();
    };
  }, [query]);
  return found;
}

/** Errors are bare JSON strings. */
function reason(body: string): string {
  try {
    return String(JSON.parse(body));
  } catch {
    return body;
  }
}

/** The list below the search box: where else there is something. */
export function SearchResults({ found }: { found: Everywhere }) {
  if (found.problem !== null) {
    return (
      <div class="search-results" role="status" data-testid="search-problem">
        <p class="search-note">{found.problem}</p>
      </div>
    );
  }
  const page = found.page;
  if (page === null) return null;
  const current = store.view.value?.id;
  const elsewhere = Object.entries(page.totals).filter(([view]) => view !== current);
  return (
    <div class="search-results" data-testid="search-results" data-total={page.total}>
      <p class="search-note">
        {page.total === 0 ? "Nothing in any view." : `${groupedInteger(page.total)} in all views`}
        {elsewhere.map(([view, total]) => (
          <button key={view} type="button" class="link-button" data-testid={`search-view-${view}`} onClick={() => goTo(view, found.query)}>
            {store.describe(view)?.name ?? view} {groupedInteger(total)}
          </button>
        ))}
      </p>
      <ul>
        {page.hits.map((hit) => (
          <li key={`${hit.view} ${hit.id}`}>
            <button type="button" data-testid="search-hit" data-node-id={hit.id} data-view={hit.view} onClick={() => open(hit)}>
              <NodeGlyph node={{ rank: hit.label, shape: hit.shape, pseudo: hit.pseudo, stack: hit.stack }} size={18} />
              <span class="search-hit-label">{middleEllipsis(hit.label || hit.id, 60)}</span>
              <span class="minor">{hit.labelMinor}</span>
              <span class="search-hit-view">{store.describe(hit.view)?.name ?? hit.view}</span>
              <Where hit={hit} />
            </button>
          </li>
        ))}
      </ul>
    </div>
  );
}

/** The best place besides the label, which is shown anyway. */
function Where({ hit }: { hit: SearchHit }) {
  const match = hit.matches.find((it) => it.field === "label") ?? hit.matches[0];
  if (match === undefined) return null;
  const first = match.ranges[0]?.[0] ?? 0;
  const from = Math.max(0, first - 24);
  const shown = [...match.text].slice(from, from + 90).join("");
  const ranges = match.ranges.map(([begin, end]): [number, number] => [Math.max(0, begin - from), Math.min(90, end - from)]).filter(([begin, end]) => begin < end);
  return (
    <span class="search-hit-where">
      <span class="minor">{match.field}: </span>
      {(from > 0 || match.skipped > 0) && "…"}
      {markedParts(shown, ranges).map((part, index) => (part.isMarked ? <mark key={index}>{part.text}</mark> : part.text))}
    </span>
  );
}

function open(hit: SearchHit): void {
  store.showInView({ view: hit.view, id: hit.id });
}

/** The same query in another view. */
function goTo(view: string, query: string): void {
  store.selectView(view);
  store.query.value = query;
}
