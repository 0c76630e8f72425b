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
    // Browsers say it in words of their own, and not all of them say where.
    const found = firstBroken(source);
    if (found !== null) return { line: lineAt(source, found.at), message: found.message };
    return { line: 0, message: error instanceof Error ? error.message : "This is no JSON." };
  }
}

type Expected = "value" | "value or ]" | "name" | "name or }" | ":" | ", or end" | "nothing";

const TOKEN = /("(?:[^"\\\u0000-\u001f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*")|(-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null)|([{}[\],:])/y;

/** The first place that no JSON could have. */
function firstBroken(source: string): { at: number; message: string } | null {
  const around: string[] = [];
  let expected: Expected = "value";
  let at = 0;
  const inside = (): Expected => (around.length === 0 ? "nothing" : ", or end");
  for (;;) {
    while (at < source.length && " \t\r\n".includes(source.charAt(at))) at += 1;
    if (at >= source.length) return expected === "nothing" ? null : { at: source.trimEnd().length, message: `It ends too early: ${wanted(expected, around)}.` };
    TOKEN.lastIndex = at;
    const match = TOKEN.exec(source);
    const token = match?.[0] ?? "";
    const isText = match?.[1] !== undefined;
    const isScalar = isText || match?.[2] !== undefined;
    const last = around[around.length - 1];
    let next: Expected | null = null;
    if (expected === "value" || expected === "value or ]") {
      if (isScalar) next = inside();
      else if (token === "{" || token === "[") {
        around.push(token);
        next = token === "{" ? "name or }" : "value or ]";
      } else if (token === "]" && expected === "value or ]") {
        around.pop();
        next = inside();
      }
    } else if (expected === "name" || expected === "name or }") {
      if (isText) next = ":";
      else if (token === "}" && expected === "name or }") {
        around.pop();
        next = inside();
      }
    } else if (expected === ":") {
      if (token === ":") next = "value";
    } else if (expected === ", or end") {
      if (token === ",") next = last === "{" ? "name" : "value";
      else if (token === (last === "{" ? "}" : "]")) {
        around.pop();
        next = inside();
      }
    }
    if (next === null) return { at, message: source.charAt(at) === '"' && !isText ? "A text that has no end, or a character that must be escaped." : `${capital(wanted(expected, around))}.` };
    expected = next;
    at = TOKEN.lastIndex;
  }
}

function wanted(expected: Expected, around: readonly string[]): string {
  const end = around[around.length - 1] === "{" ? "}" : "]";
  switch (expected) {
    case "value":
      return "a value is expected here";
    case "value or ]":
      return "a value or ] is expected here";
    case "name":
      return "a name in quotes is expected here";
    case "name or }":
      return "a name in quotes or } is expected here";
    case ":":
      return "a colon is expected here";
    case ", or end":
      return `a comma or ${end} is expected here`;
    case "nothing":
      return "nothing may follow here";
  }
}

function capital(words: string): string {
  return words.charAt(0).toUpperCase() + words.slice(1);
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
