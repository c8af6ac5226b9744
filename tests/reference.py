"""Plain training on the stream of a run, with nothing of the split: what each schedule must equal.

The model is the user's own, whole and never cut. What a reference must know of the cut it is told: the names of the
layers and parameters that are B's (those of A and C are the others), and how often forward calls the layers that the
model is cut after, for torch is seeded at the beginning of A, B and C. A phone's copy of the model shares the modules
of B with the others where the schedule says so.
"""

from __future__ import annotations

import copy
import inspect
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

import ray_split as rs
from ray_split import seeds
from ray_split.data.load import Parts
from ray_split.models import registry
from tests import rounding
from tests.rounding import Train
from tests.trained_once import once

Loss = Callable[[Any, torch.Tensor], torch.Tensor]
MIDDLE = ("block2", "hidden")  # the layers of B in digits_cnn, cut as usual
REST = (*MIDDLE, "head")  # and cut once, after block1
CLASSES: dict[str, type[torch.optim.Optimizer]] = {
    name.lower(): getattr(torch.optim, name)
    for name in ("SGD", "Adam", "AdamW", "NAdam", "RAdam", "RMSprop", "Adagrad", "Adadelta", "Adamax", "Rprop")
}


class Training:
    """The parts of a run that all references need."""

    def __init__(
        self,
        settings: rs.Config,
        loss: Loss = functional.cross_entropy,
        b: tuple[str, ...] | None = None,
        calls: Mapping[str, int] | None = None,
    ) -> None:
        """`b`: the layers and parameters of B. `calls`: how often forward calls the layers of the cuts, if not once."""
        torch.set_num_threads(1)
        self._loss = loss
        self.made: list[torch.optim.Optimizer] = []
        self.settings = settings
        self.data: Parts = rs.load_data(settings.data)
        self.batches = rs.Batches(settings, self.data)
        classes, shape = settings.model.num_classes or self.data.num_classes, [*self.data.train.inputs.shape[1:]]
        model = settings.model.model_copy(update={"num_classes": classes, "input_shape": shape})
        self.model = rounding.in_precision(registry.build(model, settings.run.seed))
        in_segments = isinstance(self.model, registry.Chain)
        usual = ("b",) if hasattr(self.model, "b") else REST if settings.model.cuts == ["block1"] else MIDDLE
        self.b = b if b is not None else usual
        self._at = [0, 0, 0]
        cuts = self.model.cuts if in_segments else settings.model.cuts or []
        for segment, name in zip("bc", cuts, strict=False):
            self._seed_after(name, segment, (calls or {}).get(name, 1))
        self.rounds: dict[int, list[rs.Draw]] = defaultdict(list)
        for draw in rs.stream(settings):
            self.rounds[draw.round].append(draw)
        self.waiting: dict[int, dict[str, Any]] = {}  # sums of a phone's gradients, where a reference adds them up
        self.samples: dict[int, set[int]] = defaultdict(set)  # all that a phone has, though few steps see few of them
        whole = settings.with_values(
            phones={"local_steps": None, "local_epochs": 1, "dropout": 0}, data={"drop_last": False}
        )
        for draw in rs.stream(whole):
            self.samples[draw.phone].update(draw.indices.tolist())

    def _seed_after(self, layer: str, segment: str, calls: int) -> None:
        """Seed torch for a segment where it begins: after the last call of the layer before."""
        done = [0]

        def count(*_: Any) -> None:
            done[0] = (done[0] + 1) % calls
            if not done[0]:
                self._seed(segment)

        self.model.get_submodule(layer).register_forward_hook(count)

    def begin(self, draw: rs.Draw, segment: str) -> None:
        """Seed torch for a segment's forward in a local step."""
        self._at[:] = draw.round, draw.phone, draw.step
        self._seed(segment)

    def _seed(self, segment: str) -> None:
        torch.default_generator.manual_seed(seeds.forward_seed(self.settings.run.seed, *self._at, segment))

    def optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """As the settings say; of none, one that has nothing to do."""
        own = list(parameters) or [nn.Parameter(torch.zeros(0))]
        said = self.settings.optimizer
        kind = CLASSES[said.name]
        fields = {"lr": said.lr, "momentum": said.momentum, "weight_decay": said.weight_decay}
        takes = inspect.signature(kind).parameters
        made = kind(own, **{name: value for name, value in fields.items() if name in takes}, **said.kwargs)
        self.made.append(made)
        return made

    def loss(self, model: nn.Module, draw: rs.Draw) -> torch.Tensor:
        inputs, labels = map(rounding.of_batch, self.batches.of(draw))
        self.begin(draw, "a")
        with rounding.of_forward():
            return self._loss(self._outputs(model.train(), inputs), labels)

    def _outputs(self, model: nn.Module, inputs: Any) -> Any:
        """Of sequences of different lengths (values, mask): as two arguments, or the mask by the name that is set."""
        if not isinstance(inputs, tuple):
            return model(inputs)
        values, mask = inputs
        name = self.settings.model.mask
        return model(values, mask) if name is None else model(values, **{name: mask})

    def planned(self, phone: int) -> int:
        """The batches of a phone's round, if it finishes it."""
        phones, data = self.settings.phones, self.settings.data
        in_a_pass = math.floor if data.drop_last else math.ceil
        passes = (phones.local_epochs or 1) * in_a_pass(len(self.samples[phone]) / data.batch_size)
        return phones.local_steps * data.accumulate if phones.local_steps else passes

    def begins(self, draw: rs.Draw) -> bool:
        """Whether gradients begin anew with this batch."""
        return draw.step % self.settings.data.accumulate == 0

    def backward(self, model: nn.Module, draw: rs.Draw) -> bool:
        """As the usual loop has it, the loss / k, and backward: whether a step follows."""
        batches = self.parts(draw)
        (self.loss(model, draw) / batches).backward()
        return draw.step % self.settings.data.accumulate == batches - 1

    def parts(self, draw: rs.Draw) -> int:
        """Of how many batches the step that a batch is of is the mean."""
        accumulate = self.settings.data.accumulate
        return min(accumulate, self.planned(draw.phone) - draw.step + draw.step % accumulate)


