// A segment's layers, computed as torch computes them. All tensors are sample first, channels second, as on the wire.
import * as tf from "./tensors";
import { conv1d, conv2d } from "./convolution";
import { batchNorm, layerNorm, type Moments } from "./normalisation";
import { adaptiveAvgPool2d, avgPool2d, maxPool2d, type PoolSettings } from "./pooling";
import type * as p from "./protocol";
import { random, seedFor } from "./random";

export type Named = Record<string, tf.Tensor>;

export interface Mode {
  training: boolean;
  /** Of the step: what Dropout drops follows from it. */
  seed: number;
  /** Told the batch's moments at each BatchNorm in training. */
  seen?: (layer: p.BatchNorm, moments: Moments, numbers: number) => void;
}

type Find = (name: string | null) => tf.Tensor | null;

function linear(layer: p.Linear, x: tf.Tensor, find: Find): tf.Tensor {
  const weight = find(layer.weight) as tf.Tensor2D;
  const y = tf.matMul(x.reshape([-1, weight.shape[1]]), weight, false, true);
  const bias = find(layer.bias);
  return (bias ? y.add(bias) : y).reshape([...x.shape.slice(0, -1), weight.shape[0]]);
}

function convolution(layer: p.Conv, x: tf.Tensor, find: Find): tf.Tensor {
  const [weight, bias] = [find(layer.weight)!, find(layer.bias)];
  if (layer.kind === "conv1d") return conv1d(x as tf.Tensor3D, weight as tf.Tensor3D, bias, layer);
  return conv2d(x as tf.Tensor4D, weight as tf.Tensor4D, bias, layer);
}

function gelu(x: tf.Tensor, approximate: string): tf.Tensor {
  if (approximate === "none") return x.mul(tf.erf(x.mul(Math.SQRT1_2)).add(1)).mul(0.5);
  const inner = x.add(x.mul(x).mul(x).mul(0.044715)).mul(Math.sqrt(2 / Math.PI));
  return x.mul(inner.tanh().add(1)).mul(0.5);
}

function pool(layer: p.Pool, x: tf.Tensor): tf.Tensor {
  const apply = layer.kind.startsWith("max") ? maxPool2d : avgPool2d;
  if (layer.kind.endsWith("2d")) return apply(x as tf.Tensor4D, layer);
  const flat: PoolSettings = {
    ...layer,
    kernel: [1, layer.kernel[0]],
    stride: [1, layer.stride[0]],
    padding: [0, layer.padding[0]],
  };
  return apply(tf.expandDims(x, 2), flat).squeeze([2]);
}

function adaptivePool(layer: p.AdaptivePool, x: tf.Tensor): tf.Tensor {
  if (layer.kind.endsWith("2d")) return adaptiveAvgPool2d(x as tf.Tensor4D, layer.output);
  return adaptiveAvgPool2d(tf.expandDims(x, 2), [1, layer.output[0]]).squeeze([2]);
}

function normalised(layer: p.BatchNorm, x: tf.Tensor, find: Find, mode: Mode): tf.Tensor {
  const parts = { weight: find(layer.weight), bias: find(layer.bias), eps: layer.eps };
  const [mean, variance] = [find(layer.mean), find(layer.var)];
  const statistics = mode.training || !mean || !variance ? null : { mean, variance };
  return batchNorm(x, parts, statistics, (moments, numbers) => {
    if (mode.training) mode.seen?.(layer, moments, numbers);
  });
}

function flatten(layer: p.Flatten, x: tf.Tensor): tf.Tensor {
  const from = layer.start < 0 ? layer.start + x.rank : layer.start;
  const to = layer.end < 0 ? layer.end + x.rank : layer.end;
  const length = x.shape.slice(from, to + 1).reduce((product, side) => product * side, 1);
  return x.reshape([...x.shape.slice(0, from), length, ...x.shape.slice(to + 1)]);
}

function dropout(layer: p.Dropout, x: tf.Tensor, mode: Mode): tf.Tensor {
  if (!mode.training || layer.p === 0) return x;
  const next = random(seedFor(mode.seed, layer.name));
  const kept = layer.p < 1 ? 1 / (1 - layer.p) : 0;
  const mask = Float32Array.from({ length: x.size }, () => (next() < layer.p ? 0 : kept));
  return x.mul(tf.tensor(mask, x.shape));
}

/** The rows of `weight`; the padding's row learns nothing. */
function embedding(layer: p.Embedding, x: tf.Tensor, find: Find): tf.Tensor {
  const weight = find(layer.weight)!;
  const places = x.toInt();
  if (layer.padding === null) return tf.gather(weight, places);
  const [rows, padding] = [weight.shape[0], layer.padding];
  const learns = Array.from({ length: rows }, (_, row) => [row === padding ? 0 : 1]);
  const still = tf.customGrad((table) => {
    return { value: (table as tf.Tensor).clone(), gradFunc: (dy: tf.Tensor) => dy.mul(tf.tensor2d(learns)) };
  });
  return tf.gather(still(weight), places);
}

function computed(layer: p.Layer, xs: tf.Tensor[], find: Find, mode: Mode): tf.Tensor {
  const [x] = xs;
  switch (layer.kind) {
    case "linear":
      return linear(layer, x, find);
    case "conv1d":
    case "conv2d":
      return convolution(layer, x, find);
    case "relu":
      return x.relu();
    case "sigmoid":
      return x.sigmoid();
    case "tanh":
      return x.tanh();
    case "gelu":
      return gelu(x, layer.approximate);
    case "max_pool1d":
    case "max_pool2d":
    case "avg_pool1d":
    case "avg_pool2d":
      return pool(layer, x);
    case "adaptive_avg_pool1d":
    case "adaptive_avg_pool2d":
      return adaptivePool(layer, x);
    case "batch_norm":
      return normalised(layer, x, find, mode);
    case "layer_norm":
      return layerNorm(x, find(layer.weight), find(layer.bias), layer.shape, layer.eps);
    case "flatten":
      return flatten(layer, x);
    case "dropout":
      return dropout(layer, x, mode);
    case "embedding":
      return embedding(layer, x, find);
    case "add":
      return xs[0].add(xs[1]);
    default:
      throw new Error(`this page knows no layer of the kind ${(layer as p.Layer).kind}`);
  }
}

/** What `segment` makes of `x`. `weights` has its parameters and buffers. */
export function run(segment: p.Segment, weights: Named, x: tf.Tensor, mode: Mode): tf.Tensor {
  const values: Named = { [segment.input]: x };
  const find: Find = (name) => {
    if (name === null || name === undefined) return null;
    if (!(name in weights)) throw new Error(`the tensor ${name} is missing`);
    return weights[name];
  };
  for (const layer of segment.layers) {
    values[layer.name] = computed(layer, layer.inputs.map((name) => values[name]), find, mode);
  }
  return values[segment.output];
}

/** Those of a segment's tensors that are buffers: no gradient, no optimizer. */
export function buffers(segment: p.Segment): Set<string> {
  const norms = segment.layers.filter((layer): layer is p.BatchNorm => layer.kind === "batch_norm");
  return new Set(norms.flatMap(({ mean, var: variance, count }) => [mean, variance, count]).filter((name) => name !== null));
}
