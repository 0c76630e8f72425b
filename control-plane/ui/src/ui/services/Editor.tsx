import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { ApiError, messageOf, type FieldError } from "../../api/http";
import { fetchApp, fetchAutoscaling, kindOf, save, setAutoscaling } from "../../api/marathon";
import { lineOf, syntaxProblem } from "../../model/jsontext";
import { record, text } from "../../model/safe";
import { definitionOf, segments } from "../../model/services";
import { refresh } from "../../state/poll";
import { go, place, say } from "../../state/shell";
import { Button, Page, Problem } from "../common/pieces";

const EXAMPLES: Readonly<Record<string, unknown>> = {
  app: { id: "/my-app", cmd: "sleep 1000", cpus: 0.1, mem: 64, instances: 1 },
  docker: {
    id: "/my-app",
    cpus: 0.2,
    mem: 128,
    instances: 2,
    container: { type: "DOCKER", docker: { image: "nginx:alpine" }, portMappings: [{ containerPort: 80, hostPort: 0 }] },
    networks: [{ mode: "container/bridge" }],
    healthChecks: [{ protocol: "MESOS_HTTP", path: "/", portIndex: 0, gracePeriodSeconds: 30, intervalSeconds: 10 }],
  },
  pod: { id: "/my-pod", scaling: { kind: "fixed", instances: 1 }, containers: [{ name: "main", exec: { command: { shell: "sleep 1000" } }, resources: { cpus: 0.1, mem: 64 } }] },
  group: { id: "/my-group", apps: [{ id: "one", cmd: "sleep 1000", cpus: 0.1, mem: 64 }], groups: [] },
};

/** To begin with where there is no policy. */
const POLICY = { min: 1, max: 10, targets: [{ signal: "connectionsPerSecond", value: 50 }], scaleDown: { cooldownSeconds: 300 }, dryRun: true };

/** What is typed and not sent survives a look elsewhere, as long as the page is open. */
const drafts = new Map<string, string>();
const DRAFTS_MAX = 20;

