"""What the calls of a schedule of the user's come to in the round that is tried: see schedule_trial.py.

A call that no actor could answer is refused. What is trained otherwise than the stream has it is told of: it may be
meant so, but the metrics, virtual time and rs.stream go by the stream.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any, NoReturn

import numpy as np

from ray_split.arrays import Array
from ray_split.config.user_code.by_value import spoken
from ray_split.costs.recorded_calls import Call
from ray_split.data.stream import Stream
from ray_split.errors import SettingsError
from ray_split.messages.turn import Start, Turn
from ray_split.schedules.schedule import WayOfB

FROM = {
    "server.forward": ("client.forward",),
    "server.learn": ("client.forward",),
    "client.loss": ("server.forward",),
    "server.backward": ("client.loss",),
    "client.backward": ("server.backward", "server.learn"),
    "fed_server.collect": ("client.close",),
    "client.load": ("fed_server.client_state", "client.state", "client.initial_state"),
}
"""Of which calls an argument is the result: of load the first beside the turn, of the others each."""
GOES_TO = {
    "client.forward": "server.forward", "server.forward": "client.loss", "client.loss": "server.backward",
    "server.backward": "client.backward", "server.learn": "client.backward", "client.close": "fed_server.collect",
    "fed_server.client_state": "client.load", "fed_server.server_state": "client.load",
}  # fmt: skip
"""Of results that the driver can't read as a report: which call takes each."""
ENDS = ("client.state", "server.state")
"""The same of what a schedule returns."""
NEED_LOADED = ("client.forward", "client.train_alone", "client.close", "client.state")
WAYS: dict[str, tuple[WayOfB, ...]] = {
    "server.open": ("own_copies",), "server.close": ("own_copies",), "server.step": ("shared_step", "joint_batch"),
}  # fmt: skip
"""The ways in which B serves phones that have a call; all have others."""
SINGLE = "client.backward.remote(now, server.learn.remote(now, client.forward.remote(now)))"
MOST_NAMED = 10


class Ref:
    """Stands for what a call gives."""

    def __init__(self, what: str) -> None:
        self.what = what

    def __repr__(self) -> str:
        return f"a ref of {self.what}"


