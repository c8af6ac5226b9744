"""Models of Hugging Face's transformers by name: 'hf:NAME-OR-FOLDER' with its weights, 'hf-config:...' as first drawn.

What follows 'hf-config:' is a configuration, as {model_type: llama, hidden_size: 64}, or a folder or file that has one.
transformers is imported only when one of its models is asked for: it costs a process 0.1 GB and seconds.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ray_split.config import yaml12
from ray_split.config.language.packages import language_package
from ray_split.config.user_code.plugins import check_trusted
from ray_split.cutting.language.families import DECODERS
from ray_split.errors import SettingsError, first_line, listed, shown
from ray_split.models.configuration_keys import check_keys

TRAINED, FIRST_DRAWN = "hf:", "hf-config:"

HEADS = {
    "causal_lm": "AutoModelForCausalLM",
    "sequence_classification": "AutoModelForSequenceClassification",
    "token_classification": "AutoModelForTokenClassification",
    "image_classification": "AutoModelForImageClassification",
}
"""By the value of `head`."""

USUAL = ("sequence_classification", "token_classification", "image_classification", "causal_lm")
"""Where nothing says which, the first that a family has; of the decoders that are cut here, causal_lm."""


def is_named(name: str) -> bool:
    """Whether a name is one of a model of transformers."""
    return name.startswith((TRAINED, FIRST_DRAWN))


def short_name(name: str) -> str:
    """The last part of such a name, for a run's folder."""
    if _is_written_out(name):
        return str(_told(name).get("model_type", "model"))
    return Path(name.partition(":")[2]).name


def _is_written_out(name: str) -> bool:
    """Whether the name holds the configuration, and not the path of a file that has it."""
    return name.startswith(FIRST_DRAWN) and name.removeprefix(FIRST_DRAWN).lstrip().startswith("{")


def folder_of(name: str) -> Path | None:
    """The folder that a model is to be loaded from, if it is one that is there."""
    path = Path(name.removeprefix(TRAINED)).expanduser()
    return path if name.startswith(TRAINED) and path.is_dir() else None


def named(name: str) -> Callable[..., nn.Module]:
    """The function that builds the model; its arguments beside the head go to transformers."""

    def build(num_classes: int | None = None, head: str | None = None, **kwargs: Any) -> nn.Module:
        if "token" in kwargs:
            wrong = "can't contain token, which config.yaml would show to everyone"
            raise SettingsError("model.kwargs", "token", "Set the environment variable HF_TOKEN", wrong)
        if kwargs.get("trust_remote_code"):
            check_trusted("model.kwargs", "trust_remote_code", "done")
        transformers = _library()
        if name.startswith(FIRST_DRAWN):
            told = _told(name, kwargs)
            _check_keys(transformers, name, told, [*told] if _is_written_out(name) else kwargs)
            config = _configuration(transformers, told)
            kind = _class(transformers, name, config, head)
            if num_classes is not None and _is_causal(kind) and "vocab_size" not in told:
                # of data that is text: as many as it has kinds of tokens
                config = _configuration(transformers, {**told, "vocab_size": num_classes})
            return _made(kind._from_config, config, num_classes)
        where = str(folder_of(name) or name.removeprefix(TRAINED))
        own = {key: kwargs[key] for key in OF_THE_FILE if key in kwargs}
        try:
            config = transformers.AutoConfig.from_pretrained(where, **own)
            kind = _class(transformers, name, config, head)
            labels = {} if num_classes is None or _is_causal(kind) else {"num_labels": num_classes}
            if torch.get_default_device().type == "meta":  # only its shapes are wanted: no weights are read
                return _shapes_alone(transformers, kind, where, {**labels, **kwargs})
            return _quietly(lambda: kind.from_pretrained(where, **{"dtype": "float32", **labels, **kwargs}))
        except OSError as error:
            do = "Give a folder with config.json and the weights, or the name of a model on the Hugging Face Hub"
            raise SettingsError("model.name", name, do, f"{where} can't be loaded: {first_line(error)}") from error

    build.__name__ = name
    return build


