"""What the server asks of each way, and what several of them share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

from actors.b_ways.stepping import Stepping
from ray_split.data.stream import forward_seeds
from ray_split.messages.message import Groups, Message, Wanted, group_size, labels_of
from ray_split.messages.state import State
from ray_split.messages.turn import Turn
from ray_split.segments.copies import Copies, Learned
from ray_split.tasks.task import Task

Call = Literal["forward", "backward", "learn"]


class Way(Protocol):
    """What the server asks of each. A call brings one message, of the turn's phones; a joint batch's one a cohort."""

    def begin(self, start: State) -> None:
        """A round begins, from this state of B: what was under way is dropped."""

    def admit(self, turn: Turn, call: Call) -> None:
        """Raises RuntimeError for a call that may not come now: the schedule's mistake, told before a phone's is."""

    def forward(self, turn: Turn, activations: Sequence[Message]) -> tuple[list[Groups], Wanted]:
        """Hidden, for each message; and of which of its leaves the gradient is to come."""

    def backward(self, turn: Turn, hidden_gradients: Sequence[Message]) -> list[Groups]:
        """The gradient of the activation, for each message."""

    def learn(self, turn: Turn, activations: Sequence[Message]) -> list[Learned]:
        """Single split: forward, the loss and backward, for each message."""

    def drop(self) -> None:
        """Let go of the memory of what is under way: what is next is `begin`."""

    def end(self) -> None:
        """The round's state is asked for. Raises RuntimeError if something is still under way: it would be lost."""


def only(messages: Sequence[Message]) -> Message:
    """The one message of a call. Raises RuntimeError for several."""
    if len(messages) != 1:
        raise RuntimeError(f"{len(messages)} messages in one call: only a joint batch takes more than one")
    return messages[0]


def backward_and_step(copies: Copies, turn: Turn, hidden_gradient: Message, stepping: Stepping) -> Groups:
    """The gradient of what arrived; the copies have stepped, if they don't wait."""
    gradient = copies.backward(hidden_gradient.groups, turn)
    stepping.after_backward(turn, copies)
    return gradient


def learn_and_step(
    copies: Copies, turn: Turn, activation: Message, seeds: Sequence[int], task: Task, stepping: Stepping
) -> Learned:
    """As Copies.learn; the copies have stepped, if they don't wait."""
    learned = copies.learn(activation.groups, labels_of(activation), seeds, task, activation.wanted, turn=turn)
    stepping.after_backward(turn, copies)
    return learned


def seeds_of_each(seed: int, turn: Turn, activation: Message) -> list[int]:
    """One for each phone that has a batch at this step: a cohort's first."""
    count = sum(group_size(group) for group in activation.groups)
    return forward_seeds(seed, turn, "b", count) if count else []