def _patched() -> tuple[Any, ...]:
    """What tests put others in place of, to train otherwise."""
    return Training.loss, _load_mean, MIDDLE, REST


def trained(settings: rs.Config, **told: Any) -> nn.Module:
    """The model that a run leaves, whatever its schedule. `told`: as for Training."""
    if settings.schedule.name == "splitfed_v3":
        model, personal = splitfed_v3(settings, **told)
        run = Training(settings, **told)
        everybody = [personal.get(phone, run.model) for phone in range(settings.phones.count)]
        _load_mean(run.model, everybody, [1] * len(everybody), skip=run.b)
        _load_mean(run.model, [model], [1], only=run.b)
        return run.model
    return BY_SCHEDULE[settings.schedule.name](settings, **told)


@once(_patched)
def unsplit(settings: rs.Config, **told: Any) -> nn.Module:
    """Train the unsplit model on one thread."""
    run = Training(settings, **told)
    model, optimizer = run.model, run.optimizer(run.model.parameters())
    for draw in rs.stream(settings):
        if run.begins(draw):
            optimizer.zero_grad()
        if run.backward(model, draw):
            optimizer.step()
    return model


@once(_patched)
def fedavg(settings: rs.Config, **told: Any) -> nn.Module:
    """Each phone trains a copy of the unsplit model; the mean of them, weighted by samples."""
    run = Training(settings, **told)
    for draws in run.rounds.values():
        copies = {phone: copied(run.model) for phone in _phones(draws)}
        for phone, model in copies.items():
            optimizer = run.optimizer(model.parameters())
            for draw in draws:
                if draw.phone == phone:
                    if run.begins(draw):
                        optimizer.zero_grad()
                    if run.backward(model, draw):
                        optimizer.step()
        _load_mean(run.model, [copies[phone] for phone in _finishing(draws)], _samples(draws))
    return run.model


