"""Waiting for results, and looking after the actors that they come from. Imports ray, after backend.py."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ray
from ray._private import state
from ray.exceptions import GetTimeoutError

from actors.ray_backend import heartbeat, silence
from actors.ray_backend.silence import Silence
from ray_split import logs
from ray_split.errors import ActorLostError
from ray_split.schedules.roles import Handle, Ref

logger = logs.get(__name__)


class Watch:
    """Looks after a run's actors while somebody waits for them."""

    def __init__(
        self, silent_seconds: float | None, named: Callable[[], Mapping[str, Handle]], between: Callable[[], None]
    ) -> None:
        """`between` is called at each look; what it raises is raised."""
        self.period = silence.period(silent_seconds)
        self._limit, self._named, self._between = silent_seconds, named, between
        self._silence = Silence(2 * self.period)

    def get(self, refs: Sequence[Ref]) -> list[Any]:
        """Ray's get. Tells what it waits for, if that takes long. Raises ActorLostError for an actor that hangs."""
        start, tell = time.monotonic(), silence.TELL_SECONDS
        while True:
            try:
                found = list(ray.get(list(refs), timeout=self.period))
            except GetTimeoutError:
                silent, waited = self.look(), time.monotonic() - start
                if waited > tell:
                    tell *= 2
                    logger.warning("%s", silence.waits(waited, self._awaited(refs), silent))
            else:
                self._silence.rest()
                return found

    def look(self) -> dict[str, float]:
        """Seconds of silence, of the actors that should have been heard. Raises ActorLostError if it is too long."""
        self._between()
        names = {id_of(handle): name for name, handle in self._named().items()}
        signs = {actor: heartbeat.sign(actor) for actor in names}
        signs = {actor: sign for actor, sign in signs.items() if sign is not None or has_process(actor)}
        seconds = self._silence.look(signs, time.monotonic())
        if lost := silence.too_long(seconds, signs, self._limit):
            self._end(lost)
            told = ", ".join(f"{names[actor]} gave no sign of life for {seconds[actor]:.0f} s" for actor in lost)
            raise ActorLostError(f"{told} (cluster.silent_seconds)")
        return {names[actor]: s for actor, s in seconds.items() if s > 2 * self.period}

    def _end(self, lost: Sequence[str]) -> None:
        """Kill who hangs, also a process that is stopped: Ray then knows that it is dead."""
        for handle in self._named().values():
            if id_of(handle) in lost:
                ray.kill(handle)

    def _awaited(self, refs: Sequence[Ref]) -> list[str]:
        """The actors that have not answered. Who they in turn may wait for is told by who is silent."""
        late = ray.wait(list(refs), num_returns=len(refs), timeout=0, fetch_local=False)[1]
        actors = {ref.task_id().actor_id().hex() for ref in late}
        return [name for name, handle in self._named().items() if id_of(handle) in actors]

    def forget(self, handles: Sequence[Handle]) -> None:
        """These are no more: their signs needn't be kept."""
        for handle in handles:
            heartbeat.forget(id_of(handle))


def id_of(handle: Handle) -> str:
    """An actor's id, as Ray's errors name it."""
    return str(handle._actor_id.hex())


def has_process(actor: str) -> bool:
    """Whether Ray found room for the actor, also while it is being made."""
    return bool(state.actors(actor).get("Pid"))
