"""What columns of metrics.jsonl are called where they stand in groups: in TensorBoard, MLflow and Weights & Biases."""

from __future__ import annotations

import re

ALONE = {
    "phones": "phones/trained",
    "left_out": "phones/left_out",
    "samples": "train/samples",
    "exchanges": "train/exchanges",
    "virtual_seconds": "virtual_seconds/round",
}
GROUPS = (
    (re.compile(r"virtual_(\w+)_seconds"), "virtual_seconds"),
    (re.compile(r"(\w+)_seconds"), "seconds"),
    (re.compile(r"phones?_(\w+)"), "phones"),
    (re.compile(r"train_(.+)"), "train"),
    (re.compile(r"val_(.+)"), "val"),
    (re.compile(r"test_(.+)"), "test"),
    (re.compile(r"bytes_(\w+)"), "bytes"),
)


def tag(column: str) -> str:
    """A column's group, and its name there: `train/loss`, `phones/late`."""
    if column in ALONE:
        return ALONE[column]
    found = next(((group, match[1]) for form, group in GROUPS if (match := form.fullmatch(column))), ("run", column))
    return "/".join(found)
