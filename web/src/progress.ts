// The large display: what the phone is doing, its own figures, and what crossed the network.
import { Chart } from "./chart";
import type { Link } from "./connection";
import { byId, say, show } from "./dom";
import type { Header } from "./frames";
import type { Figures } from "./phone";

const UNITS = ["bytes", "KB", "MB", "GB"];
const RECENT = 20;

export function readable(bytes: number): string {
  const power = Math.min(UNITS.length - 1, Math.floor(Math.log10(Math.max(1, bytes)) / 3));
  const value = bytes / 1000 ** power;
  return `${power === 0 ? value : value.toPrecision(3)} ${UNITS[power]}`;
}

export class Progress {
  private phone: number | null = null;
  private link: Link = "connecting";
  private state = "waiting";
  private round = 0;
  private rounds = 0;
  private step: number | null = null;
  private sent = 0;
  private received = 0;
  private steps = 0;
  private readonly recent: Figures[] = [];
  private readonly loss = new Chart(byId("loss-chart"), "Loss", null);
  private readonly accuracy = new Chart(byId("accuracy-chart"), "Accuracy", 1);

  linked(link: Link): void {
    this.link = link;
    this.draw();
  }

  joined(phone: number, rounds: number, run: string, samples: number): void {
    [this.phone, this.rounds] = [phone, rounds];
    say("run", run);
    say("samples", String(samples));
    this.draw();
  }

  status({ state, round, rounds, text }: Header): void {
    this.state = String(state);
    if (typeof rounds === "number" && rounds > 0) this.rounds = rounds;
    if (typeof round === "number") this.round = round;
    if (this.state !== "training") this.step = null;
    say("gateway-text", String(text ?? ""));
    this.draw();
  }

  /** A question is being answered: the phone is at work, whatever the last status was. */
  working({ kind, round, step }: Header): void {
    if (typeof round === "number") this.round = round;
    this.step = typeof step === "number" ? step : null;
    this.state = kind === "release" ? "waiting" : "training";
    this.draw();
  }

  learned(figures: Figures): void {
    this.steps += 1;
    this.recent.push(figures);
    if (this.recent.length > RECENT) this.recent.shift();
    const right = this.recent.reduce((sum, { correct }) => sum + correct, 0);
    const share = right / this.recent.reduce((sum, { samples }) => sum + samples, 0);
    this.loss.add(figures.loss);
    this.accuracy.add(share);
    say("loss", figures.loss.toPrecision(3));
    say("accuracy", `${(100 * share).toFixed(0)} %`);
    say("steps", String(this.steps));
  }

  traffic(up: number, down: number): void {
    this.sent += up;
    this.received += down;
    say("sent", readable(this.sent));
    say("received", readable(this.received));
  }

  ended(headline: string, reason: string): void {
    this.state = "ended";
    say("doing", headline);
    show("step", false);
    show("rounds", false);
    say("leave", "Forget my data");
    say("leaving", "Your data and your token stay in this browser until you forget them.");
    say("live-status", `${headline} ${reason}`);
    say("gateway-text", reason);
  }

  private doing(): string {
    if (this.link === "lost") return "connection lost, trying again";
    if (this.link === "connecting") return "connecting";
    if (this.state === "over") return "the run is over";
    if (this.state === "paused") return `paused before round ${this.round + 1}`;
    const where = `round ${this.round + 1}${this.rounds ? ` of ${this.rounds}` : ""}`;
    return this.state === "training" ? `training, ${where}` : `waiting for ${where}`;
  }

  private draw(): void {
    if (this.state === "ended") return;
    const name = this.phone === null ? "This phone" : `Phone ${this.phone}`;
    say("who", name);
    say("doing", this.doing());
    say("step", this.step === null ? "" : `step ${this.step + 1}`);
    // Steps are too many to be read aloud.
    say("live-status", `${name}: ${this.doing()}`);
    const done = this.state === "over" ? this.rounds : this.round;
    Object.assign(byId<HTMLProgressElement>("rounds"), { max: Math.max(1, this.rounds), value: done });
  }
}
