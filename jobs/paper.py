"""The same as `ray-split paper`, for `ray job submit --working-dir . -- python -m jobs.paper`."""

from __future__ import annotations

import sys

from ray_split.experiments.paper.main import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
