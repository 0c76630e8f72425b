import { useEffect, useRef } from "preact/hooks";
import { duration, shortCount } from "../model/format";
import { visibleTabs } from "../model/views";
import { canPin, everywhere, markedHit, matchesOfQuery, stepHit } from "../state/search";
import * as store from "../state/store";
import { Icon } from "./icons";
import { SectionConnection, SectionTabs } from "./SectionBar";
import { section } from "../state/shell";
import { FilterBox } from "./common/pieces";
import { hitId, HITS_ID, openHit, SearchResults } from "./SearchResults";

export function TopBar() {
  const current = section.value;
  const isMap = current === "map";
  return (
    <header class="topbar">
      <div class="brand">
        <svg width="24" height="24" viewBox="0 0 32 32" aria-hidden="true">
          <path class="brand-mark" d="M16 2.500l11.700 6.750v13.500L16 29.500 4.300 22.750V9.250z" />
          <path class="brand-lines" d="M16 16L9 11.500M16 16l7-4.500M16 16v8" />
          <circle class="brand-dot" cx="16" cy="16" r="3" />
        </svg>
        <span>Orchestrator</span>
      </div>
      {isMap ? <Tabs /> : <SectionTabs section={current} />}
      {isMap ? <SearchBox /> : <FilterBox placeholder={PLACEHOLDERS[current]} />}
      <div class="topbar-end">
        {isMap ? <Connection /> : <SectionConnection section={current} />}
        {isMap && <ProbesButton />}
        {isMap && store.server.value?.capabilities?.["historic_reports"] === true && (
          <button
            type="button"
            class="icon-button"
            data-testid="time-toggle"
            aria-pressed={store.isTimeOpen.value}
            title="The past (H)"
            aria-label="Look at the past"
            onClick={() => (store.isTimeOpen.value = !store.isTimeOpen.value)}
          >
            <Icon name="clock" />
          </button>
        )}
        <button
          type="button"
          class="icon-button"
          data-testid="pause-toggle"
          aria-pressed={store.isPaused.value}
          title={store.isPaused.value ? "Resume updates (P)" : "Pause updates (P)"}
          aria-label={store.isPaused.value ? "Resume updates" : "Pause updates"}
          onClick={store.togglePause}
        >
          <Icon name={store.isPaused.value ? "play" : "pause"} />
        </button>
        <button
          type="button"
          class="icon-button"
          data-testid="theme-toggle"
          title={store.theme.value === "dark" ? "Light theme (T)" : "Dark theme (T)"}
          aria-label={store.theme.value === "dark" ? "Switch to the light theme" : "Switch to the dark theme"}
          onClick={store.toggleTheme}
        >
          <Icon name={store.theme.value === "dark" ? "sun" : "moon"} />
        </button>
        <button type="button" class="icon-button" data-testid="help-button" title="Help (?)" aria-label="Help" onClick={() => (store.isHelpOpen.value = true)}>
          <Icon name="help" />
        </button>
      </div>
    </header>
  );
}

const PLACEHOLDERS = {
  cluster: "Filter: words, host:web-1, state:running, -finished",
  apps: "Filter: words, image:nginx, label:team=shop, -pod",
  zookeeper: "Filter: the beginning of a path, words",
} as const;

function Tabs() {
  const current = store.view.value;
  const tabs = visibleTabs(store.allViews.value, current?.id ?? null);
  return (
    <nav class="tabs" aria-label="Views">
      {tabs.map((item) => {
        const isCurrent = current !== null && current.tab === item.tab;
        return (
          <button
            key={item.id}
            type="button"
            class="tab"
            data-testid={`view-tab-${item.id}`}
            aria-current={isCurrent ? "page" : undefined}
            onClick={() => store.selectView(item.id)}
          >
            {item.description.name}
            <span class="tab-count">{shortCount(item.description.stats.node_count)}</span>
          </button>
        );
      })}
    </nav>
  );
}

