"""The same as `ray-split trace`, for `ray job submit --working-dir . -- python -m jobs.trace`."""

from __future__ import annotations

import sys

from ray_split.cli import main

if __name__ == "__main__":
    sys.exit(main(["trace", *sys.argv[1:]]))
