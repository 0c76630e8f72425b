import { useEffect, useRef, useState } from "preact/hooks";
import { runControl } from "../api/client";
import { PipeConnection } from "../api/pipe";
import { theme } from "../state/store";
import { front, type PipeWindow } from "../state/windows";

/** A size is told when it has stayed the same for so long. */
const RESIZE_MS = 150;

const COLORS = {
  dark: { background: "#0b111b", foreground: "#e8eef7", cursor: "#6aa8ff", selectionBackground: "#33435c" },
  light: { background: "#ffffff", foreground: "#142033", cursor: "#1d63dc", selectionBackground: "#c3cfdf" },
} as const;

/** A terminal. Its code is loaded when the first one is opened. */
export function TerminalWindow({ open }: { open: PipeWindow }) {
  const place = useRef<HTMLDivElement>(null);
  const [state, setState] = useState<"connecting" | "open" | "lost" | "ended">("connecting");
  const isFront = front.value === open.pipe;
  const focus = useRef<() => void>(() => undefined);
  useEffect(() => {
    if (isFront) focus.current();
  }, [isFront]);
  useEffect(() => {
    let isGone = false;
    let clear = (): void => undefined;
    void load().then(({ Terminal, FitAddon }) => {
      if (isGone || !place.current) return;
      const terminal = new Terminal({
        convertEol: !open.isRaw,
        cursorBlink: true,
        fontFamily: getComputedStyle(document.documentElement).getPropertyValue("--mono"),
        fontSize: 13,
        scrollback: 5_000,
        theme: COLORS[theme.value],
      });
      const fit = new FitAddon();
      terminal.loadAddon(fit);
      terminal.open(place.current);
      const connection = new PipeConnection(open.pipe, {
        onBytes: (bytes) => terminal.write(bytes),
        onState: (next) => {
          setState(next);
          if (next === "ended") terminal.write("\r\n\x1b[2m— it has ended —\x1b[0m\r\n");
        },
      });
      terminal.onData((text) => connection.send(text));
      terminal.onBinary((text) => connection.send(text));
      let timer: ReturnType<typeof setTimeout> | null = null;
      terminal.onResize(({ cols, rows }) => {
        if (open.resizeControl === null) return;
        if (timer !== null) clearTimeout(timer);
        const control = { probeId: open.control.probeId, nodeId: open.control.nodeId, id: open.resizeControl };
        const size = { pipeID: open.pipe, height: String(rows), width: String(cols) };
        // A size that cannot be told leaves the terminal as it was.
        timer = setTimeout(() => void runControl(control, size).catch(() => undefined), RESIZE_MS);
      });
      const refit = (): void => {
        if (place.current && place.current.offsetHeight > 0) fit.fit();
      };
      const observer = new ResizeObserver(refit);
      observer.observe(place.current);
      refit();
      focus.current = () => terminal.focus();
      terminal.focus();
      const element = place.current as HTMLDivElement & { terminalText?: () => string };
      // What tests read: the terminal may be drawn on a canvas.
      element.terminalText = () => {
        const buffer = terminal.buffer.active;
        return Array.from({ length: buffer.length }, (_, at) => buffer.getLine(at)?.translateToString(true) ?? "").join("\n");
      };
      clear = () => {
        observer.disconnect();
        if (timer !== null) clearTimeout(timer);
        connection.stop();
        terminal.dispose();
      };
    });
    return () => {
      isGone = true;
      clear();
    };
  }, [open.pipe]);
  return (
    <>
      {state === "lost" && <p class="window-state">The connection was lost; it is made again.</p>}
      <div ref={place} class="terminal-place" data-testid="terminal" data-state={state} />
    </>
  );
}

async function load() {
  const [{ Terminal }, { FitAddon }] = await Promise.all([import("@xterm/xterm"), import("@xterm/addon-fit"), import("@xterm/xterm/css/xterm.css")]);
  return { Terminal, FitAddon };
}
