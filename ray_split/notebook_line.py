"""A line under a notebook's cell that is written anew: a bar, and text beside it."""

from __future__ import annotations

import sys
import time
from html import escape
from typing import Any

SECONDS = 0.2  # from one update to the next, at least, where one may be left out


def in_notebook() -> bool:
    """Whether a notebook's kernel runs this process. Imports nothing."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and getattr(ipython.get_ipython(), "kernel", None) is not None


class Line:
    """The line; it appears where it is made."""

    def __init__(self, total: int, completed: float, text: str) -> None:
        from IPython.display import display  # a notebook has it

        self._total, self._at = total, 0.0
        self._shown: Any = display(self._data(completed, text), raw=True, display_id=True)

    def _data(self, completed: float, text: str) -> dict[str, str]:
        bar = f"<progress value='{completed:.4f}' max='{self._total}'></progress>"
        return {"text/html": f"<div style='white-space:pre'>{bar}  {escape(text)}</div>", "text/plain": text}

    def show(self, completed: float, text: str, must: bool = True) -> None:
        """Write it anew; not `must`: unless that was just done."""
        if must or time.monotonic() - self._at > SECONDS:
            self._at = time.monotonic()
            self._shown.update(self._data(completed, text), raw=True)
