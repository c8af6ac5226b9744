"""Folders for what is measured, which nobody wants to keep."""

from __future__ import annotations

import atexit
import shutil
import tempfile


def scratch_folder() -> str:
    """A new folder, which is removed when this process ends."""
    folder = tempfile.mkdtemp(prefix="rs_bench")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
