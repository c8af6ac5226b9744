// BatchNorm and LayerNorm as torch has them.
import * as tf from "./tensors";

function standardised(x: tf.Tensor, mean: tf.Tensor, variance: tf.Tensor, eps: number): tf.Tensor {
  return x.sub(mean).div(variance.add(eps).sqrt());
}

function scaled(x: tf.Tensor, weight: tf.Tensor | null, bias: tf.Tensor | null): tf.Tensor {
  const y = weight ? x.mul(weight) : x;
  return bias ? y.add(bias) : y;
}

/** x as (samples, channels, places), whatever a sample's shape. */
function byChannel(x: tf.Tensor): tf.Tensor3D {
  return x.reshape([x.shape[0], x.shape[1] as number, -1]);
}

function perChannel(values: tf.Tensor | null): tf.Tensor | null {
  return values ? values.reshape([1, -1, 1]) : null;
}

export interface Moments {
  mean: tf.Tensor;
  variance: tf.Tensor;
}

/** Mean and (biased) variance of the batch, (1, channels, 1). */
function batchMoments(x: tf.Tensor3D): Moments {
  const mean = x.mean([0, 2], true);
  return { mean, variance: x.sub(mean).square().mean([0, 2], true) };
}

/** statistics: null to take the batch's own, which `seen` is then told. */
export function batchNorm(
  x: tf.Tensor,
  parts: { weight: tf.Tensor | null; bias: tf.Tensor | null; eps: number },
  statistics: Moments | null,
  seen: (moments: Moments, numbers: number) => void,
): tf.Tensor {
  const flat = byChannel(x);
  const moments = statistics
    ? { mean: perChannel(statistics.mean)!, variance: perChannel(statistics.variance)! }
    : batchMoments(flat);
  if (!statistics) seen(moments, flat.shape[0] * flat.shape[2]);
  const y = standardised(flat, moments.mean, moments.variance, parts.eps);
  return scaled(y, perChannel(parts.weight), perChannel(parts.bias)).reshape(x.shape);
}

export function layerNorm(
  x: tf.Tensor,
  weight: tf.Tensor | null,
  bias: tf.Tensor | null,
  shape: number[],
  eps: number,
): tf.Tensor {
  const length = shape.reduce((product, side) => product * side, 1);
  const rows = x.reshape([-1, length]);
  const mean = rows.mean([1], true);
  const variance = rows.sub(mean).square().mean([1], true);
  const y = standardised(rows, mean, variance, eps);
  return scaled(y, weight && weight.reshape([1, length]), bias && bias.reshape([1, length])).reshape(x.shape);
}
