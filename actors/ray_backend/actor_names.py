"""The names under which Ray's dashboard and `ray list actors` show a run's actors: "digits/client 0"."""

from __future__ import annotations

import uuid
from collections import Counter


class Names:
    """Each name once: an actor that replaces a dead one is "digits/client 0 (2)", as Ray frees a name late.

    Names are unique in a namespace, so each run has one of its own: two runs may have the same name.
    """

    def __init__(self, run: str) -> None:
        self._run = run
        self._namespace = f"ray_split-{uuid.uuid4().hex[:12]}"
        self._made: Counter[str] = Counter()

    def options(self, role: str) -> dict[str, str]:
        """Ray's options for one more actor of this role."""
        self._made[role] += 1
        again = f" ({self._made[role]})" if self._made[role] > 1 else ""
        return {"name": f"{self._run}/{role}{again}", "namespace": self._namespace}
