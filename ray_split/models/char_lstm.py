"""The next character by two layers of LSTM, as federated learning's papers read Shakespeare."""

from __future__ import annotations

import torch
from torch import nn


class LSTMLayer(nn.Module):
    """A layer of LSTM over whole sequences: (N, length, width) to (N, length, out), its outputs alone."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(width, out, batch_first=True)

    def forward(self, steps: torch.Tensor) -> torch.Tensor:
        """Each place knows those before it: the state begins with zeros."""
        outputs: torch.Tensor = self.lstm(steps)[0]
        return outputs


class CharLSTM(nn.Module):
    """An embedding of 8 numbers, two layers of LSTM of 256, and scores of all characters at each place.

    Tokens (N, length) to (N, length, num_classes). The model is that of section 3 in McMahan et al.,
    Communication-Efficient Learning of Deep Networks from Decentralized Data (2017), which LEAF has too; there the last
    place alone is scored.
    """

    def __init__(self, num_classes: int, embedding: int = 8, width: int = 256) -> None:
        super().__init__()
        self.embedding = nn.Embedding(num_classes, embedding)
        self.recurrent1 = LSTMLayer(embedding, width)
        self.recurrent2 = LSTMLayer(width, width)
        self.head = nn.Linear(width, num_classes)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Scores of the character after each place."""
        scores: torch.Tensor = self.head(self.recurrent2(self.recurrent1(self.embedding(tokens))))
        return scores
