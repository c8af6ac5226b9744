"""The same as `ray-split plan`, for `ray job submit --working-dir . -- python -m jobs.plan`."""

from __future__ import annotations

import sys

from ray_split.cli import main

if __name__ == "__main__":
    sys.exit(main(["plan", *sys.argv[1:]]))
