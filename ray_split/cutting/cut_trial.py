"""A cut model beside the untouched one: outputs, buffers and gradients in train mode, outputs in eval mode.

And the untouched one beside itself: what it keeps where no checkpoint would hold it.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from ray_split import logs
from ray_split.cutting.cut_error import ADVICE, DRAW_FROM_TORCH, OTHER, CutError
from ray_split.cutting.model_inputs import changed as inputs_of
from ray_split.cutting.model_inputs import values_of, whole
from ray_split.cutting.random_generators import Generators, drawing_line, seed_everywhere
from ray_split.cutting.unsaved_state import Place, Snapshot, changed, proxied, snapshot
from ray_split.errors import MISFITS, SettingsError, listed, told
from ray_split.messages.message import leaves, send, tree_map, wanted_of
from ray_split.segments.autograd import as_leaves, backward, gradients_of, own_copy
from ray_split.segments.parameter_hooks import copied, first_hooked
from ray_split.segments.segment import call
from ray_split.segments.tied_weight import tie, tied_names, waiting

logger = logs.get(__name__)
Tensors = dict[str, torch.Tensor]
STEPS = 2  # that a model takes, so that what it keeps in plain places comes to be another
CPU = torch.device("cpu")
SEED = 8_191
GRADIENT = 1e-3  # of a gradient's norm: what is missing or doubled is far more, and rounding far less


class Trial:
    """A model, its segments, and an example input (N, ...) of which a few samples are used."""

    def __init__(
        self,
        model: nn.Module,
        segments: Sequence[nn.Module],
        example: Any,
        cuts: Sequence[str],
        opened: set[str],
        mask: str | None = None,
    ) -> None:
        self._untouched, self._mask = model, mask
        self._model = copied(model).train()
        self._segments = [copied(segment).train() for segment in segments]
        self._example, self._cuts, self._opened = example, list(cuts), opened
        self._few = [inputs_of(example, lambda x: x[:2]), inputs_of(example, lambda x: x.flip(0)[:3])]
        self._kept: list[Snapshot] = []

    def run(self, shared: Collection[str] = ()) -> None:
        """Raises CutError or SettingsError if the segments compute something else, or the model has hidden state.

        `shared`: the buffers that several segments have a copy of.
        """
        with torch.random.fork_rng(devices=[]):
            self._run(shared)

    def _run(self, shared: Collection[str]) -> None:
        before = {name: tensor.detach().clone() for name, tensor in _tensors(self._model).items() if name in shared}
        flags = _flags(self._model)
        with torch.no_grad():
            first = self._first()
        untouched = snapshot(self._untouched)
        second, gradients = self._second()
        self._check_hooks(untouched)
        self._check_forward(flags)
        self._check_opened()
        self._check_shared(shared, before)
        self._compare_training(first, second, gradients)
        self._compare_evaluation()
        self._check_hidden_state()

    def _first(self) -> Any:
        """The first call of the model, and what its plain attributes are before and after."""
        self._kept.append(snapshot(self._model))
        generators = Generators()
        try:
            outputs = self._whole(self._few[0])
        except MISFITS:  # it may want whole batches
            self._few = [self._example, self._example]
            self._model = copied(self._untouched).train()
            outputs = self._with_all()
        if drawn := generators.moved_unseeded():
            line = drawing_line(lambda: self._whole(self._few[0], seeded=False))
            wrong = f"the model's forward draws random numbers from {drawn} ({line}), which a run can't repeat"
            generators.restore()
            raise SettingsError("model.name", type(self._untouched).__name__, DRAW_FROM_TORCH, wrong)
        self._kept.append(snapshot(self._model))
        return outputs

    def _with_all(self) -> Any:
        try:
            return self._whole(self._example)
        except MISFITS as error:
            raise self._untrainable(error) from error

    def _untrainable(self, error: Exception) -> SettingsError:
        if kept := proxied(self._untouched):
            lost = f"what forward keeps in {_told(kept)} would be what stands for values while tracing"
            return CutError(self._cuts, f"Cut elsewhere, or {ADVICE}", f"can't cut there, because {lost}")
        name, shape = type(self._untouched).__name__, tuple(values_of(self._example).shape)
        wrong = f"{name} can't be trained with inputs of shape {shape}: {told(error)}"
        return SettingsError("model.name", name, "Fix the model, or choose one that fits this data", wrong)

    def _second(self) -> tuple[Any, Tensors]:
        """The second call, and the gradient of each parameter that gets one."""
        try:
            with torch.enable_grad():
                outputs = self._whole(self._few[1])
                loss, generators = _loss(outputs), Generators()
                if loss is not None:
                    loss.backward()  # type: ignore[no-untyped-call]
        except MISFITS as error:
            raise self._untrainable(error) from error
        self._check_backward(generators)
        self._kept.append(snapshot(self._model))
        return outputs, _gradients(self._model)

    def _whole(self, inputs: Any, seeded: bool = True) -> Any:
        if seeded:
            seed_everywhere(SEED)
        return self._called(self._model, inputs)

    def _called(self, model: nn.Module, inputs: Any) -> Any:
        return whole(model, inputs_of(inputs, torch.clone), self._mask)

    def _check_forward(self, flags: dict[str, tuple[bool, ...]]) -> None:
        """A forward that calls eval() or requires_grad_(), but for what the segments do too."""
        now = {name: flag for segment in self._segments for name, flag in _flags(segment).items()}
        for name, flag in _flags(self._model).items():
            if flag != flags.get(name) and flag != now.get(name):
                what = "requires_grad" if len(flag) > 1 else "train mode"
                raise CutError(
                    self._cuts,
                    f"Don't change that in forward, or {ADVICE}",
                    f"the model's forward changes the {what} of {name}",
                )

    def _check_backward(self, generators: Generators) -> None:
        """Each segment goes backward by itself: what is drawn there, or reaches the first model, would be another."""
        if drawn := generators.moved():
            wrong = f"the model's backward draws random numbers from {drawn}"
            raise SettingsError(
                "model.name", type(self._untouched).__name__, "Draw the random numbers in forward", wrong
            )
        if reached := [name for name, p in self._untouched.named_parameters() if p.grad is not None]:
            wrong = f"{reached[0]} is used through a closure or a global, which copies of the model don't have"
            raise SettingsError("model.name", type(self._untouched).__name__, "Use self in forward instead", wrong)

    def _check_hooks(self, before: Snapshot) -> None:
        """A hook is no copy: what it keeps, it keeps in the model that it was registered in, for all copies."""
        name, kept = first_hooked(self._untouched), changed(before, snapshot(self._untouched))
        if name is not None and kept:
            wrong = f"the hook on {name} keeps {_told(kept)}, which copies of the model don't have"
            raise SettingsError(
                "model.name",
                type(self._untouched).__name__,
                "Change the hook so that it keeps nothing, or remove it",
                wrong,
            )

    def _check_opened(self) -> None:
        """An opened forward is made anew from its trace: what it keeps itself is lost."""
        lost = [place for place in changed(self._kept[1], self._kept[2]) if place.layer in self._opened]
        if lost:
            wrong = f"can't cut there, because forward changes {_told(lost)}, and the change would be lost"
            raise CutError(self._cuts, f"Cut elsewhere, or {ADVICE}", wrong)

    def _check_shared(self, shared: Collection[str], before: Tensors) -> None:
        if both := [name for name in shared if not equal(_tensors(self._model)[name], before[name])]:
            wrong = f"can't cut there, because forward changes {listed(both)}, which two segments use"
            raise CutError(self._cuts, "Cut so that its users stay in one segment", wrong)

    def _compare_training(self, first: Any, second: Any, gradients: Tensors) -> None:
        cut = _Segments(self._segments)
        with self._running():
            with torch.no_grad():
                seed_everywhere(SEED)
                got = cut(self._few[0])
            again, theirs = cut.learn(self._few[1])
        if not (_alike(first, got) and _alike(second, again)):
            self._complain("in train mode the segments compute something else than the model")
        own = {name: tensor for segment in self._segments for name, tensor in _tensors(segment).items()}
        for name, tensor in _tensors(self._model).items():
            if name in own and not equal(own[name], tensor):
                self._complain(f"{name} would be another after a forward")
        self._compare_gradients(gradients, theirs)

    def _compare_gradients(self, expected: Tensors, got: Tensors) -> None:
        different = [name for name, g in expected.items() if name not in got or not equal(g, got[name])]
        small = 1e-5 * max((_norm(expected[name]) for name in expected if different), default=0.0)
        for name in different:
            norm = _norm(expected[name])
            if name not in got and norm > small:
                self._complain(f"{name} would never be trained: no gradient reaches it")
            if name in got and _norm(expected[name] - got[name]) > GRADIENT * norm + small:
                self._complain(f"{name} would get another gradient")

    def _compare_evaluation(self) -> None:
        with torch.no_grad(), self._running():
            seed_everywhere(SEED)
            got = _Segments([segment.eval() for segment in self._segments])(self._example)
        with torch.no_grad():
            seed_everywhere(SEED)
            expected = self._called(self._model.eval(), self._example)
        self._kept.append(snapshot(self._model))
        if not _alike(expected, got):
            self._complain("the segments compute something else than the model")

    def _complain(self, what: str) -> None:
        """Of a difference: because of what is kept in plain places, if there is any, or of where it was cut."""
        if places := changed(self._kept[0], self._kept[-1]):
            self._complain_of(places)
        raise CutError(self._cuts, OTHER, f"with these cuts, {what}")

    def _complain_of(self, places: list[Place]) -> None:
        wrong = (
            f"the model's output depends on {_told(places)}, which is not in its state dict, so no checkpoint has it"
        )
        name = type(self._untouched).__name__
        raise SettingsError("model.name", name, "Make that a buffer, with register_buffer", wrong)

    def _check_hidden_state(self) -> None:
        """Where anything is kept in plain places: a model that has run must compute what one does that has not."""
        places = changed(self._kept[0], self._kept[-1])
        if not places:
            return
        fresh, used = copy.deepcopy(self._untouched), _tensors(self._model)
        with torch.no_grad():
            for tensor in used.values():
                if isinstance(tensor, nn.Parameter) and tensor.is_floating_point():
                    tensor.mul_(1.01)
            for _ in range(STEPS):  # with weights that have moved
                self._after(self._model.train())
            for name, tensor in _tensors(fresh).items():
                tensor.copy_(_tensors(self._model)[name])
            for training in (True, False):
                outputs = [self._after(model.train(training)) for model in (fresh, self._model)]
                if not _alike(*outputs):
                    self._complain_of(places)
        if not _alike(*(self._gradients_after(model.train()) for model in (fresh, self._model))):
            self._complain_of(places)
        counting = [place for place in changed(self._kept[1], self._kept[2]) if not _holds_tensor(self._kept[2][place])]
        if counting:
            logger.warning("not kept when a run is resumed, and each actor has its own: %s", _told(counting))

    @torch.enable_grad()
    def _gradients_after(self, model: nn.Module) -> Tensors:
        model.zero_grad()
        if (loss := _loss(self._after(model))) is not None:
            loss.backward()  # type: ignore[no-untyped-call]
        return _gradients(model)

    def _after(self, model: nn.Module) -> Any:
        seed_everywhere(SEED)
        return self._called(model, self._few[0])

    @contextmanager
    def _running(self) -> Iterator[None]:
        try:
            yield
        except MISFITS as error:
            raise CutError(self._cuts, OTHER, f"with these cuts, the segments don't run: {told(error)}") from error


class _Segments:
    """Segments called in turn, with what crosses as messages, as in a run."""

    def __init__(self, segments: Sequence[nn.Module]) -> None:
        self._segments = segments
        self._ties = tie(segments[0], segments[-1])
        self._passes: list[tuple[Any, Any]] = []

    def __call__(self, inputs: Any) -> Any:
        self._passes, outputs = [], inputs_of(inputs, torch.clone)
        for segment in self._segments:
            arrived = as_leaves(send(outputs), wanted_of(outputs) if self._passes else False)
            outputs = call(segment, tree_map(lambda x: own_copy(x, CPU), arrived))
            self._passes.append((arrived, outputs))
        return outputs

    def learn(self, inputs: Any) -> tuple[Any, Tensors]:
        """The outputs, and the gradient of each parameter that gets one."""
        seed_everywhere(SEED)
        outputs = self(inputs)
        loss = _loss(outputs)
        if loss is None:
            return outputs, {}
        loss.backward()  # type: ignore[no-untyped-call]
        _, first = self._passes[0]
        for (arrived, _), (_, left) in zip(self._passes[:0:-1], self._passes[-2::-1], strict=True):
            backward(left, gradients_of(arrived), CPU, waiting=waiting(self._ties) if left is first else ())
        found = {name: g for segment in self._segments for name, g in _gradients(segment).items()}
        ends = {name: found[owner] for name, owner in tied_names(self._segments[-1]).items() if owner in found}
        return outputs, {**found, **ends}


def _norm(gradient: torch.Tensor) -> float:
    return float(torch.linalg.vector_norm(gradient))


def _loss(outputs: Any) -> torch.Tensor | None:
    """A number that every output has another part in."""
    found = [x for x in leaves(outputs) if isinstance(x, torch.Tensor) and x.requires_grad]
    parts = [part for x in found for part in ((x.real, x.imag) if x.is_complex() else (x,))]
    terms = [(x.double() * torch.arange(x.numel(), dtype=torch.double).add(1).cos().view(x.shape)).sum() for x in parts]
    return torch.stack(terms).sum() if terms else None


def _gradients(model: nn.Module) -> Tensors:
    named = model.named_parameters(remove_duplicate=False)  # of tied ones another name may come first in a segment
    return {name: p.grad.to_dense() for name, p in named if p.grad is not None}


def _tensors(model: nn.Module) -> Tensors:
    return {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }


def _flags(model: nn.Module) -> dict[str, tuple[bool, ...]]:
    """Of each layer whether it is in train mode, of each parameter whether it is trained."""
    modes = {name: (module.training,) for name, module in model.named_modules(remove_duplicate=False) if name}
    trained = {name: (p.requires_grad, True) for name, p in model.named_parameters(remove_duplicate=False)}
    return {**modes, **trained}


def _told(places: list[Place]) -> str:
    return ", ".join(map(str, places[:3])) + (", ..." if len(places) > 3 else "")


def _holds_tensor(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) in (3, 4) and isinstance(value[0], tuple)


def _alike(one: Any, other: Any) -> bool:
    """Whether two trees of outputs are the same: structure, and every bit of every tensor."""
    first, second = leaves(one), leaves(other)
    return len(first) == len(second) and all(equal(x, y) for x, y in zip(first, second, strict=True))


def equal(x: Any, y: Any) -> bool:
    """Whether two leaves are the same; NaN is NaN."""
    if isinstance(x, torch.Tensor) and isinstance(y, torch.Tensor):
        return torch.equal(x, y) or (x.shape == y.shape and torch.allclose(x, y, rtol=0, atol=0, equal_nan=True))
    return bool(x == y)
