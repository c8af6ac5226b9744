"""One segment of the cut network: forward, backward and step, detached at its borders.

A segment's state is a flat dict of numpy arrays: 'weights/<key>' for parameters and buffers under the unsplit
model's own names, 'buffers/<key>' for buffers that a state dict leaves out, 'optimizer/<parameter>/<slot>' for
what its optimizer remembers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ray_split import config
from ray_split.arrays import Array
from ray_split.messages.message import Tree, Wanted, as_bits, receive, receive_leaf, tree_map
from ray_split.messages.state import State, is_statistic, state_bytes
from ray_split.messages.turn import Turn
from ray_split.segments.autograd import as_leaves, backward, gradients_of, own_copy
from ray_split.segments.base_weight import BaseWeight
from ray_split.segments.buffers import Buffers, state_of
from ray_split.segments.device.computing import PLAIN, Computing, Run
from ray_split.segments.optimization import optimizers
from ray_split.segments.optimization.gradient_norm import needed
from ray_split.segments.optimization.learning_rates import rates_of, set_at
from ray_split.segments.tied_weight import Tie, TiedWeight, owned, tie, waiting


@dataclass
class _Pass:
    """A forward whose backward is still to come."""

    arrived: Any  # what came over the border, leaves of the graph
    outputs: Any


class Segment:
    """A module with its own parameters, and its optimizer, on one device."""

    def __init__(
        self,
        module: nn.Module,
        optimizer: config.Optimizer,
        device: str = "cpu",
        frozen: bool = False,
        backprop: str = "autograd",
        computing: Computing = PLAIN,
        run: Run | None = None,
    ) -> None:
        """`run`: calls the module with arguments, where that isn't plainly done."""
        self.device = torch.device(device)
        self.module = computing.laid_out(module.to(self.device))
        self.computing = computing
        self._run = run
        if frozen:
            self.module.requires_grad_(False)
        self.module.train(not frozen)
        self._settings = optimizer
        self._slots = optimizers.probed(optimizer, self.device)
        self._rates = rates_of(optimizer)
        self._frozen = frozen
        self.backprop = backprop
        self._pass: _Pass | None = None
        self._again: Callable[[], Any] | None = None
        self.buffers = Buffers(self.module)
        self._fixed = {n: p for n, p in owned(self.module) if not p.requires_grad}
        self._ties: list[Tie] = []
        self._versions: dict[str, tuple[int, int]] = {}  # of those that aren't trained, as they were loaded
        self._new_optimizer()

    def _new_optimizer(self) -> None:
        self.optimizer = optimizers.make((p for _, p in owned(self.module)), self._settings)

    def forward(self, arrived: Tree, seed: int, differentiable: Wanted = True) -> Any:
        """The outputs for what arrived, in train mode; keeps the graph for `backward`. `seed` is for Dropout.

        What arrived is a border whose gradient is wanted (of some leaves), or (`differentiable` false) the data itself.
        A frozen segment runs in eval mode: its BatchNorm statistics stay too.
        """
        self.train()
        seed_torch(seed, self.device)
        inputs = as_leaves(arrived, differentiable, self.device)
        # The module gets a copy of the leaf: it may begin in place, and the memory is its own and aligned.
        outputs = self.call(tree_map(lambda x: own_copy(x, self.device), inputs))
        self._pass = _Pass(inputs, outputs)
        return outputs

    def forward_twice(self, arrived: Tree, seed: int, differentiable: Wanted = True) -> Any:
        """As `forward`, but the graph isn't kept: `backward` computes it once more, to the same bits."""
        kept = self.buffers.kept()
        outputs = self.forward(arrived, seed, differentiable)
        self._pass = None

        def again() -> None:
            with self.buffers.as_before(kept):
                self.forward(arrived, seed, differentiable)

        self._again = again
        return outputs

    def call(self, inputs: Any) -> Any:
        """Call the module as this segment computes."""
        taken = self.computing.taken(inputs)
        with self.computing.around(self.device):
            if self._run is None:
                return call(self.module, taken)
            return self._run(self.module, *(taken if isinstance(taken, tuple) else (taken,)))

    def train(self) -> None:
        """Train mode; a frozen segment stays in eval mode."""
        self._set_training(not self._frozen)

    def eval(self) -> None:
        """Eval mode."""
        self._set_training(False)

    def _set_training(self, training: bool) -> None:
        if self.module.training != training:  # train() visits every layer
            self.module.train(training)

    def backward(self, gradient: Any) -> Tree:
        """Backward from the outputs with the gradient that arrived: the gradient of what arrived in `forward`.

        Where an output or an input has no gradient (integers, what frozen segments sent), None stands for it.
        Raises RuntimeError if no forward is pending.
        """
        arrived, outputs = self._take_pass()
        backward(outputs, gradient, self.device, self.backprop, waiting(self._ties))
        return gradients_of(arrived, self.computing.staying)

    def backward_loss(self, loss: torch.Tensor) -> Tree:
        """Backward from a loss of the outputs: the gradient of what arrived in `forward`, as `backward`."""
        arrived, _ = self._take_pass()
        if loss.requires_grad:
            loss.backward()  # type: ignore[no-untyped-call]
        return gradients_of(arrived, self.computing.staying)

    def _take_pass(self) -> tuple[Any, Any]:
        if self._again is not None:
            again, self._again = self._again, None
            again()
        if self._pass is None:
            raise RuntimeError("backward without a forward")
        taken, self._pass = self._pass, None
        return taken.arrived, taken.outputs

    def step(self, turn: Turn | None = None, norm: float | None = None) -> None:
        """One step of the optimizer on the gradients there are, and they are cleared.

        `turn`: where it stands in the stream, which a learning rate that has a schedule goes by. `norm`: of the
        gradients of all segments, where they are clipped by that.
        """
        if self.optimizer is None:
            return
        if self._settings.clip_norm is not None:
            self._clip(self._settings.clip_norm, norm)
        optimizers.step(self.optimizer, set_at(self._rates, turn))

    def _clip(self, most: float, norm: float | None) -> None:
        weights = [weight for _, weight in owned(self.module)]
        if self._settings.clip == "segment":
            nn.utils.clip_grad_norm_(weights, most)
        else:
            nn.utils.clip_grads_with_norm_(weights, most, torch.as_tensor(needed(norm)))

    def gradient_norms(self) -> dict[str, torch.Tensor]:
        """By parameter the L2 norm of its gradient, of those that have one."""
        weights = owned(self.module)
        return {n: torch.linalg.vector_norm(weight.grad) for n, weight in weights if weight.grad is not None}

    @torch.no_grad()
    def evaluate(self, arrived: Tree) -> Any:
        """The outputs for what arrived, in eval mode and without a graph. Leaves the buffers as they are."""
        self.eval()
        with self.buffers.unchanged():
            return self.call(receive(arrived, self.device))

    def trained(self) -> dict[str, nn.Parameter]:
        """The parameters that are trained, by name."""
        return {name: p for name, p in owned(self.module) if p.requires_grad}

    def state(self) -> State:
        """Weights and optimizer as arrays that share no memory with the segment's own."""
        state = {key: as_state(tensor) for key, tensor in self.tensors().items()}
        for name, parameter in owned(self.module):
            for slot, value in self._remembered(parameter).items():
                if value is not None:
                    state[f"optimizer/{name}/{slot}"] = self._slots[slot].array(value)
        return state

    def learned_state(self) -> State:
        """The state without the weights that aren't trained. Raises ValueError if forward has written to one of them.

        That would be lost where averages are made. A model is looked at for it before a run, in its first forwards.
        """
        for name, before in self._versions.items():
            if state_of(self._fixed[name]) != before:
                raise ValueError(
                    f"{name} isn't trained, and forward writes to it: averages don't have it; use a buffer"
                )
        learned = learned_keys(self.module)
        return {key: array for key, array in self.state().items() if key in learned or key.startswith("optimizer/")}

    def tensors(self) -> dict[str, torch.Tensor]:
        """Its weights and buffers, by their keys in the state."""
        return tensors_of(self.module)

    def _remembered(self, parameter: nn.Parameter) -> Mapping[str, Any]:
        return self.optimizer.state.get(parameter, {}) if self.optimizer is not None else {}

    def load(self, state: State, fresh_optimizer: bool = False) -> int:
        """Copy in a state and forget every pending graph. Returns its bytes.

        Raises ValueError on wrong keys or shapes.
        """
        self.forget()
        self.buffers.put_back()
        own = self.tensors()
        arrived = {key: array for key, array in state.items() if not key.startswith("optimizer/")}
        if arrived.keys() != own.keys():
            raise ValueError(f"a state with other weights: {sorted(arrived.keys() ^ own.keys())[:5]}")
        with torch.no_grad():
            for key, tensor in own.items():
                if tuple(tensor.shape) != arrived[key].shape:
                    raise ValueError(f"{key} has shape {tuple(tensor.shape)}, the state {arrived[key].shape}")
                tensor.copy_(receive_leaf(arrived[key]))
        self._versions = {name: state_of(weight) for name, weight in self._fixed.items()}
        self._new_optimizer()
        if not fresh_optimizer:
            self._load_optimizer(state)
        return state_bytes(state)

    def tie(self, other: Segment) -> None:
        """Have C of the same phone use the weights of this A that it is tied to, and leave their gradients here."""
        self._ties = tie(self.module, other.module)

    def forget(self) -> None:
        """Drop what is pending, and the gradients."""
        self._pass = self._again = None
        self.module.zero_grad()

    def _load_optimizer(self, state: State) -> None:
        if self.optimizer is None:
            return
        for name, parameter in owned(self.module):
            prefix = f"optimizer/{name}/"
            slots = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
            if slots and optimizers.has_stepped(slots):
                self.optimizer.state[parameter] = {
                    k: self._slots[k].value(v, self.device) for k, v in slots.items() if k in self._slots
                }


