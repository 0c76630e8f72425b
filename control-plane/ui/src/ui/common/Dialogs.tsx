import { useEffect, useRef, useState } from "preact/hooks";
import { messageOf } from "../../api/http";
import { notice, question, say, type Question } from "../../state/shell";
import { Icon } from "../icons";

/** The question that is open, and what was said in passing. */
export function Dialogs() {
  const open = question.value;
  const said = notice.value;
  return (
    <>
      {open !== null && <Asked key={open.title} question={open} />}
      {said !== null && (
        <div class={said.isBad ? "notice is-bad" : "notice"} role="status" data-testid="notice">
          <Icon name={said.isBad ? "warning" : "check"} size={15} /> {said.text}
          <button type="button" class="icon-button" aria-label="Dismiss" onClick={() => (notice.value = null)}>
            <Icon name="close" size={12} />
          </button>
        </div>
      )}
    </>
  );
}

function Asked({ question: it }: { question: Question }) {
  const dialog = useRef<HTMLDialogElement>(null);
  const [values, setValues] = useState<Record<string, string>>(Object.fromEntries((it.fields ?? []).map((field) => [field.name, field.value])));
  const [typed, setTyped] = useState("");
  const [isBusy, setBusy] = useState(false);
  const [failure, setFailure] = useState<string | null>(null);
  useEffect(() => dialog.current?.showModal(), []);
  const close = (): void => {
    if (question.peek() === it) question.value = null;
  };
  const isReady = !isBusy && (it.typed === undefined || typed === it.typed);
  const act = async (): Promise<void> => {
    if (!isReady) return;
    setBusy(true);
    setFailure(null);
    try {
      const words = await it.run(values);
      close();
      if (words) say(words);
    } catch (error) {
      setFailure(messageOf(error));
      setBusy(false);
    }
  };
  return (
    <dialog ref={dialog} class="confirm" aria-labelledby="ask-title" data-testid="ask" onCancel={close} onClose={close}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          void act();
        }}
      >
        <h2 id="ask-title">{it.title}</h2>
        {it.text !== "" && <p>{it.text}</p>}
        {(it.fields ?? []).map((field) => (
          <label key={field.name} class={field.kind === "checkbox" ? "ask-field is-check" : "ask-field"}>
            <span>{field.label}</span>
            <input
              type={field.kind === "datetime" ? "datetime-local" : field.kind}
              data-testid={`ask-${field.name}`}
              checked={field.kind === "checkbox" ? values[field.name] === "true" : undefined}
              value={field.kind === "checkbox" ? undefined : values[field.name]}
              step={field.kind === "number" ? "any" : undefined}
              onInput={(event) => {
                const input = event.currentTarget;
                setValues((before) => ({ ...before, [field.name]: field.kind === "checkbox" ? String(input.checked) : input.value }));
              }}
            />
            {field.hint && <span class="minor">{field.hint}</span>}
          </label>
        ))}
        {it.typed !== undefined && (
          <label class="ask-field">
            <span>
              Type <code>{it.typed}</code> to go on
            </span>
            <input type="text" data-testid="ask-typed" autocomplete="off" spellcheck={false} value={typed} onInput={(event) => setTyped(event.currentTarget.value)} />
          </label>
        )}
        {failure !== null && (
          <div class="gone" role="alert" data-testid="ask-failure">
            <Icon name="warning" size={15} /> {failure}
          </div>
        )}
        <div class="confirm-row">
          <button type="button" class="control" data-testid="ask-no" onClick={close}>
            Cancel
          </button>
          <button type="submit" class={it.isGrave ? "control is-grave is-filled" : "control is-main"} data-testid="ask-yes" disabled={!isReady} aria-busy={isBusy}>
            {it.action}
          </button>
        </div>
      </form>
    </dialog>
  );
}
