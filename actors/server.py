"""The server: hosts B and its optimizer. It never sees an input, or A's and C's weights; nor a label, but in single
split, where B is the rest of the model and has the loss.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import torch

from actors.b_average import Averaging, Kept
from actors.evaluation_report import CPU, evaluated
from actors.state_guard import Guard
from ray_split import config
from ray_split.arrays import Array
from ray_split.cutting.cut import cut
from ray_split.data.stream import forward_seeds
from ray_split.messages.contract import Borders
from ray_split.messages.message import Groups, Sent, Wanted, group_size, labels_of, receive, scales_of, wanted_by_any
from ray_split.messages.message_checks import Checks, check_weights
from ray_split.messages.report import Report, Spent
from ray_split.messages.state import State, state_bytes
from ray_split.messages.turn import Turn
from ray_split.models import registry
from ray_split.models.registry import first_states
from ray_split.segments.copies import Copies, Learned
from ray_split.segments.copy_factory import Maker
from ray_split.segments.looped_copies import Looped
from ray_split.segments.shared_segment import Shared, join, split
from ray_split.segments.weighted_mean import averaged
from ray_split.tasks.task import Task

Cohorts = Sequence[tuple[int, ...]]


class Server:
    """B. One exchange of one phone is

    hidden = server.forward(turn, activation)
    activation_gradient = server.backward(turn, hidden_gradient)

    A cohort whose phones have copies of B of their own: open, then forward_own and backward_own, then close.
    Phones whose batches make one joint step: forward_shared and backward_shared of all, then step_shared; or, where
    B mixes the samples of a batch (BatchNorm), forward_joint and backward_joint. In single split learn, learn_own,
    learn_shared and learn_joint stand for a forward, the loss and a backward.
    Of several replicas each does this for its share; `pass_on` and `take`, or `average`, make one B of theirs.
    What phones send is checked first (message_checks.py): a message that is refused has changed nothing.
    """

    def __init__(self, settings: config.Config, borders: Borders) -> None:
        torch.set_num_threads(settings.server.num_cpus)
        gpu = settings.server.num_gpus not in ("auto", 0) and torch.cuda.is_available()
        if gpu:
            torch.backends.cudnn.deterministic = True
        segments = cut(registry.build(settings.model, settings.run.seed), settings.model.cuts or ())
        self._settings = settings
        self._make = Maker("b", segments.b, settings, "cuda" if gpu else "cpu")
        self._task = Task(settings.task)
        self.b = self._make.segment()
        self._one = Looped(lambda: self.b)
        self._shared = Shared(self.b, vmapped=self._make.stacked)
        self._copies: dict[tuple[int, ...], Copies] = {}
        self._spare: dict[bool, list[Copies]] = {True: [], False: []}
        self._seed = settings.run.seed
        self._guard = Guard("server")
        self._max_norm = settings.phones.max_norm.weights
        self._checks = Checks(borders, settings.phones.max_norm, labels=segments.c is None)
        self._pending: Turn | None = None
        self._joint: list[Groups] = []  # the activations of the joint batch under way
        self._start: State = {}
        self._averaging = Averaging(settings.aggregator)

    def device(self) -> str:
        """What B computes on, for people."""
        return torch.cuda.get_device_name() if self.b.device.type == "cuda" else "CPU"

    def initial_state(self) -> State:
        """B's state before the first round."""
        return first_states(self._settings)["b"]

    def load(self, turn: Turn, state: State) -> Report:
        """Begin a round with this state."""
        self._pending, self._joint, self._start = None, [], state
        self._averaging.begin(state)
        self._shared.forget()
        self._checks.forget()
        for phones in list(self._copies):
            self._release(phones)
        received = self._one.load(state, 1, fresh=False)
        self._guard.loaded(turn)
        return Report(bytes_weights=received)

    def _release(self, phones: tuple[int, ...]) -> Copies:
        copies = self._copies.pop(phones)
        self._spare[len(phones) > 1].append(copies)
        return copies

    def state(self, turn: Turn, *others: Kept) -> State:
        """B's state at the round's end: as it is now, or the average of the copies that were closed.

        `others`: of other replicas, what each one's `rows` gave.
        """
        with self._guard.during(turn):
            average = self._averaging.state(*others)
            return self.b.state() if average is None else average

    def rows(self, turn: Turn) -> Kept:
        """The copies that were closed and kept, by their cohorts' numbers, for the replica that aggregates them."""
        with self._guard.during(turn):
            return self._averaging.take_rows()

    def pass_on(self, turn: Turn) -> State | None:
        """The sum of the copies that were closed, here and before that, for the replica that goes on with it."""
        with self._guard.during(turn):
            return self._averaging.take_sum()

    def take(self, turn: Turn, total: State | None) -> Report:
        """Go on with the sum that another replica passed on."""
        with self._guard.during(turn):
            self._averaging.go_on(total)
            return Report(bytes_weights=state_bytes(total or {}))

    def average(self, turn: Turn, shares: Sequence[float], *others: State) -> Report:
        """End a round of several replicas: from now on `state` is the average of this one's B and theirs, by shares."""
        with self._guard.during(turn):
            self._averaging.go_on(averaged([self.b.state(), *others], shares))
            return Report(bytes_weights=sum(state_bytes(state) for state in others))

    def begin(self) -> None:
        """A round begins: its account of time does."""
        self._guard.begin()

    def spent(self, turn: Turn) -> Spent:
        """Where its time of this round went."""
        return self._guard.spent(turn)

    def forward(self, turn: Turn, activation: Sent) -> Sent:
        """B forward for one phone: hidden."""
        with self._guard.during(turn, activation):
            if self._pending is not None:
                waits = f"step {self._pending.step} of phone {self._pending.phones[0]}"
                raise RuntimeError(f"a forward of phone {turn.phones[0]} came while {waits} waits for its backward")
            self._checks.activation(turn.phones, activation)
            self._pending = turn
            seeds = forward_seeds(self._seed, turn, "b", 1)
            hidden = self._one.forward(activation.groups, seeds, activation.wanted)
            return self._hidden(turn.phones, hidden, activation, self._one.wanted)

    def backward(self, turn: Turn, hidden_gradient: Sent) -> Sent:
        """B backward, B step: the gradient of the activation."""
        with self._guard.during(turn, hidden_gradient):
            if self._pending != turn:
                raise RuntimeError(f"step {turn.step} of phone {turn.phones[0]} is not the exchange under way")
            self._checks.gradient(turn.phones, hidden_gradient)
            self._pending = None
            gradient = self._one.backward(hidden_gradient.groups)
            self._one.step()
            return self._sent(gradient)

    def learn(self, turn: Turn, activation: Sent) -> Sent:
        """Single split: B forward, the loss, B backward, B step, for one phone: the gradient of the activation."""
        with self._guard.during(turn, activation):
            self._checks.activation(turn.phones, activation)
            return self._learn(self._one, activation, forward_seeds(self._seed, turn, "b", 1))

    def _learn(self, copies: Copies, activation: Sent, seeds: Sequence[int]) -> Sent:
        learned = copies.learn(activation.groups, labels_of(activation), seeds, self._task, activation.wanted)
        copies.step()
        return self._told(learned)

    def _told(self, learned: Learned) -> Sent:
        return self._sent(learned.gradients)._replace(figures=(learned.losses, learned.correct))

    def _hidden(self, phones: tuple[int, ...], groups: Groups, activation: Sent, wanted: Wanted) -> Sent:
        self._checks.expect(phones, activation.sizes or (), groups, wanted)
        return self._sent(groups)._replace(wanted=wanted)

    def _sent(self, groups: Groups) -> Sent:
        return Sent(groups, time.time())

    def open(self, turn: Turn) -> None:
        """Give each of the turn's phones a copy of B as it was at the round's start."""
        with self._guard.during(turn):
            spare, count = self._spare[len(turn.phones) > 1], len(turn.phones)
            self._copies[turn.phones] = spare.pop() if spare else self._make(count)
            self._copies[turn.phones].load(self._start, count, fresh=True)

    def forward_own(self, turn: Turn, activation: Sent) -> Sent:
        """The phones' own copies forward: hidden."""
        with self._guard.during(turn, activation):
            self._checks.activation(turn.phones, activation)
            copies = self._copies[turn.phones]
            seeds = self._seeds(turn, activation, copies.draws)
            hidden = copies.forward(activation.groups, seeds, activation.wanted)
            return self._hidden(turn.phones, hidden, activation, copies.wanted)

    def learn_own(self, turn: Turn, activation: Sent) -> Sent:
        """Single split: the phones' own copies forward, loss, backward and step: the gradient of the activation."""
        with self._guard.during(turn, activation):
            self._checks.activation(turn.phones, activation)
            copies = self._copies[turn.phones]
            return self._learn(copies, activation, self._seeds(turn, activation, copies.draws))

    def _seeds(self, turn: Turn, activation: Sent, wanted: bool) -> list[int]:
        count = sum(group_size(group) for group in activation.groups) if wanted else 0
        return forward_seeds(self._seed, turn, "b", count) if count else []

    def backward_own(self, turn: Turn, hidden_gradient: Sent) -> Sent:
        """The phones' own copies backward and step: the gradient of the activation."""
        with self._guard.during(turn, hidden_gradient):
            self._checks.gradient(turn.phones, hidden_gradient)
            copies = self._copies[turn.phones]
            gradient = copies.backward(hidden_gradient.groups)
            copies.step()
            return self._sent(gradient)

    def close(self, turn: Turn, shares: Array, number: int = 0) -> None:
        """End the phones' round: their copies are added to the average by shares, in the order of these calls.

        An aggregator other than the mean takes the copies themselves: they are kept until `state`, by the cohort's
        number in the round. Copies without a share, of phones that did not finish the round, are left out.
        """
        with self._guard.during(turn):
            copies, finished = self._copies[turn.phones], np.flatnonzero(shares)
            phones = tuple(turn.phones[i] for i in finished)
            check_weights(phones, "copy of B", copies.norms()[finished], self._max_norm)
            self._release(turn.phones)
            if phones and not self._make.frozen:
                self._averaging.add(copies, shares, number)

    def forward_shared(self, turn: Turn, activation: Sent) -> Sent:
        """B forward for a cohort, before the joint step: hidden."""
        with self._guard.during(turn, activation):
            self._checks.activation(turn.phones, activation)
            seeds = self._seeds(turn, activation, True)
            hidden = self._shared.forward(turn.phones, activation.groups, seeds, activation.wanted)
            return self._hidden(turn.phones, hidden, activation, self._shared.wanted)

    def backward_shared(self, turn: Turn, hidden_gradient: Sent, largest: int) -> Sent:
        """B backward for a cohort: the gradient of the activation. `largest` is the step's largest batch of a phone.

        B's gradient weights phones by batch size; what goes back is the gradient of each phone's own mean loss.
        """
        with self._guard.during(turn, hidden_gradient):
            self._checks.gradient(turn.phones, hidden_gradient)
            scales = scales_of(hidden_gradient, largest)
            return self._sent(self._shared.backward(turn.phones, hidden_gradient.groups, scales))

    def learn_shared(self, turn: Turn, activation: Sent, largest: int) -> Sent:
        """Single split: B forward, loss and backward for a cohort, as forward_shared and backward_shared."""
        with self._guard.during(turn, activation):
            self._checks.activation(turn.phones, activation)
            seeds, scales = self._seeds(turn, activation, True), scales_of(activation, largest)
            learned = self._shared.learn(
                activation.groups, labels_of(activation), seeds, self._task, scales, activation.wanted
            )
            return self._told(learned)

    def step_shared(self, turn: Turn, factor: float) -> None:
        """The joint step; `factor` is the step's largest batch of a phone over all its samples."""
        with self._guard.during(turn):
            self._shared.step(factor)

    def forward_joint(self, turn: Turn, cohorts: Cohorts, *activations: Sent) -> list[Sent] | Sent:
        """B forward on the batches of all cohorts as one: hidden, for each of them (of one, not in a list)."""
        with self._guard.during(turn, *activations):
            self._check_joint(cohorts, activations)
            self._joint = [sent.groups for sent in activations]
            seeds, wanted = forward_seeds(self._seed, turn, "b", 1), _wanted(activations)
            hidden = split(self._shared.forward("joint", join(self._joint), seeds, wanted), self._joint)
            each = zip(cohorts, hidden, activations, strict=True)
            return _each([self._hidden(phones, groups, sent, self._shared.wanted) for phones, groups, sent in each])

    def _check_joint(self, cohorts: Cohorts, activations: Sequence[Sent]) -> None:
        for phones, sent in zip(cohorts, activations, strict=True):
            self._checks.activation(phones, sent)

    def backward_joint(
        self, turn: Turn, cohorts: Cohorts, largest: int, factor: float, *hidden_gradients: Sent
    ) -> list[Sent] | Sent:
        """B backward and step on the joint batch: the gradient of the activation, for each cohort."""
        with self._guard.during(turn, *hidden_gradients):
            for phones, sent in zip(cohorts, hidden_gradients, strict=True):
                self._checks.gradient(phones, sent)
            scales = [scales_of(sent, largest) for sent in hidden_gradients]
            gradients = self._shared.backward_joint([s.groups for s in hidden_gradients], scales, self._joint)
            self._shared.step(factor)
            return _each([self._sent(groups) for groups in gradients])

    def learn_joint(
        self, turn: Turn, cohorts: Cohorts, largest: int, factor: float, *activations: Sent
    ) -> list[Sent] | Sent:
        """Single split: B forward, loss, backward and step on the joint batch: each cohort's gradient."""
        with self._guard.during(turn, *activations):
            self._check_joint(cohorts, activations)
            seeds, wanted = forward_seeds(self._seed, turn, "b", 1), _wanted(activations)
            groups, labels = [sent.groups for sent in activations], [labels_of(sent) for sent in activations]
            scales = [scales_of(sent, largest) for sent in activations]
            learned = self._shared.learn_joint(groups, labels, seeds, self._task, scales, wanted)
            self._shared.step(factor)
            return _each([self._told(each) for each in learned])

    def evaluate(self, turn: Turn, activation: Sent) -> Sent:
        """B in eval mode: hidden."""
        with self._guard.during(turn, activation):
            return self._sent(self._shared.evaluate(activation.groups))

    def evaluate_loss(self, turn: Turn, activation: Sent) -> Report:
        """Single split: B in eval mode and the loss, phone by phone if the turn has phones."""
        with self._guard.during(turn, activation):
            outputs = [receive(group, CPU) for group in self._shared.evaluate(activation.groups)]
            return evaluated(self._task, outputs, labels_of(activation), turn.phones)


def _wanted(cohorts: Sequence[Sent]) -> Wanted:
    return wanted_by_any([sent.wanted for sent in cohorts])


def _each(cohorts: list[Sent]) -> list[Sent] | Sent:
    """What a method returns that has a result for each cohort: of one, not in a list."""
    return cohorts if len(cohorts) > 1 else cohorts[0]
