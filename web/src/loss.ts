// The cross entropy of scores and labels, the mean over the samples, with label smoothing as torch has it.
import * as tf from "./tensors";

export function crossEntropy(scores: tf.Tensor, labels: Int32Array, smoothing: number): tf.Scalar {
  const classes = scores.shape[scores.rank - 1];
  const likely = tf.logSoftmax(scores as tf.Tensor2D, -1);
  const right = tf.oneHot(tf.tensor1d(labels, "int32"), classes).toFloat();
  const wanted = right.mul(1 - smoothing).add(smoothing / classes);
  return likely.mul(wanted).sum(-1).mean().neg() as tf.Scalar;
}

/** How many samples have outputs that say no class: their highest is not finite. */
export function nonfinite(scores: Float32Array, samples: number): number {
  const classes = scores.length / samples;
  const rows = Array.from({ length: samples }, (_, index) => scores.subarray(index * classes, (index + 1) * classes));
  return rows.filter((row) => !Number.isFinite(row.reduce((one, other) => Math.max(one, other)))).length;
}

/** How many samples have their highest score at their label. */
export function correct(scores: Float32Array, labels: Int32Array): number {
  const classes = scores.length / labels.length;
  const highest = (row: Float32Array) => row.indexOf(row.reduce((one, other) => Math.max(one, other)));
  const rows = Array.from(labels, (_, index) => scores.subarray(index * classes, (index + 1) * classes));
  return rows.filter((row, index) => highest(row) === labels[index]).length;
}
