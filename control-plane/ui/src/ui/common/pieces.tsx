import { useRef, useState } from "preact/hooks";
import { hrefOf, place, setParams } from "../../state/shell";
import type { Polled } from "../../state/poll";
import { ApiError, messageOf } from "../../api/http";
import { ago } from "../../model/format";
import type { Section } from "../../model/place";
import { now } from "../../state/store";
import { Icon, type UiIcon } from "../icons";

/** A link within the app. */
export function Link({ to, children, className, title, testId }: { to: readonly [Section, ...string[]]; children: preact.ComponentChildren; className?: string; title?: string; testId?: string }) {
  const [section, ...path] = to;
  return (
    <a class={className ?? "inner-link"} href={hrefOf(section, path)} title={title} data-testid={testId}>
      {children}
    </a>
  );
}

export interface BarPart {
  share: number;
  kind: string;
  title: string;
}

/** Parts of a whole, side by side. */
export function Bar({ parts, label }: { parts: readonly BarPart[]; label: string }) {
  const shown = parts.filter((part) => part.share > 0);
  return (
    <span class="bar" role="img" aria-label={label} title={label}>
      {shown.map((part) => (
        <span key={part.kind} class={`bar-part ${part.kind}`} style={{ width: `${(Math.min(1, part.share) * 100).toFixed(2)}%` }} title={part.title} />
      ))}
    </span>
  );
}

/** A word with a colour of its own. */
export function State({ kind, children, title, testId }: { kind: "good" | "warn" | "bad" | "idle" | "busy"; children: preact.ComponentChildren; title?: string; testId?: string }) {
  return (
    <span class={`state is-${kind}`} title={title} data-testid={testId}>
      <span class="state-mark" aria-hidden="true" />
      {children}
    </span>
  );
}

/** A moment, as how long ago it was; the moment itself on demand. */
export function When({ at, suffix = true }: { at: number | null; suffix?: boolean }) {
  if (at === null || !Number.isFinite(at) || at <= 0) return <span class="quiet">–</span>;
  const words = ago(at, now.value);
  return (
    <time dateTime={iso(at)} title={new Date(at).toLocaleString()}>
      {suffix ? words : words.replace(/ ago$/, "")}
    </time>
  );
}

function iso(at: number): string {
  try {
    return new Date(at).toISOString();
  } catch {
    return "";
  }
}

/** A page of a section: its path, its heading, what can be done, what it shows. */
export function Page({
  title,
  trail,
  state,
  actions,
  note,
  children,
  isFull,
}: {
  title: preact.ComponentChildren;
  trail?: readonly { label: string; to: readonly [Section, ...string[]] }[];
  state?: preact.ComponentChildren;
  actions?: preact.ComponentChildren;
  /** What is wrong with the data that is shown. */
  note?: string | null;
  children: preact.ComponentChildren;
  /** Takes the whole height, as a table does. */
  isFull?: boolean;
}) {
  return (
    <div class={isFull ? "page is-full" : "page"}>
      <div class="page-head">
        <div class="page-title">
          {trail && trail.length > 0 && (
            <nav class="trail" aria-label="Where this is">
              {trail.map((step) => (
                <span key={step.label}>
                  <Link to={step.to}>{step.label}</Link>
                  <span aria-hidden="true"> / </span>
                </span>
              ))}
            </nav>
          )}
          <h1 data-testid="page-title">
            {title} {state}
          </h1>
        </div>
        {actions && <div class="control-row page-actions">{actions}</div>}
      </div>
      {note && <Problem text={`${note} What you see is the last that was known.`} />}
      {children}
    </div>
  );
}

export function Problem({ text, children }: { text: string; children?: preact.ComponentChildren }) {
  return (
    <div class="gone page-note" role="status" data-testid="problem">
      <Icon name="warning" size={15} /> <span>{text}</span> {children}
    </div>
  );
}

/** What stands in place of a page whose data is not there. */
export function Missing({ title, text, testId }: { title: string; text: string; testId?: string }) {
  return (
    <div class="empty" data-testid={testId ?? "missing"}>
      <h2>{title}</h2>
      <p>{text}</p>
    </div>
  );
}

