// The filter above a table: words that all have to be there, `-word` that must not, `field:word` for one field.

export interface Searchable {
  /** Everything that can be looked for, in lower case. */
  readonly haystack: string;
  /** The same by field, in lower case. */
  readonly fields: Readonly<Record<string, string>>;
}

/** What can be looked for in a row. */
export function searchable(fields: Readonly<Record<string, string>>): Searchable {
  const lower = Object.fromEntries(Object.entries(fields).map(([key, value]) => [key, value.toLowerCase()]));
  return { haystack: Object.values(lower).join("\n"), fields: lower };
}

/** A test of rows; `null` when everything passes. */
export function filterOf(query: string): ((row: Searchable) => boolean) | null {
  const words = query.toLowerCase().split(/\s+/).filter((word) => word !== "" && word !== "-");
  if (words.length === 0) return null;
  const tests = words.map((word) => {
    const isWanted = !word.startsWith("-");
    const bare = isWanted ? word : word.slice(1);
    const colon = bare.indexOf(":");
    const field = colon > 0 ? bare.slice(0, colon) : "";
    const value = bare.slice(colon + 1);
    return (row: Searchable): boolean => {
      const of = field === "" ? undefined : row.fields[field];
      // What looks like a field and is none is a word with a colon in it, such as an address.
      return (of === undefined ? row.haystack.includes(bare) : of.includes(value)) === isWanted;
    };
  });
  return (row) => tests.every((test) => test(row));
}
