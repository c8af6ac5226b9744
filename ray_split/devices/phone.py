"""What a device computes: the phone's side of the protocol, without a socket. A question in, its answer out.

The same segments as a simulated phone's, so the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ray_split import config
from ray_split.arrays import Array
from ray_split.devices.frames import Frame, frame
from ray_split.devices.layers import hash_of
from ray_split.devices.modules import LayeredModule
from ray_split.messages.message import as_bits, leaves
from ray_split.messages.report import NONFINITE
from ray_split.segments.optimization import optimizers
from ray_split.segments.segment import Segment
from ray_split.tasks.task import Task

SEGMENTS = ("a", "c")


class DeviceError(RuntimeError):
    """What a device can't do: it says so, and drops out of the round."""


@dataclass(frozen=True)
class Samples:
    """What the device trains on: inputs (N, ...) and classes (N,). Bytes are scaled as the run says."""

    inputs: Array
    labels: Array

    def __len__(self) -> int:
        return len(self.inputs)


class DevicePhone:
    """A phone's A, C, data and labels, which never leave it; what does leave it is what `answer` returns."""

    def __init__(self, welcome: Mapping[str, Any], samples: Samples) -> None:
        """`welcome`: the header of that frame. Raises DeviceError if the device hasn't got the samples."""
        self._welcome, self._samples = welcome, samples
        self._trains_on, held_out = int(welcome["samples"]), int(welcome.get("held_out", 0))
        if len(samples) < self._trains_on + held_out:
            wanted = f"{self._trains_on + held_out} samples"
            raise DeviceError(f"the run wants {wanted} of each device, and here are {len(samples)}")
        threads = welcome.get("threads")
        self._threads = threads if type(threads) is int and threads > 0 else 1
        self._hash = hash_of(welcome["layers"])
        self._task = Task(config.Task(label_smoothing=welcome["loss"]["label_smoothing"]))
        self._optimizers = {name: _optimizer(told) for name, told in welcome["optimizers"].items()}
        self._segments: dict[str, Segment] = {}
        self._labels: Array | None = None
        self._step: int | None = None  # the exchange under way
        self._answers: dict[str, Callable[[Frame], Frame]] = {
            "load": self._load,
            "forward": self._forward,
            "loss": self._loss,
            "backward": self._backward,
            "close": self._close,
            "release": lambda asked: frame("release"),
            "evaluate": self._evaluate,
            "evaluate_loss": self._evaluate_loss,
        }

    def answer(self, question: Frame) -> Frame:
        """The answer to a question; that it failed, if it did."""
        if torch.get_num_threads() != self._threads:  # a process's, on which the last bits depend
            torch.set_num_threads(self._threads)
        answer = self._answers.get(question.kind)
        try:
            if answer is None:
                raise DeviceError(f"there is no question {question.kind!r}")
            found = answer(question)
        except Exception as error:  # noqa: BLE001  a device says what it can't do, and drops out of the round
            found = frame("failed", reason=f"{type(error).__name__}: {error}"[:500])
        found.header["id"] = question.header.get("id")
        return found

    def _load(self, asked: Frame) -> Frame:
        if asked.header["hash"] != self._hash:
            raise DeviceError("these are weights of other layers")
        if not self._segments:
            self._segments = {name: self._made(name, asked) for name in SEGMENTS}
        for name, segment in self._segments.items():
            own = {key[2:]: array for key, array in asked.tensors.items() if key.startswith(f"{name}/")}
            segment.load(own, fresh_optimizer=bool(asked.header["fresh"]))
        self._step = None
        return frame("load")

    def _made(self, name: str, asked: Frame) -> Segment:
        start = f"{name}/weights/"
        shapes = {key.removeprefix(start): a.shape for key, a in asked.tensors.items() if key.startswith(start)}
        return Segment(LayeredModule(self._welcome["layers"][name], shapes), self._optimizers[name])

    def _forward(self, asked: Frame) -> Frame:
        inputs, self._labels = self._batch(asked.header["samples"], 0, self._trains_on)
        outputs = self._segment("a").forward(inputs, int(asked.header["seed"]), differentiable=False)
        self._step = int(asked.header["step"])
        return frame("forward", {"activation": as_bits(outputs)})

    def _loss(self, asked: Frame) -> Frame:
        self._expect(asked)
        assert self._labels is not None
        last, labels = self._segment("c"), torch.from_numpy(self._labels)
        outputs = last.forward(asked.tensors["hidden"], int(asked.header["seed"]))
        value = self._task.loss(outputs, labels)
        gradient = last.backward_loss(value)
        self._learn("c", asked)
        (found,) = leaves(gradient)
        told = {"loss": value.item(), "correct": self._task.correct(outputs, labels)}
        return frame("loss", {"gradient": np.asarray(found)}, **_finite(told))

    def _backward(self, asked: Frame) -> Frame:
        self._expect(asked)
        self._segment("a").backward(asked.tensors["gradient"])
        self._learn("a", asked)
        self._step = None
        return frame("backward")

    def _learn(self, name: str, asked: Frame) -> None:
        optimizer = self._segment(name).optimizer
        if optimizer is not None:
            optimizers.step(optimizer, {"lr": float(asked.header["lr"])})

    def _close(self, asked: Frame) -> Frame:
        wanted = ("weights/", "buffers/", "optimizer/") if asked.header.get("optimizer") else ("weights/", "buffers/")
        states = {name: self._segment(name).state() for name in SEGMENTS}
        return frame("close", {
            f"{name}/{key}": array for name, state in states.items() for key, array in state.items()
            if key.startswith(wanted)
        })  # fmt: skip

    def _evaluate(self, asked: Frame) -> Frame:
        inputs, _ = self._batch(asked.header["samples"], self._trains_on, len(self._samples))
        return frame("evaluate", {"activation": as_bits(self._segment("a").evaluate(inputs))})

    def _evaluate_loss(self, asked: Frame) -> Frame:
        _, own = self._batch(asked.header["samples"], self._trains_on, len(self._samples))
        outputs, labels = self._segment("c").evaluate(asked.tensors["hidden"]), torch.from_numpy(own)
        (loss,) = self._task.losses(outputs[None], labels[None], asked.header.get("several") is True)
        told = {"loss": loss.item(), "correct": self._task.correct(outputs, labels)}
        broken, _ = self._task.tallies(outputs, labels)[NONFINITE]
        return frame("evaluate_loss", **_finite(told), nonfinite=int(broken))

    def _batch(self, places: Any, start: int, stop: int) -> tuple[Array, Array]:
        """The inputs as the model takes them, and the classes, of samples that are counted from `start`."""
        chosen = np.asarray(places, int) + start
        if chosen.ndim != 1 or not len(chosen) or chosen.min() < start or chosen.max() >= stop:
            raise DeviceError("it was asked for samples that it hasn't got")
        inputs = self._samples.inputs[chosen]
        if inputs.dtype == np.uint8:
            told = self._welcome["input"]
            scale, shift = np.asarray(told["scale"], np.float32), np.asarray(told["shift"], np.float32)
            inputs = inputs.astype(np.float32) * scale + shift
        return inputs, self._samples.labels[chosen].astype(np.int64)

    def _segment(self, name: str) -> Segment:
        if not self._segments:
            raise DeviceError("it was asked to compute before it had weights")
        return self._segments[name]

    def _expect(self, asked: Frame) -> None:
        if self._step is None or int(asked.header["step"]) != self._step:
            raise DeviceError(f"step {asked.header['step']} is not the exchange under way")


def _optimizer(told: Mapping[str, Any]) -> config.Optimizer:
    fields = {name: told[name] for name in ("momentum", "weight_decay") if name in told}
    kwargs = {name: value for name, value in told.items() if name not in ("name", "lr", *fields)}
    return config.Optimizer(name=told["name"], **fields, kwargs=kwargs)


def _finite(told: dict[str, float]) -> dict[str, Any]:
    """JSON has no NaN: a text stands for it."""
    return {name: value if np.isfinite(value) else str(value) for name, value in told.items()}
