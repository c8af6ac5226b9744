"""Which models of transformers are cut between their blocks, and where they have what."""

from __future__ import annotations

from typing import NamedTuple

from torch import nn


class Family(NamedTuple):
    """Where the models of a type have what, by the names of `named_modules()`."""

    blocks: str
    embedding: str
    after: tuple[str, ...] = ()
    """Between the last block and the head."""
    before: tuple[str, ...] = ()
    """Between the embedding and the first block."""
    positions: tuple[str, ...] = ()
    """What is added to the embedding."""
    beside_first: tuple[str, ...] = ()
    """What runs beside the first block, and with it alone."""
    relative: str = ""
    """Whose `get_rel_embedding()` is the table of relative positions that all blocks read."""
    scale: str = ""
    """The attribute of the model without its head by which it multiplies what is embedded."""


LLAMA = Family("model.layers", "model.embed_tokens", ("model.norm",))
AS_LLAMA = (
    "llama", "qwen2", "qwen3", "mistral", "gemma", "gemma2", "gemma3_text", "phi3", "olmo", "olmo2", "olmo3", "smollm3",
    "cohere", "cohere2", "stablelm", "starcoder2", "glm",
    "mixtral", "gpt_oss", "olmoe", "qwen2_moe", "qwen3_moe",  # mixtures of experts
)  # fmt: skip
GPT_J = Family("transformer.h", "transformer.wte", ("transformer.ln_f",), ("transformer.drop",))
GPT_2 = GPT_J._replace(positions=("transformer.wpe",))
DECODERS = {
    **dict.fromkeys(AS_LLAMA, LLAMA),
    "granite": LLAMA._replace(scale="embedding_multiplier"),
    **dict.fromkeys(("gpt2", "gpt_neo", "gpt_bigcode"), GPT_2),
    **dict.fromkeys(("gptj", "codegen"), GPT_J),
    "bloom": Family(
        "transformer.h",
        "transformer.word_embeddings",
        ("transformer.ln_f",),
        ("transformer.word_embeddings_layernorm",),
    ),
    "falcon": Family("transformer.h", "transformer.word_embeddings", ("transformer.ln_f",)),
    "phi": Family("model.layers", "model.embed_tokens", ("model.final_layernorm",), ("model.embed_dropout",)),
    "gpt_neox": Family(
        "gpt_neox.layers", "gpt_neox.embed_in", ("gpt_neox.final_layer_norm",), ("gpt_neox.emb_dropout",)
    ),
    "opt": Family(
        "model.decoder.layers",
        "model.decoder.embed_tokens",
        ("model.decoder.final_layer_norm", "model.decoder.project_out"),
        ("model.decoder.project_in",),
        ("model.decoder.embed_positions",),
    ),
}
"""By `config.model_type`; a family is of all its models that have the blocks there, with whatever head."""

DEBERTA = Family(
    "deberta.encoder.layer",
    "deberta.embeddings",
    beside_first=("deberta.encoder.conv",),
    relative="deberta.encoder",
)
ENCODERS = {
    **dict.fromkeys(("deberta", "deberta-v2"), DEBERTA),
    "modernbert": Family("model.layers", "model.embeddings", ("model.final_norm",)),
}
"""Those that tracing can't open."""

ROBERTA = Family("roberta.encoder.layer", "roberta.embeddings")
ENCODERS_WITH_MASK = {
    "bert": Family("bert.encoder.layer", "bert.embeddings", ("bert.pooler",)),
    **dict.fromkeys(("roberta", "xlm-roberta", "camembert"), ROBERTA),
    "electra": Family("electra.encoder.layer", "electra.embeddings", before=("electra.embeddings_project",)),
    "distilbert": Family("distilbert.transformer.layer", "distilbert.embeddings"),
}
"""Those that tracing can't open where they are given a mask. Without one they are cut at any layer."""


def family_of(model: nn.Module, mask: str | None = None) -> Family | None:
    """Where a model of transformers has its blocks, if it is one that is cut between them.

    `mask`: the argument that is given a mask, if there is one.
    """
    if not type(model).__module__.startswith("transformers."):
        return None
    families = {**DECODERS, **ENCODERS, **({} if mask is None else ENCODERS_WITH_MASK)}
    family = families.get(str(getattr(getattr(model, "config", None), "model_type", "")))
    there = family is not None and has(model, family.blocks) and has(model, family.embedding)
    return family if there else None


def has(model: nn.Module, name: str) -> bool:
    """Whether a model has a layer of this name."""
    return any(name == each for each, _ in model.named_modules())
