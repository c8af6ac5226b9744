// One step of an optimizer, by torch's formulas. What it remembers of a parameter is in slots, named as in torch.
import * as tf from "./tensors";
import type { Adam, OptimizerSettings, Sgd } from "./protocol";

/** Of one parameter: what the optimizer remembers. A missing slot is as before the first step. */
export type Slots = Record<string, tf.Tensor>;

export interface Stepped {
  weight: tf.Tensor;
  slots: Slots;
}

function decayed(gradient: tf.Tensor, weight: tf.Tensor, decay: number): tf.Tensor {
  return decay === 0 ? gradient : gradient.add(weight.mul(decay));
}

function sgd(settings: Sgd, weight: tf.Tensor, gradient: tf.Tensor, slots: Slots, rate: number): Stepped {
  const whole = decayed(gradient, weight, settings.weight_decay);
  if (settings.momentum === 0) return { weight: weight.sub(whole.mul(rate)), slots: {} };
  const before = slots.momentum_buffer;
  const buffer = before ? before.mul(settings.momentum).add(whole.mul(1 - settings.dampening)) : whole.clone();
  const update = settings.nesterov ? whole.add(buffer.mul(settings.momentum)) : buffer;
  return { weight: weight.sub(update.mul(rate)), slots: { momentum_buffer: buffer } };
}

function adam(
  settings: Adam,
  weight: tf.Tensor,
  gradient: tf.Tensor,
  slots: Slots,
  rate: number,
  steps: number,
): Stepped {
  const [one, two] = settings.betas;
  const apart = settings.name === "adamw"; // its decay goes past the moments
  const whole = apart ? gradient : decayed(gradient, weight, settings.weight_decay);
  const start = apart ? weight.mul(1 - rate * settings.weight_decay) : weight;
  const mean = (slots.exp_avg ?? tf.zerosLike(weight)).mul(one).add(whole.mul(1 - one));
  const square = (slots.exp_avg_sq ?? tf.zerosLike(weight)).mul(two).add(whole.square().mul(1 - two));
  const under = square.sqrt().div(Math.sqrt(1 - two ** steps)).add(settings.eps);
  const update = mean.div(under).mul(rate / (1 - one ** steps));
  return { weight: start.sub(update), slots: { exp_avg: mean, exp_avg_sq: square } };
}

/** steps: how many steps this is, the first being 1. To be called inside tf.tidy; keeps nothing itself. */
export function stepped(
  settings: OptimizerSettings,
  weight: tf.Tensor,
  gradient: tf.Tensor,
  slots: Slots,
  rate: number,
  steps: number,
): Stepped {
  if (settings.name === "sgd") return sgd(settings, weight, gradient, slots, rate);
  if (settings.name === "adam" || settings.name === "adamw") return adam(settings, weight, gradient, slots, rate, steps);
  throw new Error(`this page knows no optimizer ${(settings as OptimizerSettings).name}`);
}
