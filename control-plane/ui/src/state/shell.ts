// What is around the sections: where somebody is, which services run, and what the page says in passing.

import { computed, signal } from "@preact/signals";
import { ApiError, ask } from "../api/http";
import { decodePlace, encodePlace, type Place, type Section } from "../model/place";
import { flag, record, text, type Json } from "../model/safe";

export const place = signal<Place>(decodePlace(window.location.hash));
export const section = computed<Section>(() => place.value.section);
/** The map is only built when somebody has looked at it. */
export const isMapBuilt = signal(place.peek().section === "map");

/** A question is about the page that it was asked on: whoever leaves that has not answered it. */
function dropQuestion(next: Place): void {
  const { section, path } = place.peek();
  if (next.section !== section || next.path.join("/") !== path.join("/")) question.value = null;
}

/** Takes over what the URL says. */
export function adoptPlace(hash: string): Place {
  const next = decodePlace(hash);
  dropQuestion(next);
  place.value = next;
  if (place.value.section === "map") isMapBuilt.value = true;
  return place.value;
}

/** Goes to a page. Pages are steps that the browser's back button undoes; `replace` is for what is none, such as a filter that is typed. */
export function go(section: Section, path: readonly string[] = [], params: Readonly<Record<string, string>> = {}, replace = false): void {
  const next: Place = { section, path, params };
  dropQuestion(next);
  if (section === "map") {
    isMapBuilt.value = true;
    // The map writes its own hash as soon as it is the section.
    if (place.peek().section !== "map") history.pushState(null, "", "#/");
    place.value = next;
    return;
  }
  const hash = encodePlace(next);
  if (hash !== window.location.hash) {
    if (replace) history.replaceState(null, "", hash);
    else history.pushState(null, "", hash);
  }
  place.value = next;
}

/** The address of a page, for links that can be opened elsewhere. */
export function hrefOf(section: Section, path: readonly string[] = [], params: Readonly<Record<string, string>> = {}): string {
  return section === "map" ? "#/" : encodePlace({ section, path, params });
}

/** Changes parameters of the current page. */
export function setParams(changed: Readonly<Record<string, string>>): void {
  const current = place.peek();
  go(current.section, current.path, { ...current.params, ...changed }, true);
}

// ---- services ----

export interface ServiceState {
  runs: boolean;
  ready: boolean;
  detail: string;
}

export interface Services {
  master: ServiceState;
  scheduler: ServiceState;
  zksync: ServiceState;
}

/** `null` until it is known. */
export const services = signal<Services | null>(null);

/** Whether the control plane answered when it was last asked. */
export const isReachable = signal(true);

export async function refreshServices(): Promise<void> {
  let answer: Json;
  try {
    answer = record(await ask("api/v1/services", { timeoutMs: 10_000 }));
    isReachable.value = true;
  } catch (error) {
    // An answer is an answer, whatever it says.
    isReachable.value = error instanceof ApiError && error.status !== 0;
    throw error;
  }
  const state = (name: string): ServiceState => {
    const it = record(answer[name]);
    return { runs: flag(it["runs"]), ready: flag(it["ready"]), detail: text(it["detail"]) };
  };
  services.value = { master: state("master"), scheduler: state("scheduler"), zksync: state("zksync") };
}

// ---- what is said in passing, and questions ----

export const notice = signal<{ text: string; isBad: boolean } | null>(null);
let noticeTimer: ReturnType<typeof setTimeout> | null = null;

export function say(words: string, isBad = false): void {
  notice.value = { text: words, isBad };
  if (noticeTimer !== null) clearTimeout(noticeTimer);
  noticeTimer = setTimeout(() => (notice.value = null), isBad ? 12_000 : 5_000);
}

export interface QuestionField {
  name: string;
  label: string;
  kind: "text" | "number" | "checkbox" | "datetime";
  value: string;
  hint?: string;
}

export interface Question {
  title: string;
  text: string;
  /** The word on the button. */
  action: string;
  isGrave?: boolean;
  fields?: readonly QuestionField[];
  /** Has to be typed before the button works: for what cannot be undone. */
  typed?: string;
  /** Does it. A failure is shown in the dialog. */
  run(values: Readonly<Record<string, string>>): Promise<string | void>;
}

export const question = signal<Question | null>(null);