@once(_patched)
def sequential(settings: rs.Config, **told: Any) -> nn.Module:
    """The unsplit model on the stream; A and C of a phone that does not finish its round are lost, with their slots."""
    run = Training(settings, **told)
    middle, ends = run.optimizer(_of(run.model, run.b)), run.optimizer(_of(run.model, run.b, others=True))
    for draws in run.rounds.values():
        for phone in dict.fromkeys(draw.phone for draw in draws):
            before = copy.deepcopy((run.model.state_dict(), ends.state_dict()))
            own = [draw for draw in draws if draw.phone == phone]
            for draw in own:
                if run.begins(draw):
                    run.model.zero_grad()
                if run.backward(run.model, draw):
                    ends.step()
                    middle.step()
            if not own[0].finishes:
                weights = {key: value for key, value in before[0].items() if not within(key, run.b)}
                run.model.load_state_dict(weights, strict=False)
                ends.load_state_dict(before[1])
    return run.model


@once(_patched)
def splitfed_v2(settings: rs.Config, **told: Any) -> nn.Module:
    """The phones' models share B, which steps after each batch, in the stream's order; A and C are averaged."""
    run = Training(settings, **told)
    middle = run.optimizer(_of(run.model, run.b))
    for draws in run.rounds.values():
        copies = {phone: _sharing(run.model, run.b) for phone in _phones(draws)}
        ends = {phone: run.optimizer(_of(model, run.b, others=True)) for phone, model in copies.items()}
        for draw in draws:
            if run.begins(draw):
                middle.zero_grad()
                ends[draw.phone].zero_grad()
            if run.backward(copies[draw.phone], draw):
                ends[draw.phone].step()
                middle.step()
        _load_mean(run.model, [copies[phone] for phone in _finishing(draws)], _samples(draws), skip=run.b)
    return run.model


@once(_patched)
def splitfed_v3(settings: rs.Config, **told: Any) -> tuple[nn.Module, dict[int, nn.Module]]:
    """A and C stay with their phone, with their optimizers; copies of B are averaged. B's model, and the phones'."""
    run = Training(settings, **told)
    personal: dict[int, nn.Module] = {}
    ends: dict[int, torch.optim.Optimizer] = {}
    for draws in run.rounds.values():
        for phone in _phones(draws):
            if phone not in personal:
                personal[phone] = copied(run.model)
                ends[phone] = run.optimizer(_of(personal[phone], run.b, others=True))
            _load_mean(personal[phone], [run.model], [1], only=run.b)
            if phone not in _finishing(draws):
                continue  # nothing of its work is left
            middle = run.optimizer(_of(personal[phone], run.b))
            for draw in draws:
                if draw.phone == phone:
                    if run.begins(draw):
                        ends[phone].zero_grad()
                        middle.zero_grad()
                    if run.backward(personal[phone], draw):
                        ends[phone].step()
                        middle.step()
        _load_mean(run.model, [personal[phone] for phone in _finishing(draws)], _samples(draws), only=run.b)
    return run.model, personal


@once(_patched)
def parallel(settings: rs.Config, **told: Any) -> nn.Module:
    """The phones' models share B; at each step B steps once, on the gradients weighted by batch size."""
    run = Training(settings, **told)
    middle = run.optimizer(_of(run.model, run.b))
    for draws in run.rounds.values():
        copies = {phone: _sharing(run.model, run.b) for phone in _phones(draws)}
        ends = {phone: run.optimizer(_of(model, run.b, others=True)) for phone, model in copies.items()}
        for step in range(1 + max(draw.step for draw in draws)):
            now = _in_order(run, draws, step)
            total = sum(len(draw.indices) for draw in now)
            shared: list[torch.Tensor | None] = [None] * len(_of(run.model, run.b))
            for draw in now:
                middle.zero_grad()
                ends[draw.phone].zero_grad()
                run.loss(copies[draw.phone], draw).backward()
                ends[draw.phone].step()
                own = [parameter.grad for parameter in _of(run.model, run.b)]
                shared = [_with(*both, len(draw.indices) / total) for both in zip(shared, own, strict=True)]
            for total_gradient, parameter in zip(shared, _of(run.model, run.b), strict=True):
                parameter.grad = total_gradient
            middle.step()
        _load_mean(run.model, [copies[phone] for phone in _finishing(draws)], _samples(draws), skip=run.b)
    return run.model


