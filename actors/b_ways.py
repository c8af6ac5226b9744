"""The four ways in which B serves a round's phones: who shares which weights of B, and when they step.

A schedule's record names one of them, and then calls forward, backward and learn; whatever the way, these are the
server's only methods for an exchange. They differ in this:

| way | whose weights | steps | needs besides |
|---|---|---|---|
| in_turn | one B | after each phone's backward | |
| own_copies | a copy for each phone | after each of its backwards | open before, close after |
| shared_step | one B | once, on the gradients of several calls | step |
| joint_batch | one B | once, on all batches as one | step |

Rule for all: a backward uses the weights of its forward. Here is only what B computes; the server has checked what
arrived before, and makes messages of what these return.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np

from actors.b_average import Averaging
from ray_split.arrays import Array
from ray_split.data.stream import forward_seeds
from ray_split.messages.message import Groups, Sent, Wanted, group_size, labels_of, scales_of, wanted_by_any
from ray_split.messages.message_checks import check_weights
from ray_split.messages.state import State
from ray_split.messages.turn import JointStep, Turn
from ray_split.segments.copies import Copies, Learned
from ray_split.segments.copy_factory import Maker
from ray_split.segments.shared_segment import Shared, join, split
from ray_split.tasks.task import Task

Call = Literal["forward", "backward", "learn"]


class Way(Protocol):
    """What the server asks of each. A call brings one message, of the turn's phones; a joint batch's one a cohort."""

    def begin(self, start: State) -> None:
        """A round begins, from this state of B: what was under way is dropped."""

    def admit(self, turn: Turn, call: Call) -> None:
        """Raises RuntimeError for a call that may not come now: the schedule's mistake, told before a phone's is."""

    def forward(self, turn: Turn, activations: Sequence[Sent]) -> tuple[list[Groups], Wanted]:
        """Hidden, for each message; and of which of its leaves the gradient is to come."""

    def backward(self, turn: Turn, hidden_gradients: Sequence[Sent]) -> list[Groups]:
        """The gradient of the activation, for each message."""

    def learn(self, turn: Turn, activations: Sequence[Sent]) -> list[Learned]:
        """Single split: forward, the loss and backward, for each message."""


class InTurn:
    """One B, which steps after each phone's backward: between a forward and its backward nobody else has a turn."""

    def __init__(self, b: Copies, seed: int, task: Task) -> None:
        self._b, self._seed, self._task = b, seed, task
        self._pending: Turn | None = None

    def begin(self, start: State) -> None:
        """As Way.begin."""
        self._pending = None

    def admit(self, turn: Turn, call: Call) -> None:
        """As Way.admit."""
        if call == "backward" and self._pending != turn:
            raise RuntimeError(f"step {turn.step} of phone {turn.phones[0]} is not the exchange under way")
        if call != "backward" and self._pending is not None:
            waits = f"step {self._pending.step} of phone {self._pending.phones[0]}"
            raise RuntimeError(f"a {call} of phone {turn.phones[0]} came while {waits} waits for its backward")

    def forward(self, turn: Turn, activations: Sequence[Sent]) -> tuple[list[Groups], Wanted]:
        """As Way.forward."""
        activation = _only(activations)
        self._pending = turn
        return [self._b.forward(activation.groups, self._seeds(turn), activation.wanted)], self._b.wanted

    def backward(self, turn: Turn, hidden_gradients: Sequence[Sent]) -> list[Groups]:
        """As Way.backward; B steps."""
        self._pending = None
        return [_backward_and_step(self._b, _only(hidden_gradients))]

    def learn(self, turn: Turn, activations: Sequence[Sent]) -> list[Learned]:
        """As Way.learn; B steps."""
        return [_learn_and_step(self._b, _only(activations), self._seeds(turn), self._task)]

    def _seeds(self, turn: Turn) -> list[int]:
        return forward_seeds(self._seed, turn, "b", 1)


