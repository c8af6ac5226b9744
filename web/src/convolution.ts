// Convolutions as torch has them, made of those operations of tfjs that have gradients.
import * as tf from "./tensors";

export interface ConvSettings {
  stride: number[];
  padding: number[];
  dilation: number[];
  groups: number;
}

/** Kernel (kh, kw, in, out) with dilation - 1 zeros between its rows and columns: tfjs has no gradient for dilation. */
function dilated(kernel: tf.Tensor4D, [down, across]: number[]): tf.Tensor4D {
  const [rows, columns, input, output] = kernel.shape;
  const [high, wide] = [(rows - 1) * down + 1, (columns - 1) * across + 1];
  let spread: tf.Tensor = kernel;
  if (down > 1) {
    const apart = tf.pad(spread.reshape([rows, 1, columns * input * output]), [[0, 0], [0, down - 1], [0, 0]]);
    spread = apart.reshape([rows * down, columns * input * output]);
    spread = tf.slice(spread, [0, 0], [high, -1]);
  }
  if (across > 1) {
    const apart = tf.pad(spread.reshape([high, columns, 1, input * output]), [[0, 0], [0, 0], [0, across - 1], [0, 0]]);
    spread = apart.reshape([high, columns * across, input * output]);
    spread = tf.slice(spread, [0, 0, 0], [-1, wide, -1]);
  }
  return spread.reshape([high, wide, input, output]) as tf.Tensor4D;
}

function oneGroup(x: tf.Tensor4D, kernel: tf.Tensor4D, stride: [number, number]): tf.Tensor4D {
  return tf.conv2d(x, kernel, stride, "valid");
}

/** tfjs has no gradient for groups: each is a convolution of its own. */
function grouped(x: tf.Tensor4D, kernel: tf.Tensor4D, stride: [number, number], groups: number): tf.Tensor4D {
  if (groups === 1) return oneGroup(x, kernel, stride);
  const xs = tf.split(x, groups, 3);
  const kernels = tf.split(kernel, groups, 3);
  const ys = xs.map((part, group) => oneGroup(part as tf.Tensor4D, kernels[group] as tf.Tensor4D, stride));
  return tf.concat(ys, 3) as tf.Tensor4D;
}

/** x: (samples, channels, height, width); weight: (out, in / groups, height, width). */
export function conv2d(x: tf.Tensor4D, weight: tf.Tensor4D, bias: tf.Tensor | null, settings: ConvSettings): tf.Tensor {
  const [down, across] = settings.padding;
  const padded = tf.pad(x.transpose([0, 2, 3, 1]), [[0, 0], [down, down], [across, across], [0, 0]]) as tf.Tensor4D;
  const kernel = dilated(weight.transpose([2, 3, 1, 0]) as tf.Tensor4D, settings.dilation);
  const y = grouped(padded, kernel, settings.stride as [number, number], settings.groups);
  return (bias ? y.add(bias) : y).transpose([0, 3, 1, 2]);
}

/** As a convolution of images that are one pixel high. */
export function conv1d(x: tf.Tensor3D, weight: tf.Tensor3D, bias: tf.Tensor | null, settings: ConvSettings): tf.Tensor {
  const flat: ConvSettings = {
    stride: [settings.stride[0], settings.stride[0]],
    padding: [0, settings.padding[0]],
    dilation: [1, settings.dilation[0]],
    groups: settings.groups,
  };
  return conv2d(tf.expandDims(x, 2), tf.expandDims(weight, 2), bias, flat).squeeze([2]);
}
