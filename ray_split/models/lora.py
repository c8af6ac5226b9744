"""Adapters of low rank beside a model's frozen weights (LoRA, Hu et al. 2021), which peft puts in.

The model stays itself, with its layers' names; a layer that has an adapter is called NAME.base_layer within it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from ray_split import config
from ray_split.config.language.packages import language_package
from ray_split.cutting.cut import cut
from ray_split.errors import SettingsError, first_line, listed
from ray_split.segments.base_weight import hold_base, train
from ray_split.segments.segment import HALF

ADAPTER = "default"
"""peft's name for the adapter, where nobody gave it one."""


def adapt(model: nn.Module, settings: config.Model, cuts: Sequence[str]) -> None:
    """Put adapters into a model, and freeze its own weights, once for all copies. Raises SettingsError.

    The adapters' first weights are drawn by torch's generator, in the order of the layers, as peft does.
    """
    peft = _peft()
    model.requires_grad_(False)
    hold_base(model)
    told = _configuration(model, settings, cuts)
    try:
        peft.inject_adapter_in_model(told, model, adapter_name=ADAPTER)
    except (ValueError, TypeError, KeyError) as error:
        named = listed(settings.lora.target_modules or ())
        wrong = f"peft can't put adapters into {named or 'this model'}: {first_line(error)}"
        do = f"Name layers such as {listed(_linear(model)[:6])}"
        raise SettingsError("model.lora.target_modules", settings.lora.target_modules, do, wrong) from error
    for weight in model.parameters():
        if weight.requires_grad and weight.dtype in HALF:
            weight.data = weight.data.float()  # as peft has them, beside a base in half precision
    for name in settings.lora.modules_to_save:
        _train(model, name)


def _configuration(model: nn.Module, settings: config.Model, cuts: Sequence[str]) -> Any:
    """peft's LoraConfig of these settings."""
    lora = settings.lora
    if lora.target_modules is None and getattr(model, "config", None) is None:
        wrong = "is not set, and peft has no usual layers for this model"
        do = f"Name layers such as {listed(_linear(model)[:6])}"
        raise SettingsError("model.lora.target_modules", None, do, wrong)
    return _peft().LoraConfig(
        r=lora.r,
        lora_alpha=lora.scale,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        exclude_modules=_elsewhere(model, settings, cuts) or None,
    )


def _peft() -> Any:
    return language_package("peft", "model.lora", None, "needs peft, which isn't installed")


def _elsewhere(model: nn.Module, settings: config.Model, cuts: Sequence[str]) -> list[str]:
    """The layers of segments that get no adapters."""
    if len(settings.lora.segments) == len("abc"):
        return []
    there = cut(model, cuts, mask=settings.mask).modules()
    found = [module for name, module in there.items() if name not in settings.lora.segments]
    return [name for module in found for name in _linear(module)]


def _linear(module: nn.Module) -> list[str]:
    """The layers that may get one."""
    kinds = (nn.Linear, nn.Embedding, nn.modules.conv._ConvNd)
    named = [name for name, layer in module.named_modules() if isinstance(layer, kinds) or "Conv1D" in str(type(layer))]
    return [name for name in named if name]


def _check_untied(model: nn.Module, name: str, layer: nn.Module) -> None:
    """peft would train a copy of a layer's tied weight, and leave the other as it is. Raises SettingsError."""
    own = {id(weight) for weight in layer.parameters()}
    inside = {id(each) for each in layer.modules()}
    for other, module in model.named_modules():
        if id(module) not in inside and own & {id(weight) for weight in module._parameters.values()}:
            wrong = f"the weight of {name} is tied to that of {other}, and peft would train a copy of it, apart"
            do = f"Leave {name} out, or untie them (model.kwargs tie_word_embeddings: false)"
            raise SettingsError("model.lora.modules_to_save", name, do, wrong)


def _train(model: nn.Module, name: str) -> None:
    """Have a layer trained as it is."""
    layers = [layer for other, layer in model.named_modules() if other == name or other.endswith(f".{name}")]
    if not layers:
        there = listed(list(dict(model.named_children())))
        wrong = f"the model has no layer {name}"
        raise SettingsError("model.lora.modules_to_save", name, f"The model's parts are {there}", wrong)
    for layer in layers:
        _check_untied(model, name, layer)
        train(layer)
