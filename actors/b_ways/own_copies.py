"""A copy of B for each phone: splitfed_v1, splitfed_v3."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from actors.b_average import Averaging
from actors.b_ways.stepping import Stepping
from actors.b_ways.way import Call, backward_and_step, learn_and_step, only, seeds_of_each
from ray_split import config
from ray_split.algorithms import phone_memory
from ray_split.arrays import Array
from ray_split.messages.message import Groups, Message, Wanted
from ray_split.messages.message_checks import check_weights
from ray_split.messages.state import Closed, State, Terms, places_of, terms_bytes
from ray_split.messages.turn import Turn
from ray_split.segments.copies import Copies, Learned
from ray_split.segments.copy_factory import CopyFactory
from ray_split.segments.optimization.learning_rates import length_of
from ray_split.tasks.task import Task


class OwnCopies:
    """Each phone of a cohort trains a copy of B of its own, from `open` to `close`, which adds it to the average."""

    def __init__(
        self, make: CopyFactory, averaging: Averaging, settings: config.Config, task: Task, stepping: Stepping
    ) -> None:
        self._make, self._averaging, self._settings, self._stepping = make, averaging, settings, stepping
        self._max_norm, self._seed, self._task = settings.phones.max_norm.weights, settings.run.seed, task
        self.chunk: int | None = None  # phones whose copies are computed in one go
        self._start: State = {}
        self._terms: dict[tuple[int, ...], Terms] = {}  # what is remembered of the copies, where anything is
        self._copies: dict[tuple[int, ...], Copies] = {}
        # Those of cohorts that closed serve the next ones: to make a copy takes longer than to load it. Copies of one
        # phone are another class than those of several.
        self._spare: dict[bool, list[Copies]] = {True: [], False: []}

    def begin(self, start: State) -> None:
        """As Way.begin."""
        self._start = start
        for phones in list(self._copies):
            self._release(phones)

    def drop(self) -> None:
        """As Way.drop: the copies too, for others are soon made."""
        self._start, self._terms, self._copies, self._spare = {}, {}, {}, {True: [], False: []}

    def admit(self, turn: Turn, call: Call) -> None:
        """As Way.admit."""
        self._stepping.check(turn.phones)
        if turn.phones not in self._copies:
            raise RuntimeError(f"a {call} of phones {turn.phones} came before open: they have no copies of B")

    def open(self, turn: Turn, terms: Terms | None = None) -> None:
        """Give each of the turn's phones a copy of B as it was at the round's start: see Server.open."""
        if terms is not None:
            self._terms[turn.phones] = terms
        spare, count = self._spare[len(turn.phones) > 1], len(turn.phones)
        self._copies[turn.phones] = spare.pop() if spare else self._make(count)
        self._copies[turn.phones].chunk = self.chunk
        self._copies[turn.phones].load(self._start, count, fresh=True, terms=terms)

    def forward(self, turn: Turn, activations: Sequence[Message]) -> tuple[list[Groups], Wanted]:
        """As Way.forward."""
        activation, copies = only(activations), self._copies[turn.phones]
        seeds = self._seeds(turn, activation, copies)
        return [copies.forward(activation.groups, seeds, activation.wanted)], copies.wanted

    def backward(self, turn: Turn, hidden_gradients: Sequence[Message]) -> list[Groups]:
        """As Way.backward; the copies step."""
        return [backward_and_step(self._copies[turn.phones], turn, only(hidden_gradients), self._stepping)]

    def learn(self, turn: Turn, activations: Sequence[Message]) -> list[Learned]:
        """As Way.learn; the copies step."""
        activation, copies = only(activations), self._copies[turn.phones]
        seeds = self._seeds(turn, activation, copies)
        return [learn_and_step(copies, turn, activation, seeds, self._task, self._stepping)]

    def close(self, turn: Turn, shares: Array, number: int, steps: Array | None = None) -> Closed | None:
        """End the phones' round: see Server.close."""
        self._stepping.check(turn.phones)
        copies, finished = self._copies[turn.phones], np.flatnonzero(shares)
        phones = tuple(turn.phones[i] for i in finished)
        check_weights(phones, "copy of B", copies.norms()[finished], self._max_norm)
        terms = self._terms.get(turn.phones)
        self._release(turn.phones)
        if phones and not self._make.frozen:
            self._averaging.add(copies, shares, number)
        if steps is None or terms is None:
            return None
        if not phones:
            return Closed((), {}, {}, 0)
        own, weights = phone_memory.of_places(terms, finished), places_of(copies.learned(), finished)
        length = length_of(self._settings.optimizer.of("b"), turn, steps[finished])
        now = phone_memory.after_round(self._settings, own, self._start, weights, shares[finished], length)
        return Closed(phones, {}, {}, terms_bytes(now, len(phones)) // len(phones), remembered={"b": now})

    def end(self) -> None:
        """As Way.end."""
        for phones in self._copies:
            raise RuntimeError(f"the round ended, and copies of B were not closed: those of phones {phones}")

    def _release(self, phones: tuple[int, ...]) -> None:
        self._terms.pop(phones, None)
        self._spare[len(phones) > 1].append(self._copies.pop(phones))

    def _seeds(self, turn: Turn, activation: Message, copies: Copies) -> list[int]:
        return seeds_of_each(self._seed, turn, activation) if copies.draws else []
