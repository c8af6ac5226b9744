// A or C while it trains: weights, buffers, and what the optimizer remembers.
import { buffers, run, type Mode, type Named } from "./layers";
import type { Moments } from "./normalisation";
import { type Slots, stepped } from "./optimizers";
import type { BatchNorm, OptimizerSettings, Segment, Side } from "./protocol";
import { f32, type Plain, type Tensors } from "./safetensors";
import * as tf from "./tensors";

interface Memory {
  slots: Slots;
  steps: number;
}

interface Seen extends Moments {
  layer: BatchNorm;
  numbers: number;
}

export interface Gradients {
  value: tf.Tensor;
  /** Of `x`, if wanted; null where the value doesn't depend on it. */
  x: tf.Tensor | null;
  /** Of each parameter that the value depends on. */
  parameters: Named;
}

export class Part {
  readonly parameters: string[];
  private readonly weights: Named = {};
  private readonly counts: Record<string, number> = {};
  private readonly memory: Record<string, Memory> = {};

  /** tensors: the payload of `load`. */
  constructor(
    private readonly side: Side,
    private readonly segment: Segment,
    private readonly settings: OptimizerSettings,
    tensors: Tensors,
  ) {
    for (const [name, tensor] of Object.entries(tensors)) this.take(name.split("/"), tensor);
    const without = buffers(segment);
    this.parameters = Object.keys(this.weights).filter((name) => !without.has(name));
  }

  private take([side, what, ...rest]: string[], tensor: Plain): void {
    if (side !== this.side) return;
    const name = what === "weights" ? rest.join("/") : rest.slice(0, -1).join("/");
    const slot = rest[rest.length - 1];
    if (what === "weights" && tensor.kind === "I64") this.counts[name] = tensor.data[0];
    else if (what === "weights") this.weights[name] = tf.tensor(tensor.data, tensor.shape);
    else this.takeSlot(name, slot, tensor);
  }

  private takeSlot(name: string, slot: string, tensor: Plain): void {
    const memory = (this.memory[name] ??= { slots: {}, steps: 0 });
    if (slot === "step") memory.steps = tensor.data[0];
    else memory.slots[slot] = tf.tensor(tensor.data, tensor.shape);
  }

  /** In training mode, seen: BatchNorm's statistics take part. To be called once a step. */
  train(x: tf.Tensor, seed: number): tf.Tensor {
    return this.noting((mode) => tf.tidy(() => run(this.segment, this.weights, x, mode)), seed);
  }

  /** In eval mode. */
  evaluate(x: tf.Tensor): tf.Tensor {
    return tf.tidy(() => run(this.segment, this.weights, x, { training: false, seed: 0 }));
  }

  /** Of `last` of what the segment makes of x, training, with what BatchNorm sees noted. */
  gradientsOf(last: (y: tf.Tensor) => tf.Tensor, x: tf.Tensor, seed: number): Gradients {
    return this.noting((mode) => this.gradients(() => last(run(this.segment, this.weights, x, mode)), [x]), seed);
  }

  /** By dy, the gradient of the output. The forward is computed again, the same; BatchNorm has seen it already. */
  backward(x: tf.Tensor, dy: tf.Tensor, seed: number): Named {
    if (this.parameters.length === 0) return {};
    const { value, parameters } = this.gradients(() => run(this.segment, this.weights, x, { training: true, seed }), [], dy);
    value.dispose();
    return parameters;
  }

  /** Of the parameters, and of `others`: at most one more. */
  private gradients(f: () => tf.Tensor, others: tf.Tensor[], dy?: tf.Tensor): Gradients {
    const wanted = [...this.parameters.map((name) => this.weights[name]), ...others];
    // tf.grads itself refuses where the value depends on none of these.
    const { value, grads } = tf.engine().gradients(f, wanted, dy, true);
    const known = this.parameters.map((name, index) => [name, grads[index]] as const).filter(([, gradient]) => gradient);
    return { value, x: grads[this.parameters.length] ?? null, parameters: Object.fromEntries(known) };
  }

  private noting<T>(compute: (mode: Mode) => T, seed: number): T {
    const noted: Seen[] = [];
    const seen = (layer: BatchNorm, { mean, variance }: Moments, numbers: number) => {
      noted.push({ layer, numbers, mean: tf.keep(mean.clone()), variance: tf.keep(variance.clone()) });
    };
    const result = compute({ training: true, seed, seen });
    for (const moments of noted) this.remember(moments);
    return result;
  }

  private remember({ layer, numbers, mean, variance }: Seen): void {
    if (layer.mean && layer.var) {
      const count = layer.count ? (this.counts[layer.count] = (this.counts[layer.count] ?? 0) + 1) : 1;
      const share = layer.momentum ?? 1 / count;
      this.blend(layer.mean, mean, share);
      this.blend(layer.var, variance, share, numbers / (numbers - 1)); // torch keeps the unbiased one
    }
    tf.dispose([mean, variance]);
  }

  private blend(name: string, fresh: tf.Tensor, share: number, factor = 1): void {
    const old = this.weights[name];
    const blended = tf.tidy(() => old.mul(1 - share).add(fresh.reshape(old.shape).mul(share * factor)));
    this.weights[name] = tf.keep(blended); // perhaps inside someone's tidy
    old.dispose();
  }

  /** The optimizer's step. Takes the gradients over. */
  step(gradients: Named, rate: number): void {
    for (const [name, gradient] of Object.entries(gradients)) {
      const old = (this.memory[name] ??= { slots: {}, steps: 0 });
      const { weight, slots } = tf.tidy(() => {
        // As a record, so that tidy keeps all of it.
        return { ...stepped(this.settings, this.weights[name], gradient, old.slots, rate, old.steps + 1) };
      });
      tf.dispose([this.weights[name], gradient, ...Object.values(old.slots)]);
      this.weights[name] = weight;
      this.memory[name] = { slots, steps: old.steps + 1 };
    }
  }

  /** As in `load`. */
  async state(withOptimizer: boolean): Promise<Tensors> {
    const entries = Object.entries(this.weights).map(async ([name, tensor]) => {
      return [`${this.side}/weights/${name}`, await plain(tensor)] as const;
    });
    const found: Tensors = Object.fromEntries(await Promise.all(entries));
    for (const [name, count] of Object.entries(this.counts)) {
      found[`${this.side}/weights/${name}`] = { kind: "I64", shape: [], data: Int32Array.of(count) };
    }
    return withOptimizer ? { ...found, ...(await this.remembered()) } : found;
  }

  private async remembered(): Promise<Tensors> {
    const found: Tensors = {};
    for (const [name, { slots, steps }] of Object.entries(this.memory)) {
      const place = `${this.side}/optimizer/${name}`;
      for (const [slot, tensor] of Object.entries(slots)) found[`${place}/${slot}`] = await plain(tensor);
      if (this.settings.name !== "sgd") found[`${place}/step`] = f32(Float32Array.of(steps), []);
    }
    return found;
  }

  dispose(): void {
    tf.dispose([this.weights, Object.values(this.memory).map(({ slots }) => slots)]);
  }
}

export async function plain(tensor: tf.Tensor): Promise<Plain> {
  return f32(Float32Array.from(await tensor.data()), tensor.shape);
}