export function SearchBox() {
  const input = useRef<HTMLInputElement>(null);
  useEffect(() => {
    const focus = (event: KeyboardEvent): void => {
      const target = event.target as HTMLElement | null;
      const isTyping = target !== null && (target.tagName === "INPUT" || target.tagName === "TEXTAREA" || target.tagName === "SELECT");
      if (event.key === "/" && !isTyping && !event.ctrlKey && !event.metaKey) {
        event.preventDefault();
        input.current?.focus();
        input.current?.select();
      }
    };
    window.addEventListener("keydown", focus);
    return () => window.removeEventListener("keydown", focus);
  }, []);
  const count = matchesOfQuery.value?.size ?? null;
  const isSearching = store.query.value !== "";
  const found = everywhere.value;
  const marked = markedHit.value;
  const hasHits = isSearching && (found?.page?.hits.length ?? 0) > 0;
  return (
    <div class="search" role="search">
      <Icon name="search" />
      {store.pins.value.map((pin) => (
        <span
          class="chip"
          key={pin}
          data-testid="search-pin"
          data-refused={store.refusedPins.value.has(pin) ? "true" : undefined}
          title={store.refusedPins.value.has(pin) ? `This filters nothing: ${store.refusedPins.value.get(pin)}` : pin}
        >
          <span class="chip-text">{pin}</span>
          <button type="button" aria-label={`Remove filter ${pin}`} onClick={() => store.unpin(pin)}>
            <Icon name="close" size={11} />
          </button>
        </span>
      ))}
      <input
        ref={input}
        type="text"
        data-testid="search-input"
        role="combobox"
        aria-label="Search nodes"
        aria-autocomplete="list"
        aria-expanded={hasHits}
        aria-controls={hasHits ? HITS_ID : undefined}
        aria-activedescendant={marked === null ? undefined : hitId(marked.index)}
        aria-describedby="search-count"
        placeholder={store.pins.value.length > 0 ? "and…" : "Search: nginx, pid: 42, cpu > 2%"}
        spellcheck={false}
        autocomplete="off"
        value={store.query.value}
        onInput={(event) => (store.query.value = event.currentTarget.value)}
        onKeyDown={(event) => {
          if ((event.key === "ArrowDown" || event.key === "ArrowUp") && hasHits) {
            event.preventDefault();
            stepHit(event.key === "ArrowDown" ? 1 : -1);
          } else if (event.key === "Enter") {
            if (marked !== null) openHit(marked.hit);
            // What the server refuses would keep the view from coming.
            else if (canPin()) store.pinQuery();
          } else if (event.key === "Escape") {
            event.stopPropagation();
            if (store.query.value === "") input.current?.blur();
            store.query.value = "";
          } else if (event.key === "Backspace" && store.query.value === "") {
            const last = store.pins.value[store.pins.value.length - 1];
            if (last !== undefined) store.unpin(last);
          }
        }}
      />
      <span id="search-count" class="search-count" data-testid="search-count" aria-live="polite">
        {isSearching && count !== null && `${count} ${count === 1 ? "match" : "matches"}`}
      </span>
      {isSearching ? (
        marked === null ? <kbd title="Keep this term as a filter">↵ filter</kbd> : <kbd title="Open what is chosen">↵ open</kbd>
      ) : (
        <kbd title="Press / to search">/</kbd>
      )}
      {isSearching && found !== null && <SearchResults found={found} />}
    </div>
  );
}

function Connection() {
  const { state, retryAt } = store.connection.value;
  const last = store.lastMessage.value;
  const age = last === null ? null : Math.max(0, (store.now.value - last) / 1_000);
  const isPaused = store.isPaused.value;
  const isPast = store.past.value !== null;
  const shownState = isPaused ? "paused" : isPast && state === "live" ? "past" : state;
  const isStale = !isPaused && state === "live" && age !== null && age > 4;
  const text = isPaused
    ? "Paused"
    : state === "live"
      ? isStale
        ? "Stalled"
        : isPast
          ? "Past"
          : "Live"
      : state === "connecting"
        ? "Connecting"
        : state === "offline"
          ? "Offline"
          : "Reconnecting";
  const wait = retryAt === null ? null : Math.max(0, Math.ceil((retryAt - store.now.value) / 1_000));
  const detail =
    state === "live" && !isPaused && !isStale ? null : [age !== null ? `data ${duration(age)} old` : null, !isPaused && wait !== null ? `retry in ${wait}s` : null];
  return (
    <div
      class="connection"
      role="status"
      data-testid="connection-state"
      data-state={shownState}
      data-stale={isStale ? "true" : undefined}
      title={last === null ? "No data yet" : `Last update ${new Date(last).toLocaleTimeString()}`}
    >
      <span class="connection-dot" aria-hidden="true" />
      <span class="connection-text">{text}</span>
      {detail && <span class="connection-detail">{detail.filter((part) => part !== null).join(" · ")}</span>}
      {!isPaused && (state === "reconnecting" || state === "offline") && (
        <button type="button" class="link-button" onClick={store.retryNow}>
          Retry
        </button>
      )}
    </div>
  );
}

function ProbesButton() {
  const list = store.probes.value;
  if (list === null) return null;
  const degraded = store.degradedProbes.value.length;
  const old = store.oldProbes.value.length;
  const isShort = degraded > 0 || store.isUnwatched.value;
  return (
    <button
      type="button"
      class="pill-button"
      data-testid="probes-button"
      data-degraded={isShort ? "true" : undefined}
      aria-expanded={store.isProbesOpen.value}
      title="What each probe sees, and what it does not"
      onClick={() => (store.isProbesOpen.value = !store.isProbesOpen.value)}
    >
      <Icon name={isShort ? "warning" : "probe"} />
      <span>
        {list.filter((probe) => probe.connected).length + old} <span class="wide-only">{list.length + old === 1 ? "probe" : "probes"}</span>
      </span>
    </button>
  );
}
