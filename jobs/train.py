"""Train: the same as `ray-split train`, for `ray job submit --working-dir . -- python -m jobs.train`."""

from __future__ import annotations

import sys

from ray_split.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
