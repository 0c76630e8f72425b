import { isPipeClosed, pageDirectory, pipeUrl } from "./client";

/** First and longest wait before a lost connection is made again. */
const RETRY_MS = [300, 5_000] as const;

export interface PipeListener {
  onBytes(bytes: Uint8Array): void;
  /** `ended`: nothing more will come, and coming back is no use. */
  onState(state: "open" | "lost" | "ended"): void;
}

/** One end of a pipe, kept connected until the pipe has ended. */
export class PipeConnection {
  private socket: WebSocket | null = null;
  private wait: number = RETRY_MS[0];
  private timer: ReturnType<typeof setTimeout> | null = null;
  private isOver = false;

  constructor(
    private readonly pipe: string,
    private readonly listener: PipeListener,
  ) {
    this.connect();
  }

  send(bytes: string): void {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(new TextEncoder().encode(bytes));
  }

  stop(): void {
    this.isOver = true;
    if (this.timer !== null) clearTimeout(this.timer);
    this.socket?.close();
  }

  private connect(): void {
    const socket = new WebSocket(pipeUrl(pageDirectory(window.location.href), this.pipe));
    socket.binaryType = "arraybuffer";
    this.socket = socket;
    socket.onopen = () => {
      this.wait = RETRY_MS[0];
      this.listener.onState("open");
    };
    socket.onmessage = (event: MessageEvent<ArrayBuffer>) => this.listener.onBytes(new Uint8Array(event.data));
    socket.onclose = () => void this.lost();
  }

  private async lost(): Promise<void> {
    if (this.isOver) return;
    let isClosed = false;
    try {
      isClosed = await isPipeClosed(this.pipe);
    } catch {
      // The control plane is away; it may come back.
    }
    if (this.isOver) return;
    if (isClosed) {
      this.isOver = true;
      this.listener.onState("ended");
      return;
    }
    this.listener.onState("lost");
    this.timer = setTimeout(() => this.connect(), this.wait);
    this.wait = Math.min(this.wait * 2, RETRY_MS[1]);
  }
}
