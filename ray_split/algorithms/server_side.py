"""What the fed server does with a round's average, and what it remembers for it: server optimizers, and algorithms'.

It is part of the state at a round's start: it moves on when a round commits, and is in every checkpoint. What phones
remember lies in files, a row a phone, as V3's own A and C do. numpy alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from ray_split import config
from ray_split.algorithms import algorithm_of, phone_memory, server_optimizer_of
from ray_split.algorithms.server_optimizer import Memory, Step
from ray_split.arrays import Array
from ray_split.filesystem import Place
from ray_split.messages import bits
from ray_split.messages.state import Closed, Ends, Remembered, State, Terms
from ray_split.results.personal_state import REMEMBERED, Personal

PHONES = "remembered_"
SERVER, SHARED = "server_optimizer", "algorithm"
"""The names of its parts in a checkpoint."""


class ServerSide:
    """Of the segments whose copies are averaged, by the keys of the weights that are trained."""

    def __init__(
        self,
        settings: config.Config,
        trained: Mapping[str, frozenset[str]],
        whole: Mapping[str, frozenset[str]] | None = None,
    ) -> None:
        """`whole`: with buffers, where phones remember models."""
        self._settings = settings
        self._whole = whole or {}
        self._algorithm = algorithm_of(settings.algorithm)
        self._optimizer = server_optimizer_of(settings.server_optimizer)
        follows = self._optimizer is not None or (self._algorithm is not None and self._algorithm.follow is not None)
        self._remembers = self._algorithm is not None and self._algorithm.remember is not None
        self._trained = trained
        self.steps = sorted(trained) if follows else []  # the segments whose next weights are not just the average
        self._memory: dict[str, Memory] = {}  # by segment and key, joined by a slash
        self._shared: Ends = {}
        self._phones: Personal | None = None

    def open(self, folder: Place, phones: int) -> None:
        """Where what phones remember is to lie: in a run's folder."""
        self._phones = Personal(folder / REMEMBERED, phones, PHONES) if self._remembers else None

    def clear(self) -> None:
        """A run begins, or its state comes from a checkpoint: forget everything."""
        self._memory, self._shared = {}, {}
        if self._phones is not None:
            self._phones.clear()

    def terms(self, phones: Sequence[int], names: Iterable[str], states: Ends) -> Remembered:
        """What phones remember of these segments, and what is shared, at a round's start with these states."""
        assert self._phones is not None and self._algorithm is not None
        start = {name: self._before(name, states[name]) for name in names if name in self._trained}
        rows, found = self._phones.rows(np.array(phones), start), {}
        for name, before in start.items():
            own = {key: np.repeat(array[None], len(phones), axis=0) for key, array in before.items()}
            shared = self._shared.get(name, before) if self._algorithm.shares else {}
            found[name] = Terms({**own, **rows.get(name, {})}, shared)
        return found

    def _before(self, name: str, state: State) -> State:
        """What a phone remembers that never trained: nothing, or of a model that of the round's start."""
        if name in self._whole:
            return {key: bits.wide(state[key]) for key in sorted(self._whole[name])}
        return self._zeros(name, state)

    def _zeros(self, name: str, state: State) -> State:
        return phone_memory.zeros({key: state[key] for key in sorted(self._trained[name])})

    def commit(self, before: Ends, after: Ends, closed: Sequence[Closed], part: float) -> Ends:
        """The states at the next round's start: those `after` a round, which began with `before`, moved on.

        `closed` are what its cohorts left, `part` the share of all phones' samples that those have who finished.
        """
        moved = {name: self._moved(name, before[name], after[name], part) for name in self.steps}
        for name, (state, memory) in moved.items():
            after = {**after, name: state}
            self._memory.update(memory)
        self._remember(before, closed, part)
        return after

    def _moved(self, name: str, before: State, after: State, part: float) -> tuple[State, dict[str, Memory]]:
        state, memory = dict(after), dict[str, Memory]()
        for key in sorted(self._trained[name]):
            place = f"{name}/{key}"
            state[key], memory[place] = self._stepped(before[key], after[key], self._memory.get(place, {}), part)
        return state, memory

    def _stepped(self, before: Array, average: Array, memory: Memory, part: float) -> tuple[Array, Memory]:
        wide = [bits.as_real(array).astype(np.float64) for array in (before, average)]
        change = wide[1] - wide[0]
        step, kept = self._step(change, memory, part)
        # Not before + step: where the step is the change, this is the average itself, to the last bit.
        moved = np.where(step == change, wide[1], wide[1] + (step - change))
        with np.errstate(over="ignore"):  # what is too large for its type is infinite, and is told of
            return bits.of_real(np.asarray(moved), before.dtype), kept

    def _step(self, change: Array, memory: Memory, part: float) -> Step:
        if self._optimizer is not None:
            settings = self._settings.server_optimizer
            lr = self._optimizer.lr if settings.lr is None else settings.lr
            return self._optimizer.step(change, memory, lr, **settings.kwargs)
        assert self._algorithm is not None and self._algorithm.follow is not None
        return self._algorithm.follow(change, memory, part, **self._settings.algorithm.kwargs)

    def _remember(self, before: Ends, closed: Sequence[Closed], part: float) -> None:
        each = [(left.phones, left.remembered) for left in closed if left.remembered]
        for _, remembered in each:
            for name, terms in remembered.items():
                if terms.shared:
                    total = self._shared.get(name) or self._zeros(name, before[name])
                    self._shared[name] = {k: np.asarray(v + part * terms.shared[k], v.dtype) for k, v in total.items()}
        if self._phones is not None:
            for phones, own in _by_cohort(each).items():
                self._phones.write(Closed(phones, {}, own, 0))

    def parts(self) -> Iterator[tuple[str, State]]:
        """Everything that is remembered, for a checkpoint."""
        if self._memory:
            yield SERVER, {f"{place}/{slot}": v for place, own in self._memory.items() for slot, v in own.items()}
        if self._shared:
            yield SHARED, {f"{name}/{key}": array for name, own in self._shared.items() for key, array in own.items()}
        if self._phones is not None:
            yield from self._phones.snapshot()

    def restore(self, name: str, state: State) -> bool:
        """Take one part of a checkpoint; says whether it is one of its own."""
        if name == SERVER:
            for key, array in state.items():
                place, _, slot = key.rpartition("/")
                self._memory.setdefault(place, {})[slot] = array
        elif name == SHARED:
            for key, array in state.items():
                segment, _, rest = key.partition("/")
                self._shared.setdefault(segment, {})[rest] = array
        elif name.startswith(PHONES) and self._phones is not None:
            self._phones.restore(state)
        else:
            return False
        return True


def _by_cohort(each: Sequence[tuple[tuple[int, ...], Remembered]]) -> dict[tuple[int, ...], Ends]:
    """What phones remember of all segments together: of A and C clients told, of B's copies the server."""
    found: dict[tuple[int, ...], Ends] = {}
    for phones, remembered in each:
        found.setdefault(phones, {}).update({name: terms.own for name, terms in remembered.items()})
    return found
