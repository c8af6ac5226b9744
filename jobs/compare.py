"""The same as `ray-split compare`, for `ray job submit --working-dir . -- python -m jobs.compare`."""

from __future__ import annotations

import sys

from ray_split.cli import main

if __name__ == "__main__":
    sys.exit(main(["compare", *sys.argv[1:]]))
