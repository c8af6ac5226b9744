from __future__ import annotations

import pytest
import torch

from ray_split.models.transformer import Transformer


def test_a_token_sees_itself_and_those_before_it() -> None:
    torch.manual_seed(0)
    model = Transformer(num_classes=6, vocabulary=10)
    tokens = torch.randint(0, 10, (2, 7))
    changed = tokens.clone()
    changed[:, 4] = (tokens[:, 4] + 1) % 10
    one, other = model(tokens), model(changed)
    assert one.shape == (2, 7, 6)
    assert torch.allclose(one[:, :4], other[:, :4], atol=1e-6)
    assert all((one[:, place] - other[:, place]).abs().max() > 1e-4 for place in (4, 5, 6))


def test_a_tied_head_has_the_embeddings_weights() -> None:
    model = Transformer(num_classes=10, vocabulary=10, tied=True)
    assert model.head.weight is model.embedding.tokens.weight
    assert Transformer(num_classes=10, vocabulary=10).head.weight is not model.embedding.tokens.weight


@pytest.mark.parametrize(
    ("kwargs", "message"), [({"width": 30}, "width 30"), ({"tied": True, "num_classes": 4}, "vocabulary, 32, not 4")]
)
def test_numbers_that_do_not_go_together_are_refused(kwargs: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Transformer(**kwargs)
