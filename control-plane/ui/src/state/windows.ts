import { signal } from "@preact/signals";
import { closePipe, RequestError, runControl } from "../api/client";
import type { Control } from "../api/types";
import { windowKind, type WindowKind } from "../model/controls";
import type { PipeLink } from "../model/location";
import * as store from "./store";

/** A pipe that somebody looks into. */
export interface PipeWindow {
  pipe: string;
  kind: WindowKind;
  title: string;
  /** Line ends need no conversion. */
  isRaw: boolean;
  /** What opened it; a resize goes to the same node. */
  control: Control;
  resizeControl: string | null;
}

/** Open windows, as tabs at the bottom of the page. */
export const windows = signal<readonly PipeWindow[]>([]);
/** The pipe whose window is in front. */
export const front = signal<string | null>(null);
/** Controls that are being carried out, by node and id. */
export const running = signal<ReadonlySet<string>>(new Set());
/** What went wrong last, by node. */
export const failure = signal<{ nodeId: string; text: string } | null>(null);

export const keyOf = (control: Control): string => `${control.nodeId} ${control.id}`;

/** Has a control carried out, and opens a window when it opened a pipe. */
export async function run(control: Control, label: string): Promise<void> {
  const key = keyOf(control);
  if (running.value.has(key)) return;
  running.value = new Set([...running.value, key]);
  failure.value = null;
  try {
    const reply = await runControl(control);
    if (reply.pipe !== undefined) {
      const isRaw = reply.raw_tty === true;
      const opened: PipeWindow = {
        pipe: reply.pipe,
        kind: windowKind(control.id, isRaw),
        title: `${control.human}: ${label}`,
        isRaw,
        control,
        resizeControl: reply.resize_tty_control ?? null,
      };
      windows.value = [...windows.value, opened];
      front.value = opened.pipe;
    }
    if (reply.removedNode !== undefined && store.topPanel.value?.id === reply.removedNode) store.closePanels();
  } catch (error) {
    const text = error instanceof RequestError ? error.message : "The control plane does not answer.";
    failure.value = { nodeId: control.nodeId, text: `${control.human}: ${text}` };
  } finally {
    running.value = new Set([...running.value].filter((other) => other !== key));
  }
}

/** Opens the window of a pipe that a link leads to. Nobody knows whose it is, so that it cannot be resized. */
export function openLink(link: PipeLink): void {
  const control: Control = { probeId: "", nodeId: "", id: "", human: link.title, icon: "", confirmation: "", rank: 0 };
  const opened: PipeWindow = { pipe: link.id, kind: windowKind("", link.isRaw), title: link.title, isRaw: link.isRaw, control, resizeControl: null };
  windows.value = [...windows.value, opened];
  front.value = opened.pipe;
}

/** Closes a window, and what is behind it. */
export function close(pipe: string): void {
  closePipe(pipe);
  windows.value = windows.value.filter((open) => open.pipe !== pipe);
  if (front.value === pipe) front.value = windows.value[windows.value.length - 1]?.pipe ?? null;
}

window.addEventListener("pagehide", () => windows.value.forEach((open) => closePipe(open.pipe)));