def _shapes_alone(transformers: Any, kind: Any, where: str, kwargs: dict[str, Any]) -> nn.Module:
    """The model that would be loaded, on the meta device."""
    rest = dict(kwargs)
    dtype = rest.pop("dtype", "float32")
    config = transformers.AutoConfig.from_pretrained(where, **rest)
    made: nn.Module = kind._from_config(config, dtype=getattr(torch, str(dtype).removeprefix("torch.")))
    return made


OF_THE_FILE = ("gguf_file", "revision", "subfolder", "cache_dir", "trust_remote_code")
"""Arguments that say where the configuration is, too."""


def _library() -> Any:
    wrong = "models named hf:... and hf-config:... need transformers, which isn't installed"
    return language_package("transformers", "model.name", None, wrong)


def _configuration(transformers: Any, told: Mapping[str, Any]) -> Any:
    rest = dict(told)
    return transformers.AutoConfig.for_model(rest.pop("model_type"), **rest)


def _check_keys(transformers: Any, name: str, told: Mapping[str, Any], written: Iterable[str]) -> None:
    kind, families = told.get("model_type"), transformers.models.auto.configuration_auto.CONFIG_MAPPING
    if kind not in families:
        wrong = f"the configuration says no model_type that transformers {transformers.__version__} has: {shown(kind)}"
        raise SettingsError("model.name", name, "Write model_type, such as gpt2 or llama", wrong)
    check_keys(name, str(kind), families[kind], [key for key in written if key != "model_type"])


def _is_causal(kind: Any) -> bool:
    return str(kind.__name__).endswith(("ForCausalLM", "LMHeadModel"))


def _told(name: str, kwargs: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The configuration that a name holds, or names a file of, with these changes. Raises SettingsError."""
    what = name.removeprefix(FIRST_DRAWN).strip()
    if not what.startswith("{"):
        path = Path(what).expanduser()
        file = path / "config.json" if path.is_dir() else path
        if not file.is_file():
            do = "Write hf-config:{model_type: ..., ...}, or the path of a config.json"
            raise SettingsError("model.name", name, do, f"there is no file {file}")
        what = file.read_text()
    found = yaml12.read(what)
    if not isinstance(found, dict):
        do = "Write hf-config:{model_type: llama, hidden_size: 64, ...}"
        raise SettingsError("model.name", name, do, f"{shown(what[:60])} is no configuration")
    return {**{str(key): value for key, value in found.items()}, **(kwargs or {})}


def _class(transformers: Any, name: str, config: Any, head: str | None) -> Any:
    """The class of the model with this head; or that the configuration says; or with the first head there is."""
    if head is not None and head not in HEADS:
        raise SettingsError("model.kwargs", {"head": head}, f"head is one of {listed(HEADS)}")
    said = [str(each) for each in getattr(config, "architectures", None) or ()]
    if head is None and said and hasattr(transformers, said[0]):
        return getattr(transformers, said[0])
    usual = ("causal_lm", *USUAL) if config.model_type in DECODERS else USUAL
    found = _first_head(transformers, config, usual if head is None else (head,))
    if found is None:
        which = "head that is trained here" if head is None else f"head {head}"
        wrong = f"transformers has no {config.model_type} with a {which}"
        raise SettingsError("model.name", name, f"The heads are {listed(HEADS)}", wrong)
    return found


def _first_head(transformers: Any, config: Any, heads: Sequence[str]) -> Any:
    for head in heads:
        mapping = getattr(transformers, HEADS[head])._model_mapping
        if type(config) in mapping:
            found = mapping[type(config)]
            return found[0] if isinstance(found, tuple) else found
    return None


def _made(build: Callable[[Any], nn.Module], config: Any, num_classes: int | None) -> nn.Module:
    if num_classes is not None:
        config.num_labels = num_classes
    return build(config)


def _quietly(load: Callable[[], nn.Module]) -> nn.Module:
    """Without transformers' own progress bars."""
    logging: Any = importlib.import_module("transformers.utils.logging")
    shown_before = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        return load()
    finally:
        if shown_before:
            logging.enable_progress_bar()
