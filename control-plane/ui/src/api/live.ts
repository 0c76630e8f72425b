import type { Delta } from "./types";

/** How the page stands to the server. */
export type ConnectionState = "connecting" | "live" | "reconnecting" | "offline";

export interface LiveHandlers {
  onDelta(delta: Delta): void;
  onState(state: ConnectionState, retryAt: number | null): void;
}

/** The server speaks at every tick even when nothing changed; silence for this long means that the connection is dead. */
export const SILENCE_LIMIT_MS = 10_000;
/** After so many failed attempts in a row the page calls itself offline. It keeps trying. */
const ATTEMPTS_UNTIL_OFFLINE = 3;

/** Milliseconds until attempt number `attempt` (from 1): doubling from half a second to fifteen, spread by `random` in 0..1. */
export function backoff(attempt: number, random: number): number {
  const ceiling = Math.min(15_000, 500 * 2 ** Math.min(attempt - 1, 10));
  return Math.round(ceiling * (0.7 + 0.3 * random));
}

/** A view's WebSocket that comes back by itself. Every new connection starts with a `reset`, so nothing has to be remembered here. */
export class LiveView {
  private socket: WebSocket | null = null;
  private retry: ReturnType<typeof setTimeout> | null = null;
  private silence: ReturnType<typeof setTimeout> | null = null;
  private attempt = 0;
  private closed = false;
  private readonly wake = (): void => this.retryNow();

  /** `address` is asked for each connection: a moment of the past has moved on since the one before. */
  constructor(
    private readonly address: () => string,
    private readonly handlers: LiveHandlers,
  ) {
    window.addEventListener("online", this.wake);
    this.connect();
  }

  close(): void {
    this.closed = true;
    window.removeEventListener("online", this.wake);
    this.drop();
  }

  /** Skips the rest of a back-off. */
  retryNow(): void {
    if (this.closed || this.retry === null) return;
    this.connect();
  }

  private drop(): void {
    if (this.retry !== null) clearTimeout(this.retry);
    if (this.silence !== null) clearTimeout(this.silence);
    this.retry = null;
    this.silence = null;
    const socket = this.socket;
    this.socket = null;
    if (socket) {
      socket.onopen = socket.onmessage = socket.onclose = socket.onerror = null;
      socket.close();
    }
  }

  private connect(): void {
    this.drop();
    this.handlers.onState(this.attempt === 0 ? "connecting" : this.stateWhileDown(), null);
    const socket = new WebSocket(this.address());
    this.socket = socket;
    this.watchForSilence();
    socket.onmessage = (event) => {
      this.watchForSilence();
      let delta: Delta;
      try {
        delta = JSON.parse(String(event.data)) as Delta;
      } catch {
        return;
      }
      // Only a message proves a healthy view: the upgrade succeeds even for a view that does not exist.
      this.attempt = 0;
      this.handlers.onDelta(delta);
      this.handlers.onState("live", null);
    };
    socket.onclose = () => this.scheduleRetry();
    socket.onerror = () => socket.close();
  }

  private watchForSilence(): void {
    if (this.silence !== null) clearTimeout(this.silence);
    this.silence = setTimeout(() => this.scheduleRetry(), SILENCE_LIMIT_MS);
  }

  private scheduleRetry(): void {
    if (this.closed) return;
    this.drop();
    this.attempt += 1;
    const delay = backoff(this.attempt, Math.random());
    this.handlers.onState(this.stateWhileDown(), Date.now() + delay);
    this.retry = setTimeout(() => this.connect(), delay);
  }

  private stateWhileDown(): ConnectionState {
    return this.attempt > ATTEMPTS_UNTIL_OFFLINE ? "offline" : "reconnecting";
  }
}
