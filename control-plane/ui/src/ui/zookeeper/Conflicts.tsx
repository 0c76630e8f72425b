import { useEffect, useState } from "preact/hooks";
import { ApiError, messageOf } from "../../api/http";
import { fetchConflicts, fetchThreeWay, resolve } from "../../api/zksync";
import { diffLines } from "../../model/diff";
import { bytes, groupedInteger } from "../../model/format";
import { changeOf, threeWayOf, type Conflict, type SideName, type SyncLink, type ThreeWay } from "../../model/sync";
import { refresh, usePoll } from "../../state/poll";
import { place, say, setParams } from "../../state/shell";
import { Await, Button, Card, Problem, State, When } from "../common/pieces";

/** The conflicts that wait for a person, and both sides of the one that was chosen. */
export function Conflicts({ link }: { link: SyncLink }) {
  const prefix = place.value.params["q"] ?? "";
  const polled = usePoll(`zk/conflicts/${link.id}/${prefix}`, (signal) => fetchConflicts(link.id, prefix, signal), 2_000);
  const chosen = Number(place.value.params["conflict"] ?? "-1");
  if (link.status === null) return <p class="quiet">Only the control plane that leads the link knows them.</p>;
  return (
    <Await polled={polled} what="list of conflicts">
      {({ conflicts, total }) => {
        const at = conflicts.findIndex((it) => it.id === chosen);
        const following = conflicts[at + 1] ?? conflicts[at - 1];
        return (
          <div class="columns is-narrow-first">
            <Card title="Waiting" count={total}>
              {conflicts.length === 0 && (
                <p class="quiet" data-testid="no-conflicts">
                  {prefix === "" ? (link.strategy === "manual" ? "Nothing is in dispute." : "Nothing waits: conflicts of this link are decided by themselves.") : `None is below ${prefix}.`}
                </p>
              )}
              <ul class="pick-list" data-testid="conflicts">
                {conflicts.map((it) => (
                  <li key={it.id}>
                    <button type="button" data-testid="conflict" data-path={it.path} aria-pressed={it.id === chosen} onClick={() => setParams({ conflict: String(it.id) })}>
                      <span class="mono">{it.path}</span>
                      <span class="minor">
                        {it.kind.replaceAll("_", " ")} · <When at={it.firstSeen} />
                      </span>
                    </button>
                  </li>
                ))}
              </ul>
              {total > conflicts.length && <p class="minor">{groupedInteger(total - conflicts.length)} more; the filter above takes the beginning of a path.</p>}
            </Card>
            {at < 0 ? <p class="quiet">{conflicts.length > 0 && "Choose one to see both sides."}</p> : <Dispute key={chosen} link={link} conflict={conflicts[at] as Conflict} onDone={() => setParams({ conflict: following === undefined ? "" : String(following.id) })} />}
          </div>
        );
      }}
    </Await>
  );
}

const CHANGES = { same: "as both had it", changed: "changed", deleted: "deleted", absent: "absent", new: "new", unknown: "perhaps changed" } as const;

