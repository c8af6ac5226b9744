"""Keys of transformers' configurations: what no family knows is refused, and what its code reads is not."""

from __future__ import annotations

import pytest

from ray_split.errors import SettingsError
from ray_split.models.configuration_keys import check_keys
from tests.language_nets import LANGUAGE_MODELS, MASKED_ENCODERS

transformers = pytest.importorskip("transformers", reason="transformers isn't installed")

# falcon's own name for it is ffn_hidden_size
KNOWN = {family: each for family, each in {**LANGUAGE_MODELS, **MASKED_ENCODERS}.items() if family != "falcon"}


@pytest.mark.parametrize("family", KNOWN)
@pytest.mark.few(8)
def test_keys_that_a_familys_code_reads_are_taken(family: str) -> None:
    name, told, _ = KNOWN[family]
    check_keys("hf-config:", family, getattr(transformers, f"{name}Config"), told)


def test_a_key_that_it_does_not_know_is_told_of_with_the_one_that_may_be_meant() -> None:
    with pytest.raises(SettingsError, match=r"a configuration of falcon has no 'intermediate_size'\."):
        check_keys("hf-config:", "falcon", transformers.FalconConfig, ["hidden_size", "intermediate_size"])
    with pytest.raises(SettingsError, match=r"has no 'n_heads'\. Did you mean n_head\?"):
        check_keys("hf-config:", "gpt2", transformers.GPT2Config, ["n_embd", "n_heads"])
    with pytest.raises(SettingsError, match=r"has no '\.\.\.'\. Leave it out"):
        check_keys("hf-config:", "gpt2", transformers.GPT2Config, ["n_embd", "..."])
