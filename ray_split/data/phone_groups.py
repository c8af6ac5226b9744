"""What phones are called where the data has names: the writer or speaker whose samples a phone has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ray_split.arrays import Array
from ray_split.data.sources.conversion import TEXT


class PhoneGroups(NamedTuple):
    """Of each phone the names of its ids, and what kind of ids they are."""

    kind: str
    names: tuple[str, ...]

    def whose(self, phones: Sequence[int]) -> str:
        """Of whom phones are, for people."""
        shown = ", ".join(self.names[phone] for phone in phones[:10]) + (", ..." if len(phones) > 10 else "")
        return f"{self.kind} {shown}"


def named(kind: str, ids: Array, indices: Array, offsets: Array) -> PhoneGroups | None:
    """The names, where ids (of each training sample) are text; numbers are no names.

    Of phone p's samples, `indices[offsets[p]:offsets[p + 1]]`, all ids that there are.
    """
    if ids.dtype.kind not in TEXT:
        return None
    words = np.char.decode(ids, "utf-8", "backslashreplace") if ids.dtype.kind == "S" else ids.astype(str)
    each = np.split(words[indices], offsets[1:-1])
    return PhoneGroups(kind, tuple(", ".join(dict.fromkeys(sorted(own.tolist()))) for own in each))
