"""The same as `ray-split plan`, for `ray job submit --working-dir . -- python -m jobs.plan`."""

from __future__ import annotations

import sys

from ray_split.experiments.plan.main import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
