import assert from "node:assert/strict";
import { test } from "node:test";
import { decode, encode } from "../src/frames";
import { encodeTensors, f32, type Tensors } from "../src/safetensors";

const TENSORS: Tensors = {
  "a/weights/1.weight": f32(Float32Array.of(1.5, -2, 3e-8, 4, 5, 6), [2, 3]),
  "a/weights/1.num_batches_tracked": { kind: "I64", shape: [], data: Int32Array.of(12) },
  bytes: { kind: "U8", shape: [3], data: Uint8Array.of(1, 2, 255) },
  nothing: f32(new Float32Array(0), [0, 4]),
};

test("what is encoded is decoded, wherever the message begins in memory", () => {
  const bytes = encode({ kind: "load", id: 3, round: 1 }, TENSORS);
  const moved = new Uint8Array(bytes.length + 3).subarray(3);
  moved.set(bytes);
  for (const message of [bytes, moved]) {
    const { header, tensors } = decode(message);
    assert.deepEqual(header, { kind: "load", id: 3, round: 1 });
    assert.deepEqual(tensors, TENSORS);
  }
});

test("a message without tensors is its header alone", () => {
  const bytes = encode({ kind: "bye", reason: "Grüße" });
  assert.equal(bytes.length, 4 + new DataView(bytes.buffer).getUint32(0, true));
  assert.deepEqual(decode(bytes), { header: { kind: "bye", reason: "Grüße" }, tensors: {} });
});

test("a message that says wrong sizes is refused", () => {
  assert.throws(() => decode(Uint8Array.of(1, 0)), /without a header/);
  assert.throws(() => decode(Uint8Array.of(9, 0, 0, 0, 123, 125)), /too long/);
  const tensors = encodeTensors({ x: f32(Float32Array.of(1, 2), [2]) });
  const short = new Uint8Array(encode({ kind: "x" }).length + tensors.length - 4);
  short.set(encode({ kind: "x" }));
  short.set(tensors.subarray(0, -4), encode({ kind: "x" }).length);
  assert.throws(() => decode(short), /another size/);
});
