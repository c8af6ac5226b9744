// What the tests share: torch's numbers, and how close two lists of numbers are.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import "@tensorflow/tfjs-backend-cpu";
import type { Kind, Numbers, Plain } from "../src/safetensors";
import * as tf from "../src/tensors";

export interface Stored {
  shape: number[];
  data: number[];
}

export function reference<T>(name: string): T {
  return JSON.parse(readFileSync(join(process.env.REFERENCE!, `${name}.json`), "utf8")) as T;
}

export function tensorOf({ data, shape }: Stored): tf.Tensor {
  return tf.tensor(data, shape, "float32");
}

export function plainOf({ data, shape }: Stored, kind: Kind = "F32"): Plain {
  const types = { F32: Float32Array, I64: Int32Array, I32: Int32Array, U8: Uint8Array };
  return { kind, shape, data: types[kind].from(data) as Numbers };
}

/** The largest difference, as a share of the largest number wanted. */
export function difference(found: ArrayLike<number>, wanted: ArrayLike<number>): number {
  assert.equal(found.length, wanted.length);
  const pairs = Array.from(found, (value, index) => Math.abs(value - wanted[index]));
  const largest = Array.from(wanted, Math.abs).reduce((one, other) => Math.max(one, other), 1e-6);
  return pairs.reduce((one, other) => Math.max(one, Number.isNaN(other) ? Infinity : other), 0) / largest;
}

export function close(found: tf.Tensor | ArrayLike<number>, wanted: Stored, what: string, least = 1e-4): number {
  if (found instanceof tf.Tensor) assert.deepEqual(found.shape, wanted.shape, what);
  const apart = difference(found instanceof tf.Tensor ? found.dataSync() : found, wanted.data);
  assert.ok(apart <= least, `${what}: ${apart}`);
  return apart;
}
