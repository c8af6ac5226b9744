"""A thousand phones with adapters beside one base of ten million weights: memory of all processes."""

from __future__ import annotations

import json

import numpy as np

import ray_split as rs
from jobs.bench.timing import Row
from jobs.bench.whole_runs.runs import figures, watched

LENGTH, FEW = 16, 16
LLAMA = {
    "model_type": "llama", "hidden_size": 256, "num_hidden_layers": 8, "num_attention_heads": 4,
    "intermediate_size": 704, "vocab_size": 7000, "tie_word_embeddings": False,
}  # fmt: skip
RUN = [
    "--model.name", "hf-config:" + json.dumps(LLAMA), "--model.cuts", "model.layers.0,model.layers.6",
    "--model.lora.r", "32", "--data.name", "jobs.bench.whole_runs.adapters:tokens", "--data.batch_size", "1",
    "--data.val_fraction", "0", "--task.loss", "token_cross_entropy", "--optimizer.name", "adamw",
    "--phones.count", "10000", "--phones.per_round", "1000", "--phones.local_steps", "1",
    "--schedule.name", "splitfed_v1", "--server.num_gpus", "0", "--cluster.client_actors", "1",
    "--run.eval_every", "1000", "--checkpoint.every", "1000",
]  # fmt: skip


def tokens(samples: int = 10_000) -> rs.DataSet:
    """Sequences of a task that needs no file, each token followed by the next but one; a few to test on."""
    found = np.random.default_rng(0).integers(0, 7000, (samples, 1)) + 2 * np.arange(LENGTH + 1)
    found %= 7000
    train, test = (rs.Part(some[:, :-1], some[:, 1:]) for some in (found, found[:FEW]))
    return rs.DataSet(train, test)


def thousand_with_adapters(repeats: int, calls: int) -> Row:
    """One round of 1,000 of 10,000 phones, a step each, in cohorts as the settings choose."""
    return figures(watched(RUN, 1))


ADAPTER_ROWS = {"run of 1000 phones with adapters": thousand_with_adapters}