def tensors_of(module: nn.Module) -> dict[str, torch.Tensor]:
    """Its weights and buffers by their keys in a state, which has no base weights, and none of another segment."""
    weights = module.state_dict(keep_vars=True)
    own = {name: tensor for name, tensor in weights.items() if not isinstance(tensor, (BaseWeight, TiedWeight))}
    tensors = {f"weights/{name}": tensor.detach() for name, tensor in own.items()}
    return tensors | {f"buffers/{n}": b for n, b in module.named_buffers() if n not in weights}


def learned_keys(module: nn.Module) -> frozenset[str]:
    """The keys of a module's state, without its optimizer, but for the weights that aren't trained."""
    parameters = module.named_parameters(remove_duplicate=False)
    fixed = {f"weights/{name}" for name, parameter in parameters if not parameter.requires_grad}
    return frozenset(tensors_of(module)) - fixed


def bounded_keys(module: nn.Module) -> frozenset[str]:
    """The keys of a module's parameters and BatchNorm statistics: a buffer may be a mask that is honestly -inf."""
    weights = module.named_parameters(remove_duplicate=False)
    names = [name for name, weight in weights if not isinstance(weight, (BaseWeight, TiedWeight))]
    statistics = [name for name, _ in module.named_buffers() if is_statistic(name)]
    return frozenset(f"weights/{name}" for name in [*names, *statistics])


def call(module: nn.Module, inputs: Any) -> Any:
    """Call a segment: what crosses a cut is a tuple of arguments."""
    return module(*inputs) if isinstance(inputs, tuple) else module(inputs)


def seed_torch(seed: int, device: torch.device) -> None:
    """Seed the generators that a forward on `device` draws from, and no others: torch.manual_seed visits them all."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


HALF = (torch.bfloat16, torch.float16)


def as_array(tensor: torch.Tensor) -> Array:
    """A copy of figures; of those in half precision, which can't count far, in single."""
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype in HALF else tensor).numpy().copy()


def as_state(tensor: torch.Tensor) -> Array:
    """A copy of what a segment keeps, bit for bit and of its own type."""
    return as_bits(tensor).copy()
