// tfjs with all its gradients, and with those methods of tensors that are used here (each adds to the page's size).
import "@tensorflow/tfjs-core/dist/register_all_gradients";
import "@tensorflow/tfjs-core/dist/public/chained_ops/add";
import "@tensorflow/tfjs-core/dist/public/chained_ops/div";
import "@tensorflow/tfjs-core/dist/public/chained_ops/mean";
import "@tensorflow/tfjs-core/dist/public/chained_ops/mul";
import "@tensorflow/tfjs-core/dist/public/chained_ops/neg";
import "@tensorflow/tfjs-core/dist/public/chained_ops/relu";
import "@tensorflow/tfjs-core/dist/public/chained_ops/reshape";
import "@tensorflow/tfjs-core/dist/public/chained_ops/sigmoid";
import "@tensorflow/tfjs-core/dist/public/chained_ops/sqrt";
import "@tensorflow/tfjs-core/dist/public/chained_ops/square";
import "@tensorflow/tfjs-core/dist/public/chained_ops/squeeze";
import "@tensorflow/tfjs-core/dist/public/chained_ops/sub";
import "@tensorflow/tfjs-core/dist/public/chained_ops/sum";
import "@tensorflow/tfjs-core/dist/public/chained_ops/tanh";
import "@tensorflow/tfjs-core/dist/public/chained_ops/to_float";
import "@tensorflow/tfjs-core/dist/public/chained_ops/to_int";
import "@tensorflow/tfjs-core/dist/public/chained_ops/transpose";

export * from "@tensorflow/tfjs-core";
