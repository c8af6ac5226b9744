"""The gateway: toward the schedule the client that hosts all remote phones; each call of it is asked of a device.

What devices can't do stays here: which samples are due, seeds, learning rates, what is averaged. A and C pass through
on their way to and from the fed server, as they do at any client; data and labels never come here.
Source of the protocol: docs/protocol.md.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from aiohttp import web
from torch import nn

from actors.client import Client
from actors.gateway.connections import Connections
from actors.gateway.order import Order
from actors.gateway.page import application, tls
from ray_split import config
from ray_split.arrays import Array
from ray_split.cutting.cut import cut
from ray_split.data.load import Parts
from ray_split.data.stream import Group, Stream
from ray_split.devices.frames import Frame, frame
from ray_split.devices.welcome import layers_of, welcome_of
from ray_split.errors import BadPhoneError, RunFailedError, StateNotLoadedError
from ray_split.messages.contract import Contract
from ray_split.messages.message import Message, leaves
from ray_split.messages.report import NONFINITE, Report, Spent
from ray_split.messages.state import Closed, Ends, Remembered, State, place_of, state_bytes
from ray_split.messages.turn import USUAL, Start, Turn
from ray_split.models import registry
from ray_split.segments.optimization.learning_rates import rates_of, set_at

HEADER = 1 << 17  # bytes of an answer that are no tensors' values: its header, and the tensors' names and shapes
SEGMENTS = ("a", "c")


@dataclass
class _Phone:
    """A remote phone's round."""

    order: Order
    steps: int = 0
    batches: list[list[Group]] = field(default_factory=list)
    report: Report = field(default_factory=Report)


