"""A client that leads its exchanges: it calls the server itself (ray_split/schedules/direct.py). Imports ray."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from itertools import zip_longest

import ray
from ray.exceptions import RayTaskError

from actors.client import Client
from ray_split.messages.message import Message
from ray_split.messages.report import Report
from ray_split.messages.turn import Turn
from ray_split.schedules.roles import Handle, Ref


class LeadingClient(Client):
    """As Client; and `exchange` makes whole exchanges. The same work in the same order, so to the same bits.

    While B computes, C steps, and the next phone's A runs; the next exchange's activation is on its way when the call
    returns. `done`, of all methods: another's exchange, which comes before.
    """

    def meet(self, server: Handle, single: bool) -> None:
        """Whom to exchange with."""
        self._server, self._single = server, single

    def begin(self) -> None:
        """As Client.begin; forgets what an attempt that failed left here."""
        super().begin()
        self._ahead: dict[Turn, Message] = {}  # activations that are not sent yet
        self._sent: dict[Turn, Ref] = {}  # the server's answers to those that are
        self._back: dict[Turn, Message] = {}  # gradients of activations whose A has yet to step

    def exchange(self, turns: Sequence[Turn], following: Turn | None, done: object = None) -> Report | list[Report]:
        """One exchange after the other: their reports (of one, not in a list).

        `following`: the one that comes next at the server, if it is this client's.
        """
        reports = [self._exchange(now, then) for now, then in zip(turns, [*turns[1:], following], strict=True)]
        return reports if len(reports) > 1 else reports[0]

    def _exchange(self, turn: Turn, following: Turn | None) -> Report:
        with self._guard.failing(turn):
            ahead = None if following is None or following.phones == turn.phones else following
            gradient = self._through(turn, ahead)
            if ahead is not None:
                self._send(ahead)
            report = self.backward(turn, gradient)
            if following is not None and ahead is None:  # a phone's own A has to step first
                self._send(following)
            return report

    def through(self, turn: Turn, done: object = None) -> None:
        """An exchange as far as the server has a part in it; `finish` does the rest."""
        with self._guard.failing(turn):
            self._back[turn] = self._through(turn, None)

    def finish(self, turn: Turn, done: object = None) -> Report:
        """A's backward and step, after `through`: the report."""
        with self._guard.failing(turn):
            return self.backward(turn, self._back.pop(turn))

    def forward_ahead(self, turn: Turn) -> None:
        """A's forward, for an exchange that comes next."""
        self._ahead[turn] = self.forward(turn)

    def _send(self, turn: Turn) -> None:
        activation = self._ahead.pop(turn) if turn in self._ahead else self.forward(turn)
        ask = self._server.learn if self._single else self._server.forward
        self._sent[turn] = ask.remote(turn, activation)

    def _through(self, turn: Turn, ahead: Turn | None) -> Message:
        if turn not in self._sent:
            self._send(turn)
        answer = self._sent.pop(turn)
        if ahead is not None:
            self.forward_ahead(ahead)
        arrived = _get(answer)
        return arrived if self._single else _get(self._last_part(turn, arrived))

    def _last_part(self, turn: Turn, hidden: Message) -> Ref:
        with self._during(turn, self._last.upper(), hidden):
            gradient = self._learn(turn, hidden)
            answer = self._server.backward.remote(turn, gradient)
            self._step_last(turn)
        return answer

    def abreast(self, lanes: Sequence[tuple[Sequence[Turn], Turn | None]], *done: object) -> Report | list[Report]:
        """Exchanges of several cohorts at once, each one's in their order: while the server has one's, others go on.

        Of each cohort the turns, and the one that comes next, if any. The reports: of a step of all, then the next.
        """
        reports: dict[Turn, Report] = {}
        with self._guard.failing(next(turns[0] for turns, _ in lanes)):
            going = [self._lane(turns, following, reports) for turns, following in lanes]
            waiting = {next(lane): lane for lane in going}
            while waiting:
                (answer,), _ = ray.wait(list(waiting), num_returns=1)
                lane = waiting.pop(answer)
                if (asked := _go_on(lane, _get(answer))) is not None:
                    waiting[asked] = lane
        steps = zip_longest(*(turns for turns, _ in lanes))
        found = [reports[turn] for step in steps for turn in step if turn is not None]
        return found if len(found) > 1 else found[0]

    def _lane(
        self, turns: Sequence[Turn], following: Turn | None, reports: dict[Turn, Report]
    ) -> Generator[Ref, Message, None]:
        """Exchanges one after the other: yields what is asked of the server, and goes on with the answer."""
        for turn, then in zip(turns, [*turns[1:], following], strict=True):
            if turn not in self._sent:
                self._send(turn)
            arrived = yield self._sent.pop(turn)
            if not self._single:
                arrived = yield self._last_part(turn, arrived)
            reports[turn] = self.backward(turn, arrived)
            if then is not None:
                self._send(then)


def _go_on(lane: Generator[Ref, Message, None], answer: Message) -> Ref | None:
    """What the lane asks for next; None at its end."""
    try:
        return lane.send(answer)
    except StopIteration:
        return None


def _get(answer: Ref) -> Message:
    """The server's answer. Raises what its call raised."""
    try:
        message: Message = ray.get(answer)
        return message
    except RayTaskError as error:
        if not isinstance(error.cause, Exception):
            raise
        cause: Exception = error.cause
        raise cause from None
