// Where to compute: the fastest of webgpu, webgl and cpu that trains, and does so with whole float32 numbers.
import "@tensorflow/tfjs-backend-cpu";
import "@tensorflow/tfjs-backend-webgl";
import "@tensorflow/tfjs-backend-webgpu";
import * as tf from "./tensors";

const BACKENDS = ["webgpu", "webgl", "cpu"];

/** Gradients of a small convolution, as computed by hand; many telephones' webgl has 16 bits, too few for these. */
async function trains(): Promise<boolean> {
  const [x, kernel] = [tf.tensor4d([1.0001, 2, 3, 4], [1, 2, 2, 1]), tf.tensor4d([1, 1, 1, 1.0002], [2, 2, 1, 1])];
  const y = (input: tf.Tensor, weight: tf.Tensor) => tf.conv2d(input as tf.Tensor4D, weight as tf.Tensor4D, 1, "valid");
  const [ofX, ofKernel] = tf.grads(y)([x, kernel]);
  const found = [...(await ofX.data()), ...(await ofKernel.data())];
  tf.dispose([x, kernel, ofX, ofKernel]);
  const wanted = [1, 1, 1, 1.0002, 1.0001, 2, 3, 4];
  return found.every((value, index) => Math.abs(value - wanted[index]) < 1e-6);
}

async function works(name: string): Promise<boolean> {
  try {
    return (await tf.setBackend(name)) && (await trains());
  } catch {
    return false;
  }
}

/** The chosen backend's name. wanted: one that a person asked for in the page's address. */
export async function chooseBackend(wanted: string | null): Promise<string> {
  const order = wanted && BACKENDS.includes(wanted) ? [wanted, "cpu"] : BACKENDS;
  for (const name of order) if (await works(name)) return name;
  throw new Error("this browser can't train a network");
}
