"""Speed, each figure beside what it is to be compared with, measured interleaved in one run: `make bench`.

Every row measures its cases in turn, several times over, and reports the median of each and of their ratios: on a
shared machine an absolute time says little. Rows are merged into bench.json by name.
To add a row, write a function in a file beside this one that returns a Row, and its line in ROWS.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch

from jobs.bench.exchange import exchange_row
from jobs.bench.holding import HOLDING_ROWS
from jobs.bench.large_models import LARGE_MODEL_ROWS
from jobs.bench.memory import MEMORY_ROWS
from jobs.bench.phones import PHONE_ROWS
from jobs.bench.recovery import RECOVERY_ROWS
from jobs.bench.runs import RUN_ROWS
from jobs.bench.scaling import SCALING_ROWS
from jobs.bench.stacking import stacking_row
from jobs.bench.submitting import SUBMITTING_ROWS
from jobs.bench.timing import Row
from jobs.ray_head import head

BENCH = Path("bench.json")

ROWS: dict[str, Callable[[int, int], Row]] = {
    "exchange of mlp": lambda repeats, calls: exchange_row("mlp", repeats, calls),
    "exchange of digits_cnn": lambda repeats, calls: exchange_row("digits_cnn", repeats, calls),
    **PHONE_ROWS,
    **RUN_ROWS,
    **MEMORY_ROWS,
    **HOLDING_ROWS,
    **LARGE_MODEL_ROWS,
    "what is stacked": stacking_row,
    **RECOVERY_ROWS,
    **SCALING_ROWS,
    **SUBMITTING_ROWS,
}


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    versions = {"python": platform.python_version(), "ray": ray.__version__, "torch": torch.__version__}
    return {
        "cpus": os.cpu_count(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "versions": versions | {"numpy": np.__version__},
    }


@contextmanager
def a_ray() -> Iterator[None]:
    """The Ray at RAY_ADDRESS, or a head of our own."""
    if os.environ.get("RAY_ADDRESS"):
        with _connected():
            yield
        return
    with head(num_cpus=12) as (address, _), _connected(address=address):
        yield


@contextmanager
def _connected(**where: str) -> Iterator[None]:
    """Disconnected again also if a row fails: else Ray ends this process before the error is seen."""
    ray.init(log_to_driver=False, **where)
    try:
        yield
    finally:
        ray.shutdown()


def main(arguments: list[str]) -> int:
    """Measure the rows named, or all, and merge them into bench.json."""
    parser = argparse.ArgumentParser(prog="jobs.bench", description=__doc__)
    parser.add_argument("rows", nargs="*", help=f"of: {', '.join(ROWS)} (default: all)")
    parser.add_argument("--repeats", type=int, default=31)
    parser.add_argument("--calls", type=int, default=30)
    parser.add_argument("--out", type=Path, default=BENCH)
    options = parser.parse_args(arguments)
    if unknown := [row for row in options.rows if row not in ROWS]:
        print(f"error: rows: {unknown} are not known; they may be {', '.join(ROWS)}", file=sys.stderr)
        return 2
    found = json.loads(options.out.read_text()) if options.out.exists() else {"rows": {}}
    with a_ray():
        for name in options.rows or ROWS:
            found["rows"][name] = ROWS[name](options.repeats, options.calls) | {"machine": machine()}
            print(name, json.dumps(found["rows"][name], indent=1), flush=True)
            options.out.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
