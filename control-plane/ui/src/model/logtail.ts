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

/** What stands in a text in the place of bytes that are no character. */
const BROKEN = "\ufffd";
/** Bytes of a character that may stand on one side of a border. */
const PARTS_MAX = 3;

/**
 * The piece from `offset` on, up to the end of a character, and how many bytes that are. Agents answer with text: of a character that is cut in two
 * nothing is left. Where a file ends amid a character it has not been written yet: nothing is taken until it is.
 */
export async function whole(readText: (offset: number, length: number) => Promise<string>, offset: number, length: number): Promise<{ text: string; length: number }> {
  const text = await readText(offset, length);
  if (!text.endsWith(BROKEN)) return { text, length };
  for (let less = 1; less <= PARTS_MAX; less++) {
    if (less === length) return { text: "", length: 0 };
    const shorter = await readText(offset, length - less);
    if (!shorter.endsWith(BROKEN)) return { text: shorter, length: length - less };
  }
  // It is no cut that made them: they are in the file.
  return { text, length };
}

/** A piece without what is left of a character that begins before it, and how many bytes that is. */
export function withoutRest(text: string): { text: string; bytes: number } {
  let bytes = 0;
  while (bytes < PARTS_MAX && text[bytes] === BROKEN) bytes++;
  return { text: text.slice(bytes), bytes };
}
