import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { PipeConnection } from "../api/pipe";
import { fileName, LineBuffer, matching, withoutEscapes } from "../model/controls";
import { groupedInteger } from "../model/format";
import type { PipeWindow } from "../state/windows";
import { Icon } from "./icons";

/** Lines that are drawn at once: the last of those that match. */
const DRAWN_MAX = 2_000;

/** Logs, or a description: lines, which can be followed, searched and saved. */
export function TextWindow({ open }: { open: PipeWindow }) {
  const buffer = useMemo(() => new LineBuffer(), [open.pipe]);
  const [version, setVersion] = useState(0);
  const [state, setState] = useState<"connecting" | "open" | "lost" | "ended">("connecting");
  const [isFollowing, setFollowing] = useState(open.control.id !== "kubernetes_describe");
  const [term, setTerm] = useState("");
  const list = useRef<HTMLDivElement>(null);
  useEffect(() => {
    const decoder = new TextDecoder();
    let frame: number | null = null;
    const connection = new PipeConnection(open.pipe, {
      onBytes: (bytes) => {
        buffer.append(decoder.decode(bytes, { stream: true }));
        // Many messages, one drawing.
        frame ??= requestAnimationFrame(() => {
          frame = null;
          setVersion((before) => before + 1);
        });
      },
      onState: setState,
    });
    return () => {
      if (frame !== null) cancelAnimationFrame(frame);
      connection.stop();
    };
  }, [open.pipe]);
  const found = useMemo(() => matching(buffer.lines, term), [version, term]);
  const drawn = found.slice(-DRAWN_MAX);
  useEffect(() => {
    if (isFollowing && list.current) list.current.scrollTop = list.current.scrollHeight;
  }, [version, term, isFollowing]);
  const scrolled = (): void => {
    const element = list.current;
    if (!element || open.control.id === "kubernetes_describe") return;
    const isAtEnd = element.scrollHeight - element.scrollTop - element.clientHeight < 24;
    if (isAtEnd !== isFollowing && !isAtEnd) setFollowing(false);
  };
  return (
    <div class="text-window" data-testid="text-window" data-state={state}>
      <div class="text-tools">
        <label class="text-search">
          <Icon name="search" size={13} />
          <input type="search" placeholder="Search these lines" aria-label="Search these lines" data-testid="text-search" value={term} onInput={(event) => setTerm(event.currentTarget.value)} />
        </label>
        <span class="minor" data-testid="text-count" data-count={found.length}>
          {term !== "" && `${groupedInteger(found.length)} of `}
          {groupedInteger(buffer.lines.length)} lines
          {buffer.dropped > 0 && `, ${groupedInteger(buffer.dropped)} older ones dropped`}
          {found.length > drawn.length && `, the last ${groupedInteger(drawn.length)} shown`}
          {state === "ended" && " · ended"}
          {state === "lost" && " · the connection was lost; it is made again"}
        </span>
        <button type="button" class="control" aria-pressed={isFollowing} data-testid="text-follow" onClick={() => setFollowing(!isFollowing)}>
          Follow
        </button>
        <button type="button" class="control" data-testid="text-download" onClick={() => save(open.title, buffer.lines)}>
          <Icon name="down" size={13} /> Download
        </button>
      </div>
      <div ref={list} class="text-lines" tabIndex={0} onScroll={scrolled}>
        {drawn.map(({ number, line }) => (
          <div key={buffer.dropped + number} class="text-line">
            <Marked text={withoutEscapes(line)} term={term} />
          </div>
        ))}
      </div>
    </div>
  );
}

/** A line with what was searched for marked. */
function Marked({ text, term }: { text: string; term: string }) {
  if (term === "") return <>{text || " "}</>;
  const parts: preact.ComponentChildren[] = [];
  const lower = text.toLowerCase();
  const wanted = term.toLowerCase();
  let at = 0;
  for (let hit = lower.indexOf(wanted); hit >= 0 && parts.length < 200; hit = lower.indexOf(wanted, at)) {
    parts.push(text.slice(at, hit), <mark key={hit}>{text.slice(hit, hit + wanted.length)}</mark>);
    at = hit + wanted.length;
  }
  return (
    <>
      {parts}
      {text.slice(at)}
    </>
  );
}

function save(title: string, lines: readonly string[]): void {
  const url = URL.createObjectURL(new Blob([lines.join("\n"), "\n"], { type: "text/plain" }));
  const link = document.createElement("a");
  link.href = url;
  link.download = fileName(title);
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
