"""What the server is to compute B in, and how: refused where the model can't be, before an actor starts."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from ray_split import config
from ray_split.config.user_code.by_value import spoken
from ray_split.cutting.cut import Segments
from ray_split.cutting.model_inputs import changed
from ray_split.errors import BROKEN, SettingsError, first_line
from ray_split.messages.message import as_bits, leaves, send
from ray_split.preparation.trials.alike import Tolerance, different
from ray_split.schedules import schedule_of
from ray_split.segments.buffers import changing
from ray_split.segments.device.checkpointing import blocks_of
from ray_split.segments.device.computing import Computing, compiled, computing_of
from ray_split.segments.parameter_hooks import copied
from ray_split.segments.segment import HALF, Segment, call

CPU = torch.device("cpu")


def check_dtypes(settings: config.Config, segments: Segments) -> None:
    """See that what crosses in bfloat16 is so by autocast: a model of such weights has another reading of it."""
    dtypes = {"server.dtype": settings.server.dtype, "phones.dtype": settings.phones.dtype}
    asked = [field for field, dtype in dtypes.items() if dtype == "bfloat16"]
    if len(asked) != 1 or not schedule_of(settings.schedule).on_server:
        return
    weights = [w for module in segments.modules().values() for w in [*module.parameters(), *module.buffers()]]
    if any(weight.dtype in HALF for weight in weights):
        wrong = f"can't be bfloat16 alone, because {spoken(settings.model.name)} has weights in half precision"
        raise SettingsError(asked[0], "bfloat16", "Set server.dtype and phones.dtype alike", wrong)


def check_compiled(settings: config.Config, segments: Segments, example: Any) -> None:
    """See that B can be traced as a whole, if it is to be compiled; `example`: a batch's inputs."""
    if not settings.server.compile or not schedule_of(settings.schedule).on_server:
        return
    if names := sorted(changing(segments.b)):
        wrong = f"can't be true, because the server's part has a buffer that isn't torch's own, {names[0]}"
        raise SettingsError("server.compile", True, "Leave server.compile out", wrong)
    module, computing = copy.deepcopy(segments.b).train("b" not in settings.model.freeze), computing_of(settings, "b")
    with torch.random.fork_rng(devices=[]):
        with torch.no_grad(), computing_of(settings, "a").around(CPU):
            arrived = call(copy.deepcopy(segments.a).train(), changed(example, torch.clone))
        with computing.around(CPU):
            taken = computing.taken(arrived)
            _traced(module, taken if isinstance(taken, tuple) else (taken,))


def check_compiled_stack(settings: config.Config, segments: Segments) -> None:
    """See that a B that is compiled and stacked has no Dropout, once it is known what is: each phone draws its own."""
    trains = settings.server.compile and "b" not in settings.model.freeze
    if not trains or "b" not in (settings.phones.stacked or ()) or not schedule_of(settings.schedule).on_server:
        return
    if any(isinstance(module, nn.Dropout) and module.p for module in segments.b.modules()):
        wrong = "can't be true, because the server's part is stacked and has Dropout, whose masks are each phone's own"
        raise SettingsError("server.compile", True, "Set phones.stacked to a,c, or server.compile to false", wrong)


CHECKPOINTING = "server.activation_checkpointing"
EXACTLY = Tolerance(0, 0, 0)


def check_checkpointing(settings: config.Config, segments: Segments, example: Any) -> None:
    """See that B's blocks compute the same once more, if they are to; `example`: a batch's inputs."""
    if not settings.server.activation_checkpointing or not schedule_of(settings.schedule).on_server:
        return
    if settings.server.compile:
        raise SettingsError(CHECKPOINTING, True, "Set one of the two", "can't be used with server.compile")
    if not blocks_of(segments.b):
        wrong = "is of no use, because the server's part has no blocks (layers that have layers)"
        raise SettingsError(CHECKPOINTING, True, "Leave server.activation_checkpointing out", wrong)
    computing = computing_of(settings, "b")
    with torch.random.fork_rng(devices=[]):
        with torch.no_grad(), computing_of(settings, "a").around(CPU):
            arrived = send(call(copy.deepcopy(segments.a).train(), changed(example, torch.clone)))
        if (problem := _problem(settings, segments.b, computing, arrived)) is not None:
            wrong = f"can't be true, because a block of the server's part can't be computed once more: {problem}"
            raise SettingsError(CHECKPOINTING, True, "Leave server.activation_checkpointing out", wrong)


def _problem(settings: config.Config, module: nn.Module, computing: Computing, arrived: Any) -> str | None:
    """What another forward of B's blocks in backward would make another of, if anything."""
    expected = _learned(settings, module, computing, arrived)
    try:
        found = _learned(settings, module, replace(computing, checkpointing=True), arrived)
    except BROKEN as error:
        return f"{type(error).__name__}: {first_line(error)}"
    name = different(expected, found, EXACTLY)
    return None if name is None else f"{name} would be another"


def _learned(settings: config.Config, module: nn.Module, computing: Computing, arrived: Any) -> dict[str, Any]:
    """What a forward and a backward of B leave, by name."""
    frozen = "b" in settings.model.freeze
    segment = Segment(copied(module), config.Optimizer(), frozen=frozen, computing=computing)
    outputs = [x for x in leaves(segment.forward(arrived, seed=1)) if isinstance(x, torch.Tensor) and x.requires_grad]
    loss = torch.stack([x.abs().double().square().sum() for x in outputs]).sum() if outputs else torch.zeros(())
    gradients = segment.backward_loss(loss)
    found = {f"output {number}": as_bits(x.detach()) for number, x in enumerate(outputs)}
    found |= {f"gradient {number}": x for number, x in enumerate(leaves(gradients)) if isinstance(x, np.ndarray)}
    found |= {name: as_bits(weight.grad) for name, weight in segment.trained().items() if weight.grad is not None}
    return {**found, **{key: array for key, array in segment.state().items() if not key.startswith("optimizer/")}}


def _traced(module: nn.Module, arguments: tuple[Any, ...]) -> None:
    try:
        compiled("eager")(module, *arguments)
    except SettingsError:
        raise
    except BROKEN as error:
        wrong = f"the server's part can't be compiled: {type(error).__name__}: {first_line(error)}"
        raise SettingsError("server.compile", True, "Leave server.compile out", wrong) from error
