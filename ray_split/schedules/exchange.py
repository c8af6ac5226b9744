"""The exchange that all schedules share: the round trip of one batch of one phone."""

from __future__ import annotations

from collections.abc import Iterator

from ray_split.draws import Turn
from ray_split.wiring import Handle, Ref


def exchange(client: Handle, server: Handle, turn: Turn) -> Iterator[Ref]:
    """Submit one exchange; yields the ref of its report, which is there once A has stepped.

    A backward uses the weights of its forward because nothing is submitted to the server in between.
    """
    activation = client.forward.remote(turn)
    hidden = server.forward.remote(turn, activation)
    hidden_gradient = client.loss.remote(turn, hidden)
    activation_gradient = server.backward.remote(turn, hidden_gradient)
    yield client.backward.remote(turn, activation_gradient)
