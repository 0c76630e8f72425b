import { useState } from "preact/hooks";
import { messageOf } from "../../api/http";
import { fetchVerification, verify } from "../../api/zksync";
import { bytes, groupedInteger } from "../../model/format";
import { SIDES, type Verification } from "../../model/sync";
import { searchable } from "../../model/filter";
import { refresh, usePoll } from "../../state/poll";
import { place, say } from "../../state/shell";
import { DataTable } from "../common/DataTable";
import { Button, Card, Facts, Problem, State, When } from "../common/pieces";
import { milliseconds } from "./LagChart";

/** The newest comparison of both sides, and a new one on demand. */
export function Verifications({ id }: { id: string }) {
  const polled = usePoll(`zk/verification/${id}`, (signal) => fetchVerification(id, signal), 5_000);
  const [isBusy, setBusy] = useState(false);
  const run = async (): Promise<void> => {
    setBusy(true);
    try {
      const found = await verify(id);
      say(found?.equal ? "Both sides are equal." : `${groupedInteger(found?.differing ?? 0)} znodes differ.`, found !== null && !found.equal);
      refresh("zk/");
    } catch (error) {
      say(messageOf(error), true);
    } finally {
      setBusy(false);
    }
  };
  return (
    <>
      <div class="control-row">
        <Button icon="check" testId="verify" isDisabled={isBusy} onClick={() => void run()}>
          {isBusy ? "Comparing…" : "Compare both sides now"}
        </Button>
      </div>
      {polled.data !== null && <VerificationView found={polled.data} />}
      {polled.data === null && polled.error !== null && <Problem text={messageOf(polled.error)} />}
      {polled.data === null && polled.at !== null && <p class="quiet">They were not compared yet.</p>}
    </>
  );
}

export function VerificationView({ found }: { found: Verification }) {
  return (
    <>
      <Card title="Comparison" testId="verification">
        <p>
          <State kind={found.equal ? "good" : "bad"} testId="verification-state">
            {found.equal ? "equal" : `${groupedInteger(found.differing)} znodes differ`}
          </State>{" "}
          <span class="minor">
            <When at={found.at} />, in {milliseconds(found.tookMs)}
            {found.strict && ", with both sides standing still"}
          </span>
        </p>
        <Facts
          rows={[
            ...SIDES.map((side) => [`${side.toUpperCase()}`, `${groupedInteger(found.nodes[side])} znodes, ${bytes(found.bytes[side])}, tree ${found.root[side].slice(0, 16)}`] as const),
            ["Not compared", found.excluded.map(([reason, count]) => `${groupedInteger(count)} ${reason.replaceAll("_", " ")}`).join(", ")],
            ["Sequence counters that differ", found.counters.length === 0 ? null : found.counters.slice(0, 20).map((it) => `${it.path}: ${it.a} and ${it.b}`).join("; ")],
          ]}
        />
      </Card>
      {found.differences.length > 0 && (
        <Card title="What differs" count={found.differing}>
          <div class="table-box" style={{ height: `${Math.min(560, (found.differences.length + 2) * 38 + 30)}px` }}>
            <DataTable
              label="Differences"
              testId="differences"
              columns={[
                { key: "path", label: "Znode", width: "minmax(200px, 3fr)", sort: (it) => it.path, render: (it) => <span class="mono">{it.path}</span> },
                { key: "what", label: "How", width: "minmax(100px, 1fr)", sort: (it) => it.what, render: (it) => it.what.replaceAll("_", " ") },
              ]}
              rows={found.differences}
              keyOf={(it) => `${it.path} ${it.what}`}
              search={(it) => searchable({ path: it.path, how: it.what })}
              filter={place.value.params["q"] ?? ""}
              initial={{ key: "path", isDescending: false }}
              empty="None."
            />
          </div>
        </Card>
      )}
    </>
  );
}
