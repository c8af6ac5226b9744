"""Signs of life of an actor's process, also while it computes: a thread that counts, in a place that the driver reads.

A process that is stopped, or whose Python hangs, gives none. Comes into every actor's process, so it imports no torch.
"""

from __future__ import annotations

import itertools
import threading
import time
from contextlib import suppress

import ray
from ray.experimental.internal_kv import _internal_kv_del, _internal_kv_get, _internal_kv_put

NAMESPACE = "ray_split pulse"


def begin(seconds: float) -> None:
    """From here on this actor's process gives a sign every so many seconds."""
    threading.Thread(target=_beat, args=(ray.get_runtime_context().get_actor_id(), seconds), daemon=True).start()


def _beat(actor: str, seconds: float) -> None:
    for count in itertools.count():
        with suppress(Exception):  # of whatever kind: the head is out of reach; if it stays so, Ray ends this process
            _internal_kv_put(actor, str(count), overwrite=True, namespace=NAMESPACE)
        time.sleep(seconds)


def sign(actor: str) -> bytes | None:
    """The last sign of an actor, by its id; None before the first."""
    found: bytes | None = _internal_kv_get(actor, namespace=NAMESPACE)
    return found


def forget(actor: str) -> None:
    """Nobody asks for this actor's signs any more."""
    _internal_kv_del(actor, namespace=NAMESPACE)
