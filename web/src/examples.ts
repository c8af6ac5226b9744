// The demo's examples: a part of its data set that the gateway lends to a device without data of its own.
import type { Examples } from "./data";
import { decodeTensors } from "./safetensors";

const ADDRESS = "examples.safetensors";

function headers(token: string): HeadersInit {
  return { Authorization: `Bearer ${token}` };
}

export async function hasExamples(token: string): Promise<boolean> {
  if (!token) return false;
  const answer = await fetch(ADDRESS, { method: "HEAD", headers: headers(token) }).catch(() => null);
  return answer?.ok ?? false;
}

export async function examples(token: string): Promise<Examples> {
  const answer = await fetch(ADDRESS, { headers: headers(token) });
  if (!answer.ok) throw new Error("The examples can't be had with this token.");
  const { inputs, labels } = decodeTensors(new Uint8Array(await answer.arrayBuffer()));
  return { kind: "examples", inputs, labels: Int32Array.from(labels.data) };
}