function Dispute({ link, conflict, onDone }: { link: SyncLink; conflict: Conflict; onDone(): void }) {
  const [three, setThree] = useState<ThreeWay | null>(null);
  const [problem, setProblem] = useState<string | null>(null);
  const [custom, setCustom] = useState<string | null>(null);
  const [isBusy, setBusy] = useState(false);
  useEffect(() => {
    const abort = new AbortController();
    fetchThreeWay(link.id, conflict.id, abort.signal).then(setThree, (error: unknown) => {
      if (!abort.signal.aborted) setProblem(messageOf(error));
    });
    return () => abort.abort();
  }, [link.id, conflict.id, conflict.lastChange]);
  if (three === null) return problem === null ? <p class="quiet">Both sides are asked…</p> : <Problem text={problem} />;
  const decide = async (choice: "a" | "b" | "base" | "delete" | "custom"): Promise<void> => {
    setBusy(true);
    setProblem(null);
    try {
      await resolve(link.id, three, choice, choice === "custom" ? (custom ?? "") : undefined);
      say(`${conflict.path} is decided.`);
      refresh("zk/");
      onDone();
    } catch (error) {
      if (error instanceof ApiError && error.status === 409 && typeof error.body === "object") {
        setThree(threeWayOf(error.body));
        setProblem("It has changed since you looked: this is what it is now.");
      } else setProblem(messageOf(error));
    } finally {
      setBusy(false);
    }
  };
  const lines = three.a?.text != null && three.b?.text != null ? diffLines(three.a.text, three.b.text) : null;
  return (
    <Card title={conflict.path} testId="three-way">
      {problem !== null && <Problem text={problem} />}
      <div class="three-way">
        <div class="three-way-side">
          <h3>Base</h3>
          <p class="minor">what both last agreed on</p>
          {three.base === null && three.baseHash === null ? (
            <p class="quiet">Nothing: it was made on both sides.</p>
          ) : (
            <>
              {three.base !== null && (
                <p>
                  version {three.base.a.version} on A, {three.base.b.version} on B
                </p>
              )}
              {three.baseHash !== null && <p class="mono minor">{three.baseHash.slice(0, 24)}…</p>}
              {three.baseText !== null ? (
                <pre class="code" tabIndex={0} data-testid="base-text">
                  {three.baseText.slice(0, 20_000) || "(empty)"}
                </pre>
              ) : (
                <p class="quiet">{three.isBaseKept ? "Its data are no text." : "Of the base its hash is kept, not its data."}</p>
              )}
            </>
          )}
        </div>
        {(["a", "b"] as const).map((side) => (
          <SideView key={side} side={side} three={three} />
        ))}
      </div>
      {lines !== null && lines.length > 1 && (
        <details class="hooks" open>
          <summary>From A to B</summary>
          <pre class="code diff">
            {lines.map((line, index) => (
              <span key={index} class={`diff-line is-${line.kind}`}>
                {line.kind === "added" ? "+ " : line.kind === "removed" ? "− " : "  "}
                {line.text}
                {"\n"}
              </span>
            ))}
          </pre>
        </details>
      )}
      <div class="control-row">
        {(["a", "b"] as const).map((side) => (
          <Button key={side} icon="check" testId={`resolve-${side}`} isDisabled={isBusy} onClick={() => void decide(side)}>
            {three[side] === null ? `Delete it, as ${side.toUpperCase()} did` : `Take ${side.toUpperCase()}'s`}
          </Button>
        ))}
        {three.isBaseKept && three.base !== null && (
          <Button icon="check" testId="resolve-base" isDisabled={isBusy} onClick={() => void decide("base")}>
            Take the base
          </Button>
        )}
        <Button icon="text" testId="resolve-edit" isDisabled={isBusy} onClick={() => setCustom(custom === null ? (three.a?.text ?? three.b?.text ?? "") : null)}>
          Write something else
        </Button>
        {three.a !== null && three.b !== null && (
          <Button icon="trash" isGrave testId="resolve-delete" isDisabled={isBusy} onClick={() => void decide("delete")}>
            Delete both
          </Button>
        )}
      </div>
      {custom !== null && (
        <div class="custom-value">
          <textarea class="editor-text is-small" aria-label="Data for both sides" data-testid="resolve-data" spellcheck={false} value={custom} onInput={(event) => setCustom(event.currentTarget.value)} />
          <Button icon="check" testId="resolve-custom" isDisabled={isBusy} onClick={() => void decide("custom")}>
            Give this to both sides
          </Button>
        </div>
      )}
    </Card>
  );
}

function SideView({ side, three }: { side: SideName; three: ThreeWay }) {
  const value = three[side];
  const change = changeOf(three, side);
  return (
    <div class="three-way-side" data-testid={`side-${side}`}>
      <h3>
        {side.toUpperCase()} <State kind={change === "same" ? "idle" : change === "deleted" || change === "absent" ? "bad" : "warn"}>{CHANGES[change]}</State>
      </h3>
      {value === null ? (
        <p class="quiet">It is not there.</p>
      ) : (
        <>
          <p class="minor">
            version {value.version} · {bytes(value.size)} · <When at={value.mtime} />
          </p>
          <pre class="code" tabIndex={0}>
            {value.text === null ? `${bytes(value.size)} that are no text, hash ${value.hash.slice(0, 16)}…` : value.text.slice(0, 20_000) || "(empty)"}
          </pre>
          {value.acl.length > 0 && <p class="minor">{value.acl.join(", ")}</p>}
        </>
      )}
    </div>
  );
}
