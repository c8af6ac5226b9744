"""Models by name, each with the layers to cut after: some of ours, and any of torchvision's and timm's.

Yours: 'package.module:function', and name the cuts; or a function that returns Segments(a, b, c) of your own.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from ray_split import config, seeds
from ray_split.config.plugins import blamed, call, find, suggest
from ray_split.cutting.cut import Segments, cut
from ray_split.cutting.own_segments import Chain
from ray_split.cutting.random_generators import Generators
from ray_split.errors import SettingsError, brief
from ray_split.memory_limit import check_fits
from ray_split.messages.state import State
from ray_split.models import library as zoo
from ray_split.models import pretrained
from ray_split.models.model_checks import check_built
from ray_split.models.small import MLP, DigitsCNN, TinyCNN
from ray_split.models.transformer import Transformer
from ray_split.models.unet import UNet
from ray_split.segments.copy_factory import CopyFactory


class Known(NamedTuple):
    """A model of ours: the function that builds it, and the cuts that suit it."""

    build: Callable[..., nn.Module]
    cuts: tuple[str, ...]


MODELS: dict[str, Known] = {
    "digits_cnn": Known(DigitsCNN, ("block1", "hidden")),
    "tiny_cnn": Known(TinyCNN, ("block1", "block2")),
    "mlp": Known(MLP, ("layers.0", "layers.1")),
    "unet": Known(UNet, ("stem", "up1")),
    "transformer": Known(Transformer, ("blocks.0", "blocks.2")),
}


def build(settings: config.Model, seed: int) -> nn.Module:
    """The unsplit model with its first weights, which follow from the run's seed alone. Raises SettingsError."""
    function = _function(settings.name)
    if ":" not in settings.name:
        _check_sizes(settings.kwargs, least=1 if settings.name in MODELS else None)
    kwargs = {**zoo.wanted_by(settings.name, settings.weights), **settings.kwargs}
    seeded = _seeded(seeds.torch_seed(seed, "model"))
    with seeded, blamed("model.name", settings.name, settings.kwargs):
        model: Any = call("model", function, kwargs, num_classes=settings.num_classes)
    if isinstance(model, Segments):
        model = Chain(*model)
    if not isinstance(model, nn.Module):
        raise SettingsError(
            "model.name", settings.name, f"a function that returns a torch module, not {brief(model, 100)}"
        )
    check_built(settings.name, model)
    return model


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """torch's, numpy's and Python's generators begin with a seed, and go on afterwards where they were."""
    before = Generators()
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    try:
        yield
    finally:
        before.restore()


LARGEST_LAYER, DEEPEST = 2**24, 1000


def _check_sizes(kwargs: Mapping[str, Any], least: int | None) -> None:
    """Of our models and the libraries': a number as of samples or seconds would be built for hours, and then fail."""
    for name, value in kwargs.items():
        most = DEEPEST if name in ("depth", "num_layers") else LARGEST_LAYER
        if isinstance(value, int) and value > most:
            raise SettingsError("model.kwargs", {name: value}, f"numbers of a model's size, {name} at most {most}")
        if least is not None and type(value) is int and value < least:
            raise SettingsError("model.kwargs", {name: value}, f"numbers of a model's size, {name} at least {least}")


def check_memory(settings: config.Model) -> None:
    """See that a model of ours or a library's can be held, built without its weights. Raises SettingsError."""
    if ":" in settings.name or not settings.kwargs:
        return
    try:
        with torch.device("meta"):
            model = build(settings, seed=0)
    except SettingsError:
        return  # what is wrong with it, or that it looks at numbers as it is built, building it in earnest tells
    size = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    check_fits("model.kwargs", settings.kwargs, size)


def _function(name: str) -> Callable[..., nn.Module]:
    if name in MODELS:
        return MODELS[name].build
    if ":" not in name and (found := zoo.lookup(name)) is not None:
        return found.build
    if ":" in name:
        return find("model.name", name, {})
    plain, _, tag = name.rpartition(".")
    if zoo.lookup(plain) is not None:
        raise SettingsError("model.name", name, f"{plain}, with --model.weights {tag}")
    theirs = {each: None for library in zoo.LIBRARIES for each in zoo.known(library)}
    allowed = f"{', '.join(MODELS)}, a model of torchvision or timm, or package.module:function"
    raise SettingsError("model.name", name, allowed + suggest(name, {**MODELS, **theirs}))


def cuts_of(settings: config.Model, model: nn.Module) -> list[str]:
    """Where to cut: as set, or as suits the model. Raises SettingsError for a model that has no cuts of its own."""
    if isinstance(model, Chain):
        if settings.cuts not in (None, model.cuts):
            raise SettingsError("model.cuts", settings.cuts, "left out: the model comes in segments")
        return model.cuts
    if settings.cuts is not None:
        return settings.cuts
    cuts = MODELS[settings.name].cuts if settings.name in MODELS else None
    if cuts is None and ":" not in settings.name:
        cuts = zoo.cuts_of(model)
    if cuts is None:
        allowed = "two layers of your model, the last of A and the last of B; or one, for single split"
        raise SettingsError("model.cuts", None, allowed)
    return list(cuts)


def first_states(settings: config.Config) -> dict[str, State]:
    """The segments' states before the first round: the first weights, or the trained ones that the settings name."""
    model = build(settings.model, settings.run.seed)
    pretrained.load(model, settings.model)
    segments = cut(model, settings.model.cuts or ()).modules()
    return {name: CopyFactory(name, module, settings).first_state() for name, module in segments.items()}