class OwnCopies:
    """Each phone of a cohort trains a copy of B of its own, from `open` to `close`, which adds it to the average."""

    def __init__(self, make: Maker, averaging: Averaging, max_norm: float, seed: int, task: Task) -> None:
        self._make, self._averaging, self._max_norm = make, averaging, max_norm
        self._seed, self._task = seed, task
        self._start: State = {}
        self._copies: dict[tuple[int, ...], Copies] = {}
        # Those of cohorts that closed serve the next ones: to make a copy takes longer than to load it. Copies of one
        # phone are another class than those of several.
        self._spare: dict[bool, list[Copies]] = {True: [], False: []}

    def begin(self, start: State) -> None:
        """As Way.begin."""
        self._start = start
        for phones in list(self._copies):
            self._release(phones)

    def admit(self, turn: Turn, call: Call) -> None:
        """As Way.admit."""
        if turn.phones not in self._copies:
            raise RuntimeError(f"a {call} of phones {turn.phones} came before open: they have no copies of B")

    def open(self, turn: Turn) -> None:
        """Give each of the turn's phones a copy of B as it was at the round's start."""
        spare, count = self._spare[len(turn.phones) > 1], len(turn.phones)
        self._copies[turn.phones] = spare.pop() if spare else self._make(count)
        self._copies[turn.phones].load(self._start, count, fresh=True)

    def forward(self, turn: Turn, activations: Sequence[Sent]) -> tuple[list[Groups], Wanted]:
        """As Way.forward."""
        activation, copies = _only(activations), self._copies[turn.phones]
        seeds = self._seeds(turn, activation, copies)
        return [copies.forward(activation.groups, seeds, activation.wanted)], copies.wanted

    def backward(self, turn: Turn, hidden_gradients: Sequence[Sent]) -> list[Groups]:
        """As Way.backward; the copies step."""
        return [_backward_and_step(self._copies[turn.phones], _only(hidden_gradients))]

    def learn(self, turn: Turn, activations: Sequence[Sent]) -> list[Learned]:
        """As Way.learn; the copies step."""
        activation, copies = _only(activations), self._copies[turn.phones]
        return [_learn_and_step(copies, activation, self._seeds(turn, activation, copies), self._task)]

    def close(self, turn: Turn, shares: Array, number: int) -> None:
        """End the phones' round: see Server.close."""
        copies, finished = self._copies[turn.phones], np.flatnonzero(shares)
        phones = tuple(turn.phones[i] for i in finished)
        check_weights(phones, "copy of B", copies.norms()[finished], self._max_norm)
        self._release(turn.phones)
        if phones and not self._make.frozen:
            self._averaging.add(copies, shares, number)

    def _release(self, phones: tuple[int, ...]) -> None:
        self._spare[len(phones) > 1].append(self._copies.pop(phones))

    def _seeds(self, turn: Turn, activation: Sent, copies: Copies) -> list[int]:
        return _seeds_of_each(self._seed, turn, activation) if copies.draws else []


class SharedStep:
    """One B, whose gradients add up over the calls of several cohorts until `step`; phones weigh by batch size.

    What goes back to a phone is the gradient of its own mean loss, unscaled.
    """

    def __init__(self, shared: Shared, seed: int, task: Task) -> None:
        self._shared, self._seed, self._task = shared, seed, task

    def begin(self, start: State) -> None:
        """As Way.begin."""
        self._shared.forget()

    def admit(self, turn: Turn, call: Call) -> None:
        """Whatever comes: the weights stay what they are until `step`."""

    def forward(self, turn: Turn, activations: Sequence[Sent]) -> tuple[list[Groups], Wanted]:
        """As Way.forward."""
        activation = _only(activations)
        seeds = _seeds_of_each(self._seed, turn, activation)
        hidden = self._shared.forward(turn.phones, activation.groups, seeds, activation.wanted)
        return [hidden], self._shared.wanted

    def backward(self, turn: Turn, hidden_gradients: Sequence[Sent]) -> list[Groups]:
        """As Way.backward."""
        gradient = _only(hidden_gradients)
        return [self._shared.backward(turn.phones, gradient.groups, _scales(turn, gradient))]

    def learn(self, turn: Turn, activations: Sequence[Sent]) -> list[Learned]:
        """As Way.learn."""
        activation = _only(activations)
        seeds, scales = _seeds_of_each(self._seed, turn, activation), _scales(turn, activation)
        labels = labels_of(activation)
        return [self._shared.learn(activation.groups, labels, seeds, self._task, scales, activation.wanted)]

    def step(self, turn: Turn) -> None:
        """The joint step, on what the backwards added up."""
        self._shared.step(_joint(turn).factor)


