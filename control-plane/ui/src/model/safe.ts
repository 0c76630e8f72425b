// Reading JSON that others wrote: whatever stands there, the page gets a value of the kind that it wants.

export type Json = Readonly<Record<string, unknown>>;

/** An object; an empty one for anything else. */
export function record(value: unknown): Json {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Json) : {};
}

/** An array; an empty one for anything else. */
export function list(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [];
}

/** The objects of an array. */
export function records(value: unknown): Json[] {
  return list(value).filter((item): item is Json => typeof item === "object" && item !== null && !Array.isArray(item));
}

/** A text; numbers and truth values as they are written, nothing else. */
export function text(value: unknown): string {
  if (typeof value === "string") return value;
  return typeof value === "number" || typeof value === "boolean" ? String(value) : "";
}

/** The texts of an array. */
export function texts(value: unknown): string[] {
  return list(value).filter((item): item is string => typeof item === "string");
}

/** A finite number, also one that was written as a text; `otherwise` for anything else. */
export function number(value: unknown, otherwise = 0): number {
  const read = typeof value === "number" ? value : typeof value === "string" && value.trim() !== "" ? Number(value) : Number.NaN;
  return Number.isFinite(read) ? read : otherwise;
}

/** Only `true` is true. */
export function flag(value: unknown): boolean {
  return value === true;
}

/** The addresses that a link may lead to: never a script. */
export function safeUrl(value: unknown): string | null {
  const url = text(value).trim();
  return /^https?:\/\/[^\s]+$/i.test(url) ? url : null;
}
