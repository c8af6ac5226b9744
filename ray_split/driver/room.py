"""How much a server computes at once: cohorts, and phones of a cohort. Less, from the round on in which it had no room.

Fewer cohorts change no bit of what is computed. Smaller chunks of a stack of phones may change the last ones: so what
was changed is written down, and a run that is resumed goes on with it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ray_split import config
from ray_split.errors import ClientMemoryError, DeviceMemoryError, RunFailedError
from ray_split.schedules.exchange import LANES
from ray_split.schedules.schedule import WayOfB

CHUNKED = ("own_copies", "shared_step")
"""The ways of B in which several cohorts, and several phones of a cohort, are computed at once."""

DO = "set a smaller data.batch_size or data.eval_batch_size, server.dtype bfloat16, or use a GPU with more memory"


class Limits(NamedTuple):
    """Cohorts that a server has under way, and phones that it computes in one go (None: a cohort's all)."""

    lanes: int
    chunk: int | None


class Room:
    """The limits by round: those of the settings, and what was taken back from them since."""

    def __init__(self, settings: config.Config, way: WayOfB, kept: list[dict[str, Any]]) -> None:
        """`kept`: what was taken back, to which more is added: `round` from which, `lanes` and `chunk`."""
        self._settings, self._way, self._kept = settings, way, kept

    def at(self, round: int) -> Limits:
        """The limits of a round; before the first one, its."""
        round = max(round, 0)
        server, since = self._settings.server, [each for each in self._kept if each["round"] <= round]
        chunks = [chunk_at(server.chunk, round), *(each["chunk"] for each in since)]
        lanes = min([server.lanes, *(each["lanes"] for each in since)])
        return Limits(lanes, min((chunk for chunk in chunks if chunk is not None), default=None))

    def shrink(self, round: int, cohorts: int, clients: int, error: DeviceMemoryError) -> Limits:
        """Take something back from `round` on. Raises RunFailedError where nothing is left to take.

        `cohorts`: of the round; `clients`: how many client actors there are.
        """
        smaller = self._smaller(self.at(round), cohorts, clients) if self._way in CHUNKED else None
        if isinstance(error, ClientMemoryError) and (smaller is None or smaller.lanes == self.at(round).lanes):
            raise RunFailedError(f"{error}: {self._for_clients(error)}") from error
        if smaller is None:
            least = "phone by phone" if self._way in CHUNKED else f"with schedule.name {self._settings.schedule.name}"
            raise RunFailedError(f"the server's GPU has no room for B even {least} ({error}): {DO}") from error
        self._kept.append({"round": max(round, 0), "lanes": smaller.lanes, "chunk": smaller.chunk})
        return smaller

    def _smaller(self, now: Limits, cohorts: int, clients: int) -> Limits | None:
        """Half as many cohorts that really go abreast; when it is one, half as many phones of it."""
        servers, size = self._settings.server.replicas, int(self._settings.phones.cohort)
        abreast = min(now.lanes, -(-min(LANES * clients, cohorts) // servers))
        phones = min(now.chunk or size, size)
        if abreast > 1:
            return now._replace(lanes=abreast // 2)
        return now._replace(chunk=phones // 2) if phones > 1 else None

    def _for_clients(self, error: ClientMemoryError) -> str:
        """What to do where a client's GPU has no room even for one cohort at a time."""
        fewer = " or phones.cohort" if len(error.phones) > 1 else ""
        half = ", phones.dtype bfloat16" if self._settings.phones.dtype == "float32" else ""
        size = "data.batch_size" if error.phones else "data.eval_batch_size"
        return (
            f"set a smaller {size}{fewer}{half}, or go on with --run.resume and cluster.client_gpus 0: A and C are on "
            "CPUs then"
        )

    def columns(self, round: int) -> dict[str, int]:
        """What a round's row says of it: the chunk, where there is one, and the lanes, where they are fewer."""
        lanes, chunk = self.at(round)
        fewer = {"server_lanes": lanes} if lanes < self._settings.server.lanes else {}
        return fewer if chunk is None else {**fewer, "server_chunk": chunk}


def chunk_at(said: str | int | dict[int, int], round: int) -> int | None:
    """The chunk that a setting says of a round; None if it is any."""
    if isinstance(said, dict):
        begun = [first for first in said if first <= round]
        return said[max(begun)] if begun else None
    return said if isinstance(said, int) else None


def told(round: int, limits: Limits, before: Limits, error: DeviceMemoryError) -> str:
    """That a round is run again with less at once, for people."""
    fewer = f"server.lanes is {limits.lanes}" if limits.lanes != before.lanes else f"server.chunk is {limits.chunk}"
    why = error if isinstance(error, ClientMemoryError) else f"the server's GPU had no room ({error})"
    return f"round {max(round, 0) + 1} is run again, and from it on {fewer}: {why}"
