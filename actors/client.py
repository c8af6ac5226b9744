"""The client: hosts A and C for the cohorts it trains, and has their data and labels. It never holds B.

(For the baselines fedavg and unsplit, in which the whole model is on the phone, it does.)
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial, reduce
from operator import or_
from typing import Any

import numpy as np
import torch

from actors.contrast import Contrast
from actors.evaluation_report import CPU, batch_sizes, bytes_each, evaluated
from actors.resources import gpu
from actors.resources.placement import number
from actors.role_arguments import corrects
from actors.sample_reader import Reader
from actors.state_guard import Guard
from ray_split import config
from ray_split.algorithms import contrast_of, encoder, phone_memory
from ray_split.arrays import Array
from ray_split.cutting.cut import cut
from ray_split.data import byzantine
from ray_split.data.load import Parts
from ray_split.data.phone_ranks import ranks_of
from ray_split.data.stream import Group, Stream
from ray_split.errors import ClientMemoryError
from ray_split.messages.contract import Contract
from ray_split.messages.message import Groups, Message, times, tree_map
from ray_split.messages.message_checks import check_weights
from ray_split.messages.report import Report, Spent, padded_sum
from ray_split.messages.state import (
    Closed,
    Ends,
    Remembered,
    Rows,
    State,
    Terms,
    kept,
    place_of,
    places_of,
    state_bytes,
)
from ray_split.messages.turn import USUAL, Start, Turn
from ray_split.messages.weight_checks import Expected, check_ends
from ray_split.models import registry
from ray_split.models.registry import first_states
from ray_split.schedules import schedule_of
from ray_split.segments import aggregators
from ray_split.segments.adapters.ranks import lacking, of_ranks
from ray_split.segments.copies import Copies
from ray_split.segments.copy_factory import CopyFactory
from ray_split.segments.device.computing import computing_of
from ray_split.segments.optimization.gradient_norm import order_of, total_norm
from ray_split.segments.optimization.learning_rates import length_of
from ray_split.segments.tied_weight import tied_names
from ray_split.tasks.task import Task


@dataclass
class _Cohort:
    """Phones under way: their copies, their batches, and what is known for the exchange's report."""

    copies: dict[str, Copies]
    steps: tuple[int, ...] | None = None  # that each takes, if not all that it planned
    remembered: dict[str, tuple[State, Terms]] = field(default_factory=dict)  # with the state at the round's start
    batches: list[list[Group]] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)  # phones in each group of the exchange under way
    labels: list[Array] = field(default_factory=list)
    report: Report = field(default_factory=Report)
    at: Turn | None = None  # the exchange under way
    inputs: list[Any] = field(default_factory=list)  # of the exchange under way, where they are needed again
    contrast: Contrast | None = None  # what stands beside the phones' losses, if anything does
    norms: tuple[Turn, Array] | None = None  # of the last exchange's whole gradients (k,), if they are clipped by these


