"""A small decoder-only transformer on whole numbers: a class for every token, or the next token."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


class Embedding(nn.Module):
    """Vectors of tokens and of their places, added. Input (N, T) whole numbers, output (N, T, width)."""

    def __init__(self, vocabulary: int, length: int, width: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.places = nn.Parameter(0.02 * torch.randn(length, width))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Of up to `length` tokens."""
        output: torch.Tensor = self.tokens(tokens) + self.places[: tokens.shape[1]]
        return output


class Attention(nn.Module):
    """Causal self-attention: a token sees itself and those before. Input and output (N, T, width)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.project = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Each token's mixture."""
        n, t, width = x.shape
        parts = self.project(x).reshape(n, t, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        output: torch.Tensor = self.out(mixed.transpose(1, 2).reshape(n, t, width))
        return output


class Block(nn.Module):
    """Attention and two linear layers, each after a LayerNorm and beside a skip. Input and output (N, T, width)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """One layer further."""
        x = x + self.attention(self.norm1(x))
        output: torch.Tensor = x + self.mlp(self.norm2(x))
        return output


class Transformer(nn.Module):
    """Embedding, `depth` blocks and a head; pre-norm, as GPT-2. Without Dropout.

    Input (N, T) whole numbers below `vocabulary`, T up to `length`; output (N, T, num_classes): classes of the tokens,
    or with as many classes as the vocabulary has, scores of the next token. `tied` gives the head the embedding's
    weights, which no cut between the two can keep.
    Source: Radford et al. 2019, Language Models are Unsupervised Multitask Learners.
    Raises ValueError if the numbers don't go together.
    """

    def __init__(
        self,
        num_classes: int = 4,
        vocabulary: int = 32,
        length: int = 64,
        width: int = 32,
        heads: int = 4,
        depth: int = 3,
        tied: bool = False,
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is not a multiple of heads {heads}")
        if tied and num_classes != vocabulary:
            raise ValueError(f"a tied head has as many classes as the vocabulary, {vocabulary}, not {num_classes}")
        self.embedding = Embedding(vocabulary, length, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, num_classes, bias=False)
        if tied:
            self.head.weight = self.embedding.tokens.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Class scores (N, T, num_classes)."""
        output: torch.Tensor = self.head(self.norm(self.blocks(self.embedding(tokens))))
        return output
