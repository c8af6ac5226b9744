"""Whether what settings ask for can be held by this machine at all: asking it for more may end the process."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray_split.errors import SettingsError, shown

LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")  # of a container

MOST_TOLD = 10**18


@functools.lru_cache
def memory() -> int:
    """Bytes that this machine has, or this container may use."""
    limits = [Path(file).read_text().strip() for file in LIMITS if Path(file).is_file()]
    return min([os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), *map(int, filter(str.isdecimal, limits))])


def check_fits(field: str, given: Mapping[str, Any], size: int) -> None:
    """See that so many bytes can be held. Raises SettingsError."""
    if size > memory():
        asked = f"{size // 10**9} GB" if size < MOST_TOLD else f"more than {MOST_TOLD // 10**9} GB"
        wrong = f"{shown(dict(given))} needs at least {asked} of memory, but this machine has {memory() / 1e9:.3g} GB"
        raise SettingsError(field, dict(given), "Use smaller values", wrong)