class Client:
    """A and C of the cohorts it trains at the moment. One exchange is

    activation = client.forward(turn)
    hidden_gradient = client.loss(turn, hidden)
    report = client.backward(turn, activation_gradient)

    In single split there is no C: labels go to the server with the activation, and only then; `loss` is not called.
    """

    def __init__(self, settings: config.Config, parts: Parts, stream: Stream, contract: Contract) -> None:
        torch.set_num_threads(number(settings.cluster.cpus_per_client))
        model = registry.build(settings.model, settings.run.seed)
        self._order = order_of(model)
        segments = cut(model, settings.model.cuts or (), mask=settings.model.mask)
        self._settings = settings
        modules, correct = segments.modules(), corrects(settings)
        self._tied = segments.c is not None and bool(tied_names(segments.c))
        on_server = schedule_of(settings.schedule).on_server
        card = gpu.common_card(settings)
        computing = {name: replace(computing_of(settings, name, on_server), staying=card) for name in modules}
        device = gpu.device_of(settings.cluster.client_gpus, torch.cuda.is_available())
        if device == "cuda":
            gpu.set_up_gpu(settings.server, gpu.client_memory_share(settings))
        self._make = {
            name: CopyFactory(name, module, settings, device, correct[name], computing[name])
            for name, module in modules.items()
        }
        self._last = "b" if segments.c is None else "c"
        self._contrasts = contrast_of(settings.algorithm)
        self._task = Task(settings.task, mixed=settings.data.mixup is not None)
        self._parts = parts
        self._reader = Reader(settings, parts, stream, contract.labels)
        self._stream = stream
        self._max_norm = settings.phones.max_norm.weights
        self._expected = Expected(
            contract.learned, contract.slots, self._max_norm, contract.bounded, numbers=contract.numbers
        )
        self._like: dict[str, State] = {}  # for what is handed on
        self._scales = byzantine.scales(settings)  # of gradients, where there are hostile phones
        self._by_sums = aggregators.aggregator_of(settings.aggregator).by_sums
        self._clips = settings.optimizer.clips_model  # a step waits until the norm of all segments' gradients is there
        self._ranks = ranks_of(settings)  # of each phone's adapters, where they differ
        self._guard = Guard("client")
        self._device = device
        self._cohorts: dict[tuple[int, ...], _Cohort] = {}
        self._spare: dict[tuple[str, bool], list[Copies]] = {}

    def device(self) -> str:
        """What A and C compute on, for people."""
        return torch.cuda.get_device_name() if self._device == "cuda" else "CPU"

    def initial_state(self) -> Ends:
        """A's and C's state before the first round."""
        with self._within_memory((), "A and C"):
            states = first_states(self._settings, self._make)
        return {name: state for name, state in states.items() if name != "b"}

    def load(
        self,
        turn: Turn,
        ends: Ends,
        own: Ends | None = None,
        middle: State | None = None,
        start: Start = USUAL,
        remembered: Remembered | None = None,
    ) -> Report:
        """Begin to train the turn's phones, or (no phones) to evaluate, with these states; `own` is each phone's own.

        With `middle` the phones have the whole model. `remembered`: for the settings' algorithm, of each phone's own
        and of what is shared, which crosses. Raises BadPhoneError if the sender handed on something else.
        """
        if start.sender:
            check_ends(start.sender, ends, self._first_states(), self._expected)
        # The first load of an attempt: whoever was under way belongs to one that failed, or to an evaluation.
        if self._guard.loaded(turn):
            for phones in list(self._cohorts):
                self._release(phones)
            self._reader.drop()
        with self._guard.failing(turn), self._within_memory(turn.phones, "the copies"):
            return self._load(turn, ends, own, middle, start, remembered)

    def _load(
        self,
        turn: Turn,
        ends: Ends,
        own: Ends | None,
        middle: State | None,
        start: Start,
        remembered: Remembered | None,
    ) -> Report:
        self._release(turn.phones)
        states = ends if middle is None else {**ends, "b": middle}
        count = len(turn.phones) or 1
        cohort = _Cohort({name: self._take(name, count) for name in states}, start.steps)
        own = self._of_ranks(turn, states, own or {})
        terms = remembered or {}
        cohort.remembered = {name: (states[name], own_terms) for name, own_terms in terms.items()}
        received = sum(
            copies.load(states[name], count, own.get(name), start.fresh_optimizer, terms.get(name))
            for name, copies in cohort.copies.items()
        )
        if self._tied:
            cohort.copies["a"].tie(cohort.copies["c"])
        received += count * sum(state_bytes(each.shared) for each in terms.values())
        if self._contrasts is not None and turn.phones and middle is not None:
            names = sorted(encoder(self._settings, states))
            still = [{name: self._take(name, count) for name in names} for _ in range(2)]
            cohort.contrast = Contrast(self._contrasts, *still)
            cohort.contrast.load(states, terms, count)
        self._cohorts[turn.phones] = cohort
        if start.trains:
            self._reader.prepare(turn._replace(step=0), partial(self._steps, turn))
        if not turn.phones or not start.crosses:
            return Report(bytes_weights=received if start.crosses else 0)
        each = np.full(count, received // count) - self._lacking(turn.phones, states.values())
        return Report(np.array(turn.phones), bytes_weights=each)

    def _of_ranks(self, turn: Turn, states: Ends, own: Ends) -> Ends:
        """What is each phone's own, with adapters of its rank."""
        if self._ranks is None or not turn.phones:
            return own
        ranks = self._ranks[list(turn.phones)]
        return {name: of_ranks(ranks, state, own.get(name, {})) for name, state in states.items()}

    def _lacking(self, phones: tuple[int, ...], states: Iterable[State]) -> Array | int:
        """How much less than the largest adapters' bytes cross, of each phone."""
        return 0 if self._ranks is None else sum(lacking(self._ranks[list(phones)], state) for state in states)

    @contextmanager
    def _during(self, turn: Turn, part: str, *arrived: Message) -> Iterator[None]:
        with self._guard.during(turn, *arrived), self._within_memory(turn.phones, part):
            yield

    def _within_memory(self, phones: tuple[int, ...], part: str) -> AbstractContextManager[None]:
        """Around what computes a part of the model. Raises ClientMemoryError where the GPU has no room for it."""
        return gpu.clients_within_memory(
            self._drop, lambda reason: ClientMemoryError(tuple(sorted(phones)), part, self.device(), reason)
        )

    def _drop(self) -> None:
        """Let go of all that is pending: what is next is a load."""
        self._cohorts, self._spare = {}, {}
        self._reader.drop()

    def _first_states(self) -> dict[str, State]:
        if not self._like:
            self._like = {name: make.first_state() for name, make in self._make.items()}
        return self._like

    def _take(self, name: str, count: int) -> Copies:
        spare = self._spare.setdefault((name, count > 1), [])
        return spare.pop() if spare else self._make[name](count)

    def _release(self, phones: tuple[int, ...]) -> None:
        cohort = self._cohorts.pop(phones, None)
        if cohort is not None:
            self._reader.drop(phones)
        for name, copies in (
            [*cohort.copies.items(), *(cohort.contrast.copies if cohort.contrast else [])] if cohort else ()
        ):
            self._spare[name, len(phones) > 1].append(copies)

    def state(self, turn: Turn) -> Ends:
        """End the turn of one phone: its state as it is now, to be handed on."""
        with self._during(turn, "A and C"):
            copies = self._checked(turn, np.zeros(1, int))
            ends = {name: place_of(c.states(), 0) for name, c in copies.items()}
            self._release(turn.phones)
            return ends

    def close(self, turn: Turn, shares: Array, keep: str = "nothing") -> Closed:
        """End the phones' round: their weights added up by shares, and what they `keep`: nothing, statistics or all.

        Of each phone instead of added up, if the aggregator wants them so. Phones without a share did not finish the
        round, and leave nothing.
        """
        with self._during(turn, "A and C"):
            finished = np.flatnonzero(shares)
            if not len(finished):
                self._release(turn.phones)
                return Closed((), {}, {}, 0)
            copies = self._checked(turn, finished)
            phones = tuple(turn.phones[i] for i in finished)
            # What is frozen is not averaged: a sum of shares of a weight is not the weight, to the last bit.
            averaged = [name for name in copies if keep != "all" and not self._make[name].frozen]
            sums = {name: copies[name].average(shares) for name in averaged if self._by_sums}
            each = {name: places_of(copies[name].learned(), finished) for name in averaged if not self._by_sums}
            own: Ends = {}
            if keep != "nothing":
                own = {name: kept(places_of(c.states(), finished), keep) for name, c in copies.items()}
            # Of each phone: its weights, which are as large as the cohort's sum of them.
            sent: int | Array = sum(state_bytes(state) for state in sums.values())
            sent += sum(state_bytes(state) for state in each.values()) // len(phones)
            sent = sent - self._lacking(phones, (place_of(state, 0) for state in each.values()))
            remembered = self._remembered(turn, finished, shares)
            sent = sent + sum(state_bytes(terms.shared) for terms in remembered.values())
            self._release(turn.phones)
            rows = Rows(each, shares[finished]) if each else None
            return Closed(phones, sums, own, sent, rows, remembered or None)

    def _remembered(self, turn: Turn, finished: Array, shares: Array) -> Remembered:
        """What the phones that finish remember of their round."""
        cohort, found = self._cohorts[turn.phones], {}
        steps = self._stream.steps(turn.phones) if cohort.steps is None else np.array(cohort.steps)
        if turn.accumulation is not None:
            steps = np.array(turn.accumulation.updates(steps.tolist()), int)
        for name, (start, terms) in cohort.remembered.items():
            weights = places_of(cohort.copies[name].learned(), finished)
            own = phone_memory.of_places(terms, finished)
            length = length_of(self._settings.optimizer.of(name), turn, steps[finished])
            found[name] = phone_memory.after_round(self._settings, own, start, weights, shares[finished], length)
        return found

    def _checked(self, turn: Turn, finished: Array) -> dict[str, Copies]:
        """The copies of a cohort whose round ends. Raises BadPhoneError for weights that the fed server can't take.

        Here, where they are still each phone's: it gets their sum. `finished`: the places of those of whom it gets any.
        """
        copies = self._cohorts[turn.phones].copies
        phones = tuple(turn.phones[i] for i in finished)
        for name, each in copies.items():
            check_weights(phones, f"part {name.upper()}", each.norms()[finished], self._max_norm)
        return copies

    def forward(self, turn: Turn) -> Message:
        """A forward on the turn's batches: the activation."""
        with self._during(turn, "A"):
            return self._with_labels(self._forward(turn), self._cohorts[turn.phones].labels)

    def _with_labels(self, activation: Message, labels: list[Array]) -> Message:
        """In single split the labels go along."""
        return activation if self._last == "c" else activation._replace(labels=labels)

    def _forward(self, turn: Turn) -> Message:
        cohort = self._cohorts[turn.phones]
        groups = self._steps(turn)[turn.step]
        batches = self._reader.batches(turn, groups)
        self._reader.prepare(turn._replace(step=turn.step + 1), partial(self._steps, turn))
        cohort.labels, cohort.counts = [labels for _, labels in batches], [len(group) for group in groups]
        sizes = batch_sizes(groups)
        seeds = self._seeds(turn, "a", cohort, len(sizes))
        activation = cohort.copies["a"].forward([inputs for inputs, _ in batches], seeds, differentiable=False)
        cohort.inputs = [inputs for inputs, _ in batches] if cohort.contrast is not None else []
        phones = np.array(turn.phones[: len(sizes)])
        up = bytes_each(activation, cohort.counts)
        up = up + bytes_each(cohort.labels, cohort.counts) if self._last == "b" else up
        cohort.report, cohort.at = Report(phones, samples=sizes, bytes_up=up), turn
        return Message(activation, time.time(), tuple(sizes.tolist()), wanted=cohort.copies["a"].wanted)

    def _steps(self, turn: Turn) -> list[list[Group]]:
        """The batches of a cohort's steps: of the whole round at once."""
        cohort = self._cohorts[turn.phones]
        if not cohort.batches:
            cohort.batches = self._stream.cohort_batches(turn.round, turn.phones, cohort.steps)
        return cohort.batches

    def _seeds(self, turn: Turn, segment: str, cohort: _Cohort, count: int) -> list[int]:
        return self._stream.forward_seeds(turn, segment, count) if cohort.copies[segment].draws else []

    def loss(self, turn: Turn, hidden: Message) -> Message:
        """C forward, loss, C backward, C step: the gradient of hidden."""
        with self._during(turn, self._last.upper(), hidden):
            gradient = self._learn(turn, hidden)
            self._step_last(turn)
            return gradient

    def _step_last(self, turn: Turn) -> None:
        """The step of the segment that has the loss, unless it waits for the norm of all gradients."""
        if not self._clips:
            self._cohorts[turn.phones].copies[self._last].step(turn)

    def _learn(self, turn: Turn, hidden: Message) -> Message:
        cohort = self._expect(turn)
        sizes = cohort.report.samples
        assert isinstance(sizes, np.ndarray)
        seeds = self._seeds(turn, self._last, cohort, len(sizes))
        last = cohort.copies[self._last]
        scales = None if self._scales is None else self._scales[list(turn.phones[: len(sizes)])]
        learned = last.learn(hidden.groups, cohort.labels, seeds, self._task, hidden.wanted, scales, turn)
        down, up = bytes_each(hidden.groups, cohort.counts), bytes_each(learned.gradients, cohort.counts)
        cohort.report = cohort.report._replace(bytes_down=down, bytes_up=cohort.report.bytes_up + up)
        self._tell(cohort, learned.losses, learned.correct)
        return Message(learned.gradients, time.time(), tuple(sizes.tolist()))

    def _tell(self, cohort: _Cohort, losses: Array, correct: Array) -> None:
        cohort.report = cohort.report._replace(loss=losses * cohort.report.samples, correct=correct)

    def backward(self, turn: Turn, activation_gradient: Message) -> Report:
        """A backward, A step: the report of the exchange."""
        with self._during(turn, "A", activation_gradient):
            return self._backward(turn, activation_gradient)

    def _backward(self, turn: Turn, activation_gradient: Message) -> Report:
        cohort = self._expect(turn)
        cohort.at, gradient = None, activation_gradient.groups
        if activation_gradient.figures is not None:  # the loss was on the server: single split
            self._tell(cohort, *activation_gradient.figures)
            gradient = self._scaled(turn, gradient, cohort.counts)
        cohort.copies["a"].backward(gradient, turn)
        down = cohort.report.bytes_down + bytes_each(activation_gradient.groups, cohort.counts)
        cohort.report = cohort.report._replace(bytes_down=down)
        if self._clips and turn.updates_any:
            return self._step_all(turn, cohort, activation_gradient.norms or {})
        cohort.copies["a"].step(turn)
        return cohort.report

    def _step_all(self, turn: Turn, cohort: _Cohort, norms: Mapping[str, Array]) -> Report:
        """The steps of all segments that are here, once the norm of all gradients is known; `norms` are B's."""
        own = [copies.gradient_norms() for copies in cohort.copies.values()]
        found = total_norm(reduce(or_, own, dict(norms)), self._order)
        for copies in cohort.copies.values():
            copies.step(turn, found)
        cohort.norms = turn, found
        report = cohort.report
        up, down = (np.zeros(sum(cohort.counts), np.int64) for _ in range(2))
        stepping = turn.updating(sum(cohort.counts))
        up[stepping], down[stepping] = found.itemsize, sum(norm.itemsize for norm in norms.values())
        return report._replace(bytes_up=report.bytes_up + up, bytes_down=report.bytes_down + down)

    def norms(self, turn: Turn) -> Array:
        """Of each phone (k,) that steps the norm of its gradients, of all segments, after `backward`: B steps by it."""
        with self._guard.during(turn):
            cohort = self._cohorts[turn.phones]
            if cohort.norms is None or cohort.norms[0] != turn:
                raise RuntimeError(f"step {turn.step} of phones {turn.phones} has no norm: its backward is missing")
            return cohort.norms[1]

    def _scaled(self, turn: Turn, gradient: Groups, counts: list[int]) -> Groups:
        """Where the server has the loss, what a hostile phone's A is given."""
        if self._scales is None:
            return gradient
        each = np.split(self._scales[list(turn.phones[: sum(counts)])], np.cumsum(counts)[:-1])
        return [times(group, scale) for group, scale in zip(gradient, each, strict=True)]

    def _expect(self, turn: Turn) -> _Cohort:
        cohort = self._cohorts.get(turn.phones)
        if cohort is None or cohort.at != turn:
            under_way = cohort and cohort.at
            raise RuntimeError(f"step {turn.step} of round {turn.round} is not the exchange under way: {under_way}")
        return cohort

    def train_alone(self, turn: Turn, steps: int) -> Report:
        """All of the round's steps of phones that have the whole model: nothing crosses."""
        with self._during(turn, "the model"):
            reports = [self._step_alone(turn._replace(step=step)) for step in range(steps)]
            return padded_sum([report._replace(bytes_up=0, bytes_down=0) for report in reports])

    def _step_alone(self, turn: Turn) -> Report:
        activation, cohort = self._forward(turn), self._cohorts[turn.phones]
        if self._last == "b":
            return self._backward(turn, Message(self._learn_alone(turn, activation), 0.0))
        middle = cohort.copies["b"]
        hidden = middle.forward(
            activation.groups, self._seeds(turn, "b", cohort, sum(cohort.counts)), activation.wanted
        )
        learned = self._learn_alone(turn, Message(hidden, 0.0, wanted=middle.wanted))
        gradient = middle.backward(learned, turn)
        if not self._clips:
            middle.step(turn)
        return self._backward(turn, Message(gradient, 0.0))

    def _learn_alone(self, turn: Turn, arrived: Message) -> Groups:
        """What the last segment gives back, with the gradient of what stands beside the loss."""
        cohort, learned = self._cohorts[turn.phones], self._learn(turn, arrived).groups
        self._step_last(turn)
        if cohort.contrast is None:
            return learned
        count = sum(cohort.counts)
        scales = np.ones(count) if self._scales is None else self._scales[list(turn.phones[:count])]
        factors = scales / np.array(turn.parts(count) or np.ones(count))
        return cohort.contrast.beside(learned, cohort.inputs, arrived.groups, factors.tolist())

    def evaluate_forward(self, turn: Turn, part: str, start: int, stop: int) -> Message:
        """A in eval mode on samples start:stop of 'val' or 'test': the activation."""
        with self._during(turn, "A"):
            inputs, labels = self._reader.part(part, start, stop)
            return self._with_labels(self._evaluate_a(turn, [tree_map(lambda x: x[None], inputs)]), [labels[None]])

    def evaluate_loss(self, turn: Turn, part: str, start: int, stop: int, hidden: Message) -> Report:
        """C in eval mode and the loss: how many of the samples came out right."""
        with self._during(turn, "C", hidden):
            labels = self._parts.labels(part, slice(start, stop))
            return self._evaluate_c(turn, hidden, [labels[None]])._replace(phones=None)

    def evaluate_own_forward(self, turn: Turn, part: str, start: int, stop: int) -> Message:
        """A in eval mode on samples start:stop of what each phone holds out for 'val' or 'test': the activation."""
        with self._during(turn, "A"):
            batches = self._reader.held_out(turn.phones, part, start, stop)
            activation = self._evaluate_a(turn, [inputs for inputs, _ in batches])
            return self._with_labels(activation, [labels for _, labels in batches])

    def evaluate_own_loss(
        self, turn: Turn, part: str, start: int, stop: int, hidden: Message, several: frozenset[int] = frozenset()
    ) -> Report:
        """C in eval mode and the loss, phone by phone; `several`: those that belong beside others, remote ones."""
        with self._during(turn, "C", hidden):
            held = self._stream.held_out(turn.phones, part, start, stop)
            return self._evaluate_c(turn, hidden, [self._parts.labels("train", indices) for indices in held], several)

    def release(self, turn: Turn) -> None:
        """The turn's phones are done with."""
        with self._guard.during(turn):
            self._release(turn.phones)

    def _evaluate_a(self, turn: Turn, groups: Groups) -> Message:
        outputs = self._cohorts[turn.phones].copies["a"].evaluate(groups)
        return Message(self._make["a"].computing.sent(outputs), time.time())

    def _evaluate_c(
        self, turn: Turn, hidden: Message, labels: list[Array], several: frozenset[int] = frozenset()
    ) -> Report:
        outputs = self._cohorts[turn.phones].copies["c"].evaluate(hidden.groups)
        here = [tree_map(lambda x: x.to(CPU) if isinstance(x, torch.Tensor) else x, each) for each in outputs]
        scored = [self._make["c"].computing.scored(each) for each in here]
        return evaluated(self._task, scored, labels, turn.phones, several)

    def end(self) -> None:
        """The run is over, or this client is: its threads end."""
        self._reader.end()

    def after(self, *done: object) -> None:
        """Nothing: what is submitted after this is done once these are there."""

    def begin(self) -> None:
        """A round begins: its account of time does."""
        self._guard.begin()

    def spent(self, turn: Turn) -> Spent:
        """Where its time of this round went."""
        return self._guard.spent(turn)
