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

from jobs.bench.channels import CHANNEL_ROWS
from jobs.bench.clusters.recovery import RECOVERY_ROWS
from jobs.bench.clusters.scaling import SCALING_ROWS
from jobs.bench.clusters.submitting import SUBMITTING_ROWS
from jobs.bench.decoding import decoding_row
from jobs.bench.devices.wire import DEVICE_ROWS
from jobs.bench.exchange import exchange_row
from jobs.bench.holding import HOLDING_ROWS
from jobs.bench.phones import PHONE_ROWS
from jobs.bench.stacking import stacking_row
from jobs.bench.thread_grid import THREAD_ROWS
from jobs.bench.timing import Row
from jobs.bench.whole_runs.adapters import ADAPTER_ROWS
from jobs.bench.whole_runs.large_models import LARGE_MODEL_ROWS
from jobs.bench.whole_runs.memory import MEMORY_ROWS
from jobs.bench.whole_runs.runs import RUN_ROWS
from jobs.ray_head import head
from ray_split.command_line.parser import Parser
from ray_split.config.user_code.plugins import suggest
from ray_split.errors import SettingsError, first_line, listed
from ray_split.experiments.out_folder import check_writable

BENCH = Path("bench.json")

ROWS: dict[str, Callable[[int, int], Row]] = {
    "exchange of mlp": lambda repeats, calls: exchange_row("mlp", repeats, calls),
    "exchange of digits_cnn": lambda repeats, calls: exchange_row("digits_cnn", repeats, calls),
    **CHANNEL_ROWS,
    **PHONE_ROWS,
    **RUN_ROWS,
    **MEMORY_ROWS,
    **ADAPTER_ROWS,
    **HOLDING_ROWS,
    **LARGE_MODEL_ROWS,
    **DEVICE_ROWS,
    "what is stacked": stacking_row,
    "batches made ahead": decoding_row,
    **RECOVERY_ROWS,
    **SCALING_ROWS,
    **SUBMITTING_ROWS,
    **THREAD_ROWS,
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
    with head(num_cpus=32) as (address, _), _connected(address=address):
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
    try:
        return _measure(asked_by(arguments))
    except SettingsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def asked_by(arguments: list[str]) -> argparse.Namespace:
    """What is to be measured, and with `found` what is in the file of rows. Raises SettingsError."""
    parser = Parser(prog="jobs.bench", description=__doc__)
    parser.add_argument("rows", nargs="*", help=f"of: {', '.join(ROWS)} (default: all)")
    parser.add_argument("--repeats", type=int, default=31)
    parser.add_argument("--calls", type=int, default=30)
    parser.add_argument("--out", type=Path, default=BENCH)
    options: argparse.Namespace = parser.parse_args(arguments)
    if unknown := [row for row in options.rows if row not in ROWS]:
        wrong = f"there is no row {unknown[0]!r}"
        raise SettingsError("", unknown[0], suggest(unknown[0], ROWS, f"The rows are {listed(ROWS)}"), wrong)
    for name in ("repeats", "calls"):
        if getattr(options, name) < 1:
            raise SettingsError(f"--{name}", getattr(options, name), "at least 1")
    check_writable(options.out.absolute().parent)
    options.found = rows_in(options.out)
    return options


ROWS_FILE = "Name a file that jobs.bench has written, such as bench.json, or a new one"


def rows_in(file: Path) -> dict[str, Any]:
    """What is in a file of rows, which need not be there. Raises SettingsError."""
    try:
        found = json.loads(file.read_text()) if file.exists() else {"rows": {}}
    except (OSError, ValueError) as error:
        raise SettingsError("--out", str(file), ROWS_FILE, f"{file} can't be read: {first_line(error)}") from error
    if not isinstance(found, dict) or not isinstance(found.get("rows"), dict):
        raise SettingsError("--out", str(file), ROWS_FILE, f"{file} is not a file of rows")
    return found


def _measure(options: argparse.Namespace) -> int:
    found = options.found
    with a_ray():
        for name in options.rows or ROWS:
            found["rows"][name] = ROWS[name](options.repeats, options.calls) | {"machine": machine()}
            print(name, json.dumps(found["rows"][name], indent=1), flush=True)
            options.out.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