class Gateway:
    """A and C of the remote phones, which are on devices. An exchange is asked for as of any client (client.py)."""

    def __init__(
        self,
        settings: config.Config,
        parts: Parts,
        stream: Stream,
        contract: Contract,
        tokens: Mapping[str, int],
        operator: str,
        one_by_one: bool = False,
    ) -> None:
        """`tokens`: by token whose phone a device is. `operator`: by which one is told who is connected.

        `one_by_one`: each call is made once the one before is over.
        """
        self._settings, self._stream = settings, _of_own_samples(stream)
        self._client = Client(settings, parts, stream, contract)  # which checks and sums what devices send
        model = registry.build(settings.model, settings.run.seed)
        segments = cut(model, settings.model.cuts or (), mask=settings.model.mask)
        layers = layers_of(segments.modules())
        self._all = welcome_of(settings, layers, parts)
        self._hash = self._all["hash"]
        self._like = self._client.initial_state()
        self._phones = {phone: _Phone(Order(one_by_one)) for phone in settings.phones.remote_phones}
        self._promise = contract.activation
        most = _most_at_once(settings, stream)
        largest = _largest(most, self._like, contract, segments.b)
        self._connections = Connections(tokens, self._welcome, largest, settings.gateway.timeout)
        examples = None
        if settings.gateway.examples:
            examples = lambda phone: _share(parts, stream, phone)  # noqa: E731
        self._app = application(self._connections, examples, operator)
        self._runner: web.AppRunner | None = None

    def _welcome(self, phone: int) -> dict[str, Any]:
        own = np.array([phone])
        held = sum(len(self._held_out(phone, part)) for part in ("val", "test"))
        return {**self._all, "phone": phone, "samples": int(self._stream.samples(own)[0]), "held_out": held}

    def _held_out(self, phone: int, part: str) -> Array:
        """Where a phone's samples for 'val' or 'test' are, among those that it holds out."""
        return self._stream.partition.held_out_of(phone, part) - int(self._stream.samples(np.array([phone]))[0])

    async def serve(self, port: int) -> int:
        """Listen, if it doesn't yet; returns the port. Raises RunFailedError if it can't."""
        if self._runner is None:
            settings = self._settings.gateway
            runner = web.AppRunner(self._app, access_log=None, shutdown_timeout=1.0)
            await runner.setup()
            site = web.TCPSite(runner, settings.host, port, ssl_context=tls(settings), reuse_address=True)
            try:
                await site.start()
            except OSError as error:
                await runner.cleanup()
                said = f"the gateway can't listen at {settings.host}, port {port} (gateway.host, gateway.port): {error}"
                raise RunFailedError(said) from error
            self._runner = runner
        found: int = self._runner.addresses[0][1]
        return found

    async def stop(self, reason: str | None) -> None:
        """Listen no more. Devices are told the reason; without one they can't tell it from a process that died."""
        await self._connections.part(reason)
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def wait_for(self, phones: Sequence[int], seconds: float) -> list[int]:
        """Those of some phones that are connected, once all are, or after so many seconds."""
        return await self._connections.wait_for(phones, seconds)

    async def tell(self, state: str, text: str, round: int) -> None:
        """Tell all devices how the run stands: waiting, training or over."""
        rounds = self._settings.run.rounds
        await self._connections.tell(frame("status", state=state, text=text, round=round, rounds=rounds))

    async def devices(self) -> list[dict[str, Any]]:
        """The connected devices, for people."""
        return self._connections.devices()

    async def traffic(self) -> dict[str, int]:
        """What crossed between the gateway and all devices so far: frames, and bytes of tensors and of the rest."""
        return self._connections.traffic()

    async def load(
        self,
        turn: Turn,
        ends: Ends,
        own: Ends | None = None,
        middle: State | None = None,
        start: Start = USUAL,
        remembered: Remembered | None = None,
    ) -> Report:
        """As Client.load."""
        (number,), phone = turn.phones, self._phone(turn)
        void = StateNotLoadedError("the round was begun anew")
        self._connections.forget(number, void)
        steps = start.steps[0] if start.steps is not None else int(self._stream.steps(turn.phones)[0])
        async with phone.order.load(turn, steps):
            report = self._client.load(turn, ends, own, None, start)
            phone.steps, phone.batches = steps, []
            states = {name: {**state, **place_of((own or {}).get(name, {}), 0)} for name, state in ends.items()}
            if start.fresh_optimizer:
                states = {name: _without_optimizer(state) for name, state in states.items()}
            asked = _question("load", turn, _flat(states), hash=self._hash, fresh=start.fresh_optimizer)
            await self._connections.ask(number, asked)
            return report

    def _phone(self, turn: Turn) -> _Phone:
        if len(turn.phones) != 1 or turn.phones[0] not in self._phones:
            raise RuntimeError(f"phones {turn.phones} are no remote phone: each of these is a cohort of its own")
        return self._phones[turn.phones[0]]

    async def forward(self, turn: Turn) -> Message:
        """As Client.forward."""
        phone = self._phone(turn)
        async with phone.order.stage(turn, "forward"):
            if not phone.batches:
                phone.batches = self._stream.cohort_batches(turn.round, turn.phones, (phone.steps,))
            (samples,) = phone.batches[turn.step]
            places, seed = samples[0].tolist(), self._seed(turn, "a")
            asked = _question("forward", turn, step=turn.step, samples=places, seed=seed)
            activation = _tensor(turn, await self._ask(turn, asked), "activation")
            up, sizes = np.array([activation.nbytes]), np.array([len(places)])
            phone.report = Report(np.array(turn.phones), samples=sizes, bytes_up=up)
            return Message([(activation[None],)], time.time(), (len(places),), wanted=(True,))

    async def loss(self, turn: Turn, hidden: Message) -> Message:
        """As Client.loss."""
        phone = self._phone(turn)
        async with phone.order.stage(turn, "loss"):
            arrived = _arrived(hidden)
            rate, seed = self._rate("c", turn), self._seed(turn, "c")
            asked = _question("loss", turn, {"hidden": arrived}, step=turn.step, lr=rate, seed=seed)
            answer = await self._ask(turn, asked)
            gradient = _tensor(turn, answer, "gradient")
            told, size = phone.report, int(np.sum(phone.report.samples))
            phone.report = told._replace(
                loss=np.array([_number(turn, answer, "loss") * size]),
                correct=np.array([_number(turn, answer, "correct")]),
                bytes_up=told.bytes_up + gradient.nbytes,
                bytes_down=np.array([arrived.nbytes]),
            )
            return Message([(gradient[None],)], time.time(), (size,))

    async def backward(self, turn: Turn, activation_gradient: Message) -> Report:
        """As Client.backward."""
        phone = self._phone(turn)
        async with phone.order.stage(turn, "backward"):
            arrived = _arrived(activation_gradient)
            rate = self._rate("a", turn)
            await self._ask(turn, _question("backward", turn, {"gradient": arrived}, step=turn.step, lr=rate))
            return phone.report._replace(bytes_down=phone.report.bytes_down + arrived.nbytes)

    async def evaluate_own_forward(self, turn: Turn, part: str, start: int, stop: int) -> Message:
        """As Client.evaluate_own_forward; the turn's step counts the calls since the load."""
        async with self._phone(turn).order.scoring(turn, "evaluate_own_forward"):
            places = self._held_out(turn.phones[0], part)[start:stop].tolist()
            answer = await self._ask(turn, _question("evaluate", turn, samples=places))
            activation = _tensor(turn, answer, "activation")
            _check_crosses(turn, activation, self._promise, len(places))
            return Message([(activation[None],)], time.time())

    async def evaluate_own_loss(
        self, turn: Turn, part: str, start: int, stop: int, hidden: Message, several: frozenset[int] = frozenset()
    ) -> Report:
        """As Client.evaluate_own_loss; the turn's step counts the calls since the load."""
        async with self._phone(turn).order.scoring(turn, "evaluate_own_loss"):
            (number,), arrived = turn.phones, _arrived(hidden)
            places = self._held_out(number, part)[start:stop].tolist()
            told = {"samples": places, "several": number in several}
            answer = await self._ask(turn, _question("evaluate_loss", turn, {"hidden": arrived}, **told))
            return _score(turn, answer, len(places))

    async def close(self, turn: Turn, shares: Array, keep: str = "nothing") -> Closed:
        """As Client.close."""
        async with self._phone(turn).order.end(turn):
            if not np.any(shares):
                await self._ask(turn, _question("release", turn))
                return self._client.close(turn, shares, keep)
            await self._take_back(turn, optimizer=keep == "all")
            return self._client.close(turn, shares, keep)

    async def state(self, turn: Turn) -> Ends:
        """As Client.state."""
        async with self._phone(turn).order.end(turn):
            await self._take_back(turn, optimizer=True)
            return self._client.state(turn)

    async def release(self, turn: Turn) -> None:
        """As Client.release."""
        async with self._phone(turn).order.end(turn):
            await self._ask(turn, _question("release", turn))
            self._client.release(turn)

    async def _take_back(self, turn: Turn, optimizer: bool) -> None:
        """A phone's A and C as the device has them now, in the client's copies."""
        answer = await self._ask(turn, _question("close", turn, optimizer=optimizer))
        states = self._states(turn, answer.tensors, optimizer)
        self._client.load(turn, states, start=Start(fresh_optimizer=False, crosses=False))

    def _states(self, turn: Turn, tensors: Mapping[str, Array], optimizer: bool) -> Ends:
        found: Ends = {name: {} for name in SEGMENTS}
        for key, array in tensors.items():
            segment, _, own = key.partition("/")
            if segment not in found:
                raise BadPhoneError(turn.phones, f"it sent weights of {segment[:40]!r}, which it has no part of")
            found[segment][own] = array
        for name, state in found.items():
            _check_alike(turn, name, state, self._like[name], optimizer)
        return found

    async def _ask(self, turn: Turn, question: Frame) -> Frame:
        return await self._connections.ask(turn.phones[0], question)

    def _seed(self, turn: Turn, segment: str) -> int:
        return self._stream.forward_seeds(turn, segment, 1)[0]

    def _rate(self, segment: str, turn: Turn) -> float:
        settings = self._settings.optimizer.of(segment)
        set_now = set_at(rates_of(settings), turn)
        return float(settings.lr if set_now is None else set_now["lr"])

    async def after(self, *done: object) -> None:
        """As Client.after."""

    async def begin(self) -> None:
        """As Client.begin."""

    async def spent(self, turn: Turn) -> Spent:
        """As Client.spent: nothing is computed here."""
        return Spent()


