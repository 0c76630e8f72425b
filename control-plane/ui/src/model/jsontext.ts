// A JSON text under somebody's hands: where it is broken, and which line an error of the API means.

export interface TextProblem {
  /** From 1; 0 when the place is not known. */
  line: number;
  message: string;
}

/** What is wrong with the text as JSON; `null` when nothing is. */
export function syntaxProblem(source: string): TextProblem | null {
  try {
    JSON.parse(source);
    return null;
  } catch (error) {
    const message = error instanceof Error ? error.message : "This is no JSON.";
    const line = /line (\d+)/.exec(message);
    if (line?.[1] !== undefined) return { line: Number(line[1]), message: plain(message) };
    const position = /position (\d+)/.exec(message);
    if (position?.[1] !== undefined) return { line: lineAt(source, Number(position[1])), message: plain(message) };
    return { line: source.split("\n").length, message: plain(message) };
  }
}

function plain(message: string): string {
  return message.replace(/^JSON\.parse: |^SyntaxError: /, "").replace(/ in JSON at position.*$/, "").replace(/ at line \d+ column \d+.*$/, "");
}

function lineAt(source: string, position: number): number {
  let line = 1;
  for (let at = 0; at < Math.min(position, source.length); at += 1) if (source.charCodeAt(at) === 10) line += 1;
  return line;
}

/** `/container/docker/image`, `/portDefinitions(0)/port`, `container.docker.image` → its keys and indices. */
export function pathParts(path: string): (string | number)[] {
  const spaced = path.startsWith("/") || path.includes("/") ? path : path.replaceAll(".", "/");
  return spaced.split("/").flatMap((part): (string | number)[] => {
    if (part === "") return [];
    const match = /^(.*?)((?:[([]\d+[)\]])+)$/.exec(part);
    if (match === null) return [/^\d+$/.test(part) ? Number(part) : part];
    const indices = [...(match[2] ?? "").matchAll(/\d+/g)].map((it) => Number(it[0]));
    return match[1] === "" || match[1] === undefined ? indices : [match[1], ...indices];
  });
}

/** The line on which a field stands, or the nearest one around it that is there; 0 when nothing of it is. */
export function lineOf(source: string, path: string): number {
  const wanted = pathParts(path);
  if (wanted.length === 0) return 1;
  const places = fieldPlaces(source);
  for (let length = wanted.length; length > 0; length -= 1) {
    const position = places.get(JSON.stringify(wanted.slice(0, length)));
    if (position !== undefined) return lineAt(source, position);
  }
  return 0;
}

/** Where each field and each item begins. The text need not be whole: what can be read of it counts. */
function fieldPlaces(source: string): Map<string, number> {
  const places = new Map<string, number>();
  const stack: { isArray: boolean; key: string | number }[] = [];
  let expectsKey = false;
  const path = (): string => JSON.stringify(stack.map((it) => it.key));
  const token = /"(?:[^"\\]|\\.)*"|[{}[\],:]|[^\s{}[\],:"]+/g;
  let last: RegExpExecArray | null = null;
  for (let match = token.exec(source); match !== null && stack.length < 200; match = token.exec(source)) {
    const word = match[0];
    const top = stack[stack.length - 1];
    if (word === "{" || word === "[") {
      if (top?.isArray) places.set(path(), places.get(path()) ?? match.index);
      stack.push({ isArray: word === "[", key: word === "[" ? 0 : "" });
      expectsKey = word === "{";
    } else if (word === "}" || word === "]") {
      stack.pop();
      expectsKey = false;
    } else if (word === ",") {
      if (top?.isArray && typeof top.key === "number") top.key += 1;
      expectsKey = top !== undefined && !top.isArray;
    } else if (word === ":") {
      if (top !== undefined && !top.isArray && last !== null) {
        try {
          top.key = String(JSON.parse(last[0]));
          places.set(path(), last.index);
        } catch {
          // A key that is none.
        }
      }
      expectsKey = false;
    } else if (top?.isArray && !expectsKey) {
      places.set(path(), match.index);
    }
    last = match;
  }
  return places;
}
