// The device's samples: they stay here. Only what A makes of them leaves the device.
import type { InputSettings } from "./protocol";
import { type Plain, size } from "./safetensors";
import * as tf from "./tensors";

export class Samples {
  constructor(
    private readonly inputs: Plain,
    private readonly classes: Int32Array,
    private readonly settings: InputSettings,
  ) {
    if (inputs.shape[0] !== classes.length) throw new Error("there are not as many labels as samples");
  }

  get count(): number {
    return this.classes.length;
  }

  labels(places: number[]): Int32Array {
    return Int32Array.from(places, (place) => this.classes[this.known(place)]);
  }

  /** Bytes are scaled and shifted; numbers of other kinds are taken as they are. To be called inside tf.tidy. */
  batch(places: number[]): tf.Tensor {
    const each = size(this.settings.shape);
    const data = new Float32Array(places.length * each);
    places.forEach((place, row) => {
      const start = this.known(place) * each;
      data.set(this.inputs.data.subarray(start, start + each), row * each);
    });
    const values = tf.tensor(data, [places.length, ...this.settings.shape]);
    if (this.inputs.kind !== "U8") return values;
    const [scale, shift] = [this.settings.scale, this.settings.shift].map((number) => tf.tensor(number as number));
    return values.mul(scale).add(shift);
  }

  private known(place: number): number {
    if (!Number.isInteger(place) || place < 0 || place >= this.count) throw new Error(`there is no sample ${place}`);
    return place;
  }
}
