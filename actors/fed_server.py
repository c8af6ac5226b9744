"""The fed server: averages A and C, keeps the state at the round's start, and writes checkpoints and the model.

It never sees an activation, a gradient or data. No torch in its process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from ray_split import config
from ray_split.algorithms.server_side import ServerSide
from ray_split.errors import StateNotLoadedError
from ray_split.filesystem import Place, as_open_as, place, try_out
from ray_split.messages.report import Report
from ray_split.messages.state import Closed, Ends, Remembered, State, state_bytes, weights, with_fixed
from ray_split.messages.turn import Turn
from ray_split.messages.weight_checks import Expected, check_closed, check_ends, check_middle, check_moved
from ray_split.results import checkpoint
from ray_split.results.left_behind import MODEL, WITHOUT_EMA
from ray_split.results.personal_state import FOLDER, PREFIX, Personal
from ray_split.segments import aggregators
from ray_split.segments.optimization.weights_ema import WeightsEma
from ray_split.segments.weighted_mean import added


class FedServer:
    """The state that every attempt of a round begins with. It moves on only by `commit`."""

    def __init__(
        self,
        folder: Place,
        num_to_keep: int | None,
        phones: int,
        expected: Expected,
        aggregator: config.Aggregator | None = None,
        side: Callable[[], ServerSide] | None = None,
        ema_decay: float | None = None,
        tied: Mapping[str, str] | None = None,
    ) -> None:
        """`side` makes what the settings' algorithm and server optimizer do here, where they name any.

        `ema_decay`: of the average of weights that is evaluated, if it is one. `tied`: other names that weights have in
        the model, and those that they have here.
        """
        self._folder = folder
        self._num_to_keep = num_to_keep
        self._tied = tied or {}
        self._aggregator = aggregator or config.Aggregator()
        self._round = -1
        self._states: dict[str, State] = {}
        self._expected = expected
        self._personal = Personal(folder / FOLDER, phones)
        self._side = side() if side is not None else None
        if self._side is not None:
            self._side.open(folder, phones)
        self._ema = None if ema_decay is None else WeightsEma(ema_decay)
        self._collecting: tuple[int, int] | None = None
        self._sums: Ends = {}
        self._own: list[Closed] = []  # with each phone's weights, where the aggregator wants them

    def collect(self, turn: Turn, phones: Sequence[tuple[int, ...]], *cohorts: Closed) -> Report:
        """Add cohorts' weighted sums of A and C to the round's average, in this order, and keep what is personal.

        An aggregator other than the mean takes the phones' weights themselves: they are kept until the commit.
        `phones` are each cohort's. Raises BadPhoneError if what came is not like the state at the round's start.
        """
        for own, closed in zip(phones, cohorts, strict=True):
            check_closed(own, closed, self._states, self._expected)
        # What an attempt left that failed is dropped by the first cohort of the next one.
        if self._collecting != (turn.round, turn.attempt):
            self._collecting = (turn.round, turn.attempt)
            self._sums, self._own = {}, []
        for closed in cohorts:
            for name, state in closed.sums.items():
                self._sums[name] = added(self._sums.get(name), state)
            self._own.append(closed._replace(sums={}))
        sent = [np.broadcast_to(each.bytes_per_phone, len(own)) for each, own in zip(cohorts, phones, strict=True)]
        everybody = np.array([phone for own in phones for phone in own], int)
        return Report(everybody, bytes_weights=np.concatenate([np.zeros(0, int), *sent]))

    def commit(
        self, round: int, ends: Ends | None, middle: State | None, phones: tuple[int, ...] = (), part: float = 0.0
    ) -> Report:
        """The state of A, C and B at the start of `round`: the one before is dropped.

        What isn't given is the average that was collected; what is neither stays. `phones`: who sent `ends`; none, if
        nobody finished the round. `part`: the share that those who did have of all phones' samples. Raises
        BadPhoneError if they are not like the state before, DivergedError if B isn't finite.
        """
        first = not self._states
        if first:  # of a run: there is nothing to compare them with
            self._clear()
        else:
            check_ends(phones, ends or {}, self._states, self._expected)
            check_middle(middle or {}, self._expected)
        given = {**(ends or {}), **({} if middle is None else {"b": middle})}
        rows = [closed.rows for closed in self._own if closed.rows is not None]
        averages = {**self._sums, **aggregators.combined(self._aggregator, rows, self._states)}
        # What isn't trained was in no sum: it is what it was at the round's start.
        averages = {name: with_fixed(state, self._states[name]) for name, state in averages.items()}
        states = {**self._states, **averages, **given}
        with as_open_as(self._folder):
            if self._side is not None and phones:
                states = self._side.commit(self._states, states, self._own, part)
                check_moved({name: states[name] for name in self._side.steps}, self._expected)
            self._states = states
            if self._ema is not None and not first:
                self._ema.follow(states)
            for closed in self._own:
                self._personal.write(closed)
        self._round, self._collecting = round, None
        self._sums, self._own = {}, []
        return Report(bytes_weights=sum(state_bytes(state) for state in given.values()))

    def _clear(self) -> None:
        self._personal.clear()
        if self._side is not None:
            self._side.clear()
        if self._ema is not None:
            self._ema.clear()

    def client_state(self, turn: Turn, to_evaluate: bool = False) -> Ends:
        """A's and C's state at the turn's round's start. Raises StateNotLoadedError for another round.

        `to_evaluate`: the average of weights, where the settings want one, and no optimizers then.
        """
        states = self._at(turn.round, to_evaluate)
        return {name: state for name, state in states.items() if name != "b"}

    def own_state(self, turn: Turn, to_evaluate: bool = False) -> Ends:
        """What is the turn's phones' own (phones, ...), at its round's start."""
        return self._personal.rows(np.array(turn.phones), self._at(turn.round, to_evaluate))

    def remembered(self, turn: Turn, names: tuple[str, ...]) -> Remembered:
        """What the turn's phones remember of these segments for the algorithm, at its round's start."""
        if self._side is None:
            raise RuntimeError("the settings name no algorithm: nothing is remembered for one")
        return self._side.terms(turn.phones, names, self._at(turn.round))

    def server_state(self, turn: Turn, to_evaluate: bool = False) -> State:
        """B's state, as `client_state` has the others'."""
        return self._at(turn.round, to_evaluate)["b"]

    def _at(self, round: int, to_evaluate: bool = False) -> dict[str, State]:
        if round != self._round:
            raise StateNotLoadedError(f"the fed server holds the start of round {self._round}, not {round}")
        return self._to_evaluate() if to_evaluate else self._states

    def _to_evaluate(self) -> dict[str, State]:
        return self._states if self._ema is None else self._ema.states(self._states)

    def reach(self) -> None:
        """See that the run's folder can be written to from here: credentials may be the driver's alone."""
        try_out(self._folder)

    def save_checkpoint(self, round: int) -> str:
        """Write a checkpoint of the start of `round`; returns its path. Raises StateNotLoadedError for another."""
        self._at(round)
        with as_open_as(self._folder):
            path = checkpoint.save(self._folder / checkpoint.FOLDER, self._round, self._parts(), self._num_to_keep)
        return str(path)

    def _parts(self) -> Iterator[tuple[str, State]]:
        yield from self._states.items()
        yield from self._personal.snapshot()
        if self._side is not None:
            yield from self._side.parts()
        if self._ema is not None:
            yield from self._ema.parts()

    def restore(self, path: str | Place) -> int:
        """Take a checkpoint's state; returns the round that it is the start of. Raises CheckpointError."""
        self._clear()
        self._round, parts = checkpoint.parts(place(path))
        self._states = {}
        for name, state in parts:
            if name.startswith(PREFIX):
                with as_open_as(self._folder):
                    self._personal.restore(state)
            elif self._ema is not None and self._ema.restore(name, state):
                continue
            elif self._side is None or not self._restored(self._side, name, state):
                self._states[name] = state
        return self._round

    def _restored(self, side: ServerSide, name: str, state: State) -> bool:
        with as_open_as(self._folder):
            return side.restore(name, state)

    def save_model(self) -> str:
        """Write model.safetensors under the unsplit model's keys, and what is each phone's own; returns its path.

        Where A and C are each phone's own, their mean over all phones. Where an average of weights is evaluated, that;
        the last weights stand in a file beside it.
        """
        self._personal.publish()
        if self._ema is not None:
            self._write(WITHOUT_EMA, self._states)
        return self._write(MODEL, self._to_evaluate())

    def _write(self, name: str, states: dict[str, State]) -> str:
        path = self._folder / name
        merged: State = {}
        for state in self._personal.mean(states).values():
            merged.update(weights(state))
        merged.update({name: merged[owner] for name, owner in self._tied.items()})
        with as_open_as(self._folder):
            checkpoint.write_model(path, merged)
        return str(path)