def _of_own_samples(stream: Stream) -> Stream:
    """The stream with each phone's samples numbered from 0, as the phone itself has them."""
    found, partition = copy.copy(stream), stream.partition
    own = [np.arange(size) for size in np.diff(partition.offsets)]
    found.partition = replace(partition, indices=np.concatenate(own))
    found._cache()
    return found


def _share(parts: Parts, stream: Stream, phone: int) -> tuple[Array, Array]:
    """A phone's share of the run's data, what it holds out at the end."""
    start, stop = stream.partition.offsets[phone : phone + 2]
    inputs, labels = parts.batch("train", stream.partition.indices[start:stop])
    return np.asarray(inputs), labels


def _most_at_once(settings: config.Config, stream: Stream) -> int:
    """How many samples a device is asked about at once, at most: a batch's, or some of those that it holds out."""
    held = max(int(stream.partition.held_out_sizes(part).max(initial=0)) for part in ("val", "test"))
    return max(settings.data.batch_size, min(held, int(settings.data.eval_batch_size)))


def _largest(samples: int, like: Ends, contract: Contract, middle: nn.Module) -> int:
    """Bytes of a device's largest answer: all weights with what optimizers remember, or what crosses of samples."""
    (promise,) = leaves(contract.activation)
    with torch.no_grad():
        hidden = leaves(middle.eval()(torch.zeros(promise.at(1))))[0]
    crossing = max(4 * int(np.prod(promise.at(1))), hidden.nbytes) * samples
    weights = (1 + len(contract.slots)) * sum(state_bytes(state) for state in like.values())
    return int(max(weights, crossing)) + HEADER


