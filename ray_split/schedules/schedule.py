"""What a schedule is: how its rounds are submitted, and what the rest of a run must know of it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ray_split.config import yaml12
from ray_split.config.user_code.plugins import called
from ray_split.data.stream import Order, Stream
from ray_split.messages.turn import Turn
from ray_split.schedules.roles import Ref, Roles

Round = Generator[Ref, None, tuple[Ref | None, Ref | None]]
"""A round's calls; at its end the refs of the state of A and C, and of B: None for what the fed server averages."""

Submit = Callable[[Turn, Stream, Roles], Round]

WayOfB = Literal["in_turn", "own_copies", "shared_step", "joint_batch"]
"""How B serves a round's phones: whose weights of B these are, and when they step (actors/b_ways/ has them).

in_turn: one B, which steps after each phone's backward; nobody else has a turn in between. own_copies: a copy of B for
each phone, from `open` to `close`. shared_step: one B, and one `step` on the gradients of several calls. joint_batch:
the same, but all batches are one, in one call.
"""

FORM = "a generator function of (turn, stream, roles) and its kwargs, or a Schedule of one"


@dataclass(frozen=True)
class Schedule:
    """How a round is run.

    A bare function of the user's gets the defaults: phones abreast, averaged at a round's end, B on one server.
    """

    submit: Callable[..., Round]
    """A generator function of (turn, stream, roles, **kwargs): see the package's docstring."""
    takes: Mapping[str, Sequence[Any]] | None = None
    """schedule.kwargs, and what each may be; None: whatever `submit` takes."""
    order: Order = "abreast"
    """Of a round's phones: abreast; in_turn, each after the other's last step; interleaved, a step of each in turn."""
    averages: bool = True
    """The round's phones are averaged at its end; else each hands on to the next."""
    on_server: bool = True
    """B is on the server; else nothing of it crosses."""
    personal: bool = False
    """A and C stay with their phone, through the rounds."""
    replicas: Literal["none", "same_bits", "own_b"] = "none"
    """The server may be several: any number gives the same bits, or each trains a B of its own through a round."""
    joint_batch: bool = False
    """B steps once for all phones' batches; `batch`, accumulated or joint, is decided by whether B mixes samples."""
    clips: bool = False
    """It calls `server.step` with `client.norms` after each backward, where `roles.clips` says so."""
    accumulates: bool = False
    """Its turns say what is accumulated, as those of `stream.at` do; where phones take turns at B, after an update."""
    way: WayOfB = "in_turn"
    """How B serves a round's phones: in_turn, own_copies, shared_step or joint_batch."""

    remembers: bool = False
    """It hands on what phones remember for an algorithm: `submit_remembered`, and server.close with steps."""

    direct: bool = False
    """Its exchanges may be led by clients, where `roles.direct` says so: schedules/direct.py."""

    @property
    def cohorts(self) -> bool:
        """Whether phones may train together, which those that take turns can't."""
        return self.order == "abreast"

    @property
    def averaged(self) -> frozenset[str]:
        """The segments of which phones have copies that are averaged at a round's end."""
        ends = {"a", "c"} if self.averages and not self.personal else set[str]()
        middle = {"b"} if self.averages and (self.way == "own_copies" or not self.on_server) else set[str]()
        return frozenset(ends | middle)

    def way_with(self, kwargs: Mapping[str, Any]) -> WayOfB:
        """B's way with these kwargs, of which `batch` may ask for a joint batch."""
        return "joint_batch" if self.joint_batch and kwargs.get("batch") == "joint" else self.way

    def bind(self, kwargs: Mapping[str, Any]) -> Submit:
        """How a round is submitted with these kwargs."""
        return lambda turn, stream, roles: self.submit(turn, stream, roles, **kwargs)

    def why_not(self, kwargs: Mapping[str, Any]) -> str | None:
        """What they must be (of a function of the user's what is wrong), where it doesn't take these kwargs."""
        if self.takes is not None:
            if all(value in self.takes.get(name, ()) for name, value in kwargs.items()):
                return None
            return "; ".join(f"{name}: {_words(values)}" for name, values in self.takes.items()) or "left out"
        try:
            inspect.signature(self.submit).bind(None, None, None, **kwargs)
        except (TypeError, ValueError) as error:
            return f"{called(self.submit)} can't be called with (turn, stream, roles) and these kwargs: {error}"
        return None


def _words(values: Sequence[Any]) -> str:
    """As they are typed: text that would be read as a number has quotes."""
    return " or ".join(yaml12.write_line(value) for value in values)
