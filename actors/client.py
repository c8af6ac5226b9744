"""The client: hosts A and C for its phones, and has their data and labels. It never holds B."""

from __future__ import annotations

from typing import NamedTuple

import torch

from actors.guard import Guard
from ray_split import config, models
from ray_split.cut import cut
from ray_split.data import Parts
from ray_split.draws import Stream, Turn
from ray_split.message import Message, num_bytes, receive, send
from ray_split.metrics import Report
from ray_split.segment import Segment
from ray_split.state import Array, Ends
from ray_split.task import correct, loss_of

CPU = torch.device("cpu")


class _Pending(NamedTuple):
    """An exchange under way: the labels of its batch, and what is known for its report."""

    turn: Turn
    labels: Array
    report: Report


class Client:
    """A and C of the phone it trains at the moment. One exchange is

    activation = client.forward(turn)
    hidden_gradient = client.loss(turn, hidden)
    report = client.backward(turn, activation_gradient)
    """

    def __init__(self, settings: config.Config, parts: Parts, stream: Stream) -> None:
        torch.set_num_threads(settings.cluster.cpus_per_client)
        segments = cut(models.build(settings.model, settings.run.seed), models.cuts_of(settings.model))
        assert segments.c is not None
        frozen = settings.model.freeze
        self.a = Segment(segments.a, settings.optimizer, frozen="a" in frozen)
        self.c = Segment(segments.c, settings.optimizer, frozen="c" in frozen)
        self._loss = loss_of(settings.task)
        self._parts = parts
        self._stream = stream
        self._guard = Guard("client")
        self._pending: _Pending | None = None

    def initial_state(self) -> Ends:
        """A's and C's state before the first round."""
        return {"a": self.a.state(), "c": self.c.state()}

    def load(self, turn: Turn, ends: Ends, fresh_optimizer: bool = False) -> Report:
        """Begin to train a phone, or to evaluate, with these states."""
        self._pending = None
        received = sum(segment.load(ends[name], fresh_optimizer) for name, segment in (("a", self.a), ("c", self.c)))
        self._guard.loaded(turn)
        return Report(turn.phone, bytes_weights=received)

    def state(self, turn: Turn) -> Ends:
        """A's and C's state as they are now."""
        with self._guard.during(turn):
            return self.initial_state()

    def forward(self, turn: Turn) -> Message:
        """A forward on the turn's batch: the activation."""
        with self._guard.during(turn):
            indices = self._stream.batches(turn.round, turn.phone)[turn.step]
            inputs, labels = self._parts.batch("train", indices)
            seed = self._stream.forward_seed(turn, "a")
            activation = send(self.a.forward(inputs, seed, differentiable=False))
            report = Report(turn.phone, samples=len(labels), bytes_up=num_bytes(activation))
            self._pending = _Pending(turn, labels, report)
            return activation

    def loss(self, turn: Turn, hidden: Message) -> Message:
        """C forward, loss, C backward, C step: the gradient of hidden."""
        with self._guard.during(turn):
            pending = self._expect(turn)
            outputs = self.c.forward(hidden, self._stream.forward_seed(turn, "c"))
            labels = receive(pending.labels, CPU)
            loss = self._loss(outputs, labels)
            gradient = self.c.backward_loss(loss)
            self.c.step()
            report = pending.report._replace(
                loss=loss.item() * len(labels),
                correct=correct(outputs, labels),
                bytes_down=num_bytes(hidden),
                bytes_up=pending.report.bytes_up + num_bytes(gradient),
            )
            self._pending = pending._replace(report=report)
            return gradient

    def backward(self, turn: Turn, activation_gradient: Message) -> Report:
        """A backward, A step: the report of the exchange."""
        with self._guard.during(turn):
            report = self._expect(turn).report
            self._pending = None
            self.a.backward(activation_gradient)
            self.a.step()
            return report._replace(bytes_down=report.bytes_down + num_bytes(activation_gradient))

    def _expect(self, turn: Turn) -> _Pending:
        if self._pending is None or self._pending.turn != turn:
            raise RuntimeError(f"{turn} is not the exchange under way: {self._pending and self._pending.turn}")
        return self._pending

    def evaluate_forward(self, turn: Turn, part: str, start: int, stop: int) -> Message:
        """A in eval mode on samples start:stop of 'val' or 'test': the activation."""
        with self._guard.during(turn):
            inputs, _ = self._parts.batch(part, slice(start, stop))
            return send(self.a.evaluate(inputs))

    def evaluate_loss(self, turn: Turn, part: str, start: int, stop: int, hidden: Message) -> Report:
        """C in eval mode and the loss: how many of the samples came out right."""
        with self._guard.during(turn):
            _, labels_array = self._parts.batch(part, slice(start, stop))
            outputs, labels = self.c.evaluate(hidden), receive(labels_array, CPU)
            loss = self._loss(outputs, labels).item() * len(labels)
            return Report(samples=len(labels), loss=loss, correct=correct(outputs, labels))
