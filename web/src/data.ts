// The person's data, and what a run makes of it.
import { takesPictures, toInput, type Picture } from "./pictures";
import type { Welcome } from "./protocol";
import { shuffled } from "./random";
import { Samples } from "./samples";
import type { Plain } from "./safetensors";

export interface Pictures {
  kind: "pictures";
  pictures: Picture[];
}

export interface Examples {
  kind: "examples";
  inputs: Plain;
  labels: Int32Array;
}

export type Data = Pictures | Examples;

/** In an order by chance: a run may train on the first samples only, and people draw all ones after all zeros. */
export function mixed(pictures: Picture[]): Pictures {
  return { kind: "pictures", pictures: shuffled(pictures, pictures.length) };
}

export function count(data: Data): number {
  return data.kind === "pictures" ? data.pictures.length : data.labels.length;
}

/** How many samples there are of each label: of pictures as the person calls it. */
export function histogram(data: Data): Record<string, number> {
  const labels = data.kind === "pictures" ? data.pictures.map(({ label }) => label.slice(0, 40)) : Array.from(data.labels, String);
  const found: Record<string, number> = {};
  for (const label of labels) found[label] = (found[label] ?? 0) + 1;
  return found;
}

/** The class of a label: by the classes' names, or a number. */
function classOf(label: string, { classes, num_classes: many }: Welcome): number | null {
  const names = (classes ?? []).map((name) => String(name).toLowerCase());
  const named = names.indexOf(label.trim().toLowerCase());
  if (named >= 0) return named;
  const number = /^\d+$/.test(label.trim()) ? Number(label) : many;
  return number < many ? number : null;
}

/** Those labels that the run has no class for: a person has to say. */
export function unknownLabels(data: Data, welcome: Welcome): string[] {
  if (data.kind === "examples") return [];
  const labels = new Set(data.pictures.map(({ label }) => label));
  return [...labels].filter((label) => classOf(label, welcome) === null);
}

/** told: the classes that a person gave to the labels that the run doesn't know. */
export function samplesFor(data: Data, welcome: Welcome, told: Record<string, number>): Samples {
  const { input } = welcome;
  if (data.kind === "examples") return new Samples(data.inputs, data.labels, input);
  if (!takesPictures(input.shape)) throw new Error("This run doesn't learn from pictures. Leave, and use its examples.");
  const inputs = data.pictures.map((picture) => toInput(picture, input.shape, input.max ?? 255));
  const bytes = new Uint8Array(inputs.length * inputs[0].length);
  inputs.forEach((each, index) => bytes.set(each, index * each.length));
  const labels = data.pictures.map(({ label }) => classOf(label, welcome) ?? told[label]);
  const plain: Plain = { kind: "U8", shape: [inputs.length, ...input.shape], data: bytes };
  return new Samples(plain, Int32Array.from(labels), input);
}
