"""What an error of Ray's is to the round loop: an actor that died, a run that failed, or itself."""

from __future__ import annotations

from collections.abc import Mapping

from actors.ray_backend.joining.connection import first_line  # first: it sets what ray reads when it is imported

from ray.exceptions import (
    ActorUnavailableError,
    LocalRayletDiedError,
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayActorError,
    RayTaskError,
    WorkerCrashedError,
)

from actors.ray_backend import death_words
from ray_split.errors import ActorLostError, RunFailedError

# Something died, and what it held: an actor, its node, an object that was there only.
DEATHS = (
    RayActorError,
    ObjectLostError,
    NodeDiedError,
    WorkerCrashedError,
    LocalRayletDiedError,
    OutOfMemoryError,  # Ray's memory monitor killed it; torch's own error is another
)


def told(error: Exception, names: Mapping[str, str]) -> tuple[Exception, set[str]]:
    """The error for the round loop, and the ids of actors that it names as dead. `names`: the actors' by their ids."""
    while isinstance(error, RayTaskError) and isinstance(error.cause, Exception):
        error = error.cause
    if not isinstance(error, DEATHS):
        return error, set()
    if not isinstance(error, RayActorError):
        return ActorLostError(first_line(error)), set()
    name = names.get(error.actor_id, "an actor")
    if error.actor_init_failed:
        return RunFailedError(f"{name} could not be made: {death_words.raised(str(error))}"), set()
    what = "is out of reach" if isinstance(error, ActorUnavailableError) else "died"
    return ActorLostError(f"{name} {what}{death_words.death(str(error))}"), {error.actor_id}