class Account:
    """Of one round. All that is refused is a SettingsError."""

    def __init__(self, name: str, stream: Stream, single: bool, way: WayOfB) -> None:
        self._name, self._stream, self._single, self._way = name, stream, single, way
        self._loaded = dict[tuple[int, ...], int]()  # the phones under way, and how many batches they have
        self._under_way = dict[tuple[int, ...], Turn]()
        self._trained: dict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
        self.calls = Counter[str]()
        self.collected = 0  # groups of phones
        self.has_whole = False  # phones were given B too

    def refuse(self, wrong: str, do: str) -> NoReturn:
        """Say what the schedule does, and what to do. Raises SettingsError."""
        raise SettingsError("schedule.name", self._name, do, f"{spoken(self._name)} {wrong}")

    def take(self, call: Call) -> Ref:
        """Look at a call that has a turn, and keep account of it."""
        what = call.name
        self.calls[what] += 1
        self._check_cuts(what)
        self._check_way(what, call.arguments)
        self._check_arguments(what, call.arguments)
        if what.startswith("client.") and call.turn.phones:
            self._of_client(what, call)
        elif what == "server.close":
            self._check_shares(what, call)
        elif what == "fed_server.collect":
            self.collected += len(call.arguments[1])
        return Ref(what)

    def _check_cuts(self, what: str) -> None:
        if self._single and what in ("server.forward", "client.loss", "server.backward"):
            do = f"Where model.cuts is one layer, B has the loss: write {SINGLE}"
            self.refuse(f"calls {what}, which single split hasn't", do)
        if not self._single and what == "server.learn":
            do = "Where model.cuts is two layers, call server.forward, client.loss and server.backward"
            self.refuse("calls server.learn, which is for single split", do)

    def _check_way(self, what: str, arguments: tuple[Any, ...]) -> None:
        ways = WAYS.get(what, ())
        if ways and self._way not in ways and not (what == "server.step" and len(arguments) > 1):  # that is clipping's
            wrong = f"calls {what}, which B hasn't with way={self._way!r} in ray_split.Schedule(...)"
            self.refuse(wrong, f"Set way to {' or '.join(map(repr, ways))}, or leave the call out")

        if self._way == "own_copies" and what in ("server.forward", "server.learn") and not self.calls["server.open"]:
            wrong = f"calls {what} before server.open, and way='own_copies' says that each phone has its own B"
            self.refuse(wrong, "Call server.open.remote(turn) first, and server.close after the last backward")

    def _check_arguments(self, what: str, arguments: tuple[Any, ...]) -> None:
        if what not in FROM:
            return
        given = arguments[2:] if what == "fed_server.collect" else arguments[1:]
        if not given and what != "fed_server.collect":
            self.refuse(f"calls {what} with a turn alone", f"Give it the result of {FROM[what][0]} too")
        for each in given[:1] if what == "client.load" else given:
            if isinstance(each, Ref) and each.what not in FROM[what]:
                right = [name for name in FROM[what] if self.calls[name]] or FROM[what][:1]
                self.refuse(f"gives {what} the result of {each.what}", f"Give it that of {' or '.join(right)}")

    def _of_client(self, what: str, call: Call) -> None:
        phones, turn = call.turn.phones, call.turn
        if what == "client.load":
            self._load(call)
        elif what in NEED_LOADED and phones not in self._loaded:
            wrong = f"calls {what} for {_phones(phones)} before client.load, or after client.close"
            self.refuse(wrong, "Call client.load.remote(turn, ends) first, with the same phones in the turn")
        if what == "client.forward":
            self._forward(turn)
        elif what == "client.train_alone":
            self._trained[phones].update(range(int(call.arguments[1])))
        elif what in ("client.loss", "client.backward") and self._under_way.get(phones) != turn:
            wrong = f"calls {what} for step {turn.step} of {_phones(phones)}, whose exchange is not under way"
            self.refuse(wrong, "Call client.forward with the same turn before, and client.backward once")
        if what == "client.backward":
            del self._under_way[phones]
        if what == "client.close":
            self._check_shares(what, call)
        if what in ("client.close", "client.state", "client.release"):
            self._loaded.pop(phones, None)
            self._under_way.pop(phones, None)

    def _load(self, call: Call) -> None:
        phones, rest = call.turn.phones, call.arguments[2:]
        self.has_whole |= len(rest) > 1 and rest[1] is not None
        start = rest[2] if len(rest) > 2 else None
        told = start.steps if isinstance(start, Start) else None
        self._loaded[phones] = int(max(told or self._stream.steps(phones)))
        self._under_way.pop(phones, None)

    def _forward(self, turn: Turn) -> None:
        there = self._loaded[turn.phones]
        if turn.step >= there:
            wrong = f"calls client.forward for step {turn.step} of {_phones(turn.phones)}, counted from 0, of {there}"
            self.refuse(wrong, "Take as many as stream.taken(turn.round, phones) says")
        self._under_way[turn.phones] = turn
        self._trained[turn.phones][turn.step] += 1

    def _check_shares(self, what: str, call: Call) -> None:
        phones, shares = call.turn.phones, call.arguments[1] if len(call.arguments) > 1 else ()
        if not isinstance(shares, Ref) and np.shape(np.asarray(shares)) != (len(phones),):
            wrong = f"calls {what} without a share for each phone"
            self.refuse(wrong, f"Write {what}.remote(at, stream.shares(turn.round, at.phones))")

    def check_yielded(self, ref: Any) -> None:
        """See that the driver can read what the schedule yields."""
        what = ref.what if isinstance(ref, Ref) else ""
        if what in GOES_TO:
            goes_to = "server.learn" if self._single and what == "client.forward" else GOES_TO[what]
            self.refuse(f"yields the result of {what}", f"Give it to {goes_to}, and yield what no call takes")
        if what in ENDS:
            self.refuse(f"yields the result of {what}", "Return it, or give it to another call")

    def unlike_the_stream(self) -> Iterator[str]:
        """What is trained otherwise than the stream has it, a line each."""
        there = np.array(self._stream.phones(0), int)
        distinct, total = self._steps_taken()
        planned = np.zeros(len(distinct), int)
        finishing = np.array(self._stream.finishing(0), int)  # what the others do counts for nothing
        planned[finishing] = self._stream.taken(0, finishing)
        if (missing := np.flatnonzero((planned > 0) & (total == 0))).size:
            yield f"doesn't train {_phones(missing)}, of {len(there)} in the round"
        if (fewer := np.flatnonzero((distinct > 0) & (distinct < planned))).size:
            one = fewer[0]
            more = f", and {len(fewer) - 1} more phones on too few" if len(fewer) > 1 else ""
            yield f"trains phone {one} on {distinct[one]} of its {planned[one]} batches{more}"
        if (again := np.flatnonzero(total > distinct)).size:
            yield f"trains {_phones(again)} more than once on a batch"
        if (others := np.setdiff1d(np.flatnonzero(total), there)).size:
            yield f"trains {_phones(others)}, which the round hasn't"

    def _steps_taken(self) -> tuple[Array, Array]:
        """Of each phone that there is how many different batches it was trained on, and how many in all."""
        distinct, total = (np.zeros(len(self._stream.partition), int) for _ in range(2))
        for cohort, counts in self._trained.items():
            phones, steps = np.array(cohort), np.array(sorted(counts))
            below = np.searchsorted(steps, self._stream.steps(phones))
            sums = np.concatenate([[0], np.cumsum([counts[step] for step in steps.tolist()])])
            np.maximum.at(distinct, phones, below)
            np.add.at(total, phones, sums[below])
        return distinct, total


def _phones(phones: Any) -> str:
    shown = ", ".join(str(int(phone)) for phone in phones[:MOST_NAMED])
    more = ", ..." if len(phones) > MOST_NAMED else ""
    return f"phone{'s' * (len(phones) > 1)} {shown}{more}"
