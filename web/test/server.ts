// A server for the tests: it has B, and asks a phone what a gateway would ask, in frames.
import { decode, encode, type Header } from "../src/frames";
import { Part } from "../src/part";
import { Phone, type Figures } from "../src/phone";
import type { OptimizerSettings, Segment, Welcome } from "../src/protocol";
import { Samples } from "../src/samples";
import type { Kind, Plain, Tensors } from "../src/safetensors";
import * as tf from "../src/tensors";
import { plainOf, type Stored } from "./support";

export interface Exchange {
  parts: Record<"a" | "b" | "c", { segment: Segment; weights: Record<string, Stored> }>;
  kind: Kind;
  inputs: Stored;
  labels: number[];
  train: number;
  batches: number[][];
  scale: number;
  optimizer: OptimizerSettings;
  lr: number;
  losses: number[];
  accuracy: number;
}

function tensor({ data, shape }: Plain): tf.Tensor {
  return tf.tensor(data, shape);
}

async function sent(found: tf.Tensor): Promise<Plain> {
  const data = Float32Array.from(await found.data());
  return { kind: "F32", shape: found.shape, data };
}

function payload(found: Exchange, sides: string[]): Tensors {
  const entries = sides.flatMap((side) => {
    const { weights } = found.parts[side as "a"];
    return Object.entries(weights).map(([name, stored]) => {
      const kind = name.endsWith("num_batches_tracked") ? "I64" : "F32";
      return [`${side}/weights/${name}`, plainOf(stored, kind)] as const;
    });
  });
  return Object.fromEntries(entries);
}

export function welcomeFor(found: Exchange): Welcome {
  const { a, c } = found.parts;
  return {
    version: 1,
    phone: 7,
    run: "test",
    rounds: 4,
    schedule: "splitfed_v3",
    samples: found.train,
    held_out: found.labels.length - found.train,
    batch_size: found.batches[0].length,
    input: { shape: found.inputs.shape.slice(1), scale: found.scale, shift: 0 },
    classes: null,
    num_classes: 10,
    layers: { a: a.segment, c: c.segment },
    hash: "of the layers",
    optimizers: { a: found.optimizer, c: found.optimizer },
    loss: { name: "cross_entropy", label_smoothing: 0 },
    examples: null,
  };
}

export class Server {
  readonly phone: Phone;
  readonly figures: Figures[] = [];
  private readonly b: Part;
  private id = 0;

  constructor(private readonly found: Exchange) {
    const { segment } = found.parts.b;
    // The part is of side a for the class, which knows no other.
    const weights = Object.entries(payload(found, ["b"])).map(([name, one]) => [name.replace(/^b/, "a"), one] as const);
    this.b = new Part("a", segment, found.optimizer, Object.fromEntries(weights));
    const samples = new Samples(plainOf(found.inputs, found.kind), Int32Array.from(found.labels), welcomeFor(found).input);
    this.phone = new Phone(welcomeFor(found), samples, (figures) => this.figures.push(figures));
  }

  /** Through bytes, there and back. */
  async ask(header: Header, tensors: Tensors = {}): Promise<{ header: Header; tensors: Tensors }> {
    const question = decode(encode({ attempt: 0, id: (this.id += 1), ...header }, tensors));
    const { header: said, tensors: payload } = await this.phone.answer(question);
    return decode(encode(said, payload));
  }

  load(round: number, tensors: Tensors | null): Promise<{ header: Header }> {
    const hash = "of the layers";
    return this.ask({ kind: "load", round, fresh: !tensors, hash }, tensors ?? payload(this.found, ["a", "c"]));
  }

  /** One exchange; the loss. */
  async step(round: number, step: number): Promise<number> {
    const common = { round, step, seed: 2 ** 60 + step, lr: this.found.lr };
    const { activation } = (await this.ask({ kind: "forward", samples: this.found.batches[step], ...common })).tensors;
    const x = tensor(activation);
    const y = this.b.train(x, step);
    const answer = await this.ask({ kind: "loss", ...common }, { hidden: await sent(y) });
    const dy = tensor(answer.tensors.gradient);
    const gradients = this.b.gradientsOf((out) => out.mul(dy).sum(), x, step);
    this.b.step(gradients.parameters, this.found.lr);
    await this.ask({ kind: "backward", ...common }, { gradient: await sent(gradients.x!) });
    tf.dispose([x, y, dy, gradients.value, gradients.x!]);
    return answer.header.loss as number;
  }

  /** Of the samples held out; A and C on the phone, in eval mode. */
  async accuracy(round: number): Promise<number> {
    const samples = Array.from({ length: this.found.labels.length - this.found.train }, (_, index) => index);
    const { activation } = (await this.ask({ kind: "evaluate", round, samples })).tensors;
    const hidden = await sent(tf.tidy(() => this.b.evaluate(tensor(activation))));
    const { header } = await this.ask({ kind: "evaluate_loss", round, samples }, { hidden });
    return (header.correct as number) / samples.length;
  }
}
