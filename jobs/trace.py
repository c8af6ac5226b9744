"""The same as `ray-split trace`, for `ray job submit --working-dir . -- python -m jobs.trace`."""

from __future__ import annotations

import sys

from ray_split.experiments.trace.main import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