@once(_patched)
def joint(settings: rs.Config, **told: Any) -> nn.Module:
    """Of a model of a, b and c: at each step B runs once, on the batches of all phones as one, and steps once."""
    run = Training(settings, **told)
    middle = run.optimizer(run.model.b.parameters())
    for draws in run.rounds.values():
        copies = {phone: _sharing(run.model, run.b) for phone in _phones(draws)}
        ends = {phone: run.optimizer(_of(model, run.b, others=True)) for phone, model in copies.items()}
        for step in range(1 + max(draw.step for draw in draws)):
            now = _in_order(run, draws, step)
            _joint_step(run, {draw.phone: draw for draw in now}, copies)
            middle.step()
            for draw in now:
                ends[draw.phone].step()
            for optimizer in (middle, *ends.values()):
                optimizer.zero_grad()
        _load_mean(run.model, [copies[phone] for phone in _finishing(draws)], _samples(draws), skip=run.b)
    return run.model


def _in_order(run: Training, draws: Sequence[rs.Draw], step: int) -> list[rs.Draw]:
    """A step's batches: of phones with more steps, then of those with more samples, first; else as they are drawn."""
    steps = Counter(draw.phone for draw in draws)
    now = [draw for draw in draws if draw.step == step]
    return sorted(now, key=lambda draw: (-steps[draw.phone], -len(run.samples[draw.phone])))


def _joint_step(run: Training, draws: dict[int, rs.Draw], copies: dict[int, nn.Module]) -> None:
    """The gradients of each phone's own mean loss in its A and C, and of the mean over all samples in B."""
    activations, total = {}, sum(len(draw.indices) for draw in draws.values())
    for phone, draw in draws.items():
        run.begin(draw, "a")
        activations[phone] = copies[phone].train().a(torch.from_numpy(run.batches.of(draw)[0]))
    arrived = [activation.detach().requires_grad_() for activation in activations.values()]
    run.begin(next(iter(draws.values())), "b")
    hidden = run.model.train().b(torch.cat(arrived))
    gradients = []
    for (phone, draw), own in zip(draws.items(), hidden.split([len(x) for x in arrived]), strict=True):
        leaf = own.detach().requires_grad_()
        run.begin(draw, "c")
        run._loss(copies[phone].c(leaf), torch.from_numpy(run.batches.of(draw)[1])).backward()
        gradients.append(leaf.grad * (len(leaf) / total))
    hidden.backward(torch.cat(gradients))
    for activation, leaf in zip(activations.values(), arrived, strict=True):
        activation.backward(leaf.grad * (total / len(leaf)))


@once(_patched)
def one_large_batch(settings: rs.Config, **told: Any) -> nn.Module:
    """One step of the unsplit model on the first round's batches of all phones, as one batch."""
    run = Training(settings, **told)
    optimizer = run.optimizer(run.model.parameters())
    indices = torch.cat([torch.from_numpy(draw.indices) for draw in run.rounds[0]]).numpy()
    run.loss(run.model, run.rounds[0][0]._replace(indices=indices)).backward()
    optimizer.step()
    return run.model


BY_SCHEDULE: dict[str, Callable[..., nn.Module]] = {
    "unsplit": unsplit,
    "fedavg": fedavg,
    "sequential": sequential,
    "splitfed_v1": fedavg,
    "splitfed_v2": splitfed_v2,
    "parallel": parallel,
}


def _with(total: torch.Tensor | None, gradient: torch.Tensor | None, share: float) -> torch.Tensor | None:
    if gradient is None:
        return total
    return gradient * share if total is None else total + gradient * share