/** Makes or changes an app, a pod, a group, or the policy by which an app is scaled. */
export function EditorPage({ id }: { id: string | null }) {
  const isPolicy = place.value.params["what"] === "autoscale";
  const group = place.value.params["group"] ?? "";
  const key = `${id ?? `new ${group}`} ${String(isPolicy)}`;
  const [source, setSource] = useState<string | null>(drafts.get(key) ?? null);
  const [problem, setProblem] = useState<string | null>(null);
  const [fields, setFields] = useState<readonly FieldError[]>([]);
  const [locks, setLocks] = useState<readonly string[]>([]);
  const [isBusy, setBusy] = useState(false);

  useEffect(() => {
    if (source !== null) return;
    if (id === null) {
      setSource(pretty({ ...record(EXAMPLES["app"]), id: `${group}/my-app` }));
      return;
    }
    const abort = new AbortController();
    const load = isPolicy ? fetchAutoscaling(id, abort.signal).then((it) => it?.policy ?? POLICY) : fetchApp(id, abort.signal).then(({ app }) => definitionOf(app.kind === "pod" ? record(app.raw["spec"]) : app.raw));
    load.then(
      (definition) => setSource(pretty(definition)),
      (error: unknown) => {
        if (!abort.signal.aborted) setProblem(messageOf(error));
      },
    );
    return () => abort.abort();
  }, [key]);

  const change = (value: string): void => {
    setSource(value);
    setFields([]);
    setLocks([]);
    setProblem(null);
    drafts.delete(key);
    drafts.set(key, value);
    for (const old of drafts.keys()) {
      if (drafts.size <= DRAFTS_MAX) break;
      drafts.delete(old);
    }
  };
  const broken = useMemo(() => (source === null ? null : syntaxProblem(source)), [source]);
  const send = async (isForced: boolean): Promise<void> => {
    if (source === null || broken !== null || isBusy) return;
    setBusy(true);
    setProblem(null);
    setFields([]);
    setLocks([]);
    try {
      const definition: unknown = JSON.parse(source);
      if (isPolicy && id !== null) await setAutoscaling(id, definition);
      else {
        const named = text(record(definition)["id"]);
        // A definition that bears another name would be something else.
        if (id !== null && named !== "" && named !== id && `/${named}` !== id) throw new Error(`The id cannot be changed: this is ${id}. To make another one, use “New”.`);
        await save(id === null ? definition : { ...record(definition), id }, id === null, isForced);
      }
      drafts.delete(key);
      refresh("apps/");
      const made = id ?? text(record(definition)["id"]);
      say(`${made} is ${id === null ? "being made" : "being changed"}.`);
      go("apps", [kindOf(record(definition)) === "groups" ? "group" : "app", ...segments(made)]);
    } catch (error) {
      if (error instanceof ApiError) {
        setFields(error.fields);
        setLocks(error.deployments);
      }
      setProblem(messageOf(error));
    } finally {
      setBusy(false);
    }
  };
  const marks = useMemo(() => {
    const found = new Map<number, string>();
    if (source === null) return found;
    if (broken !== null) found.set(broken.line, broken.message);
    for (const field of fields) {
      const line = lineOf(source, field.path);
      if (line > 0) found.set(line, [found.get(line), `${field.path}: ${field.errors.join("; ")}`].filter((part) => part !== undefined).join("\n"));
    }
    return found;
  }, [source, broken, fields]);
  return (
    <Page
      title={id === null ? "New" : isPolicy ? `Autoscaling of ${id}` : id}
      trail={[{ label: "Services", to: ["apps"] }]}
      isFull
      actions={
        <>
          {id === null && (
            <div class="segments" role="group" aria-label="Begin with">
              {Object.keys(EXAMPLES).map((name) => (
                <button key={name} type="button" onClick={() => change(pretty({ ...record(EXAMPLES[name]), id: `${group}${text(record(EXAMPLES[name])["id"])}` }))}>
                  {name}
                </button>
              ))}
            </div>
          )}
          <Button onClick={() => source !== null && broken === null && change(pretty(JSON.parse(source)))} isDisabled={broken !== null}>
            Tidy up
          </Button>
          <Button
            onClick={() => {
              drafts.delete(key);
              window.history.back();
            }}
          >
            Cancel
          </Button>
          <button type="button" class="control is-main" data-testid="editor-save" disabled={source === null || broken !== null || isBusy} aria-busy={isBusy} onClick={() => void send(false)}>
            {id === null ? "Create" : "Save and deploy"}
          </button>
        </>
      }
    >
      {problem !== null && (
        <Problem text={problem}>
          {locks.length > 0 && (
            <Button isGrave testId="editor-force" onClick={() => void send(true)}>
              Stop that deployment and go on
            </Button>
          )}
        </Problem>
      )}
      {fields.length > 0 && (
        <ul class="field-errors" data-testid="field-errors">
          {fields.map((field) => (
            <li key={field.path}>
              <code>{field.path || "/"}</code> {field.errors.join("; ")}
              {source !== null && lineOf(source, field.path) > 0 && <span class="minor"> line {lineOf(source, field.path)}</span>}
            </li>
          ))}
        </ul>
      )}
      {source !== null && <JsonEditor source={source} marks={marks} onChange={change} onSave={() => void send(false)} />}
    </Page>
  );
}

function pretty(value: unknown): string {
  return JSON.stringify(value, null, 2);
}

const LINE_PX = 19;

/** A text field with line numbers, of which some bear a complaint. */
function JsonEditor({ source, marks, onChange, onSave }: { source: string; marks: ReadonlyMap<number, string>; onChange(value: string): void; onSave(): void }) {
  const gutter = useRef<HTMLDivElement>(null);
  const area = useRef<HTMLTextAreaElement>(null);
  const count = source.split("\n").length;
  const first = [...marks.keys()].sort((a, b) => a - b)[0];
  const scroll = (): void => {
    if (gutter.current && area.current) gutter.current.scrollTop = area.current.scrollTop;
  };
  const onKey = (event: KeyboardEvent): void => {
    if (event.key === "s" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      onSave();
    }
  };
  return (
    <div class="editor">
      <div class="editor-gutter" ref={gutter} aria-hidden="true">
        {Array.from({ length: Math.min(count, 5_000) }, (_, index) => (
          <div key={index} class={marks.has(index + 1) ? "is-wrong" : undefined} style={{ height: `${LINE_PX}px` }} title={marks.get(index + 1)}>
            {index + 1}
          </div>
        ))}
      </div>
      <textarea
        ref={area}
        class="editor-text"
        data-testid="editor"
        aria-label="Definition as JSON"
        aria-invalid={marks.size > 0}
        aria-describedby="editor-words"
        spellcheck={false}
        autocapitalize="off"
        value={source}
        wrap="off"
        onScroll={scroll}
        onInput={(event) => onChange(event.currentTarget.value)}
        onKeyDown={onKey}
      />
      <p id="editor-words" class={first === undefined ? "editor-words" : "editor-words is-wrong"} data-testid="editor-words" role="status">
        {first === undefined ? "Ctrl+S sends it." : `Line ${first}: ${marks.get(first) ?? ""}`}
      </p>
    </div>
  );
}
