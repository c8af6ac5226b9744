// Pooling as torch has it. tfjs pads and counts in another way, so padding and counting are done here.
import * as tf from "./tensors";

export interface PoolSettings {
  kernel: number[];
  stride: number[];
  padding: number[];
  ceil_mode: boolean;
  count_include_pad?: boolean;
}

/** Lower than all numbers of a network; -Infinity would become NaN on some graphics chips. */
const LOWEST = -3e38;

/** One side of the picture: how many windows there are, and how much is added after its end. */
interface Windows {
  count: number;
  after: number;
}

export function windows(length: number, kernel: number, stride: number, padding: number, ceil: boolean): Windows {
  const free = length + 2 * padding - kernel;
  let count = (ceil ? Math.ceil(free / stride) : Math.floor(free / stride)) + 1;
  // A window must begin in the picture or in the padding before it.
  if (ceil && (count - 1) * stride >= length + padding) count -= 1;
  return { count, after: Math.max(0, (count - 1) * stride + kernel - length - padding) };
}

/** What torch divides the sum of each window by, along one side. */
function divisors(length: number, { count }: Windows, settings: PoolSettings, side: number): number[] {
  const [kernel, stride, padding] = [settings.kernel[side], settings.stride[side], settings.padding[side]];
  const withPadding = settings.count_include_pad ?? true;
  return Array.from({ length: count }, (_, place) => {
    const start = place * stride - padding;
    const end = Math.min(start + kernel, length + padding);
    return withPadding ? end - start : Math.min(end, length) - Math.max(start, 0);
  });
}

function padded(x: tf.Tensor4D, sides: Windows[], settings: PoolSettings, value: number): tf.Tensor4D {
  const pads = sides.map(({ after }, side): [number, number] => [settings.padding[side], after]);
  return tf.pad(x.transpose([0, 2, 3, 1]), [[0, 0], ...pads, [0, 0]], value) as tf.Tensor4D;
}

function sidesOf(x: tf.Tensor4D, settings: PoolSettings): Windows[] {
  return x.shape.slice(2).map((length, side) => {
    return windows(length, settings.kernel[side], settings.stride[side], settings.padding[side], settings.ceil_mode);
  });
}

export function maxPool2d(x: tf.Tensor4D, settings: PoolSettings): tf.Tensor {
  const ready = padded(x, sidesOf(x, settings), settings, LOWEST);
  const y = tf.maxPool(ready, settings.kernel as [number, number], settings.stride as [number, number], "valid");
  return y.transpose([0, 3, 1, 2]);
}

export function avgPool2d(x: tf.Tensor4D, settings: PoolSettings): tf.Tensor {
  const sides = sidesOf(x, settings);
  const ready = padded(x, sides, settings, 0);
  const y = tf.avgPool(ready, settings.kernel as [number, number], settings.stride as [number, number], "valid");
  const [rows, columns] = sides.map((side, index) => divisors(x.shape[2 + index], side, settings, index));
  const area = settings.kernel[0] * settings.kernel[1];
  const factors = rows.map((high) => columns.map((wide) => area / (high * wide)));
  return y.transpose([0, 3, 1, 2]).mul(tf.tensor2d(factors));
}

/** (from, to): the mean of each part of a side, as a matrix. */
function means(from: number, to: number): tf.Tensor2D {
  const column = (place: number) => {
    const [start, end] = [Math.floor((place * from) / to), Math.ceil(((place + 1) * from) / to)];
    return (index: number) => (index >= start && index < end ? 1 / (end - start) : 0);
  };
  const columns = Array.from({ length: to }, (_, place) => column(place));
  return tf.tensor2d(Array.from({ length: from }, (_, index) => columns.map((share) => share(index))));
}

function alongLast(x: tf.Tensor, to: number): tf.Tensor {
  const from = x.shape[x.rank - 1];
  const rest = x.shape.slice(0, -1);
  return tf.matMul(x.reshape([-1, from]), means(from, to)).reshape([...rest, to]);
}

/** output: per side; null leaves that side as it is. */
export function adaptiveAvgPool2d(x: tf.Tensor4D, output: (number | null)[]): tf.Tensor {
  const [high, wide] = output.map((side, index) => side ?? x.shape[2 + index]);
  const across = alongLast(x, wide);
  return alongLast(across.transpose([0, 1, 3, 2]), high).transpose([0, 1, 3, 2]);
}
