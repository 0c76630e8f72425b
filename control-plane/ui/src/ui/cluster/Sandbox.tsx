import { useEffect, useRef, useState } from "preact/hooks";
import { ApiError, messageOf } from "../../api/http";
import { browse, downloadUrl, read, type FileEntry } from "../../api/mesos";
import { LineBuffer, matching, withoutEscapes } from "../../model/controls";
import { bytes, groupedInteger } from "../../model/format";
import { begin, earlier, next, whole, withoutRest, type Tail } from "../../model/logtail";
import { usePoll } from "../../state/poll";
import { place, setParams } from "../../state/shell";
import { Card, Problem, When } from "../common/pieces";
import { Icon } from "../icons";

/** Lines that are drawn at once: the last of those that match. */
const DRAWN_MAX = 2_000;
const FOLLOW_MS = 1_000;

/** The files of a task, and the end of one of them. The place below the root stands in the URL. */
export function Sandbox({ agentId, roots }: { agentId: string; roots: readonly string[] }) {
  const directory = cleaned(place.value.params["dir"] ?? "");
  const file = cleaned(place.value.params["file"] ?? "");
  const polled = usePoll(`sandbox/${agentId}/${roots[0] ?? ""}/${directory}`, (signal) => listing(agentId, roots, directory, signal), 5_000);
  const found = polled.data;
  const trail = directory === "" ? [] : directory.split("/");
  return (
    <Card title="Sandbox" testId="sandbox" count={found?.entries.length}>
      <nav class="trail" aria-label="Directory">
        <button type="button" class="link-button" onClick={() => setParams({ dir: "", file: "" })}>
          sandbox
        </button>
        {trail.map((part, index) => (
          <span key={index}>
            {" / "}
            <button type="button" class="link-button" onClick={() => setParams({ dir: trail.slice(0, index + 1).join("/"), file: "" })}>
              {part}
            </button>
          </span>
        ))}
      </nav>
      {polled.error !== null && (
        <Problem text={polled.error instanceof ApiError && polled.error.status === 404 ? "The agent has no such sandbox: it was removed, the agent is away, or the task never began." : messageOf(polled.error)} />
      )}
      {found !== null && (
        <table class="plain-table files" data-testid="files">
          <thead>
            <tr>
              <th>Name</th>
              <th class="number">Size</th>
              <th>Changed</th>
              <th>Mode</th>
              <th>Owner</th>
              <th />
            </tr>
          </thead>
          <tbody>
            {found.entries.slice(0, 2_000).map((entry) => (
              <Row key={entry.path} entry={entry} directory={directory} agentId={agentId} isOpen={joined(directory, entry.name) === file} />
            ))}
          </tbody>
        </table>
      )}
      {found !== null && found.entries.length > 2_000 && <p class="minor">{groupedInteger(found.entries.length - 2_000)} more are not listed.</p>}
      {found !== null && found.entries.length === 0 && <p class="quiet">Nothing is in here.</p>}
      {found !== null && file !== "" && <FileTail key={file} agentId={agentId} path={`${found.root}/${file}`} name={file} />}
    </Card>
  );
}

function Row({ entry, directory, agentId, isOpen }: { entry: FileEntry; directory: string; agentId: string; isOpen: boolean }) {
  const below = joined(directory, entry.name);
  return (
    <tr class={isOpen ? "is-open" : undefined}>
      <td>
        <button type="button" class="link-button" data-testid="file" data-name={entry.name} onClick={() => setParams(entry.isDirectory ? { dir: below, file: "" } : { file: isOpen ? "" : below })}>
          {entry.name}
          {entry.isDirectory && "/"}
        </button>
      </td>
      <td class="number">{entry.isDirectory ? "" : bytes(entry.size)}</td>
      <td>
        <When at={entry.changed} />
      </td>
      <td class="mono minor">{entry.mode}</td>
      <td class="minor">{entry.owner}</td>
      <td class="number">
        {!entry.isDirectory && (
          <a class="inner-link" href={downloadUrl(agentId, entry.path)} download={entry.name} title={`Download ${entry.name}`} aria-label={`Download ${entry.name}`}>
            <Icon name="down" size={14} />
          </a>
        )}
      </td>
    </tr>
  );
}

async function listing(agentId: string, roots: readonly string[], directory: string, signal: AbortSignal): Promise<{ root: string; entries: FileEntry[] }> {
  let last: unknown = null;
  for (const root of roots) {
    try {
      const entries = await browse(agentId, directory === "" ? root : `${root}/${directory}`, signal);
      entries.sort((a, b) => Number(b.isDirectory) - Number(a.isDirectory) || (a.name < b.name ? -1 : 1));
      return { root, entries };
    } catch (error) {
      last = error;
      if (!(error instanceof ApiError) || error.status !== 404) throw error;
    }
  }
  throw last;
}

/** Steps out of a directory lead nowhere, whoever wrote the link. */
function cleaned(path: string): string {
  return path
    .split("/")
    .filter((part) => part !== "" && part !== "." && part !== "..")
    .join("/");
}

