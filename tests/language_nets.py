"""Tiny language models of Hugging Face's transformers, made from a configuration, and tokens to train them on."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

VOCABULARY, LENGTH, BLOCKS = 61, 9, 4
SIZES = {
    "hidden_size": 32, "num_hidden_layers": BLOCKS, "num_attention_heads": 4, "intermediate_size": 48,
    "vocab_size": VOCABULARY,
}  # fmt: skip
GROUPED = {**SIZES, "num_key_value_heads": 2, "tie_word_embeddings": False}

DECODERS: dict[str, tuple[str, dict[str, Any], str]] = {
    "gpt2": (
        "GPT2",
        {"n_embd": 32, "n_layer": BLOCKS, "n_head": 4, "vocab_size": VOCABULARY, "n_positions": 16}
        | {"tie_word_embeddings": False, "attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0},
        "transformer.h",
    ),
    "llama": ("Llama", GROUPED, "model.layers"),
    "qwen2": ("Qwen2", GROUPED, "model.layers"),
    "qwen2 with windows": (
        "Qwen2",
        {**GROUPED, "use_sliding_window": True, "sliding_window": 3, "max_window_layers": 2},
        "model.layers",
    ),
    "qwen3": ("Qwen3", {**GROUPED, "head_dim": 8}, "model.layers"),
    "mistral": ("Mistral", {**GROUPED, "sliding_window": 4}, "model.layers"),
    "gemma": ("Gemma", {**GROUPED, "head_dim": 8}, "model.layers"),
    "gemma2": ("Gemma2", {**GROUPED, "head_dim": 8, "sliding_window": 4}, "model.layers"),
    "phi": ("Phi", {**SIZES, "tie_word_embeddings": False}, "model.layers"),
    "gpt_neox": ("GPTNeoX", {**SIZES, "tie_word_embeddings": False}, "gpt_neox.layers"),
    "opt": (
        "OPT",
        {"hidden_size": 32, "num_hidden_layers": BLOCKS, "num_attention_heads": 4, "ffn_dim": 48}
        | {"vocab_size": VOCABULARY, "word_embed_proj_dim": 24, "max_position_embeddings": 16}
        | {"tie_word_embeddings": False, "dropout": 0.0},
        "model.decoder.layers",
    ),
}
"""By family: the classes' beginning, the configuration, and where the blocks are."""


def decoder(family: str, num_classes: int | None = None, **more: Any) -> nn.Module:
    """A causal language model with its first weights."""
    import transformers

    name, told, _ = DECODERS[family]
    configuration = getattr(transformers, f"{name}Config")(**{**told, **more})
    made: nn.Module = transformers.AutoModelForCausalLM.from_config(configuration)
    return made


def tokens() -> tuple[np.ndarray, np.ndarray]:
    """Sequences of tokens: what is to be told of each place is the next one's."""
    found = np.random.default_rng(3).integers(0, VOCABULARY, (48, LENGTH))
    return found, found.copy()


def next_token(outputs: Any, labels: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(outputs.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
