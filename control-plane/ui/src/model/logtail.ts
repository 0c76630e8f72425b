// Following a file from its end, by pieces: what to read next, and what to do when it was cut.

/** As much as an agent reads at once. */
export const PIECE = 65_536;
/** Where the first look begins: so much before the end. */
export const FIRST_LOOK = 65_536;

export interface Tail {
  /** The first byte that was read. */
  from: number;
  /** The next byte to read. */
  to: number;
  /** Bytes of the file when it was last asked. */
  size: number;
}

export type Step = { kind: "wait" } | { kind: "restart" } | { kind: "read"; offset: number; length: number };

/** Where to begin in a file of `size` bytes. */
export function begin(size: number): Tail {
  const from = Math.max(0, size - FIRST_LOOK);
  return { from, to: from, size };
}

/** What to do now that the file has `size` bytes. */
export function next(tail: Tail, size: number): Step {
  // It was cut or replaced: what was read is of another file.
  if (size < tail.to) return { kind: "restart" };
  if (size === tail.to) return { kind: "wait" };
  return { kind: "read", offset: tail.to, length: Math.min(PIECE, size - tail.to) };
}

/** The piece before what is shown. */
export function earlier(tail: Tail): { offset: number; length: number } | null {
  if (tail.from === 0) return null;
  const offset = Math.max(0, tail.from - PIECE);
  return { offset, length: tail.from - offset };
}
