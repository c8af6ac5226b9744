"""What follows from the model: cohorts, what is stacked, and how `parallel` makes B's joint batch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import nn

from ray_split import config
from ray_split.algorithms import algorithm_of
from ray_split.config.phones import Phones
from ray_split.config.user_code.by_value import spoken
from ray_split.cutting.cut import Segments
from ray_split.cutting.model_inputs import changed, count_of
from ray_split.cutting.random_generators import seed_everywhere
from ray_split.errors import MISFITS, SettingsError
from ray_split.messages.message import leaves, send, tree_map
from ray_split.preparation import cohort_rule
from ray_split.preparation.settings.tied_settings import told
from ray_split.preparation.trials import stacking_trial
from ray_split.preparation.trials.alike import Tolerance, different
from ray_split.schedules import schedule_of
from ray_split.segments.autograd import can_have_gradient
from ray_split.segments.copy_factory import CopyFactory
from ray_split.segments.device.computing import computing_at_server, computing_of
from ray_split.segments.optimization import optimizers, stacked_optimizer
from ray_split.segments.parameter_hooks import first_hooked
from ray_split.segments.segment import call
from ray_split.segments.tied_weight import tied_names

SEED = 1
ROUNDING = Tolerance(0, 1e-5, 0)  # of batches of the same shape there is hardly any


def settle(
    settings: config.Config,
    segments: Segments,
    examples: Sequence[Any],
    per_round: int,
    held_out: Sequence[int] = (),
) -> config.Config:
    """The settings with cohort and stacked segments decided, by the largest batch's shapes, the last of `examples`.

    `held_out`: on how many samples at a time phones are evaluated, the fewest and the most, if they are.
    What is stacked must do what a loop does with each of them. Raises SettingsError.
    """
    phones, schedule = settings.phones, schedule_of(settings.schedule)
    if not schedule.cohorts:
        for field, value, none in (("cohort", phones.cohort, ("auto", 1)), ("stacked", phones.stacked, (None, []))):
            if value not in none:
                name = spoken(settings.schedule.name)
                wrong = f"can't be used with schedule.name {name}, which trains one phone at a time"
                do = f"Remove phones.{field}, or choose another schedule, such as parallel"
                raise SettingsError(f"phones.{field}", value, do, wrong)
        return settings.with_values(phones={"cohort": 1, "stacked": []})
    modules = segments.modules()
    slots = {name: len(optimizers.slots(settings.optimizer.of(name))) for name in modules}
    each = [_arriving(modules, example, slots) for example in examples]
    largest, apart = each[-1], isinstance(examples[-1], tuple)
    if schedule.joint_batch:
        after = largest.inputs.get("c", largest.outputs)
        settings = _joint(settings, segments.b, (largest.inputs["b"], after), count_of(examples[-1]), apart)
    shown = [_shown(modules, examples[-1], size) for size in held_out]
    stackable = _stackable(settings, modules, each, shown) if not apart else _looped(phones)
    phones = cohort_rule.cohort(phones, largest.sizes, per_round, stackable)
    return settings.with_values(phones={"cohort": phones.cohort, "stacked": phones.stacked})


def _looped(phones: Phones) -> set[str]:
    """Nothing is stacked of phones whose batches are of different lengths: each is padded to its own longest."""
    if phones.stacked and phones.cohort != 1:
        wrong = "sequences are of different lengths, and batches of a stack would not be"
        raise SettingsError("phones.stacked", phones.stacked, "Leave it out", wrong)
    return set()


class _Arriving(NamedTuple):
    """What arrives at each segment of a batch, in train and in eval mode, where fewer heads may be there."""

    inputs: dict[str, Any]
    evaluated: dict[str, Any]
    sizes: dict[str, cohort_rule.Sizes]
    outputs: Any


def _arriving(modules: dict[str, nn.Module], example: Any, slots: dict[str, int]) -> _Arriving:
    arrived: Any = example
    shown: Any = example
    found = _Arriving({}, {}, {}, None)
    for name, module in modules.items():
        found.inputs[name], found.evaluated[name] = arrived, shown
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            shown = call(copy.deepcopy(module).eval(), shown)
        with torch.random.fork_rng(devices=[]):
            found.sizes[name], arrived = cohort_rule.sizes(copy.deepcopy(module).train(), arrived, slots[name])
    return found._replace(outputs=arrived)


def _shown(modules: dict[str, nn.Module], example: Any, size: int) -> dict[str, Any]:
    """What arrives at each segment of so many samples in eval mode; as far as the model takes so many."""
    shown: Any = changed(example, lambda x: x[torch.arange(size) % len(x)])
    found = {}
    for name, module in modules.items():
        found[name] = shown
        try:
            with torch.random.fork_rng(devices=[]), torch.no_grad():
                shown = call(copy.deepcopy(module).eval(), shown)
        except MISFITS:
            break  # that it can't be evaluated on so few is told when it is
    return found


def _stackable(
    settings: config.Config,
    modules: dict[str, nn.Module],
    each: Sequence[_Arriving],
    held_out: Sequence[dict[str, Any]],
) -> set[str]:
    """The segments to stack: those that were asked for, or whose shapes suit it and which torch can stack.

    `each`: what arrives at them of the smallest and the largest batch; `held_out`: of what phones are evaluated on.
    """
    sizes = each[-1].sizes
    asked, phones = settings.phones.stacked, settings.phones
    if phones.cohort == 1:
        return set()
    names = (
        [n for n in modules if n in asked] if asked is not None else [n for n in modules if cohort_rule.suits(sizes[n])]
    )
    looped = _corrected_one_by_one(settings)
    if alone := [name for name in names if name in looped]:
        if asked is not None:
            wrong = (
                f"can't contain {alone[0]}, because {spoken(str(settings.algorithm.name))} corrects phones one by one"
            )
            do = f"Remove {alone[0]} from phones.stacked, or set elementwise=True in its rs.Algorithm if it is"
            raise SettingsError("phones.stacked", asked, do, wrong)
        names = [name for name in names if name not in looped]
    names = _computed_once(settings, _in_float32(settings, names))
    accumulated = settings.schedule.kwargs.get("batch") == "accumulated"
    # A B that all phones share is stepped as it is.
    own = [name for name in names if not (accumulated and name == "b")]
    problems = {name: why for name in own if (why := stacked_optimizer.why_not(settings.optimizer.of(name)))}
    for name in names:
        if name in problems:
            continue
        computing = computing_of(settings, name, schedule_of(settings.schedule).on_server)
        make = CopyFactory(name, modules[name], settings, computing=computing)
        tried = (
            stacking_trial.why_not(
                make, batch.inputs[name], batch.evaluated[name], name != "a", shared=accumulated and name == "b"
            )
            for batch in reversed(each)
        )
        # Of A and C each phone evaluates its own copy, while B is one for all: the average.
        evaluated = (
            stacking_trial.why_not_evaluated(make, shown[name], shared=name == "b")
            for shown in held_out
            if name in shown
        )
        if problem := next((problem for problem in chain(tried, evaluated) if problem), None):
            problems[name] = problem
    for name in problems:
        if asked is not None:
            wrong = f"can't contain {name}, because {problems[name]}"
            raise SettingsError("phones.stacked", asked, f"Remove {name} from phones.stacked", wrong)
    return _with_their_ends(settings, modules, {name for name in names if name not in problems})


def _with_their_ends(settings: config.Config, modules: dict[str, nn.Module], names: set[str]) -> set[str]:
    """A and C that share a weight are stacked both, or neither. Raises SettingsError."""
    tied, ends, asked = tied_names(modules["c"]) if "c" in modules else {}, {"a", "c"}, settings.phones.stacked
    if not tied or len(names & ends) != 1:
        return names
    if asked is not None:
        (one,) = names & ends
        wrong = f"can't contain {one} alone, because a weight is in both A and C ({told(tied)})"
        raise SettingsError("phones.stacked", asked, "Name a and c, or neither", wrong)
    return names - ends


def _in_float32(settings: config.Config, names: list[str]) -> list[str]:
    """The segments that aren't under autocast, of which torch.func.vmap makes something else: biases stay float32."""
    on_server, asked = schedule_of(settings.schedule).on_server, settings.phones.stacked
    half = [name for name in names if computing_of(settings, name, on_server).half]
    if half and asked is not None:
        wrong = f"can't contain {half[0]}, because stacked it would not compute in bfloat16 as torch's autocast has it"
        raise SettingsError("phones.stacked", asked, f"Remove {half[0]} from phones.stacked", wrong)
    return [name for name in names if name not in half]


