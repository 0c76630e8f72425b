import { useEffect, useRef, useState } from "preact/hooks";
import type { Control } from "../api/types";
import { inOrder } from "../model/controls";
import { failure, keyOf, run, running } from "../state/windows";
import { Icon, type UiIcon } from "./icons";

/** Scope's names of pictures, in ours. */
const ICONS: readonly (readonly [string, UiIcon])[] = [
  ["desktop", "screen"],
  ["terminal", "terminal"],
  ["play", "play"],
  ["redo", "restart"],
  ["pause", "pause"],
  ["stop", "stop"],
  ["trash", "trash"],
  ["file-text", "text"],
  ["bolt", "bolt"],
  ["toggle", "toggle"],
  ["plus", "plus"],
  ["minus", "minus"],
];

function iconOf(control: Control): UiIcon {
  return ICONS.find(([name]) => control.icon.includes(name))?.[1] ?? "check";
}

/** What can be done with a node. */
export function Controls({ controls, label }: { controls: readonly Control[]; label: string }) {
  const [asked, setAsked] = useState<Control | null>(null);
  const ordered = inOrder(controls);
  const nodes = new Set(controls.map((control) => control.nodeId));
  const failed = failure.value !== null && nodes.has(failure.value.nodeId) ? failure.value.text : null;
  const press = (control: Control): void => {
    if (control.confirmation) setAsked(control);
    else void run(control, label);
  };
  if (ordered.length === 0) return null;
  return (
    <div class="controls">
      <div class="control-row" role="toolbar" aria-label="Controls" data-testid="controls">
        {ordered.map((control) => (
          <button
            key={`${control.probeId} ${keyOf(control)}`}
            type="button"
            class={control.confirmation ? "control is-grave" : "control"}
            data-testid={`control-${control.id}`}
            disabled={running.value.has(keyOf(control))}
            aria-busy={running.value.has(keyOf(control))}
            onClick={() => press(control)}
          >
            <Icon name={iconOf(control)} size={14} /> {control.human}
          </button>
        ))}
      </div>
      {failed !== null && (
        <div class="gone" role="alert" data-testid="control-failure">
          <Icon name="warning" size={15} /> {failed}
        </div>
      )}
      {asked && (
        <Confirm
          control={asked}
          label={label}
          onAnswer={(isSure) => {
            setAsked(null);
            if (isSure) void run(asked, label);
          }}
        />
      )}
    </div>
  );
}

function Confirm({ control, label, onAnswer }: { control: Control; label: string; onAnswer(isSure: boolean): void }) {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => dialog.current?.showModal(), []);
  return (
    <dialog ref={dialog} class="confirm" aria-labelledby="confirm-title" data-testid="confirm" onCancel={() => onAnswer(false)}>
      <h2 id="confirm-title">
        {control.human} {label}
      </h2>
      <p>{control.confirmation}</p>
      <div class="confirm-row">
        <button type="button" class="control" data-testid="confirm-no" onClick={() => onAnswer(false)}>
          Cancel
        </button>
        <button type="button" class="control is-grave is-filled" data-testid="confirm-yes" onClick={() => onAnswer(true)}>
          {control.human}
        </button>
      </div>
    </dialog>
  );
}
