"""The same as `ray-split paper`, for `ray job submit --working-dir . -- python -m jobs.paper`."""

from __future__ import annotations

import sys

from ray_split.cli import main

if __name__ == "__main__":
    sys.exit(main(["paper", *sys.argv[1:]]))