def copied(model: nn.Module) -> nn.Module:
    """A copy of its own, with the hooks that parameters have, which torch's copy leaves out."""
    made = copy.deepcopy(model)
    for own, parameter in zip(made.parameters(), model.parameters(), strict=True):
        for hook in (parameter._backward_hooks or {}).values():
            own.register_hook(hook)
        for hook in (parameter._post_accumulate_grad_hooks or {}).values():
            own.register_post_accumulate_grad_hook(hook)
    return made


def within(name: str, layers: tuple[str, ...]) -> bool:
    """Whether a parameter or buffer is one of these, or in one of these layers."""
    return any(name == layer or name.startswith(f"{layer}.") for layer in layers)


def _of(model: nn.Module, layers: tuple[str, ...], others: bool = False) -> list[nn.Parameter]:
    return [p for name, p in model.named_parameters() if within(name, layers) is not others]


def _sharing(model: nn.Module, layers: tuple[str, ...]) -> nn.Module:
    made = copied(model)
    for name in layers:
        parent, _, attribute = name.rpartition(".")
        setattr(made.get_submodule(parent), attribute, getattr(model.get_submodule(parent), attribute))
    return made


def _phones(draws: Sequence[rs.Draw]) -> list[int]:
    return sorted({draw.phone for draw in draws})


def _finishing(draws: Sequence[rs.Draw]) -> list[int]:
    return _phones([draw for draw in draws if draw.finishes])


def _samples(draws: Sequence[rs.Draw]) -> list[int]:
    """How many different samples each phone trained on that finishes the round."""
    return [len({i for d in draws if d.phone == phone for i in d.indices.tolist()}) for phone in _finishing(draws)]


def tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers, those included that a state dict leaves out."""
    return {**dict(model.named_buffers()), **model.state_dict()}


def _load_mean(
    model: nn.Module,
    copies: list[nn.Module],
    samples: list[int],
    skip: tuple[str, ...] = (),
    only: tuple[str, ...] | None = None,
) -> None:
    """The mean by samples; of whole numbers the largest; what nobody trained stays to the last bit."""
    total = sum(samples)
    if not copies:
        return
    each = [tensors(made) for made in copies]
    with torch.no_grad():
        for key, tensor in tensors(model).items():
            if within(key, skip) or (only is not None and not within(key, only)):
                continue
            values = [own[key] for own in each]
            if not tensor.is_floating_point() and not tensor.is_complex():
                tensor.copy_(torch.stack(values).amax(0))
            elif not all(torch.equal(value, tensor) for value in values):
                wide = [value.float() if value.dtype in (torch.bfloat16, torch.float16) else value for value in values]
                tensor.copy_(sum(value * (n / total) for value, n in zip(wide, samples, strict=True)))


def assert_same_weights(model: nn.Module, path: str) -> None:
    trained = rs.load_model(path, trust=True).state_dict()
    expected = model.state_dict()
    assert trained.keys() == expected.keys()
    different = [key for key in expected if not torch.equal(expected[key], trained[key])]
    assert not different


def assert_close_weights(
    train: Callable[[], nn.Module],
    path: str,
    tolerance: float = 1e-6,
    only: tuple[str, ...] | None = None,
    rounding_of: Callable[[], nn.Module] | None = None,
) -> None:
    """A run's weights are those of a reference, within a tolerance or what rounding carries it.

    `train` makes the reference's model; `rounding_of` that of another whose rounding is to be measured, for a `train`
    that only reads another run's.
    """

    def weights_of(make: Callable[[], nn.Module]) -> Train:
        return lambda: {k: v for k, v in make().state_dict().items() if only is None or within(k, only)}

    found = rs.load_model(path, trust=True).state_dict()
    rounding.assert_close(weights_of(train), found, tolerance, weights_of(rounding_of or train))


def assert_same_training(run: rs.Result, other: rs.Result, tolerance: float = 1e-5, **told: Any) -> None:
    """Two runs train the same, in another way: their weights. Rounding is measured with the schedule's reference."""
    settings = rs.Config.from_yaml(Path(other.path) / "config.yaml")
    expected = rs.load_model(run.path, trust=True)
    assert_close_weights(lambda: expected, other.path, tolerance, rounding_of=lambda: trained(settings, **told))
