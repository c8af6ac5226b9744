"""The stream of a run: which phone trains on which samples, when. A pure function of the settings."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from ray_split import config, seeds
from ray_split.arrays import Array
from ray_split.data import partitions
from ray_split.data.length_groups import grouped
from ray_split.data.participation import Ends, Fate, Fates, chosen, drawn, equal_steps
from ray_split.messages.turn import Accumulation, Turn


class Draw(NamedTuple):
    """One batch: in `round`, the phone that comes `order`-th takes its step `step` on these training indices.

    With data.accumulate k, its optimizers step after the batches k - 1, 2 k - 1, ..., and after its round's last.
    """

    round: int
    order: int
    phone: int
    step: int
    indices: Array
    finishes: bool = True  # the phone, its round: what becomes of the step's A and C if not is the schedule's


Order = Literal["abreast", "in_turn", "interleaved"]
"""Of a round's phones: abreast; in turn, each after the other's last step; or interleaved, a step of each in turn."""

Group = Array
"""Training indices (phones, batch size) of neighbours in a cohort whose batches are equally large."""


class Stream:
    """Every draw of a run. Holds the partition and nothing that grows with rounds."""

    def __init__(
        self,
        settings: config.Config,
        partition: partitions.Partition,
        order: Order = "abreast",
        times: Times | None = None,
        apart: bool = False,
        lengths: Array | None = None,
    ) -> None:
        """`order`: the schedule's, of phones. `times`: when their steps end; without it all take equally long.

        `apart`: whether no phones' batches are put together, as they are sequences of different lengths.
        `lengths`: of the training samples (N,), where batches are of samples that are about as long.
        """
        self._each_alone, self._lengths = apart, lengths
        self.seed = settings.run.seed
        self.partition = partition
        self.batch_size = settings.data.batch_size
        self.drops_last = settings.data.drop_last  # whether a batch that is smaller is left out
        self.accumulate = settings.data.accumulate  # batches for each local step
        self.local_steps = settings.phones.local_steps and settings.phones.local_steps * self.accumulate  # batches
        self.local_epochs = settings.phones.local_epochs or 1
        self.per_round = chosen(settings.phones.per_round, len(partition))
        self.drawn = drawn(settings.phones, len(partition))
        self.fates = Fates(settings.phones, self.seed, self.per_round)
        self._times = times
        self.cohort = settings.phones.cohort if settings.phones.cohort != "auto" else 1
        self.left_out = dict(settings.phones.left_out)  # the phones, and from which round
        self.absent = {round: set(phones) for round, phones in settings.phones.absent.items()}  # those off in a round
        self.remote = frozenset(settings.phones.remote_phones)  # each trains alone, outside the cluster
        self.not_evaluated = set[int]()  # phones whose held-out samples can't be used
        self._phones_order = order
        self._cache()

    def _cache(self) -> None:
        self._batches = functools.lru_cache(maxsize=4)(self._draw_batches)
        self.fate = functools.lru_cache(maxsize=2)(self._fate)
        self._before = [0]  # steps of the run before each round, as far as they are known

    def __getstate__(self) -> dict[str, Any]:
        """What a copy has, an actor's too, whom the driver tells how far its phones come: no caches, and no times."""
        return {k: v for k, v in self.__dict__.items() if k not in ("_batches", "fate", "_before")} | {"_times": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._cache()

    def phones(self, round: int) -> tuple[int, ...]:
        """The phones of a round, in their order: those drawn that are on."""
        return tuple(self.fate(round).phones.tolist())

    def finishing(self, round: int, phones: Sequence[int] | None = None) -> tuple[int, ...]:
        """Those of a round's phones, or of some of them, whose work counts, in their order."""
        fate = self.fate(round)
        return tuple(fate.finishing(fate.phones if phones is None else np.asarray(phones, int)).tolist())

    def taken(self, round: int, phones: Sequence[int] | Array) -> Array:
        """How many batches each of the phones trains on in a round: fewer than `steps` if it fails."""
        return self.fate(round).taken(np.asarray(phones, int))

    def updates(self, round: int, phones: Sequence[int] | Array) -> Array:
        """How often each of the phones' optimizers step in a round: once for each batch, if none are accumulated."""
        taken, accumulation = self.taken(round, phones), self.accumulation(phones)
        return taken if accumulation is None else np.array(accumulation.updates(taken.tolist()), int)

    def accumulation(self, phones: Sequence[int] | Array) -> Accumulation | None:
        """What turns of these phones say of the batches that are accumulated for a local step, if they are."""
        return None if self.accumulate == 1 else Accumulation(self.accumulate, tuple(self.steps(phones).tolist()))

    def at(self, turn: Turn, phones: tuple[int, ...]) -> Turn:
        """The turn, of these phones."""
        return turn._replace(phones=phones, accumulation=self.accumulation(phones))

    def steps_before(self, round: int) -> int:
        """The updates of the run before a round: of rounds in which phones train one after the other all of them,
        else of each round those of its phone that takes most. By these a learning rate's schedule goes on.
        """
        while len(self._before) <= round:
            last = len(self._before) - 1
            taken = self.updates(last, self.phones(last))
            steps = taken.sum() if self._phones_order == "in_turn" else taken.max(initial=0)
            self._before.append(self._before[-1] + int(steps))
        return self._before[round]

    def cut_short(self, round: int, phones: tuple[int, ...]) -> tuple[int, ...] | None:
        """The steps that phones take, if any of them takes fewer than it planned."""
        taken = self.taken(round, phones)
        return tuple(taken.tolist()) if (taken < self.steps(phones)).any() else None

    def _fate(self, round: int) -> Fate:
        drawn = np.array(self._drawn(round), int)

        def ends(steps: Array) -> Ends:
            if self._times is None:
                return equal_steps(steps, self._phones_order == "in_turn")
            return self._times(self._regardless(), round)

        return self.fates.of(round, drawn, self.steps(drawn), ends, sorted(self.absent.get(round, ())))

    def _regardless(self) -> Stream:
        """The stream in which nobody is late."""
        found = copy.copy(self)
        found.fates = self.fates.regardless()
        return found

    def _drawn(self, round: int) -> tuple[int, ...]:
        """The phones drawn for a round, in their order.

        If some are left out the others that were drawn stay, and more are drawn in their place: whichever of several
        is left out first, the same phones remain.
        """
        draw, there = seeds.generator(self.seed, "phones", round), len(self.partition)
        drawn: list[int] = draw.choice(there, self.drawn, replace=False).tolist()
        if not self.count_left_out(round):
            return tuple(drawn)
        more = [phone for phone in draw.permutation(there).tolist() if phone not in set(drawn)]
        left = [phone for phone in [*drawn, *more] if not self.is_left_out(phone, round)]
        return tuple(left[: self.drawn])

    def is_left_out(self, phone: int, round: int) -> bool:
        """Whether the run goes on without a phone in this round."""
        return self.left_out.get(phone, round + 1) <= round

    def count_left_out(self, round: int) -> int:
        """How many phones a round goes on without."""
        return sum(self.is_left_out(phone, round) for phone in self.left_out)

    def leave_out(self, phone: int, round: int) -> None:
        """Go on without a phone from this round on. Of what was drawn for the rounds before nothing changes."""
        self.left_out[phone] = min(round, self.left_out.get(phone, round))
        self._cache()

    def be_absent(self, phones: Iterable[int], round: int) -> None:
        """Let phones be off in this round."""
        self.absent.setdefault(round, set()).update(phones)
        self._cache()

    def samples(self, phones: Sequence[int] | Array) -> Array:
        """How many samples each of the phones trains on."""
        return self.partition.training(np.asarray(phones))

    def steps(self, phones: Sequence[int] | Array) -> Array:
        """How many batches each of the phones plans to train on in a round: `taken` says how far it comes."""
        epochs = self.local_epochs * self.batches_of(self.samples(phones))
        return np.full_like(epochs, self.local_steps) if self.local_steps else epochs

    def batches_of(self, samples: Array) -> Array:
        """How many batches a pass over so many samples has."""
        return samples // self.batch_size if self.drops_last else -(-samples // self.batch_size)

    def _in_batches(self, phones: Sequence[int] | Array) -> Array:
        """How many samples each of the phones trains on in a pass."""
        samples = self.samples(phones)
        return samples // self.batch_size * self.batch_size if self.drops_last else samples

    def batches(self, round: int, phone: int) -> list[Array]:
        """The training indices of each local step of a phone: a new order every pass, the last batch may be short.

        With data.drop_last it is left out if it is: of these samples, others in each pass, there is no batch.
        """
        return [groups[0][0] for groups in self._batches(round, (phone,))]

    def cohort_batches(
        self, round: int, phones: tuple[int, ...], taken: tuple[int, ...] | None = None
    ) -> list[list[Group]]:
        """A cohort's batches, step by step, those of neighbours with equally large ones together.

        `taken`: the steps that each takes, if not all that it planned. The phones that have a batch at a step are the
        cohort's first: see `cohorts`.
        """
        return self._batches(round, phones, taken)

    def _draw_batches(
        self, round: int, phones: tuple[int, ...], taken: tuple[int, ...] | None = None
    ) -> list[list[Group]]:
        chosen = np.array(phones)
        samples, steps = self.samples(chosen), self.steps(chosen) if taken is None else np.array(taken)
        starts = np.flatnonzero((np.diff(samples, prepend=-1) != 0) | (np.diff(steps, prepend=-1) != 0))
        runs = [
            self._equal(round, chosen[run], int(steps[run[0]])) for run in np.split(np.arange(len(chosen)), starts[1:])
        ]
        together: list[list[Group]] = []
        for step in range(max(len(run) for run in runs)):
            together.append(self._joined([run[step] for run in runs if step < len(run)]))
        return together

    def _equal(self, round: int, phones: Array, steps: int) -> list[Group]:
        """The batches (phones, batch size) of each of so many steps, of phones with equally many samples."""
        if not steps:
            return []
        own = self.partition.of_many(phones)
        samples = own.shape[1]
        in_a_pass = int(self.batches_of(np.array(samples)))
        passes = -(-steps // in_a_pass)
        keys = seeds.words([self.seed, seeds.PURPOSES["batches"], round, phones], np.arange(passes * samples))
        order = keys.reshape(len(phones), passes, samples).argsort(axis=2, kind="stable")
        shuffled = np.take_along_axis(own[:, None], order, axis=2)
        if self._lengths is not None:
            entropy: list[int | Array] = [self.seed, seeds.PURPOSES["length_groups"], round, phones]
            shuffled = grouped(shuffled, self._lengths, self.batch_size, entropy)
        batches: list[Array] = []
        for i in range(passes):
            batches += np.split(shuffled[:, i], range(self.batch_size, samples, self.batch_size), axis=1)[:in_a_pass]
        return batches[:steps]

    def cohorts(self, round: int) -> list[tuple[int, ...]]:
        """The round's phones in groups that train together: as the settings say, whatever number of clients there is.

        Phones that take most steps come first, so that those with a batch at a step are always a cohort's first; of
        those that take equally many the ones with most samples.
        """
        phones = np.array(self.phones(round))
        phones = phones[np.lexsort((-self.samples(phones), -self.taken(round, phones)))]
        parts = np.array_split(phones, -(-len(phones) // self.cohort)) if len(phones) else []
        cohorts = [tuple(part.tolist()) for part in parts]
        if self.remote.isdisjoint(phones.tolist()):
            return cohorts
        apart = [group for cohort in cohorts for group in _with_each_alone(cohort, self.remote)]
        return sorted(apart, key=lambda group: -int(self.taken(round, group[:1])[0]))

    def shares(self, round: int, phones: Sequence[int]) -> Array:
        """The phones' weights in the round's average: their share of the samples that its finishing phones train on.

        0 of a phone that does not finish.
        """
        counting = np.array(self.finishing(round), int)
        samples = np.where(np.isin(phones, counting), self._trained_on(phones, self.steps(phones)), 0)
        shares: Array = samples / max(1, self._trained_on(counting, self.steps(counting)).sum())
        return shares

    def weight(self, round: int, phones: Sequence[int]) -> float:
        """The share that some phones have of all that is trained on in a round, by those that don't finish too."""
        own, everybody = (self._trained_on(some, self.taken(round, some)) for some in (phones, self.phones(round)))
        return float((own / max(1, everybody.sum())).sum())

    def part(self, round: int) -> float:
        """The share that the phones that finish a round have of what all phones would train on in it."""
        finishing, everybody = np.array(self.finishing(round), int), np.arange(len(self.partition))
        own, all_ = (self._trained_on(some, self.steps(some)).sum() for some in (finishing, everybody))
        return float(own / max(1, all_))

    def _trained_on(self, phones: Sequence[int] | Array, steps: Array) -> Array:
        """How many different samples of a pass phones train on in some steps: with few of them not all of it."""
        samples: Array = np.minimum(self._in_batches(phones), steps * self.batch_size)
        return samples

    def trained(self, round: int) -> int:
        """How many samples a round trains on, every pass over them counted."""
        phones = np.array(self.phones(round), int)
        samples, steps = self._in_batches(phones), self.taken(round, phones)
        passes, rest = np.divmod(steps, -(-samples // self.batch_size))
        return int((passes * samples + np.minimum(rest * self.batch_size, samples)).sum())

    def order(self, round: int, step: int) -> list[int]:
        """The phones that take a local step, in the order in which a schedule that interleaves them takes them."""
        phones = np.array(self.phones(round), int)
        active = phones[self.taken(round, phones) > step * self.accumulate]
        return [int(phone) for phone in seeds.generator(self.seed, "order", round, step).permutation(active)]

    def interleaved(self, round: int) -> Iterator[tuple[int, int, int]]:
        """A round's batches as a schedule that interleaves phones takes them: order, phone, step.

        A local step of each phone in turn, with all the batches that it accumulates.
        """
        phones = self.phones(round)
        taken = dict(zip(phones, self.taken(round, phones).tolist(), strict=True))
        for first in range(0, max(taken.values(), default=0), self.accumulate):
            for order, phone in enumerate(self.order(round, first // self.accumulate)):
                for step in range(first, min(first + self.accumulate, taken[phone])):
                    yield order, phone, step

    def forward_seeds(self, turn: Turn, segment: str, count: int) -> list[int]:
        """The seeds of a segment's forward for the turn's first phones: Dropout and what else draws from torch."""
        return forward_seeds(self.seed, turn, segment, count)

    def held_out(self, phones: Sequence[int], part: str, start: int = 0, stop: int | None = None) -> list[Group]:
        """What phones hold out for 'val' or 'test', those of neighbours with equally many samples together.

        Of each phone's the samples start:stop; phones that have none are left out.
        """
        chosen = [self.partition.held_out_of(phone, part)[start:stop] for phone in phones]
        return self._joined([indices[None] for indices in chosen if len(indices)])

    def _joined(self, groups: list[Group]) -> list[Group]:
        return [own[None] for group in groups for own in group] if self._each_alone else _joined(groups)

    def batch_sizes(self, phones: Array, step: int) -> Array:
        """How large each phone's batch is at a step that it takes; 0 beyond those that it plans to take."""
        samples = self.samples(phones)
        place = step % self.batches_of(samples)
        sizes = np.minimum(self.batch_size, samples - place * self.batch_size)
        return np.where(self.steps(phones) > step, sizes, 0)

    def draws(self, round: int) -> Iterator[Draw]:
        """A round's local steps, phone after phone; or step by step, where the schedule interleaves them."""
        finishing, phones = set(self.finishing(round)), self.phones(round)
        taken = dict(zip(phones, self.taken(round, phones).tolist(), strict=True))
        if self._phones_order == "interleaved":
            batches = {phone: self.batches(round, phone) for phone in phones}
            for order, phone, step in self.interleaved(round):
                yield Draw(round, order, phone, step, batches[phone][step], phone in finishing)
            return
        for order, phone in enumerate(phones):
            for step, indices in enumerate(self.batches(round, phone)[: taken[phone]]):
                yield Draw(round, order, phone, step, indices, phone in finishing)


def _with_each_alone(cohort: tuple[int, ...], some: frozenset[int]) -> list[tuple[int, ...]]:
    """A cohort without some phones, and each of these alone."""
    rest = tuple(phone for phone in cohort if phone not in some)
    return [*([rest] if rest else []), *[(phone,) for phone in cohort if phone in some]]


Times = Callable[[Stream, int], Ends]
"""When the phones of a round and their steps end, by a stream in which nobody is late."""


def forward_seeds(seed: int, turn: Turn, segment: str, count: int) -> list[int]:
    """The seeds of a segment's forward for the turn's first `count` phones."""
    if count == 1:
        return [seeds.forward_seed(seed, turn.round, turn.phones[0], turn.step, segment)]
    return seeds.forward_seeds(seed, turn.round, np.array(turn.phones[:count]), turn.step, segment)


def _joined(groups: list[Group]) -> list[Group]:
    """Neighbours with equally large batches put together."""
    joined: list[list[Group]] = []
    for group in groups:
        if joined and joined[-1][0].shape[1] == group.shape[1]:
            joined[-1].append(group)
        else:
            joined.append([group])
    return [same[0] if len(same) == 1 else np.concatenate(same) for same in joined]
