"""Large models at ImageNet's size, through Ray: what memory a run takes."""

from __future__ import annotations

from jobs.bench.timing import Row
from jobs.bench.whole_runs.runs import figures, watched

RUN = [
    "--phones.count", "4", "--data.name", "fake_images", "--data.kwargs", "{samples: 71, shape: [3, 224, 224]}",
    "--data.batch_size", "8", "--data.eval_batch_size", "8", "--schedule.name", "splitfed_v1",
    "--cluster.client_actors", "1", "--cluster.cpus_per_client", "1", "--server.num_cpus", "1",
    "--optimizer.lr", "0.01",
]  # fmt: skip


def large(model: str, cuts: str) -> Row:
    """Four phones with 16 images of 3x224x224 each, two rounds of splitfed_v1: memory of all processes."""
    return figures(watched(["--model.name", model, "--model.cuts", cuts, *RUN], 2)) | {"model": model, "cuts": cuts}


LARGE_MODEL_ROWS = {
    "run of resnet50, double split": lambda repeats, calls: large("resnet50", "maxpool,avgpool"),
    "run of densenet121, single split": lambda repeats, calls: large("densenet121", "features.transition1"),
}
