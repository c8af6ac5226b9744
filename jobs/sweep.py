"""The same as `ray-split sweep`, for `ray job submit --working-dir . -- python -m jobs.sweep`."""

from __future__ import annotations

import sys

from ray_split.cli import main

if __name__ == "__main__":
    sys.exit(main(["sweep", *sys.argv[1:]]))