/** Waits for data, or says why there is none. */
export function Await<T>({ polled, what, children }: { polled: Polled<T>; what: string; children: (data: T) => preact.ComponentChildren }) {
  if (polled.data !== null) return <>{children(polled.data)}</>;
  if (polled.error !== null) {
    const isGone = polled.error instanceof ApiError && polled.error.status === 404;
    return <Missing title={isGone ? `No such ${what}` : `The ${what} cannot be shown`} text={messageOf(polled.error)} testId="missing" />;
  }
  return (
    <div class="empty" aria-busy="true" data-testid="loading">
      <p class="quiet">Loading…</p>
    </div>
  );
}

export function Button({
  icon,
  children,
  onClick,
  isGrave,
  isDisabled,
  title,
  testId,
}: {
  icon?: UiIcon;
  children: preact.ComponentChildren;
  onClick: () => void;
  isGrave?: boolean;
  isDisabled?: boolean;
  title?: string;
  testId?: string;
}) {
  return (
    <button type="button" class={isGrave ? "control is-grave" : "control"} disabled={isDisabled} title={title} data-testid={testId} onClick={onClick}>
      {icon && <Icon name={icon} size={14} />} {children}
    </button>
  );
}

export function Card({ title, count, actions, children, testId }: { title: string; count?: number | undefined; actions?: preact.ComponentChildren; children: preact.ComponentChildren; testId?: string }) {
  return (
    <section class="card" data-testid={testId}>
      <div class="card-head">
        <h2>
          {title} {count !== undefined && <span class="section-count">{count}</span>}
        </h2>
        {actions && <div class="control-row">{actions}</div>}
      </div>
      {children}
    </section>
  );
}

/** Names and values. */
export function Facts({ rows }: { rows: readonly (readonly [string, preact.ComponentChildren])[] }) {
  const shown = rows.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return (
    <dl class="metadata facts">
      {shown.map(([name, value]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{value}</dd>
        </div>
      ))}
    </dl>
  );
}

/** Numbers at a glance. */
export function Tiles({ rows }: { rows: readonly (readonly [string, preact.ComponentChildren, string?])[] }) {
  return (
    <dl class="stats tiles">
      {rows.map(([name, value, kind]) => (
        <div key={name} class={kind}>
          <dt>{name}</dt>
          <dd>{value}</dd>
        </div>
      ))}
    </dl>
  );
}

/** One of several, kept in the URL. */
export function Choice({ name, values, otherwise, label }: { name: string; values: readonly (readonly [string, string])[]; otherwise: string; label: string }) {
  const current = place.value.params[name] ?? otherwise;
  return (
    <div class="segments" role="group" aria-label={label}>
      {values.map(([value, words]) => (
        <button key={value} type="button" data-testid={`choose-${name}-${value}`} aria-pressed={value === current} onClick={() => setParams({ [name]: value === otherwise ? "" : value })}>
          {words}
        </button>
      ))}
    </div>
  );
}

export function choiceOf(name: string, otherwise: string): string {
  return place.value.params[name] ?? otherwise;
}

/** A text that is long: its beginning, and all of it on demand. */
export function Long({ text, limit = 160 }: { text: string; limit?: number }) {
  const [isAll, setAll] = useState(false);
  if (text.length <= limit) return <>{text}</>;
  return (
    <button type="button" class="expandable" aria-expanded={isAll} onClick={() => setAll(!isAll)}>
      {isAll ? text.slice(0, 20_000) : `${text.slice(0, limit)}…`}
    </button>
  );
}

/** The filter of a section's tables, in the place of the map's search. */
export function FilterBox({ placeholder }: { placeholder: string }) {
  const input = useRef<HTMLInputElement>(null);
  const value = place.value.params["q"] ?? "";
  return (
    <div class="search" role="search">
      <Icon name="search" />
      <input
        ref={input}
        type="text"
        data-testid="filter-input"
        data-focus-key="/"
        aria-label="Filter"
        placeholder={placeholder}
        spellcheck={false}
        autocomplete="off"
        value={value}
        onInput={(event) => setParams({ q: event.currentTarget.value })}
        onKeyDown={(event) => {
          if (event.key !== "Escape") return;
          event.stopPropagation();
          if (value === "") input.current?.blur();
          else setParams({ q: "" });
        }}
      />
      <kbd title="Press / to filter">/</kbd>
    </div>
  );
}
