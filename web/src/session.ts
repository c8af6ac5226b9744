// A phone that takes part: the connection, what it computes, and the display.
import { askClasses } from "./classes";
import { Connection, type Why } from "./connection";
import { count, type Data, histogram, samplesFor, unknownLabels } from "./data";
import { show } from "./dom";
import type { Frame } from "./frames";
import { Phone } from "./phone";
import type { Progress } from "./progress";
import type { Welcome } from "./protocol";
import { keepAwake } from "./wake";

const ENDED: Record<Why, string> = { bye: "finished", refused: "not let in", failed: "can't take part" };

function address(): string {
  const url = new URL("device", location.href.replace(/[?#].*$/, ""));
  url.protocol = url.protocol.replace("http", "ws");
  return url.href;
}

/** For the people who run it: a kind of device, nothing that tells persons apart. */
function deviceName(): string {
  const found = /iPhone|iPad|Android|Windows|Macintosh|Linux/.exec(navigator.userAgent);
  return `browser on ${found ? found[0] : "an unknown device"}`;
}

export class Session {
  private phone: Phone | null = null;
  private classes: Record<string, number> = {};
  private readonly connection: Connection;

  constructor(
    token: string,
    private readonly data: Data,
    private readonly progress: Progress,
    shareLabels: boolean,
  ) {
    this.connection = new Connection(address(), {
      hello: { token, device: deviceName(), samples: count(data), ...(shareLabels ? { labels: histogram(data) } : {}) },
      link: (link) => progress.linked(link),
      traffic: (up, down) => progress.traffic(up, down),
      answer: (frame) => this.answer(frame),
      ended: (why, reason) => this.ended(ENDED[why], reason),
    });
    document.addEventListener("visibilitychange", () => this.connection.hurry());
    window.addEventListener("online", () => this.connection.hurry());
  }

  start(): void {
    keepAwake(true);
    this.connection.connect();
  }

  leave(): void {
    this.connection.leave();
    this.ended("left", "Your data, and the token, are forgotten.");
  }

  private ended(headline: string, reason: string): void {
    keepAwake(false);
    show("ask-classes", false);
    this.phone?.dispose();
    this.progress.ended(headline, reason);
  }

  private async answer(frame: Frame): Promise<Frame | null> {
    const { header } = frame;
    if (header.kind === "welcome") await this.welcomed(header as unknown as Welcome);
    else if (header.kind === "status") this.progress.status(header);
    else return this.computed(frame);
    return null;
  }

  private async computed(frame: Frame): Promise<Frame | null> {
    if (!this.phone) return null;
    this.progress.working(frame.header);
    return this.phone.answer(frame);
  }

  private async welcomed(welcome: Welcome): Promise<void> {
    const unknown = unknownLabels(this.data, welcome).filter((label) => !(label in this.classes));
    if (unknown.length > 0) Object.assign(this.classes, await askClasses(unknown, welcome));
    this.phone?.dispose();
    const samples = samplesFor(this.data, welcome, this.classes);
    this.phone = new Phone(welcome, samples, (figures) => this.progress.learned(figures));
    this.progress.joined(welcome.phone, welcome.rounds, welcome.run, welcome.samples);
  }
}
