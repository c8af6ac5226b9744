"""One B for all phones, on the batches of all as one: parallel, where B mixes the samples of a batch."""

from __future__ import annotations

from collections.abc import Sequence

from actors.b_ways.shared_step import check_stepped, joint_of, scales_in
from actors.b_ways.way import Call
from ray_split.data.stream import forward_seeds
from ray_split.messages.message import Groups, Message, Wanted, labels_of, wanted_by_any
from ray_split.messages.state import State
from ray_split.messages.turn import Turn
from ray_split.segments.copies import Learned
from ray_split.segments.shared_segment import SharedSegment, join, split
from ray_split.tasks.task import Task


class JointBatch:
    """One B, which takes the batches of all cohorts as one: as it must where it mixes a batch's samples (BatchNorm)."""

    def __init__(self, shared: SharedSegment, seed: int, task: Task) -> None:
        self._shared, self._seed, self._task = shared, seed, task
        self._arrived: list[Groups] = []  # the activations under way: how the joint batch comes apart again

    def begin(self, start: State) -> None:
        """As Way.begin."""
        self.drop()

    def drop(self) -> None:
        """As Way.drop."""
        self._arrived = []
        self._shared.forget()

    def admit(self, turn: Turn, call: Call) -> None:
        """Whatever comes: the weights stay what they are until `step`."""

    def forward(self, turn: Turn, activations: Sequence[Message]) -> tuple[list[Groups], Wanted]:
        """As Way.forward."""
        self._arrived = [sent.groups for sent in activations]
        hidden = self._shared.forward("joint", join(self._arrived), self._seeds(turn), _wanted(activations))
        return split(hidden, self._arrived), self._shared.wanted

    def backward(self, turn: Turn, hidden_gradients: Sequence[Message]) -> list[Groups]:
        """As Way.backward."""
        scales = [scales_in(turn, sent) for sent in hidden_gradients]
        return self._shared.backward_joint([sent.groups for sent in hidden_gradients], scales, self._arrived)

    def learn(self, turn: Turn, activations: Sequence[Message]) -> list[Learned]:
        """As Way.learn."""
        groups, labels = [sent.groups for sent in activations], [labels_of(sent) for sent in activations]
        scales = [scales_in(turn, sent) for sent in activations]
        return self._shared.learn_joint(groups, labels, self._seeds(turn), self._task, scales, _wanted(activations))

    def end(self) -> None:
        """As Way.end."""
        check_stepped(self._shared)

    def step(self, turn: Turn) -> None:
        """The joint step."""
        self._shared.step(joint_of(turn).factor, turn)

    def _seeds(self, turn: Turn) -> list[int]:
        # One forward of one batch draws once, whoever's batches are in it: by its first phone.
        return forward_seeds(self._seed, turn, "b", 1)


def _wanted(activations: Sequence[Message]) -> Wanted:
    return wanted_by_any([sent.wanted for sent in activations])