def _computed_once(settings: config.Config, names: list[str]) -> list[str]:
    """The segments but for a B whose blocks are computed once more in backward, which torch.func.vmap can't do."""
    computing = computing_at_server(settings, schedule_of(settings.schedule).on_server)
    asked = settings.phones.stacked
    if "b" not in names or not computing.checkpointing:
        return names
    if asked is not None:
        wrong = "can't contain b, because server.activation_checkpointing is for copies one after the other"
        raise SettingsError("phones.stacked", asked, "Remove b from phones.stacked", wrong)
    return [name for name in names if name != "b"]


def _corrected_one_by_one(settings: config.Config) -> frozenset[str]:
    """The segments whose copies an algorithm corrects that takes one phone's gradients at a time."""
    algorithm = algorithm_of(settings.algorithm)
    if algorithm is None or algorithm.elementwise:
        return frozenset()
    return schedule_of(settings.schedule).averaged


def _joint(
    settings: config.Config, middle: nn.Module, borders: tuple[Any, Any], batch: int, apart: bool = False
) -> config.Config:
    """Where B mixes the samples of a batch, `parallel` must make one batch of all phones'. Raises SettingsError.

    So it does, if it can, where B's forward changes buffers or weights: as one large batch would, once a step.
    """
    if (name := first_hooked(middle)) and "b" not in settings.model.freeze:
        wrong = f"the hook on {name} would get the scaled gradients of several phones with {settings.schedule.name}"
        raise SettingsError(
            "schedule.name", settings.schedule.name, "Remove the hook, or choose another schedule", wrong
        )
    kwargs = settings.schedule.kwargs
    asked, possible = kwargs.get("batch"), all(_of_samples(x, batch) for x in leaves(borders))
    mixed = mixes(middle, borders[0], batch)
    if apart and (mixed or asked == "joint"):
        wrong = "the server's part mixes the samples of a batch (as BatchNorm does), and theirs differ in length"
        raise SettingsError("schedule.name", settings.schedule.name, "Choose another schedule, or use LayerNorm", wrong)
    possible = possible and not apart
    if not mixed and asked is None and possible and changes(middle, borders[0]):
        return settings.with_values(schedule={"kwargs": {**kwargs, "batch": "joint"}})
    if not mixed and asked != "joint":
        return settings.with_values(schedule={"kwargs": {"batch": "accumulated", **kwargs}})
    if asked == "accumulated":
        wrong = "batch can't be accumulated, because the server's part mixes the samples of a batch (as BatchNorm does)"
        raise SettingsError("schedule.kwargs", kwargs, "Set schedule.kwargs {batch: joint}", wrong)
    if not possible:
        wrong = (
            "can't cut there, because the server's part mixes samples, and gets tensors that don't begin with the batch"
        )
        raise SettingsError("model.cuts", settings.model.cuts, "Cut after other layers", wrong)
    return settings.with_values(schedule={"kwargs": {**kwargs, "batch": "joint"}})


