import { useEffect, useRef, useState } from "preact/hooks";
import type { SearchHit } from "../api/types";
import { groupedInteger, middleEllipsis } from "../model/format";
import { markedParts } from "../model/search";
import { markedHit, showMore, type Everywhere } from "../state/search";
import * as store from "../state/store";
import { NodeGlyph } from "./icons";

export const HITS_ID = "search-hits";

/** The id of a hit's element, for who says where the arrow keys are. */
export function hitId(index: number): string {
  return `${HITS_ID}-${index}`;
}

/** The list below the search box: where else there is something. */
export function SearchResults({ found }: { found: Everywhere }) {
  const list = useRef<HTMLUListElement>(null);
  const marked = markedHit.value?.index ?? null;
  useEffect(() => {
    if (marked !== null) list.current?.children[marked]?.scrollIntoView({ block: "nearest" });
  }, [marked]);
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
      {page.hits.length > 0 && (
        <ul ref={list} id={HITS_ID} role="listbox" aria-label="Found">
          {page.hits.map((hit, index) => (
            <li
              key={`${hit.view} ${hit.id}`}
              id={hitId(index)}
              role="option"
              aria-selected={index === marked}
              data-testid="search-hit"
              data-node-id={hit.id}
              data-view={hit.view}
              // The words keep the focus, and with it the arrow keys.
              onMouseDown={(event) => event.preventDefault()}
              onClick={() => openHit(hit)}
            >
              <NodeGlyph node={{ rank: hit.label, shape: hit.shape, pseudo: hit.pseudo, stack: hit.stack }} size={18} />
              <span class="search-hit-label">{middleEllipsis(hit.label || hit.id, 60)}</span>
              <span class="minor">{hit.labelMinor}</span>
              <span class="search-hit-view">{store.describe(hit.view)?.name ?? hit.view}</span>
              <Where hit={hit} />
            </li>
          ))}
        </ul>
      )}
      {page.next !== null && <More count={page.total - page.hits.length} />}
    </div>
  );
}

function More({ count }: { count: number }) {
  const [isAsking, setIsAsking] = useState(false);
  const [problem, setProblem] = useState(false);
  const ask = (): void => {
    setIsAsking(true);
    showMore()
      .then(
        () => setProblem(false),
        () => setProblem(true),
      )
      .finally(() => setIsAsking(false));
  };
  return (
    <p class="search-note">
      <button type="button" class="link-button" data-testid="search-more" disabled={isAsking} onClick={ask}>
        Show more
      </button>
      {problem ? "They cannot be asked for." : `${groupedInteger(Math.max(count, 1))} ${count === 1 ? "is" : "are"} not in this list.`}
    </p>
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

export function openHit(hit: SearchHit): void {
  store.showInView({ view: hit.view, id: hit.id });
}

/** The same query in another view. */
function goTo(view: string, query: string): void {
  store.selectView(view);
  store.query.value = query;
}
