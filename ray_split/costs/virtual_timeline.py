"""When the calls of a round happen: each begins when its arguments are there and whoever does it is free.

One phone's messages cross its own link alone: a link is never shared. `load`, `close` and `state` are weights that
cross, if the phone's weights come from outside at all. Everything between the driver, the servers and the fed server
takes no time. Shapes: K phones of the round, S steps; `rows` are a call's phones by their place among the round's.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ray_split.arrays import Array
from ray_split.costs.recorded_calls import Call
from ray_split.messages.turn import USUAL
from ray_split.results.summary import PARTS


class Durations(NamedTuple):
    """Seconds (S, K) that phones and server compute for each batch, and that what crosses takes."""

    a_forward: Array
    a_backward: Array
    c: Array
    alone: Array  # all segments on the phone
    serving: dict[str, Array]  # by the server: forward, backward, learn
    crossing: dict[str, Array]  # each of the four messages
    ends: dict[str, Array]  # (K,) weights


class Span(NamedTuple):
    """What some phones did, or the server for them, for a picture: a part, the call or message, and when."""

    part: str
    name: str
    rows: Array
    starts: Array
    ends: Array
    step: int
    server: int | None = None  # whose span it is, if not the phones'


class Result(NamedTuple):
    """What a call gives: when it is there, for each of its phones."""

    rows: Array
    ready: Array


ARRIVES = {"forward": "activation", "backward": "hidden_gradient", "learn": "activation"}  # at the server
LOAD = ("turn", "ends", "own", "middle", "start", "remembered")
"""The arguments of Client.load, of which a schedule of the user's may leave out the last ones."""
UNTIMED = {
    "client": ("release", "norms", "after"),
    "server": ("open", "close", "state", "rows", "pass_on", "take", "average", "step", "load", "after"),
    "fed server": ("client_state", "own_state", "remembered", "server_state", "collect"),
}


AT_ONCE = Result(np.zeros(0, int), np.zeros(1))


