// What becomes of the person's data when the run has said what it takes.
import assert from "node:assert/strict";
import { test } from "node:test";
import { mixed, samplesFor, unknownLabels } from "../src/data";
import { resized, toInput, type Picture } from "../src/pictures";
import type { Welcome } from "../src/protocol";
import { Samples } from "../src/samples";
import * as tf from "../src/tensors";
import "./support";

const WELCOME = {
  input: { shape: [1, 2, 2], scale: 0.0625, shift: 0.5, max: 16 },
  classes: ["Cat", "Dog"],
  num_classes: 2,
} as unknown as Welcome;

/** Left half of one colour, right half of another. */
function picture(left: number[], right: number[], label: string): Picture {
  const pixels = Array.from({ length: 16 }, (_, place) => (place % 4 < 2 ? left : right)).flat();
  return { side: 4, pixels: Uint8Array.from(pixels), label };
}

test("a picture becomes smaller or larger by means of areas, also where the sides don't divide", () => {
  const plane = Float32Array.from({ length: 9 }, (_, place) => place);
  assert.deepEqual([...resized(plane, 3, 1, 1)], [4]);
  const [a, b] = resized(plane, 3, 2, 2);
  assert.ok(Math.abs(a - (0 + 1 / 2 + 3 / 2 + 4 / 4) / 2.25) < 1e-6 && b > a);
  assert.deepEqual([...resized(Float32Array.of(5), 1, 2, 2)], [5, 5, 5, 5]);
});

test("grey or coloured, by the channels; bytes up to the run's highest", () => {
  const red = picture([255, 0, 0], [255, 255, 255], "cat");
  assert.deepEqual([...toInput(red, [1, 1, 2], 255)], [76, 255]);
  assert.deepEqual([...toInput(red, [3, 1, 2], 16)], [16, 16, 0, 16, 0, 16]);
});

test("labels are classes by name or number; others are asked for", () => {
  const labels = ["cat", " DOG ", "1", "2", "mouse"];
  const data = mixed(labels.map((label) => picture([0, 0, 0], [255, 255, 255], label)));
  assert.deepEqual(new Set(unknownLabels(data, WELCOME)), new Set(["2", "mouse"]));
  const samples = samplesFor(data, WELCOME, { 2: 0, mouse: 1 });
  assert.equal(samples.count, 5);
  const wanted = data.pictures.map(({ label }) => ({ cat: 0, " DOG ": 1, "1": 1, "2": 0, mouse: 1 })[label]);
  assert.deepEqual([...samples.labels([0, 1, 2, 3, 4])], wanted);
  assert.deepEqual([...samples.batch([3]).dataSync()], [0.5, 1.5, 0.5, 1.5]);
  assert.throws(() => samples.batch([5]), /no sample 5/);
});

test("a run that isn't about pictures says so", () => {
  const data = mixed([picture([0, 0, 0], [0, 0, 0], "cat")]);
  const series = { ...WELCOME, input: { shape: [6, 64], scale: 1, shift: 0 } } as Welcome;
  assert.throws(() => samplesFor(data, series, {}), /doesn't learn from pictures/);
});

test("a scale for each channel is applied as numpy does; numbers that are no bytes are left alone", () => {
  const shape = [2, 1, 1];
  const settings = { shape, scale: [[[2]], [[3]]], shift: [[[0]], [[1]]] };
  const bytes = new Samples({ kind: "U8", shape: [1, ...shape], data: Uint8Array.of(1, 2) }, Int32Array.of(0), settings);
  assert.deepEqual([...bytes.batch([0]).dataSync()], [2, 7]);
  const numbers = { kind: "F32" as const, shape: [1, ...shape], data: Float32Array.of(1, 2) };
  assert.deepEqual([...new Samples(numbers, Int32Array.of(0), settings).batch([0]).dataSync()], [1, 2]);
  tf.disposeVariables();
});
