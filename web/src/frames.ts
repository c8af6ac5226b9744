// A message: the length of its header, the header, and perhaps tensors.
import { decodeTensors, encodeTensors, type Tensors } from "./safetensors";

export interface Header {
  kind: string;
  id?: number;
  [field: string]: unknown;
}

export interface Frame {
  header: Header;
  tensors: Tensors;
}

const LONGEST = 1 << 20;

export function encode(header: Header, tensors: Tensors = {}): Uint8Array {
  const text = new TextEncoder().encode(JSON.stringify(header));
  const payload = Object.keys(tensors).length > 0 ? encodeTensors(tensors) : new Uint8Array(0);
  const bytes = new Uint8Array(4 + text.length + payload.length);
  new DataView(bytes.buffer).setUint32(0, text.length, true);
  bytes.set(text, 4);
  bytes.set(payload, 4 + text.length);
  return bytes;
}

export function decode(bytes: Uint8Array): Frame {
  if (bytes.length < 4) throw new Error("a message without a header");
  const length = new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true);
  if (length > LONGEST || 4 + length > bytes.length) throw new Error("a message whose header is too long");
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(4, 4 + length))) as Header;
  return { header, tensors: decodeTensors(bytes.subarray(4 + length)) };
}