class Timeline:
    """Takes a round's calls in the order of submission, and knows until when each phone's time is accounted for."""

    def __init__(
        self, phones: Array, steps: Array, durations: Durations, servers: int = 1, trace: bool = False,
        joint_batch: bool = False,
    ) -> None:  # fmt: skip
        """`joint_batch`: the server computes all batches of a call as one; else each phone's by itself."""
        self.now = np.zeros(len(phones))  # (K,) each phone's time
        self.parts = {part: np.zeros(len(phones)) for part in PARTS}
        self.step_ends = np.full((len(phones), len(durations.alone)), np.inf)
        self.spans: list[Span] = []
        self._place = {phone: place for place, phone in enumerate(phones.tolist())}
        self._steps = steps
        self._durations = durations
        self._free = [0.0] * servers
        self._crosses = np.zeros(len(phones), bool)
        self._whole = np.zeros(len(phones), bool)
        self._trace = trace
        self._joint_batch = joint_batch
        self._rows: dict[tuple[int, ...], Array] = {}
        self._on_phone = {
            "load": self._load, "forward": self._forward, "loss": self._loss, "backward": self._backward,
            "train_alone": self._train_alone, "close": self._close, "state": self._state,
        }  # fmt: skip

    def submit(self, call: Call) -> Any:
        """A call's result. Raises NotImplementedError for one that it has no time for."""
        if call.role == "client" and call.method in self._on_phone:
            return self._on_phone[call.method](call)
        if call.role == "server" and call.method in ARRIVES:
            return self._serve_together(call) if self._joint_batch else self._serve(call)
        if call.method not in UNTIMED.get(call.role, ()):
            raise NotImplementedError(f"virtual time of {call.role}.{call.method}")
        return AT_ONCE

    def _all_of(self, call: Call) -> Array:
        """The call's phones."""
        phones = call.turn.phones
        if phones not in self._rows:
            self._rows[phones] = np.array([self._place[phone] for phone in phones], int)
        return self._rows[phones]

    def _of(self, call: Call) -> Array:
        """Those that have a batch at the call's step: a cohort's first."""
        rows = self._all_of(call)
        return rows[: np.count_nonzero(self._steps[rows] > call.turn.step)]

    def _until(self, rows: Array, ends: Any, part: str, call: Call, name: str) -> None:
        """The phones' time goes on to `ends`, if it isn't there yet, and is accounted for as `part`."""
        starts = self.now[rows]
        new = np.maximum(starts, ends)
        self.parts[part][rows] += new - starts
        self.now[rows] = new
        if self._trace:
            self.spans.append(Span(part, name, rows, starts, new, call.turn.step))

    def _compute(self, rows: Array, seconds: Array, call: Call) -> Result:
        self._until(rows, self.now[rows] + seconds, "phone", call, call.method)
        return Result(rows, self.now[rows])

    def _load(self, call: Call) -> Result:
        given = dict(zip(LOAD, call.arguments, strict=False))
        ends, middle, start = given["ends"], given.get("middle"), given.get("start", USUAL)
        rows, ready = self._all_of(call), float(ends.ready.max())
        self._crosses[rows], self._whole[rows] = start.crosses, middle is not None
        self._until(rows, ready, "waiting", call, "weights down")
        if start.crosses:
            kind = "load whole" if middle is not None else "handed on" if len(ends.rows) else "load"
            self._until(rows, ready + self._durations.ends[kind][rows], "communication", call, "weights down")
        return AT_ONCE

    def _forward(self, call: Call) -> Result:
        rows = self._of(call)
        return self._compute(rows, self._durations.a_forward[call.turn.step, rows], call)

    def _loss(self, call: Call) -> Result:
        return self._answer(call, "hidden", self._durations.c)

    def _backward(self, call: Call) -> Result:
        result = self._answer(call, "activation_gradient", self._durations.a_backward)
        self.step_ends[result.rows, call.turn.step] = result.ready
        return result

    def _answer(self, call: Call, message: str, seconds: Array) -> Result:
        sent: Result = call.arguments[1]
        rows, ready = sent
        self._until(rows, ready, "waiting", call, message)
        arrival = ready + self._durations.crossing[message][call.turn.step, rows]
        self._until(rows, arrival, "communication", call, message)
        return self._compute(rows, seconds[call.turn.step, rows], call)

    def _train_alone(self, call: Call) -> Result:
        rows = self._all_of(call)
        has = np.arange(len(self._durations.alone))[:, None] < self._steps[rows]
        ends = self.now[rows] + np.cumsum(np.where(has, self._durations.alone[:, rows], 0.0), axis=0)  # (S, k)
        self.step_ends[rows] = np.where(has, ends, np.inf).T
        return self._compute(rows, ends[-1] - self.now[rows], call)

    def _close(self, call: Call) -> Result:
        return self._send(call, "close", np.asarray(call.arguments[1]) > 0)  # of phones that finish

    def _state(self, call: Call) -> Result:
        return self._send(call, "state")

    def _send(self, call: Call, name: str, finish: Any = slice(None)) -> Result:
        """Weights go up, of phones to which they came down."""
        rows, ends = self._all_of(call)[finish], self._durations.ends
        seconds = np.where(self._whole[rows], ends["close whole"][rows], ends[name][rows])
        sent = self.now[rows] + np.where(self._crosses[rows], seconds, 0.0)
        self._until(rows, sent, "communication", call, "weights up")
        return Result(rows, self.now[rows])

    def _sent(self, call: Call, message: str, sent: Result) -> Array:
        """When what phones sent is at the server."""
        seconds = self._durations.crossing[message][call.turn.step, sent.rows]
        arrival: Array = sent.ready + seconds
        self._until(sent.rows, arrival, "communication", call, message)
        return arrival

    def _serve(self, call: Call) -> Result:
        """One phone's batch after the other, in their order."""
        name, sent = call.method, call.arguments[1]
        rows, seconds = sent.rows, self._durations.serving[name][call.turn.step, sent.rows]
        arrivals, before = self._sent(call, ARRIVES[name], sent), np.cumsum(seconds) - seconds
        # end[i] = max(end[i - 1], arrival[i]) + seconds[i]
        starts = before + np.maximum(self._free[call.number], np.maximum.accumulate(arrivals - before))
        self._until(rows, starts, "waiting", call, "queue")
        self._until(rows, starts + seconds, "server", call, call.method)
        self._busy(call, rows, starts, starts + seconds)
        return Result(rows, starts + seconds)

    def _serve_together(self, call: Call) -> list[Result] | Result:
        """All batches as one, when the last one is there; of its time each phone's own share is its server's."""
        name, step = call.method, call.turn.step
        each: list[Result] = [argument for argument in call.arguments if isinstance(argument, Result)]
        arrived = max(float(self._sent(call, ARRIVES[name], sent).max()) for sent in each)
        shares = [self._durations.serving[name][step, sent.rows] for sent in each]
        start = max(arrived, self._free[call.number])
        end = start + sum(float(share.sum()) for share in shares)
        for sent, share in zip(each, shares, strict=True):
            self._until(sent.rows, end - share, "waiting", call, "joint step")
            self._until(sent.rows, end, "server", call, call.method)
        self._busy(call, each[0].rows[:1], np.array([start]), np.array([end]))
        results = [Result(sent.rows, np.full(len(sent.rows), end)) for sent in each]
        return results if call.num_returns > 1 else results[0]

    def _busy(self, call: Call, rows: Array, starts: Array, ends: Array) -> None:
        """The server computed, and is free after the last."""
        self._free[call.number] = float(ends[-1])
        if self._trace:
            self.spans.append(Span("server", call.method, rows, starts, ends, call.turn.step, call.number))
