"""Where a call stands in the stream, which every call to an actor says first; and how training begins."""

from __future__ import annotations

from typing import NamedTuple


class Turn(NamedTuple):
    """Where a call stands in the stream. `attempt` counts the tries of a round; it changes no draw."""

    round: int
    attempt: int
    phones: tuple[int, ...]  # the cohort: those that train together
    step: int


class Start(NamedTuple):
    """How a cohort's phones begin a round, beside the weights that `load` brings."""

    fresh_optimizer: bool = True  # else the one that came with the weights goes on
    crosses: bool = True  # the weights come to the phones from outside, and their bytes are counted
    sender: tuple[int, ...] = ()  # the phone that handed them on
    steps: tuple[int, ...] | None = None  # how many each phone takes, if not all that it planned


USUAL = Start()
