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
from ray_split.config.user_code.by_value import spoken
from ray_split.config.user_code.plugins import blamed, call, find, signature_of, suggest
from ray_split.cutting.cut import Segments, cut
from ray_split.cutting.language.blocks import positions_of, usual_cuts, without_cache
from ray_split.cutting.language.families import family_of
from ray_split.cutting.own_segments import Chain
from ray_split.cutting.random_generators import Generators, seed_everywhere
from ray_split.errors import SettingsError, brief, listed, shown
from ray_split.memory_limit import check_fits
from ray_split.messages.state import State
from ray_split.models import library as zoo
from ray_split.models import pretrained, transformers_by_name
from ray_split.models.char_lstm import CharLSTM
from ray_split.models.lora import adapt
from ray_split.models.model_checks import check_built
from ray_split.models.shaped import CNN, LSTM, CNN1d
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
    "cnn": Known(CNN, ("block1", "hidden")),
    "cnn1d": Known(CNN1d, ("block1", "hidden")),
    "lstm": Known(LSTM, ("embedding", "recurrent")),
    "char_lstm": Known(CharLSTM, ("recurrent1", "recurrent2")),
    "mlp": Known(MLP, ("layers.0", "layers.1")),
    "unet": Known(UNet, ("stem", "up1")),
    "transformer": Known(Transformer, ("blocks.0", "blocks.2")),
}


def build(settings: config.Model, seed: int) -> nn.Module:
    """The unsplit model with its first weights, which follow from the run's seed alone. Raises SettingsError."""
    function = _function(settings.name)
    if isinstance(function, nn.Module):
        wrong = (
            "is a module, but must be a class or a function that makes one, so that its weights follow from run.seed"
        )
        raise SettingsError("model.name", settings.name, "Give a function, such as lambda: nn.Sequential(...)", wrong)
    if _is_known(settings.name):
        _check_sizes(settings.kwargs, least=1 if settings.name in MODELS else None)
    kwargs = {**zoo.wanted_by(settings.name, settings.weights), **settings.kwargs}
    seeded = _seeded(seeds.torch_seed(seed, "model"))
    with seeded, blamed("model.name", settings.name, settings.kwargs):
        model: Any = call(
            "model",
            function,
            kwargs,
            spoken(settings.name),
            num_classes=settings.num_classes,
            **_offered(settings, function),
        )
    if isinstance(model, Segments):
        model = Chain(*model)
    if not isinstance(model, nn.Module):
        wrong = f"{spoken(settings.name)} returned {brief(model, 100)}"
        raise SettingsError("model.name", settings.name, "Return a torch.nn.Module", wrong)
    check_built(settings.name, model)
    without_cache(model)
    if settings.lora.r is not None:
        pretrained.load(model, settings)
        with _seeded(seeds.torch_seed(seed, "adapters")):
            adapt(model, settings, cuts_of(settings, model))
    return model


def takes_shape(settings: config.Model) -> bool:
    """Whether the model's function has a place for `input_shape`, and `kwargs` don't say it. Raises SettingsError."""
    return "input_shape" not in settings.kwargs and _has_place(_function(settings.name))


def takes_classes(settings: config.Model) -> bool:
    """Whether the model's function is told `num_classes`: it has a place for them, and `kwargs` don't say them.

    Raises SettingsError.
    """
    parameters = signature_of("model.name", _function(settings.name)).parameters
    takes_any = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
    return "num_classes" not in settings.kwargs and ("num_classes" in parameters or takes_any)


def _has_place(function: Callable[..., Any]) -> bool:
    """Whether it names `input_shape`: one that takes any keyword may pass it on to who doesn't know it."""
    return "input_shape" in signature_of("model.name", function).parameters


