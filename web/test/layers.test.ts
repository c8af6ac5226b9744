// Each kind of layer against torch in float64: output in both modes, gradients, BatchNorm's statistics.
import assert from "node:assert/strict";
import { test } from "node:test";
import { run } from "../src/layers";
import { Part } from "../src/part";
import type { Segment, Sgd } from "../src/protocol";
import { encodeTensors, decodeTensors, type Tensors } from "../src/safetensors";
import * as tf from "../src/tensors";
import { close, plainOf, reference, type Stored, tensorOf } from "./support";

interface Case {
  segment: Segment;
  weights: Record<string, Stored>;
  x: Stored;
  y: Stored;
  evaluated: Stored;
  dy: Stored;
  dx: Stored | null;
  gradients: Record<string, Stored>;
  after: Record<string, Stored>;
}

const PLAIN: Sgd = { name: "sgd", momentum: 0, dampening: 0, nesterov: false, weight_decay: 0 };

function payload(weights: Record<string, Stored>): Tensors {
  const entries = Object.entries(weights).map(([name, stored]) => {
    return [`a/weights/${name}`, plainOf(stored, name.endsWith("num_batches_tracked") ? "I64" : "F32")] as const;
  });
  return decodeTensors(encodeTensors(Object.fromEntries(entries)));
}

let worst = 0;
for (const [name, found] of Object.entries(reference<Record<string, Case>>("layers"))) {
  test(name, async () => {
    const part = new Part("a", found.segment, PLAIN, payload(found.weights));
    const [x, dy] = [tensorOf(found.x), tensorOf(found.dy)];
    const before = part.evaluate(x);
    const figures = [close(before, found.evaluated, "eval mode")];
    const y = part.train(x, 1);
    figures.push(close(y, found.y, "training mode"));
    const gradients = part.backward(x, dy, 1);
    for (const [parameter, wanted] of Object.entries(found.gradients)) {
      figures.push(close(gradients[parameter], wanted, `the gradient of ${parameter}`));
    }
    assert.deepEqual(Object.keys(gradients).sort(), Object.keys(found.gradients).sort());
    const after = await part.state(false);
    for (const [tensor, wanted] of Object.entries(found.after)) {
      figures.push(close(after[`a/weights/${tensor}`].data, wanted, `${tensor} afterwards`));
    }
    if (found.dx) {
      const { x: ofInput } = part.gradientsOf((output) => output.mul(dy).sum(), x, 1);
      figures.push(close(ofInput!, found.dx, "the gradient of the input"));
    }
    worst = Math.max(worst, ...figures);
  });
}

test("the largest difference is told", () => console.log(`layers: largest difference ${worst.toExponential(2)}`));

test("dropout drops its share, the same for a seed, another for another seed, nothing in eval mode", () => {
  const segment: Segment = {
    input: "x",
    output: "d",
    layers: [{ name: "d", kind: "dropout", inputs: ["x"], p: 0.25 }],
  };
  const x = tf.ones([200, 50]);
  const dropped = (training: boolean, seed: number) => [...run(segment, {}, x, { training, seed }).dataSync()];
  const share = dropped(true, 7).filter((value) => value === 0).length / 10000;
  assert.ok(Math.abs(share - 0.25) < 0.02, `${share}`);
  assert.ok(dropped(true, 7).every((value) => value === 0 || Math.abs(value - 4 / 3) < 1e-6));
  assert.deepEqual(dropped(true, 7), dropped(true, 7));
  assert.notDeepEqual(dropped(true, 7), dropped(true, 8));
  assert.ok(dropped(false, 7).every((value) => value === 1));
});

test("a layer that isn't known is named", () => {
  const segment = { input: "x", output: "l", layers: [{ name: "l", kind: "lstm", inputs: ["x"] }] };
  const compute = () => run(segment as unknown as Segment, {}, tf.ones([1]), { training: true, seed: 0 });
  assert.throws(compute, /no layer of the kind lstm/);
});
