// What docs/protocol.md says, as types.

interface Base {
  name: string;
  inputs: string[];
}

export interface Linear extends Base {
  kind: "linear";
  weight: string;
  bias: string | null;
}

export interface Conv extends Base {
  kind: "conv1d" | "conv2d";
  weight: string;
  bias: string | null;
  stride: number[];
  padding: number[];
  dilation: number[];
  groups: number;
}

export interface Plainly extends Base {
  kind: "relu" | "sigmoid" | "tanh" | "add";
}

export interface Gelu extends Base {
  kind: "gelu";
  approximate: "none" | "tanh";
}

export interface Pool extends Base {
  kind: "max_pool1d" | "max_pool2d" | "avg_pool1d" | "avg_pool2d";
  kernel: number[];
  stride: number[];
  padding: number[];
  ceil_mode: boolean;
  count_include_pad?: boolean;
}

export interface AdaptivePool extends Base {
  kind: "adaptive_avg_pool1d" | "adaptive_avg_pool2d";
  output: (number | null)[];
}

export interface BatchNorm extends Base {
  kind: "batch_norm";
  weight: string | null;
  bias: string | null;
  mean: string | null;
  var: string | null;
  count: string | null;
  eps: number;
  momentum: number | null;
}

export interface LayerNorm extends Base {
  kind: "layer_norm";
  weight: string | null;
  bias: string | null;
  shape: number[];
  eps: number;
}

export interface Flatten extends Base {
  kind: "flatten";
  start: number;
  end: number;
}

export interface Dropout extends Base {
  kind: "dropout";
  p: number;
}

export interface Embedding extends Base {
  kind: "embedding";
  weight: string;
  padding: number | null;
}

export type Layer =
  | Linear
  | Conv
  | Plainly
  | Gelu
  | Pool
  | AdaptivePool
  | BatchNorm
  | LayerNorm
  | Flatten
  | Dropout
  | Embedding;

export interface Segment {
  input: string;
  output: string;
  layers: Layer[];
}

export interface Sgd {
  name: "sgd";
  momentum: number;
  dampening: number;
  nesterov: boolean;
  weight_decay: number;
}

export interface Adam {
  name: "adam" | "adamw";
  betas: [number, number];
  eps: number;
  weight_decay: number;
}

export type OptimizerSettings = Sgd | Adam;

export type Nested = number | Nested[];

export interface InputSettings {
  shape: number[];
  scale: Nested;
  shift: Nested;
  /** The highest value of a byte, where that isn't 255. */
  max?: number;
}

export interface Welcome {
  version: number;
  phone: number;
  run: string;
  rounds: number;
  schedule: string;
  samples: number;
  held_out: number;
  batch_size: number;
  input: InputSettings;
  classes: string[] | null;
  num_classes: number;
  layers: { a: Segment; c: Segment };
  hash: string;
  optimizers: { a: OptimizerSettings; c: OptimizerSettings };
  loss: { name: string; label_smoothing?: number };
  examples: string | null;
}

export type Side = "a" | "c";
