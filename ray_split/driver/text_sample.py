"""A sample of what a language model writes when it is trained: greedily, so the same each time."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from ray_split import config
from ray_split.arrays import Array
from ray_split.config.default_models import TEXTS
from ray_split.data.sequences import Padded
from ray_split.data.sources.tokenizers import Tokenizer, tokenizer_of
from ray_split.data.types import Parts
from ray_split.messages.labels import IGNORED
from ray_split.models.char_lstm import CharLSTM
from ray_split.models.transformer import Transformer

BEGINNING, MOST = 8, 40
"""Tokens of a prompt from the test data, and of what is written."""


def writes(settings: config.Config) -> bool:
    """Whether a run's data is text, and a sample is wanted."""
    return settings.run.sample != "off" and settings.data.name in TEXTS


def sample_of(model: nn.Module, settings: config.Config, parts: Parts) -> dict[str, str] | None:
    """The prompt, and what the model writes after it; None of a model that writes no text, such as a classifier.

    The prompt is run.sample, or with `auto` the beginning of the first test sample.
    """
    tokens, length = _prompt(settings, parts), _first(parts).shape[1]
    if isinstance(model, (Transformer, CharLSTM)):
        written = _next_by_next(model, tokens, length)
    elif hasattr(model, "generate") and type(model).__name__.endswith(("ForCausalLM", "LMHeadModel")):
        written = _generated(model, tokens)
    else:
        return None
    return {"prompt": _text(settings, parts, tokens), "text": _text(settings, parts, written)}


def _prompt(settings: config.Config, parts: Parts) -> Array:
    if settings.run.sample == "auto":
        own = np.flatnonzero(np.asarray(parts.test.labels[:1])[0] != IGNORED)  # what follows is padding
        beginning: Array = _first(parts)[0][: min(BEGINNING, int(own[-1]) + 1)]
        return beginning
    name, tokenizer = _tokenizer(settings)
    found = tokenizer.encode([settings.run.sample])[0].astype(np.int64)
    if name != "characters":
        return found
    numbers = {letter: number for number, letter in enumerate(parts.classes or ())}
    return np.array([numbers.get(chr(code), 0) for code in found.tolist()], np.int64)


def _first(parts: Parts) -> Array:
    """The first test sample (1, length)."""
    found = parts.test.inputs[np.arange(1)]
    return found.values if isinstance(found, Padded) else np.asarray(found)


@torch.no_grad()
def _next_by_next(model: nn.Module, tokens: Array, length: int) -> Array:
    """Of a model of ours, which sees the last `length` tokens."""
    found = tokens.tolist()
    for _ in range(MOST):
        scores = model(torch.tensor([found[-length:]]))
        found.append(int(scores[0, -1].argmax()))
    return np.array(found[len(tokens) :])


@torch.no_grad()
def _generated(model: Any, tokens: Array) -> Array:
    """Of a model of transformers, with its cache; it ends early where its text does, or what it can see."""
    given = torch.from_numpy(tokens)[None]
    most = getattr(model.config, "max_position_embeddings", None) or len(tokens) + MOST
    told = {"do_sample": False, "num_beams": 1, "use_cache": True, "pad_token_id": 0}
    new = max(1, min(MOST, most - len(tokens)))
    found = model.generate(given, attention_mask=torch.ones_like(given), max_new_tokens=new, **told)
    return np.asarray(found[0, len(tokens) :])


def _tokenizer(settings: config.Config) -> tuple[str, Tokenizer]:
    """The data's, and its name."""
    name = settings.data.kwargs.get("tokenizer", "characters")
    return name, tokenizer_of(name, settings.data.kwargs.get("gguf_file"))


def _text(settings: config.Config, parts: Parts, tokens: Array) -> str:
    name, tokenizer = _tokenizer(settings)
    if name == "characters":
        return "".join((parts.classes or ())[token] for token in tokens.tolist())
    return tokenizer.decode(tokens)