def _question(kind: str, turn: Turn, tensors: Mapping[str, Array] | None = None, **more: Any) -> Frame:
    return frame(kind, tensors, round=turn.round, attempt=turn.attempt, **more)


def _flat(states: Ends) -> dict[str, Array]:
    return {f"{name}/{key}": array for name, state in states.items() for key, array in state.items()}


def _without_optimizer(state: State) -> State:
    return {key: array for key, array in state.items() if not key.startswith("optimizer/")}


def _arrived(message: Message) -> Array:
    """The one array of a message for one phone, without the dimension of phones."""
    (array,) = leaves(message.groups)
    found: Array = array[0]
    return found


def _tensor(turn: Turn, answer: Frame, name: str) -> Array:
    array = answer.tensors.get(name)
    if array is None or len(answer.tensors) > 1 or array.dtype != np.float32 or not array.ndim:
        raise BadPhoneError(turn.phones, f"its device answered {answer.kind} without a float32 tensor {name!r}")
    return array


def _number(turn: Turn, answer: Frame, name: str) -> float:
    value = answer.header.get(name)
    is_number = type(value) in (int, float) or value in ("nan", "inf", "-inf")  # JSON has no numbers for these
    if value is None or not is_number:
        raise BadPhoneError(turn.phones, f"its device answered {answer.kind} without a number {name!r}")
    return float(value)


def _check_crosses(turn: Turn, activation: Array, promised: Any, samples: int) -> None:
    """Raises BadPhoneError unless an activation is that of so many samples. (Of a batch the server sees to that.)"""
    (leaf,) = leaves(promised)
    wanted = (samples, *leaf.at(samples)[1:])
    if activation.shape != wanted:
        told = f"an activation of shape {activation.shape}, not {wanted}"
        raise BadPhoneError(turn.phones, f"its device answered evaluate with {told}")


def _score(turn: Turn, answer: Frame, samples: int) -> Report:
    """What a device tells of its model on so many samples. Raises BadPhoneError for what can't be."""
    loss, correct = _number(turn, answer, "loss"), _number(turn, answer, "correct")
    broken = _number(turn, answer, "nonfinite") if "nonfinite" in answer.header else 0.0
    if loss < 0 or not all(count in range(samples + 1) for count in (correct, broken)):
        told = f"loss {loss:g}, {correct:g} correct and {broken:g} not finite of {samples} samples"
        raise BadPhoneError(turn.phones, f"its device answered evaluate_loss with {told}")
    size, tally = np.array([samples]), {NONFINITE: np.array([int(broken), samples])}
    return Report(np.array(turn.phones), size, np.array([loss]) * size, np.array([int(correct)]), tallies=tally)


def _check_alike(turn: Turn, name: str, state: State, like: State, optimizer: bool) -> None:
    """Raises BadPhoneError unless a state has the weights of what it is like, and beside them only optimizers'."""
    own = {key: array for key, array in state.items() if not key.startswith("optimizer/")}
    if own.keys() != _without_optimizer(like).keys() or (len(own) < len(state) and not optimizer):
        raise BadPhoneError(turn.phones, f"its device sent other weights than those of part {name.upper()}")
    for key, array in own.items():
        if array.shape != like[key].shape or array.dtype != like[key].dtype:
            told = f"{key} is {array.dtype} {array.shape}, and should be {like[key].dtype} {like[key].shape}"
            raise BadPhoneError(turn.phones, f"its device sent other weights: {told}")
    for key, array in state.items():
        weight = "weights/" + key.removeprefix("optimizer/").rpartition("/")[0]
        if key not in own and (weight not in like or array.shape not in (like[weight].shape, ())):
            raise BadPhoneError(turn.phones, f"its device sent {key[:80]!r}, which no optimizer here remembers")
