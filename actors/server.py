"""The server: hosts B and its optimizer. It never sees an input, or A's and C's weights; nor a label, but in single
split, where B is the rest of the model and has the loss.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch

from actors.b_average import Averaging, Kept
from actors.b_ways.in_turn import InTurn
from actors.b_ways.joint_batch import JointBatch
from actors.b_ways.own_copies import OwnCopies
from actors.b_ways.shared_step import SharedStep
from actors.b_ways.stepping import Stepping
from actors.b_ways.way import Call, Way
from actors.evaluation_report import CPU, evaluated
from actors.resources import gpu
from actors.resources.placement import number
from actors.role_arguments import corrects
from actors.state_guard import Guard
from ray_split import config
from ray_split.arrays import Array
from ray_split.cutting.cut import cut
from ray_split.messages.contract import Contract
from ray_split.messages.message import Message, labels_of, receive
from ray_split.messages.message_checks import Checks, Phones
from ray_split.messages.report import Report, Spent
from ray_split.messages.state import Closed, Remembered, State, state_bytes, terms_bytes
from ray_split.messages.turn import Turn
from ray_split.models import registry
from ray_split.models.registry import first_states
from ray_split.schedules import schedule_of
from ray_split.schedules.schedule import WayOfB
from ray_split.segments.copies import Learned
from ray_split.segments.copy_factory import CopyFactory
from ray_split.segments.device.computing import computing_at_server
from ray_split.segments.looped_copies import LoopedCopies
from ray_split.segments.shared_segment import SharedSegment
from ray_split.segments.weighted_mean import averaged
from ray_split.tasks.task import Task


class Server:
    """B. One exchange is

    hidden = server.forward(turn, activation)
    activation_gradient = server.backward(turn, hidden_gradient)

    whatever the schedule; in single split `learn` stands for a forward, the loss and a backward. Whose weights of B
    these are, and when they step, is the round's way (b_ways/), which `load` is told: `open` and `close` are for
    copies of B, `step` for a step that phones share.
    Of several replicas each does this for its share; `pass_on` and `take`, or `average`, make one B of theirs.
    What phones send is checked first (message_checks.py): a message that is refused has changed nothing.
    """

    def __init__(self, settings: config.Config, contract: Contract) -> None:
        torch.set_num_threads(number(settings.server.num_cpus))
        device = gpu.device_of(settings.server.num_gpus, torch.cuda.is_available())
        if device == "cuda":
            gpu.set_up_gpu(settings.server, gpu.memory_share(settings.server))
        model = registry.build(settings.model, settings.run.seed)
        segments = cut(model, settings.model.cuts or (), mask=settings.model.mask)
        self._settings = settings
        seed, max_norm = settings.run.seed, settings.phones.max_norm
        correct = corrects(settings)["b"]
        card = gpu.common_card(settings)
        computing = computing_at_server(settings, schedule_of(settings.schedule).on_server)
        self._computing = replace(computing, staying=card)
        self._make = make = CopyFactory("b", segments.b, settings, device, correct, self._computing)
        self._task = Task(settings.task, mixed=settings.data.mixup is not None)
        self.b = make.segment()
        self._one = LoopedCopies(lambda: self.b)
        self._shared = SharedSegment(self.b, vmapped=make.stacked)
        self._averaging = Averaging(settings.aggregator)
        self._stepping = Stepping(waits=settings.optimizer.clips_model)
        self._own = OwnCopies(make, self._averaging, settings, self._task, self._stepping)
        self._ways: dict[WayOfB, Way] = {
            "in_turn": InTurn(self._one, seed, self._task, self._stepping),
            "own_copies": self._own,
            "shared_step": SharedStep(self._shared, seed, self._task),
            "joint_batch": JointBatch(self._shared, seed, self._task),
        }
        self._named: WayOfB = "in_turn"
        self._guard = Guard("server")
        self._checks = Checks(contract, max_norm, labels=segments.c is None, staying=card)

    def device(self) -> str:
        """What B computes on, for people."""
        return torch.cuda.get_device_name() if self.b.device.type == "cuda" else "CPU"

    @contextmanager
    def _during(self, turn: Turn, *arrived: Message) -> Iterator[None]:
        with self._guard.during(turn, *arrived), gpu.within_memory(self._drop):
            yield

    def _drop(self) -> None:
        """Let go of all that is pending: what is next is a load."""
        for way in self._ways.values():
            way.drop()
        self._stepping.forget()
        self._averaging.begin({})
        self.b.forget()

    def initial_state(self) -> State:
        """B's state before the first round."""
        with gpu.within_memory(self._drop):
            return first_states(self._settings, {"b": self._make})["b"]

    def load(self, turn: Turn, state: State, way: WayOfB = "in_turn", chunk: int | None = None) -> Report:
        """Begin a round with this state, in which B serves phones in this way, at most `chunk` of them in one go."""
        with self._guard.loading(turn), gpu.within_memory(self._drop):
            self._named, self._shared.chunk = way, chunk
            for each in self._ways.values():
                each.begin(state)
            self._own.chunk = chunk
            self._averaging.begin(state)
            self._stepping.forget()
            self._checks.forget()
            received = self._one.load(state, 1, fresh=False)
        self._guard.loaded(turn)
        return Report(bytes_weights=received)

    def state(self, turn: Turn, *others: Kept) -> State:
        """B's state at the round's end: as it is now, or the average of the copies that were closed.

        `others`: of other replicas, what each one's `rows` gave.
        """
        with self._during(turn):
            self._ways[self._named].end()
            average = self._averaging.state(*others)
            return self.b.state() if average is None else average

    def rows(self, turn: Turn) -> Kept:
        """The copies that were closed and kept, by their cohorts' numbers, for the replica that aggregates them."""
        with self._during(turn):
            self._ways[self._named].end()
            return self._averaging.take_rows()

    def pass_on(self, turn: Turn) -> State | None:
        """The sum of the copies that were closed, here and before that, for the replica that goes on with it."""
        with self._during(turn):
            return self._averaging.take_sum()

    def take(self, turn: Turn, total: State | None) -> Report:
        """Go on with the sum that another replica passed on."""
        with self._during(turn):
            self._averaging.go_on(total)
            return Report(bytes_weights=state_bytes(total or {}))

    def average(self, turn: Turn, shares: Sequence[float], *others: State) -> Report:
        """End a round of several replicas: from now on `state` is the average of this one's B and theirs, by shares."""
        with self._during(turn):
            self._ways[self._named].end()
            self._averaging.go_on(averaged([self.b.state(), *others], shares))
            return Report(bytes_weights=sum(state_bytes(state) for state in others))

    def after(self, *done: object) -> None:
        """Nothing: what is submitted after this is done once these are there."""

    def begin(self) -> None:
        """A round begins: its account of time does."""
        self._guard.begin()

    def spent(self, turn: Turn) -> Spent:
        """Where its time of this round went."""
        return self._guard.spent(turn)

    def forward(self, turn: Turn, *activations: Message) -> Message | list[Message]:
        """B forward: hidden, for each of the turn's cohorts (of one, not in a list)."""
        with self._during(turn, *activations):
            way = self._admitted(turn, "forward")
            cohorts = self._check(turn, activations, self._checks.activation)
            hidden, wanted = way.forward(turn, activations)
            for phones, sent, groups in zip(cohorts, activations, hidden, strict=True):
                self._checks.expect(phones, sent.sizes or (), groups, wanted)
            return _each([Message(groups, time.time(), wanted=wanted) for groups in hidden])

    def backward(self, turn: Turn, *hidden_gradients: Message) -> Message | list[Message]:
        """B backward, and B's step but where phones share one: the gradient of the activation, for each cohort."""
        with self._during(turn, *hidden_gradients):
            way = self._admitted(turn, "backward")
            self._check(turn, hidden_gradients, self._checks.gradient)
            gradients = way.backward(turn, hidden_gradients)
            return _each([Message(g, time.time(), norms=self._stepping.norms(turn)) for g in gradients])

    def learn(self, turn: Turn, *activations: Message) -> Message | list[Message]:
        """Single split: forward, the loss and backward in one: the gradient of the activation, for each cohort."""
        with self._during(turn, *activations):
            way = self._admitted(turn, "learn")
            self._check(turn, activations, self._checks.activation)
            learned = way.learn(turn, activations)
            return _each([_told(each)._replace(norms=self._stepping.norms(turn)) for each in learned])

    def _admitted(self, turn: Turn, call: Call) -> Way:
        way = self._ways[self._named]
        way.admit(turn, call)
        return way

    def _check(self, turn: Turn, messages: Sequence[Message], check: Callable[[Phones, Message], None]) -> list[Phones]:
        """Check all of a call's messages before anything is computed; returns the cohorts that they are of."""
        cohorts = turn.cohorts()
        for phones, sent in zip(cohorts, messages, strict=True):
            check(phones, sent)
        return cohorts

    def step(self, turn: Turn, norms: Array | None = None) -> None:
        """The step that phones share, once all their backwards are through; `turn.joint` says how they weigh in it.

        Or the turn's, where gradients are clipped by the norm of all segments': `norms` (k,) are each phone's.
        """
        with self._during(turn):
            way = self._ways[self._named]
            if norms is not None:
                self._stepping.step(turn, norms)
                return
            if not isinstance(way, (SharedStep, JointBatch)):
                raise self._unknown("step", "shared_step or joint_batch")
            way.step(turn)

    def open(self, turn: Turn, remembered: Remembered | None = None) -> Report:
        """Give each of the turn's phones a copy of B as it was at the round's start.

        `remembered`: what is remembered of these copies for the settings' algorithm, which comes from the fed server.
        """
        with self._during(turn):
            terms = (remembered or {}).get("b")
            self._own_copies("open").open(turn, terms)
            return Report(bytes_weights=terms_bytes(terms, len(turn.phones)))

    def close(self, turn: Turn, shares: Array, number: int = 0, steps: Array | None = None) -> Closed | None:
        """End the phones' round: their copies are added to the average by shares, in the order of these calls.

        An aggregator other than the mean takes the copies themselves: they are kept until `state`, by the cohort's
        number in the round. Copies without a share, of phones that did not finish the round, are left out.
        With the `steps` that each took, it returns what is remembered of the copies from now on.
        """
        with self._during(turn):
            return self._own_copies("close").close(turn, shares, number, steps)

    def _own_copies(self, call: str) -> OwnCopies:
        way = self._ways[self._named]
        if not isinstance(way, OwnCopies):
            raise self._unknown(call, "own_copies")
        return way

    def _unknown(self, call: str, ways: str) -> RuntimeError:
        said = f"the schedule's record says way={self._named!r}, which has no {call}"
        return RuntimeError(f"server.{call}: {said}; a schedule that calls it says {ways}")

    def evaluate(self, turn: Turn, activation: Message) -> Message:
        """B in eval mode: hidden."""
        with self._during(turn, activation):
            return Message(self._shared.evaluate(activation.groups), time.time())

    def evaluate_loss(self, turn: Turn, activation: Message) -> Report:
        """Single split: B in eval mode and the loss, phone by phone if the turn has phones."""
        with self._during(turn, activation):
            evaluated_groups = self._shared.evaluate(activation.groups)
            outputs = [self._computing.scored(receive(group, CPU)) for group in evaluated_groups]
            return evaluated(self._task, outputs, labels_of(activation), turn.phones)


def _told(learned: Learned) -> Message:
    return Message(learned.gradients, time.time(), figures=(learned.losses, learned.correct))


def _each(cohorts: list[Message]) -> Message | list[Message]:
    """What a call returns that has a result for each cohort: of one, not in a list, as Ray's num_returns wants it."""
    return cohorts if len(cohorts) > 1 else cohorts[0]
