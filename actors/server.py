"""The server: hosts B and its optimizer. It never sees an input, a label, or A's and C's weights."""

from __future__ import annotations

import torch

from actors.guard import Guard
from ray_split import config, models, seeds
from ray_split.cut import cut
from ray_split.draws import Turn
from ray_split.message import Message, send
from ray_split.metrics import Report
from ray_split.segment import Segment
from ray_split.state import State


class Server:
    """B. One exchange is

    hidden = server.forward(turn, activation)
    activation_gradient = server.backward(turn, hidden_gradient)
    """

    def __init__(self, settings: config.Config) -> None:
        torch.set_num_threads(settings.server.num_cpus)
        gpu = settings.server.num_gpus not in ("auto", 0) and torch.cuda.is_available()
        if gpu:
            torch.backends.cudnn.deterministic = True
        segments = cut(models.build(settings.model, settings.run.seed), models.cuts_of(settings.model))
        device = "cuda" if gpu else "cpu"
        self.b = Segment(segments.b, settings.optimizer, device, frozen="b" in settings.model.freeze)
        self._seed = settings.run.seed
        self._guard = Guard("server")
        self._pending: Turn | None = None

    def device(self) -> str:
        """What B computes on, for people."""
        return torch.cuda.get_device_name() if self.b.device.type == "cuda" else "CPU"

    def initial_state(self) -> State:
        """B's state before the first round."""
        return self.b.state()

    def load(self, turn: Turn, state: State) -> Report:
        """Begin a round with this state."""
        self._pending = None
        received = self.b.load(state)
        self._guard.loaded(turn)
        return Report(bytes_weights=received)

    def state(self, turn: Turn) -> State:
        """B's state as it is now."""
        with self._guard.during(turn):
            return self.b.state()

    def forward(self, turn: Turn, activation: Message) -> Message:
        """B forward: hidden."""
        with self._guard.during(turn):
            if self._pending is not None:
                raise RuntimeError(f"{turn} came while {self._pending} waits for its backward")
            self._pending = turn
            seed = seeds.forward_seed(self._seed, turn.round, turn.phone, turn.step, "b")
            return send(self.b.forward(activation, seed))

    def backward(self, turn: Turn, hidden_gradient: Message) -> Message:
        """B backward, B step: the gradient of the activation."""
        with self._guard.during(turn):
            if self._pending != turn:
                raise RuntimeError(f"{turn} is not the exchange under way: {self._pending}")
            self._pending = None
            gradient = self.b.backward(hidden_gradient)
            self.b.step()
            return gradient

    def evaluate(self, turn: Turn, activation: Message) -> Message:
        """B in eval mode: hidden."""
        with self._guard.during(turn):
            return send(self.b.evaluate(activation))