function joined(directory: string, name: string): string {
  return directory === "" ? name : `${directory}/${name}`;
}

/** The end of a file, followed as it grows. */
function FileTail({ agentId, path, name }: { agentId: string; path: string; name: string }) {
  const buffer = useRef(new LineBuffer());
  const before = useRef("");
  const tail = useRef<Tail | null>(null);
  const [version, setVersion] = useState(0);
  const [isFollowing, setFollowing] = useState(true);
  const [term, setTerm] = useState("");
  const [problem, setProblem] = useState<string | null>(null);
  const box = useRef<HTMLDivElement>(null);
  const follow = useRef(isFollowing);
  follow.current = isFollowing;

  useEffect(() => {
    const abort = new AbortController();
    let timer: ReturnType<typeof setTimeout> | null = null;
    const step = async (): Promise<void> => {
      let delay = FOLLOW_MS;
      if (!document.hidden && (follow.current || tail.current === null)) {
        try {
          const size = (await read(agentId, path, -1, 0, abort.signal)).offset;
          const known = tail.current ?? begin(size);
          const todo = next(known, size);
          if (todo.kind === "restart") {
            buffer.current = new LineBuffer();
            before.current = "";
            tail.current = null;
            delay = 0;
          } else if (todo.kind === "read") {
            const readText = async (offset: number, length: number): Promise<string> => (await read(agentId, path, offset, length, abort.signal)).data;
            const piece = await whole(readText, todo.offset, todo.length);
            const shown = todo.offset > 0 && known.from === known.to ? withoutRest(piece.text) : { text: piece.text, bytes: 0 };
            buffer.current.append(shown.text);
            tail.current = { from: known.from + shown.bytes, to: todo.offset + piece.length, size };
            delay = piece.length > 0 && tail.current.to < size ? 0 : FOLLOW_MS;
          } else {
            tail.current = { ...known, size };
          }
          setProblem(null);
          setVersion((it) => it + 1);
        } catch (error) {
          if (abort.signal.aborted) return;
          setProblem(messageOf(error));
        }
      }
      if (!abort.signal.aborted) timer = setTimeout(() => void step(), delay);
    };
    void step();
    return () => {
      abort.abort();
      if (timer !== null) clearTimeout(timer);
    };
  }, [agentId, path]);

  useEffect(() => {
    if (isFollowing && box.current) box.current.scrollTop = box.current.scrollHeight;
  }, [version, isFollowing, term]);

  const more = async (): Promise<void> => {
    const known = tail.current;
    const piece = known === null ? null : earlier(known);
    if (known === null || piece === null) return;
    setFollowing(false);
    try {
      const { data } = await read(agentId, path, piece.offset, piece.length, AbortSignal.timeout(20_000));
      const shown = piece.offset > 0 ? withoutRest(data) : { text: data, bytes: 0 };
      const fresh = new LineBuffer();
      fresh.append(shown.text + buffer.current.lines.join("\n") + (buffer.current.lines.length > 0 ? "\n" : ""));
      buffer.current = fresh;
      tail.current = { ...known, from: piece.offset + shown.bytes };
      setVersion((it) => it + 1);
    } catch (error) {
      setProblem(messageOf(error));
    }
  };
  const found = matching(buffer.current.lines, term);
  const drawn = found.slice(-DRAWN_MAX);
  const known = tail.current;
  return (
    <div class="file-tail" data-testid="file-tail" data-name={name}>
      <div class="text-tools">
        <b class="mono">{name}</b>
        <label class="text-search">
          <Icon name="search" size={13} />
          <input type="search" placeholder="Search these lines" aria-label="Search these lines" value={term} onInput={(event) => setTerm(event.currentTarget.value)} />
        </label>
        <span class="minor" data-testid="file-count">
          {known !== null && `${bytes(known.to - known.from)} of ${bytes(known.size)}`}
          {term !== "" && `, ${groupedInteger(found.length)} lines match`}
          {buffer.current.dropped > 0 && `, ${groupedInteger(buffer.current.dropped)} older lines dropped`}
          {problem !== null && ` · ${problem}`}
        </span>
        <button type="button" class="control" disabled={known === null || known.from === 0} onClick={() => void more()}>
          Earlier
        </button>
        <button type="button" class="control" aria-pressed={isFollowing} data-testid="file-follow" onClick={() => setFollowing(!isFollowing)}>
          Follow
        </button>
        <button type="button" class="icon-button" aria-label="Close the file" onClick={() => setParams({ file: "" })}>
          <Icon name="close" size={14} />
        </button>
      </div>
      <div
        ref={box}
        class="text-lines"
        tabIndex={0}
        aria-label={name}
        onScroll={() => {
          const it = box.current;
          if (it && isFollowing && it.scrollHeight - it.scrollTop - it.clientHeight > 40) setFollowing(false);
        }}
      >
        {drawn.map(({ number, line }) => (
          <div key={number} class="text-line">
            {withoutEscapes(line) || " "}
          </div>
        ))}
        {known !== null && known.size === 0 && <p class="quiet">The file is empty.</p>}
      </div>
    </div>
  );
}
