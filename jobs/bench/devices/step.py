"""A step of ResNet50, cut as the paper's first and last layers suggest: what a device and a server compute of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from ray_split import config
from ray_split.arrays import Array
from ray_split.cutting.cut import cut
from ray_split.devices.frames import Frame, frame
from ray_split.devices.layers import hash_of
from ray_split.devices.phone import DevicePhone, Samples
from ray_split.devices.welcome import layers_of, optimizer_of
from ray_split.messages.message import leaves, send
from ray_split.models import registry
from ray_split.segments.segment import Segment

CUTS = ("relu", "avgpool")  # docs/paper.md, "What is assumed"
LEARNING = config.Optimizer(lr=0.01)
T = TypeVar("T")


class Clock:
    """Seconds that were spent on some things, by name."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}

    def timed(self, name: str, do: Callable[..., T]) -> Callable[..., T]:
        """The function, whose time is counted."""

        def counted(*arguments: Any) -> T:
            start = time.perf_counter()
            try:
                return do(*arguments)
            finally:
                self.spent[name] = self.spent.get(name, 0.0) + time.perf_counter() - start

        return counted


class Step:
    """The questions of a step, the device that answers them, and B."""

    def __init__(self) -> None:
        model = registry.build(config.Model(name="resnet50", num_classes=1000), seed=0)
        modules = cut(model, CUTS).modules()
        self._layers = layers_of(modules)
        self._ends = {name: Segment(modules[name], LEARNING).state() for name in ("a", "c")}
        self._middle = Segment(modules["b"], LEARNING)
        self.welcome = {
            "kind": "welcome", "version": 1, "phone": 0, "run": "bench", "rounds": 1, "samples": 1, "held_out": 0,
            "threads": 1, "layers": self._layers, "hash": hash_of(self._layers),
            "optimizers": {name: optimizer_of(LEARNING) for name in ("a", "c")},
            "loss": {"name": "cross_entropy", "label_smoothing": 0.0},
        }  # fmt: skip
        image = np.random.default_rng(0).normal(size=(1, 3, 224, 224)).astype(np.float32)
        self.samples = Samples(image, np.array([7]))

    def phone(self) -> DevicePhone:
        """A device's, without a connection."""
        return DevicePhone(self.welcome, self.samples)

    def load(self) -> Frame:
        """The question that begins a round."""
        weights = {f"{name}/{key}": array for name, state in self._ends.items() for key, array in state.items()}
        return frame("load", weights, round=0, attempt=0, hash=self.welcome["hash"], fresh=True)

    def forward(self) -> Frame:
        """The question for the activation."""
        return frame("forward", round=0, attempt=0, step=0, samples=[0], seed=0)

    def loss(self, hidden: Array) -> Frame:
        """The question for the gradient of hidden."""
        return frame("loss", {"hidden": hidden}, round=0, attempt=0, step=0, seed=0, lr=0.01)

    def backward(self, gradient: Array) -> Frame:
        """The question that has the gradient of the activation."""
        return frame("backward", {"gradient": gradient}, round=0, attempt=0, step=0, lr=0.01)

    def hidden(self, activation: Array) -> Array:
        """B's forward."""
        (found,) = leaves(send(self._middle.forward(activation, 0)))
        return np.asarray(found)

    def activation_gradient(self, gradient: Array) -> Array:
        """B's backward and step."""
        (found,) = leaves(self._middle.backward(gradient))
        self._middle.step()
        return np.asarray(found)
