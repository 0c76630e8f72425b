import type { Control } from "../api/types";

/** How what a control opened is shown. */
export type WindowKind = "terminal" | "text";

const TEXTS: readonly string[] = ["docker_logs_container", "kubernetes_get_logs", "kubernetes_describe"];

/** Logs and descriptions are read; everything else that opens a pipe is typed into. */
export function windowKind(controlId: string, isTerminal: boolean): WindowKind {
  return TEXTS.includes(controlId) && !isTerminal ? "text" : "terminal";
}

/** Controls in the order of their ranks. */
export function inOrder(controls: readonly Control[]): Control[] {
  return [...controls].sort((a, b) => a.rank - b.rank || (a.id < b.id ? -1 : 1));
}

/** Lines of a log that are kept; older ones go. */
export const LINES_MAX = 20_000;

/** Cuts a stream of text into lines, and keeps the last of them. */
export class LineBuffer {
  /** Whole lines, and the begin of one that has no end yet, if any. */
  readonly lines: string[] = [];
  /** How many lines were dropped because there were too many. */
  dropped = 0;
  private isOpen = false;

  append(text: string): void {
    const parts = text.split("\n");
    const first = parts.shift() ?? "";
    if (this.isOpen && this.lines.length > 0) this.lines[this.lines.length - 1] += first;
    else if (first !== "" || parts.length > 0) this.lines.push(first);
    for (const part of parts) this.lines.push(part);
    // After a line feed an empty line stands for the one that has not begun.
    this.isOpen = true;
    if (parts.length > 0 && parts[parts.length - 1] === "") {
      this.lines.pop();
      this.isOpen = false;
    }
    const excess = this.lines.length - LINES_MAX;
    if (excess > 0) {
      this.lines.splice(0, excess);
      this.dropped += excess;
    }
  }
}

/** Colours and cursor movements, which mean nothing in a list of lines. */
export function withoutEscapes(line: string): string {
  // eslint-disable-next-line no-control-regex
  return line.replace(/\u001b\[[0-9;?]*[ -/]*[@-~]|\u001b\][^\u0007]*\u0007|\r/g, "");
}

/** Lines that have the text in them, whatever its case. */
export function matching(lines: readonly string[], text: string): { number: number; line: string }[] {
  const wanted = text.toLowerCase();
  const found: { number: number; line: string }[] = [];
  lines.forEach((line, number) => {
    if (wanted === "" || line.toLowerCase().includes(wanted)) found.push({ number, line });
  });
  return found;
}

/** A name for a file that has the text of a window. */
export function fileName(title: string): string {
  return `${title.replace(/[^\w.-]+/g, "-").replace(/^-+|-+$/g, "").slice(0, 80) || "log"}.txt`;
}
