import { useEffect, useRef, useState } from "preact/hooks";
import { close, front, windows, type PipeWindow } from "../state/windows";
import { Icon } from "./icons";
import { TerminalWindow } from "./TerminalWindow";
import { TextWindow } from "./TextWindow";

const HEIGHT = { least: 120, first: 320 } as const;

/** Terminals and logs at the bottom of the page, one tab each. All of them stay connected; one is in front. */
export function Windows() {
  const [height, setHeight] = useState<number>(HEIGHT.first);
  const drag = useRef<{ y: number; height: number } | null>(null);
  useEffect(() => {
    const move = (event: PointerEvent): void => {
      if (!drag.current) return;
      const wanted = drag.current.height + drag.current.y - event.clientY;
      setHeight(Math.max(HEIGHT.least, Math.min(wanted, window.innerHeight - 120)));
    };
    const drop = (): void => {
      drag.current = null;
    };
    window.addEventListener("pointermove", move);
    window.addEventListener("pointerup", drop);
    return () => {
      window.removeEventListener("pointermove", move);
      window.removeEventListener("pointerup", drop);
    };
  }, []);
  if (windows.value.length === 0) return null;
  return (
    <section class="windows" style={{ height: `${height}px` }} aria-label="Terminals and logs" data-testid="windows" data-terminal>
      <div
        class="windows-grip"
        role="separator"
        aria-orientation="horizontal"
        aria-label="Height of the terminals"
        onPointerDown={(event) => {
          drag.current = { y: event.clientY, height };
          event.preventDefault();
        }}
      />
      <ul class="windows-tabs" aria-label="Open windows">
        {windows.value.map((open) => (
          <li key={open.pipe} class={front.value === open.pipe ? "window-tab is-front" : "window-tab"}>
            <button type="button" aria-current={front.value === open.pipe ? "true" : undefined} title={open.title} onClick={() => (front.value = open.pipe)}>
              <Icon name={open.kind === "terminal" ? "terminal" : "text"} size={13} /> {open.title}
            </button>
            <button type="button" class="icon-button" aria-label={`Close ${open.title}`} data-testid="window-close" onClick={() => close(open.pipe)}>
              <Icon name="close" size={13} />
            </button>
          </li>
        ))}
      </ul>
      {windows.value.map((open) => (
        <div key={open.pipe} class="window" hidden={front.value !== open.pipe} role="group" aria-label={open.title} data-testid={`window-${open.kind}`} data-pipe={open.pipe}>
          <Body open={open} />
        </div>
      ))}
    </section>
  );
}

function Body({ open }: { open: PipeWindow }) {
  return open.kind === "terminal" ? <TerminalWindow open={open} /> : <TextWindow open={open} />;
}