def _of_samples(value: Any, batch: int) -> bool:
    return isinstance(value, torch.Tensor) and value.dim() > 0 and len(value) == batch


def mixes(module: nn.Module, inputs: Any, batch: int) -> bool:
    """Whether in train mode what becomes of a sample, or of a buffer, depends on the (other) samples of a batch.

    Of outputs where what arrives begins otherwise than with the batch, only BatchNorm is known to.
    """
    if any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in module.modules()):
        return True
    tensors = [x for x in leaves(inputs) if isinstance(x, torch.Tensor)]
    of_samples = [_of_samples(x, batch) for x in tensors]
    if not any(of_samples) or any(batch in x.shape for x, own in zip(tensors, of_samples, strict=True) if not own):
        others = tree_map(lambda x: _halved(x.flip(0)) if isinstance(x, torch.Tensor) and x.dim() else x, inputs)
        return _differ(_forward(module, inputs).buffers, _forward(module, others).buffers)
    if batch == 1:
        inputs, batch = _each(inputs, 1, lambda x: torch.cat([x, _halved(x)])), 2
    with_all = _forward(module, inputs)
    for place in (0, batch - 1):
        same = _forward(module, _each(inputs, batch, lambda x, at=place: x[at].expand_as(x)))  # type: ignore[misc]
        one, other = ([x[place] if _of_samples(x, batch) else x for x in f.outputs] for f in (with_all, same))
        if _differ(with_all.buffers, same.buffers) or _differ(one, other):
            return True
    return False


def changes(module: nn.Module, inputs: Any) -> bool:
    """Whether a forward in train mode changes a buffer, or writes to a weight."""
    forward = _forward(module, inputs)
    return forward.writes or _differ(list(module.buffers()), forward.buffers)


class _Forward(NamedTuple):
    """What a forward in train mode leaves."""

    outputs: list[Any]
    buffers: list[torch.Tensor]
    writes: bool  # to weights


def _forward(module: nn.Module, inputs: Any) -> _Forward:
    made = copy.deepcopy(module).train()
    before = _versions(made)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        seed_everywhere(SEED)
        outputs = call(made, tree_map(lambda x: x.clone() if isinstance(x, torch.Tensor) else x, inputs))
    return _Forward(leaves(outputs), list(made.buffers()), _versions(made) != before)


def _versions(module: nn.Module) -> list[tuple[int, int]]:
    return [(weight.data_ptr(), weight._version) for weight in module.parameters()]


def _each(inputs: Any, batch: int, function: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """What begins with the batch, changed; the rest as it is."""
    return tree_map(lambda x: function(x) if _of_samples(x, batch) else x, inputs)


def _halved(x: torch.Tensor) -> torch.Tensor:
    return x / 2 if can_have_gradient(x) else x


def _differ(ones: Sequence[Any], others: Sequence[Any]) -> bool:
    one, other = ({str(i): x for i, x in enumerate(send(list(values)))} for values in (ones, others))
    return len(ones) != len(others) or different(one, other, ROUNDING) is not None
