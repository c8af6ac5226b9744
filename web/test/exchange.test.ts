// 100 steps over frames against torch's losses on the same batches; and nothing is left in memory by them.
import assert from "node:assert/strict";
import { test } from "node:test";
import * as tf from "../src/tensors";
import { Server, type Exchange } from "./server";
import { reference } from "./support";

for (const name of ["digits", "series"]) {
  test(`100 steps of ${name} in four rounds`, async () => {
    const found = reference<Exchange>(`exchange_${name}`);
    const server = new Server(found);
    let state = null;
    let largest = 0;
    let tensors = 0;
    for (const step of found.losses.keys()) {
      const round = Math.floor(step / 25);
      if (step % 25 === 0) assert.equal((await server.load(round, state)).header.kind, "load");
      const loss = await server.step(round, step);
      largest = Math.max(largest, Math.abs(loss / found.losses[step] - 1));
      if (step === 2) tensors = tf.memory().numTensors;
      if (step > 2) assert.equal(tf.memory().numTensors, tensors, `tensors are left over by step ${step}`);
      if (step % 25 === 24) state = (await server.ask({ kind: "close", round, optimizer: true })).tensors;
    }
    await server.load(4, state);
    const accuracy = await server.accuracy(4);
    console.log(`${name}: largest difference of a loss ${largest.toExponential(2)}, accuracy ${accuracy}`);
    assert.ok(largest < 1e-4, `${largest}`);
    assert.ok(Math.abs(accuracy - found.accuracy) < 0.01 && accuracy >= 0.95, `${accuracy}`);
    assert.equal(server.figures.length, found.losses.length);
  });
}

test("a question at the wrong time is answered by failed, and the next round goes on", async () => {
  const server = new Server(reference<Exchange>("exchange_digits"));
  const kindOf = async (header: { kind: string; [field: string]: unknown }) => (await server.ask(header)).header.kind;
  assert.equal(await kindOf({ kind: "forward", round: 0, step: 0, samples: [0], seed: 0 }), "failed");
  await server.load(0, null);
  assert.equal(await kindOf({ kind: "forward", round: 1, step: 0, samples: [0], seed: 0 }), "failed");
  assert.equal(await kindOf({ kind: "forward", round: 0, step: 0, samples: [10 ** 6], seed: 0 }), "failed");
  assert.equal(await kindOf({ kind: "backward", round: 0, step: 0, lr: 1 }), "failed");
  assert.equal(await kindOf({ kind: "load", round: 0, hash: "of others" }), "failed");
  assert.equal(await kindOf({ kind: "what", round: 0 }), "failed");
  await server.load(1, null);
  assert.equal(await kindOf({ kind: "forward", round: 1, step: 0, samples: [0], seed: 0 }), "forward");
  assert.equal(await kindOf({ kind: "release", round: 1 }), "release");
});
