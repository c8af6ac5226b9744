"""One B for all phones, and one step on the gradients of all: parallel."""

from __future__ import annotations

from collections.abc import Sequence

from actors.b_ways.way import Call, only, seeds_of_each
from ray_split.arrays import Array
from ray_split.messages.message import Groups, Message, Wanted, labels_of, scales_of
from ray_split.messages.state import State
from ray_split.messages.turn import JointStep, Turn
from ray_split.segments.copies import Learned
from ray_split.segments.shared_segment import SharedSegment
from ray_split.tasks.task import Task


class SharedStep:
    """One B, whose gradients add up over the calls of several cohorts until `step`; phones weigh by batch size.

    What goes back to a phone is the gradient of its own mean loss, unscaled.
    """

    def __init__(self, shared: SharedSegment, seed: int, task: Task) -> None:
        self._shared, self._seed, self._task = shared, seed, task

    def begin(self, start: State) -> None:
        """As Way.begin."""
        self.drop()

    def drop(self) -> None:
        """As Way.drop."""
        self._shared.forget()

    def admit(self, turn: Turn, call: Call) -> None:
        """Whatever comes: the weights stay what they are until `step`."""

    def forward(self, turn: Turn, activations: Sequence[Message]) -> tuple[list[Groups], Wanted]:
        """As Way.forward."""
        activation = only(activations)
        seeds = seeds_of_each(self._seed, turn, activation)
        hidden = self._shared.forward(turn.phones, activation.groups, seeds, activation.wanted)
        return [hidden], self._shared.wanted

    def backward(self, turn: Turn, hidden_gradients: Sequence[Message]) -> list[Groups]:
        """As Way.backward."""
        gradient = only(hidden_gradients)
        return [self._shared.backward(turn.phones, gradient.groups, scales_in(turn, gradient))]

    def learn(self, turn: Turn, activations: Sequence[Message]) -> list[Learned]:
        """As Way.learn."""
        activation = only(activations)
        seeds, labels = seeds_of_each(self._seed, turn, activation), labels_of(activation)
        scales = scales_in(turn, activation)
        return [self._shared.learn(activation.groups, labels, seeds, self._task, scales, activation.wanted)]

    def end(self) -> None:
        """As Way.end."""
        check_stepped(self._shared)

    def step(self, turn: Turn) -> None:
        """The joint step, on what the backwards added up."""
        self._shared.step(joint_of(turn).factor, turn)


def check_stepped(shared: SharedSegment) -> None:
    """Raises RuntimeError if there are gradients on which B did not step."""
    if shared.adds_up:
        raise RuntimeError("the round ended, and B did not step on the gradients that it has: server.step is missing")


def joint_of(turn: Turn) -> JointStep:
    """How phones weigh in the step that they share. Raises RuntimeError for a turn that does not say."""
    if turn.joint is None:
        raise RuntimeError("a step that phones share, and its turn doesn't say how they weigh in it (Turn.joint)")
    return turn.joint


def scales_in(turn: Turn, sent: Message) -> list[Array]:
    """Each phone's batch size over the largest one, for each group."""
    return scales_of(sent, joint_of(turn).largest)