def _offered(settings: config.Model, function: Callable[..., Any]) -> dict[str, Any]:
    """The shape of a sample, where it is known and wanted."""
    if settings.input_shape is None or not _has_place(function):
        return {}
    return {"input_shape": tuple(settings.input_shape)}


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """torch's, numpy's and Python's generators begin with a seed, and go on afterwards where they were."""
    before = Generators()
    seed_everywhere(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    try:
        yield
    finally:
        before.restore()


def _is_known(name: str) -> bool:
    """Whether it is a model of ours or of torchvision and timm."""
    return ":" not in name


LARGEST_LAYER, DEEPEST = 2**24, 1000


def _check_sizes(kwargs: Mapping[str, Any], least: int | None) -> None:
    """Of our models and the libraries': a number as of samples or seconds would be built for hours, and then fail."""
    for name, value in kwargs.items():
        most = DEEPEST if name in ("depth", "num_layers") else LARGEST_LAYER
        if isinstance(value, int) and value > most:
            raise SettingsError("model.kwargs", {name: value}, "", f"{name} must be at most {most}, not {shown(value)}")
        if least is not None and type(value) is int and value < least:
            raise SettingsError(
                "model.kwargs", {name: value}, "", f"{name} must be at least {least}, not {shown(value)}"
            )


def check_memory(settings: config.Model) -> None:
    """See that a model of ours or a library's can be held, built without its weights. Raises SettingsError."""
    if not _is_known(settings.name) or not (settings.kwargs or settings.input_shape):
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
    if transformers_by_name.is_named(name):
        return transformers_by_name.named(name)
    if ":" not in name and (found := zoo.lookup(name)) is not None:
        return found.build
    if ":" in name:
        return find("model.name", name, {})
    plain, _, tag = name.rpartition(".")
    if zoo.lookup(plain) is not None:
        allowed = f"Set model.name to {plain} and model.weights to {tag}"
        raise SettingsError(
            "model.name", name, allowed, f"{shown(name)} is the name of a model and of its weights, which are set apart"
        )
    theirs = {each: None for library in zoo.LIBRARIES for each in zoo.known(library)}
    own = "You can also name a torchvision or timm model, or your own function as package.module:function"
    allowed = suggest(name, {**MODELS, **theirs}, f"The built-in models are {listed(MODELS)}. {own}")
    raise SettingsError("model.name", name, allowed, f"there is no model {shown(name)}")


def cuts_of(settings: config.Model, model: nn.Module) -> list[str]:
    """Where to cut: as set, or as suits the model. Raises SettingsError for a model that has no cuts of its own."""
    if isinstance(model, Chain):
        if settings.cuts not in (None, model.cuts):
            raise SettingsError(
                "model.cuts",
                settings.cuts,
                "Remove model.cuts",
                f"can't be set, because {spoken(settings.name)} is already cut",
            )
        return model.cuts
    if settings.cuts is not None:
        return settings.cuts
    cuts = MODELS[settings.name].cuts if settings.name in MODELS else None
    if transformers_by_name.is_named(settings.name):
        cuts = usual_cuts(model)
    elif cuts is None and _is_known(settings.name):
        cuts = zoo.cuts_of(model)
    if cuts is None:
        wrong = f"is not set, and {spoken(settings.name)} has no cuts of its own"
        raise SettingsError("model.cuts", None, _where_to_cut(model), wrong)
    return list(cuts)


def _where_to_cut(model: nn.Module) -> str:
    """What to set where nothing says where to cut. Nothing is left after the last layer, but the head after blocks."""
    family = family_of(model, mask="mask")
    may = [name for name, _ in model.named_children()][:-1][:40] if family is None else positions_of(model, family)
    if not may:
        return "Name the layers to cut after"
    such = may if family is None else may[-2:]  # the blocks, of which there are one or two
    two = f"two to make three parts, such as --model.cuts {such[0]},{such[-1]}, or " if len(may) > 1 else ""
    one = f"one to make two parts, such as --model.cuts {such[0]}"
    several = "layers" if len(may) > 1 else "layer"
    return f"Name the layers to cut after: {two}{one}. You can cut after the {several} {listed(may)}"


def first_states(settings: config.Config, made: Mapping[str, CopyFactory]) -> dict[str, State]:
    """The segments' states before the first round: the first weights, or the trained ones that the settings name.

    `made`: the caller's own segments, which have the first weights.
    """
    if settings.model.weights is None or settings.model.lora.r is not None:  # weights are then the base's
        return {name: make.first_state() for name, make in made.items()}
    model = build(settings.model, settings.run.seed)
    pretrained.load(model, settings.model)
    segments = cut(model, settings.model.cuts or (), mask=settings.model.mask).modules()
    return {name: CopyFactory(name, module, settings).first_state() for name, module in segments.items()}
