// Tensors as bytes: the safetensors format, for the kinds of numbers that the protocol has.

export type Numbers = Float32Array | Int32Array | Uint8Array;
export type Kind = "F32" | "I64" | "I32" | "U8";

export interface Plain {
  kind: Kind;
  shape: number[];
  /** I64 is held in an Int32Array: counts and labels are small. */
  data: Numbers;
}

export type Tensors = Record<string, Plain>;

interface Place {
  dtype: string;
  shape: number[];
  data_offsets: [number, number];
}

const BYTES: Record<Kind, number> = { F32: 4, I64: 8, I32: 4, U8: 1 };

export function size(shape: number[]): number {
  return shape.reduce((product, side) => product * side, 1);
}

export function f32(data: Float32Array, shape: number[]): Plain {
  return { kind: "F32", shape, data };
}

function isKind(kind: string): kind is Kind {
  return kind in BYTES;
}

function read(kind: Kind, bytes: Uint8Array): Numbers {
  // A copy: a tensor may begin at any byte, and a Float32Array may not.
  const copy = bytes.slice();
  if (kind === "U8") return copy;
  if (kind === "F32") return new Float32Array(copy.buffer);
  if (kind === "I32") return new Int32Array(copy.buffer);
  return Int32Array.from(new BigInt64Array(copy.buffer), Number);
}

function written(tensor: Plain): Uint8Array {
  const { kind, data } = tensor;
  const numbers = kind === "I64" ? BigInt64Array.from(data as Int32Array, BigInt) : data;
  return new Uint8Array(numbers.buffer, numbers.byteOffset, numbers.byteLength);
}

function tensorAt(name: string, place: Place, body: Uint8Array): Plain {
  const { dtype, shape, data_offsets: offsets } = place;
  if (!isKind(dtype)) throw new Error(`the tensor ${name} is of kind ${dtype}, which is unknown here`);
  const [start, end] = offsets;
  if (end > body.length || end - start !== size(shape) * BYTES[dtype]) {
    throw new Error(`the tensor ${name} has another size than it says`);
  }
  return { kind: dtype, shape, data: read(dtype, body.subarray(start, end)) };
}

export function decodeTensors(bytes: Uint8Array): Tensors {
  if (bytes.length === 0) return {};
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const length = Number(view.getBigUint64(0, true));
  if (8 + length > bytes.length) throw new Error("the tensors' header is longer than the tensors");
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + length))) as Record<string, Place>;
  const places = Object.entries(header).filter(([name]) => name !== "__metadata__");
  const body = bytes.subarray(8 + length);
  return Object.fromEntries(places.map(([name, place]) => [name, tensorAt(name, place, body)]));
}

export function encodeTensors(tensors: Tensors): Uint8Array {
  // I64 first, the rest after it: so each number stands at a multiple of its size.
  const widest = ([, one]: [string, Plain], [, other]: [string, Plain]) => BYTES[other.kind] - BYTES[one.kind];
  const entries = Object.entries(tensors).sort(widest);
  const header: Record<string, Place> = {};
  let end = 0;
  for (const [name, { kind, shape }] of entries) {
    const start = end;
    end += size(shape) * BYTES[kind];
    header[name] = { dtype: kind, shape, data_offsets: [start, end] };
  }
  const text = new TextEncoder().encode(JSON.stringify(header));
  const padded = Math.ceil(text.length / 8) * 8;
  const bytes = new Uint8Array(8 + padded + end).fill(32, 8, 8 + padded);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(padded), true);
  bytes.set(text, 8);
  for (const [name, tensor] of entries) bytes.set(written(tensor), 8 + padded + header[name].data_offsets[0]);
  return bytes;
}
