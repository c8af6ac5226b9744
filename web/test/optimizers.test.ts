// Ten steps of each optimizer and the loss, against torch in float64.
import assert from "node:assert/strict";
import { test } from "node:test";
import { correct, crossEntropy } from "../src/loss";
import { Part } from "../src/part";
import type { OptimizerSettings, Segment } from "../src/protocol";
import * as tf from "../src/tensors";
import { close, difference, plainOf, reference, type Stored, tensorOf } from "./support";

interface OptimizerCase {
  settings: OptimizerSettings;
  start: Stored;
  steps: { gradient: Stored; lr: number; after: Stored }[];
  slots: Record<string, Stored>;
}

interface LossCase {
  scores: Stored;
  labels: number[];
  smoothing: number;
  correct: number;
  loss: number;
  gradient: Stored;
}

const NOTHING: Segment = { input: "x", output: "x", layers: [] };

for (const [name, found] of Object.entries(reference<Record<string, OptimizerCase>>("optimizers"))) {
  test(`${name}, sent away and back after five steps`, async () => {
    let part = new Part("a", NOTHING, found.settings, { "a/weights/w": plainOf(found.start) });
    for (const [number, { gradient, lr, after }] of found.steps.entries()) {
      if (number === 5) part = new Part("a", NOTHING, found.settings, await part.state(true));
      part.step({ w: tensorOf(gradient) }, lr);
      close((await part.state(false))["a/weights/w"].data, after, `step ${number}`, 1e-5);
    }
    const state = await part.state(true);
    const slots = Object.keys(state).filter((key) => key.startsWith("a/optimizer/w/"));
    assert.deepEqual(slots.sort(), Object.keys(found.slots).map((slot) => `a/optimizer/w/${slot}`).sort());
    for (const [slot, wanted] of Object.entries(found.slots)) {
      assert.deepEqual(state[`a/optimizer/w/${slot}`].shape, wanted.shape);
      close(state[`a/optimizer/w/${slot}`].data, wanted, slot, 1e-5);
    }
  });
}

for (const found of reference<LossCase[]>("losses")) {
  test(`cross entropy, smoothing ${found.smoothing}`, () => {
    const [scores, labels] = [tensorOf(found.scores), Int32Array.from(found.labels)];
    const { value, grad } = tf.valueAndGrad((x: tf.Tensor) => crossEntropy(x, labels, found.smoothing))(scores);
    assert.ok(difference(value.dataSync(), [found.loss]) < 1e-5);
    close(grad, found.gradient, "the gradient", 1e-5);
    assert.equal(correct(Float32Array.from(found.scores.data), labels), found.correct);
  });
}
