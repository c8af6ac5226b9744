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

WHOLE = {**SIZES, "max_position_embeddings": 20, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
RELATIVE = {**WHOLE, "relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_biased_input": False}
TABLE = {"position_buckets": 6, "norm_rel_ebd": "layer_norm", "share_att_key": True, "type_vocab_size": 0}
ENDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
ENCODERS: dict[str, tuple[str, dict[str, Any], str]] = {
    "deberta": ("Deberta", RELATIVE, "deberta.encoder.layer"),
    "deberta-v2": ("DebertaV2", {**RELATIVE, **TABLE}, "deberta.encoder.layer"),
    "modernbert": (
        "ModernBert",
        {**SIZES, **ENDS, "global_attn_every_n_layers": 3, "local_attention": 4, "max_position_embeddings": 20},
        "model.layers",
    ),
}
"""The same of encoders; a deberta-v2 as version 3 is."""

ROBERTA = {**WHOLE, "pad_token_id": 1}
MASKED_ENCODERS: dict[str, tuple[str, dict[str, Any], str]] = {
    "bert": ("Bert", WHOLE, "bert.encoder.layer"),
    "roberta": ("Roberta", ROBERTA, "roberta.encoder.layer"),
    "xlm-roberta": ("XLMRoberta", ROBERTA, "roberta.encoder.layer"),
    "camembert": ("Camembert", ROBERTA, "roberta.encoder.layer"),
    "electra": ("Electra", {**WHOLE, "embedding_size": 16}, "electra.encoder.layer"),
    "distilbert": (
        "DistilBert",
        {"dim": 32, "n_layers": BLOCKS, "n_heads": 4, "hidden_dim": 48, "vocab_size": VOCABULARY}
        | {"max_position_embeddings": 20, "dropout": 0.0, "attention_dropout": 0.0, "seq_classif_dropout": 0.0},
        "distilbert.transformer.layer",
    ),
}
"""Those that are cut between their blocks where they are given a mask."""

HEADS_OF_8 = {**GROUPED, "head_dim": 8}
EXPERTS = {**GROUPED, "num_experts": 4, "num_experts_per_tok": 2}
PADDED = {**GROUPED, "pad_token_id": 0}
GPT = {"n_embd": 32, "n_layer": BLOCKS, "n_head": 4, "vocab_size": VOCABULARY, "n_positions": 16} | {
    "tie_word_embeddings": False, "attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0,
}  # fmt: skip
FURTHER_DECODERS: dict[str, tuple[str, dict[str, Any], str]] = {
    "llama with positions scaled by yarn": (
        "Llama",
        {**GROUPED, "max_position_embeddings": 32}
        | {"rope_scaling": {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 16}},
        "model.layers",
    ),
    "gemma3_text": (
        "Gemma3Text",
        {**HEADS_OF_8, "sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"] * 2},
        "model.layers",
    ),
    "phi3": ("Phi3", PADDED, "model.layers"),
    "olmo": ("Olmo", GROUPED, "model.layers"),
    "olmo2": ("Olmo2", GROUPED, "model.layers"),
    "olmo3": ("Olmo3", {**GROUPED, "sliding_window": 4}, "model.layers"),
    "smollm3": ("SmolLM3", PADDED, "model.layers"),
    "cohere": ("Cohere", PADDED, "model.layers"),
    "cohere2": ("Cohere2", {**PADDED, "sliding_window": 4}, "model.layers"),
    "stablelm": ("StableLm", GROUPED, "model.layers"),
    "starcoder2": ("Starcoder2", GROUPED, "model.layers"),
    "granite": ("Granite", {**GROUPED, "embedding_multiplier": 12.0}, "model.layers"),
    "glm": ("Glm", {**HEADS_OF_8, "pad_token_id": 0}, "model.layers"),
    "mixtral": ("Mixtral", {**GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2}, "model.layers"),
    "gpt_oss": (
        "GptOss",
        {**HEADS_OF_8, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 4},
        "model.layers",
    ),
    "olmoe": ("Olmoe", EXPERTS, "model.layers"),
    "qwen2_moe": (
        "Qwen2Moe",
        {**EXPERTS, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16},
        "model.layers",
    ),
    "qwen3_moe": ("Qwen3Moe", {**EXPERTS, "moe_intermediate_size": 16, "head_dim": 8}, "model.layers"),
    "gptj": ("GPTJ", {**GPT, "rotary_dim": 4}, "transformer.h"),
    "codegen": ("CodeGen", {**GPT, "rotary_dim": 4}, "transformer.h"),
    "gpt_bigcode": ("GPTBigCode", GPT, "transformer.h"),
    "gpt_neo": (
        "GPTNeo",
        {"hidden_size": 32, "num_layers": BLOCKS, "num_heads": 4, "attention_types": [[["global", "local"], 2]]}
        | {"window_size": 4, "vocab_size": VOCABULARY, "max_position_embeddings": 16, "tie_word_embeddings": False},
        "transformer.h",
    ),
    "bloom": (
        "Bloom",
        {"hidden_size": 32, "n_layer": BLOCKS, "n_head": 4, "vocab_size": VOCABULARY, "tie_word_embeddings": False},
        "transformer.h",
    ),
    "falcon": ("Falcon", {**SIZES, "tie_word_embeddings": False}, "transformer.h"),
}
"""More of them, as DECODERS has them."""

LANGUAGE_MODELS = {**DECODERS, **FURTHER_DECODERS, **ENCODERS}


def decoder(family: str, num_classes: int | None = None, **more: Any) -> nn.Module:
    """A causal language model with its first weights."""
    import transformers

    name, told, _ = LANGUAGE_MODELS[family]
    configuration = getattr(transformers, f"{name}Config")(**{**told, **more})
    made: nn.Module = transformers.AutoModelForCausalLM.from_config(configuration)
    return made


def language_model(family: str, num_classes: int | None = None, **more: Any) -> nn.Module:
    """A decoder, or an encoder that tells a token of each place."""
    import transformers

    if family not in {**ENCODERS, **MASKED_ENCODERS}:
        return decoder(family, num_classes, **more)
    name, told, _ = {**ENCODERS, **MASKED_ENCODERS}[family]
    configuration = getattr(transformers, f"{name}Config")(**{**told, "num_labels": VOCABULARY, **more})
    made: nn.Module = transformers.AutoModelForTokenClassification.from_config(configuration)
    return made


def tokens() -> tuple[np.ndarray, np.ndarray]:
    """Sequences of tokens: what is to be told of each place is the next one's."""
    found = np.random.default_rng(3).integers(0, VOCABULARY, (48, LENGTH))
    return found, found.copy()


def next_token(outputs: Any, labels: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(outputs.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
