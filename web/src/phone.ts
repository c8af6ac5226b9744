// The device's side of the protocol, without any socket: a question comes in, an answer goes out.
import type { Frame, Header } from "./frames";
import { correct, crossEntropy, nonfinite } from "./loss";
import { Part, plain } from "./part";
import type { Side, Welcome } from "./protocol";
import type { Samples } from "./samples";
import type { Plain, Tensors } from "./safetensors";
import * as tf from "./tensors";

export interface Figures {
  loss: number;
  /** How many samples the loss is of, and how many of them were right. */
  samples: number;
  correct: number;
}

interface Answer {
  fields?: Record<string, unknown>;
  tensors?: Tensors;
}

interface Question extends Header {
  round: number;
  attempt: number;
  step: number;
  samples: number[];
  seed: number;
  lr: number;
  hash: string;
  optimizer: boolean;
}

/** From a `forward` to its `backward`. */
interface Step {
  step: number;
  samples: number[];
  seed: number;
}

interface Round {
  round: number;
  attempt: number;
  parts: Record<Side, Part>;
}

type Answerer = (question: Question, tensors: Tensors) => Promise<Answer>;

export class Phone {
  private now: Round | null = null;
  private step: Step | null = null;
  private readonly answers: Record<string, Answerer> = {
    load: (question, tensors) => this.load(question, tensors),
    forward: (question) => this.forward(question),
    loss: (question, tensors) => this.loss(question, tensors),
    backward: (question, tensors) => this.backward(question, tensors),
    close: (question) => this.close(question),
    release: () => this.release(),
    evaluate: (question) => this.evaluate(question),
    evaluate_loss: (question, tensors) => this.evaluateLoss(question, tensors),
  };

  /** told: is given the figures of each step. */
  constructor(
    private readonly welcome: Welcome,
    private readonly samples: Samples,
    private readonly told: (figures: Figures) => void = () => {},
  ) {
    if (welcome.loss.name !== "cross_entropy") throw new Error(`this page knows no loss ${welcome.loss.name}`);
    if (samples.count < welcome.samples + welcome.held_out) throw new Error("the run wants more samples than there are");
  }

  /** The answer; where that isn't possible, the reason, which drops the phone out of this round. */
  async answer({ header, tensors }: Frame): Promise<Frame> {
    const answer = this.answers[header.kind];
    try {
      if (!answer) throw new Error(`unknown question ${header.kind}`);
      const { fields = {}, tensors: payload = {} } = await answer(header as Question, tensors);
      return { header: { kind: header.kind, id: header.id, ...fields }, tensors: payload };
    } catch (error) {
      return { header: { kind: "failed", id: header.id, reason: String((error as Error).message ?? error) }, tensors: {} };
    }
  }

  dispose(): void {
    for (const part of Object.values(this.now?.parts ?? {})) part.dispose();
    this.now = null;
    this.step = null;
  }

  private async load({ round, attempt, hash }: Question, tensors: Tensors): Promise<Answer> {
    if (hash !== this.welcome.hash) throw new Error("the run has other layers than it said");
    this.dispose();
    const { layers, optimizers } = this.welcome;
    const part = (side: Side) => new Part(side, layers[side], optimizers[side], tensors);
    this.now = { round, attempt, parts: { a: part("a"), c: part("c") } };
    return {};
  }

  private parts({ round, attempt }: Question): Record<Side, Part> {
    if (!this.now) throw new Error("nothing is loaded");
    const same = this.now.round === round && this.now.attempt === attempt;
    if (!same) throw new Error(`round ${round}, attempt ${attempt} was not loaded`);
    return this.now.parts;
  }

  private current({ step }: Question): Step {
    if (this.step?.step !== step) throw new Error(`step ${step} has no forward`);
    return this.step;
  }

  private async forward(question: Question): Promise<Answer> {
    const { a } = this.parts(question);
    const { step, samples, seed } = question;
    if (samples.some((place) => place >= this.welcome.samples)) throw new Error("a sample that is held out");
    const y = tf.tidy(() => a.train(this.samples.batch(samples), seed));
    this.step = { step, samples, seed };
    return { tensors: { activation: await taken(y) } };
  }

  private async loss(question: Question, tensors: Tensors): Promise<Answer> {
    const { c } = this.parts(question);
    const labels = this.samples.labels(this.current(question).samples);
    const hidden = tensor(tensors, "hidden");
    let scores: tf.Tensor | null = null;
    const last = (y: tf.Tensor) => {
      scores = tf.keep(y.clone());
      return crossEntropy(y, labels, this.welcome.loss.label_smoothing ?? 0);
    };
    const found = c.gradientsOf(last, hidden, question.seed);
    c.step(found.parameters, question.lr);
    const gradient = await taken(found.x ?? tf.zerosLike(hidden));
    hidden.dispose();
    const figures = await figured(found.value, scores!, labels);
    this.told({ loss: Number(figures.loss), correct: figures.correct, samples: labels.length });
    return { fields: figures, tensors: { gradient } };
  }

  private async backward(question: Question, tensors: Tensors): Promise<Answer> {
    const { a } = this.parts(question);
    const { samples, seed } = this.current(question);
    const gradients = tf.tidy(() => a.backward(this.samples.batch(samples), tensor(tensors, "gradient"), seed));
    a.step(gradients, question.lr);
    this.step = null;
    return {};
  }

  private async close(question: Question): Promise<Answer> {
    const { a, c } = this.parts(question);
    this.step = null;
    return { tensors: { ...(await a.state(question.optimizer)), ...(await c.state(question.optimizer)) } };
  }

  private async release(): Promise<Answer> {
    this.dispose();
    return {};
  }

  private heldOut({ samples }: Question): number[] {
    return samples.map((place) => place + this.welcome.samples);
  }

  private async evaluate(question: Question): Promise<Answer> {
    const { a } = this.parts(question);
    const y = tf.tidy(() => a.evaluate(this.samples.batch(this.heldOut(question))));
    return { tensors: { activation: await taken(y) } };
  }

  private async evaluateLoss(question: Question, tensors: Tensors): Promise<Answer> {
    const { c } = this.parts(question);
    const labels = this.samples.labels(this.heldOut(question));
    const [value, scores] = tf.tidy(() => {
      const y = c.evaluate(tensor(tensors, "hidden"));
      return [crossEntropy(y, labels, this.welcome.loss.label_smoothing ?? 0), y];
    });
    const { data } = await plain(scores);
    const broken = nonfinite(data as Float32Array, labels.length);
    return { fields: { ...(await figured(value, scores, labels)), nonfinite: broken } };
  }
}

function tensor(tensors: Tensors, name: string): tf.Tensor {
  const found = tensors[name];
  if (!found) throw new Error(`the tensor ${name} is missing`);
  return tf.tensor(found.data, found.shape);
}

/** Its numbers; the tensor itself is disposed of. */
async function taken(found: tf.Tensor): Promise<Plain> {
  const numbers = await plain(found);
  found.dispose();
  return numbers;
}

async function figured(value: tf.Tensor, scores: tf.Tensor, labels: Int32Array) {
  const [loss, rows] = [await taken(value), await taken(scores)];
  // JSON has no NaN: a text stands for it.
  const told = Number.isFinite(loss.data[0]) ? loss.data[0] : String(loss.data[0]);
  return { loss: told, correct: correct(rows.data as Float32Array, labels) };
}
