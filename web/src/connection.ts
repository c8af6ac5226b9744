// The WebSocket: says hello, has each question answered in turn, and connects again when the connection ends.
import { decode, encode, type Frame } from "./frames";

export type Link = "connecting" | "connected" | "lost" | "ended";

/** The gateway says goodbye, or refuses; or this device can't take part. */
export type Why = "bye" | "refused" | "failed";

export interface Handlers {
  /** What to say in hello beside the version. */
  hello: Record<string, unknown>;
  link(state: Link): void;
  traffic(up: number, down: number): void;
  /** A frame's answer, or null if it has none. */
  answer(frame: Frame): Promise<Frame | null>;
  /** There is no use in connecting again. */
  ended(why: Why, reason: string): void;
}

const LONGEST_WAIT = 10_000;

export class Connection {
  private socket: WebSocket | null = null;
  private turn: Promise<void> = Promise.resolve();
  private wait = 500;
  private timer = 0;
  private over = false;

  constructor(
    private readonly url: string,
    private readonly handlers: Handlers,
  ) {}

  connect(): void {
    this.handlers.link("connecting");
    const socket = new WebSocket(this.url);
    socket.binaryType = "arraybuffer";
    this.socket = socket;
    socket.onopen = () => this.send({ header: { kind: "hello", version: 1, ...this.handlers.hello }, tensors: {} }, socket);
    socket.onmessage = ({ data }) => this.received(new Uint8Array(data as ArrayBuffer), socket);
    socket.onclose = () => this.lost(socket);
  }

  /** At once: what is being computed is not sent. */
  leave(): void {
    const { socket } = this;
    this.end();
    if (socket?.readyState === WebSocket.OPEN) socket.send(encode({ kind: "bye", reason: "left" }));
    socket?.close();
  }

  /** Where a person comes back to the page: without waiting for the next try. */
  hurry(): void {
    if (this.over || !this.timer) return;
    window.clearTimeout(this.timer);
    this.timer = 0;
    this.connect();
  }

  private end(): void {
    this.over = true;
    this.socket = null;
    window.clearTimeout(this.timer);
    this.handlers.link("ended");
  }

  private send(frame: Frame, socket: WebSocket): void {
    if (this.socket !== socket || socket.readyState !== WebSocket.OPEN) return;
    const bytes = encode(frame.header, frame.tensors);
    socket.send(bytes);
    this.handlers.traffic(bytes.length, 0);
  }

  private received(bytes: Uint8Array, socket: WebSocket): void {
    this.handlers.traffic(0, bytes.length);
    this.turn = this.turn.then(() => this.handle(bytes, socket)).catch((error: Error) => this.stop("failed", error.message));
  }

  private async handle(bytes: Uint8Array, socket: WebSocket): Promise<void> {
    if (this.socket !== socket) return; // of a connection that is over
    const frame = decode(bytes);
    const { kind, reason } = frame.header;
    if (kind === "bye" || kind === "refused") return this.stop(kind, String(reason ?? ""));
    if (kind === "welcome") {
      this.wait = 500;
      this.handlers.link("connected");
    }
    const answer = await this.handlers.answer(frame);
    if (answer) this.send(answer, socket);
  }

  private stop(why: Why, reason: string): void {
    if (this.over) return;
    const { socket } = this;
    this.end();
    socket?.close();
    this.handlers.ended(why, reason);
  }

  private lost(socket: WebSocket): void {
    if (this.over || this.socket !== socket) return;
    this.handlers.link("lost");
    // Not all devices of a run at the same moment.
    this.timer = window.setTimeout(() => this.hurry(), this.wait * (0.75 + Math.random() / 2));
    this.wait = Math.min(2 * this.wait, LONGEST_WAIT);
  }
}