class JointBatch:
    """One B, which takes the batches of all cohorts as one: as it must where it mixes a batch's samples (BatchNorm)."""

    def __init__(self, shared: Shared, seed: int, task: Task) -> None:
        self._shared, self._seed, self._task = shared, seed, task
        self._arrived: list[Groups] = []  # the activations under way: how the joint batch comes apart again

    def begin(self, start: State) -> None:
        """As Way.begin."""
        self._arrived = []
        self._shared.forget()

    def admit(self, turn: Turn, call: Call) -> None:
        """Whatever comes: the weights stay what they are until `step`."""

    def forward(self, turn: Turn, activations: Sequence[Sent]) -> tuple[list[Groups], Wanted]:
        """As Way.forward."""
        self._arrived = [sent.groups for sent in activations]
        hidden = self._shared.forward("joint", join(self._arrived), self._seeds(turn), _wanted(activations))
        return split(hidden, self._arrived), self._shared.wanted

    def backward(self, turn: Turn, hidden_gradients: Sequence[Sent]) -> list[Groups]:
        """As Way.backward."""
        scales = [_scales(turn, sent) for sent in hidden_gradients]
        return self._shared.backward_joint([sent.groups for sent in hidden_gradients], scales, self._arrived)

    def learn(self, turn: Turn, activations: Sequence[Sent]) -> list[Learned]:
        """As Way.learn."""
        groups, labels = [sent.groups for sent in activations], [labels_of(sent) for sent in activations]
        scales = [_scales(turn, sent) for sent in activations]
        return self._shared.learn_joint(groups, labels, self._seeds(turn), self._task, scales, _wanted(activations))

    def step(self, turn: Turn) -> None:
        """The joint step."""
        self._shared.step(_joint(turn).factor)

    def _seeds(self, turn: Turn) -> list[int]:
        # One forward of one batch draws once, whoever's batches are in it: by its first phone.
        return forward_seeds(self._seed, turn, "b", 1)


def _only(messages: Sequence[Sent]) -> Sent:
    if len(messages) != 1:
        raise RuntimeError(f"{len(messages)} messages in one call: only a joint batch takes more than one")
    return messages[0]


def _backward_and_step(copies: Copies, hidden_gradient: Sent) -> Groups:
    gradient = copies.backward(hidden_gradient.groups)
    copies.step()
    return gradient


def _learn_and_step(copies: Copies, activation: Sent, seeds: Sequence[int], task: Task) -> Learned:
    learned = copies.learn(activation.groups, labels_of(activation), seeds, task, activation.wanted)
    copies.step()
    return learned


def _seeds_of_each(seed: int, turn: Turn, activation: Sent) -> list[int]:
    """One for each phone that has a batch at this step: a cohort's first."""
    count = sum(group_size(group) for group in activation.groups)
    return forward_seeds(seed, turn, "b", count) if count else []


def _joint(turn: Turn) -> JointStep:
    if turn.joint is None:
        raise RuntimeError("a step that phones share, and its turn doesn't say how they weigh in it (Turn.joint)")
    return turn.joint


def _scales(turn: Turn, sent: Sent) -> list[Array]:
    return scales_of(sent, _joint(turn).largest)


def _wanted(activations: Sequence[Sent]) -> Wanted:
    return wanted_by_any([sent.wanted for sent in activations])
