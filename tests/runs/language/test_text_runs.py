"""Language models trained on text by name: phones are roles of a play, the loss is ours, the figures are by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch.nn import functional

import ray_split as rs
from ray_split import cli
from tests.reference import assert_same_weights, unsplit
from tests.tiers import mostly_thorough

PLAY = "ACT I.\n\n" + "\n\n".join(
    f"{role}.\n{speech}"
    for number in range(12)
    for role, speech in (("CAT", f"Who ate the {number} mice?"), ("DOG", f"Not I, nor {number} of my friends."))
)


def run(folder: Path, **sections: object) -> rs.Result:
    (folder / "barn.txt").write_text(PLAY)
    told = {
        "data": {
            "name": "shakespeare", "path": folder, "kwargs": {"max_length": 9}, "batch_size": 4, "eval_batch_size": 5,
            "partition": {"name": "natural"},
        },
        "task": {"loss": "token_cross_entropy", "metrics": ["perplexity"]},
        "phones": {"count": 2, "local_steps": 2},
        "optimizer": {"name": "adam", "lr": 0.003},
        "cluster": {"backend": "inprocess"},
        "run": {"storage_path": str(folder), "name": "run", "rounds": 2},
    }  # fmt: skip
    return rs.fit(rs.Config(**{**told, **sections}), callbacks=[])


@pytest.mark.parametrize("schedule", mostly_thorough(["sequential", "parallel", "splitfed_v1"], "parallel"))
def test_a_model_of_transformers_learns_the_next_token_without_a_function_of_ones_own(
    tmp_path: Path, schedule: str
) -> None:
    pytest.importorskip("transformers", reason="transformers isn't installed")
    model = {
        "name": "tests.language_nets:decoder",
        "kwargs": {"family": "gpt2"},
        "cuts": ["transformer.h.0", "transformer.h.2"],
    }
    result = run(tmp_path, model=model, schedule={"name": schedule})
    rows = pd.read_json(Path(result.path) / "metrics.jsonl", lines=True)
    assert len(rows) == 2 and rows["train_loss"].map(math.isfinite).all()
    assert rows["val_perplexity"][1] < rows["val_perplexity"][0]
    phones = pd.read_parquet(Path(result.path) / "phones.parquet")
    assert set(phones["group"]) == {"barn: CAT", "barn: DOG"}

    settings = rs.Config.from_yaml(Path(result.path) / "config.yaml")
    test = rs.load_data(settings.data).test
    found = rs.load_model(result.path, trust=True).eval()
    with torch.no_grad():
        scores = found(torch.from_numpy(test.inputs)).logits.double()
    labels = torch.from_numpy(test.labels)
    assert (labels == -100).any()  # a role's last window is padded
    expected = functional.cross_entropy(scores.flatten(0, 1), labels.flatten()).exp().item()
    assert rows["test_perplexity"][1] == pytest.approx(expected, rel=1e-5)


def test_two_layers_of_lstm_split_are_the_untouched_model_bit_for_bit(tmp_path: Path) -> None:
    result = run(tmp_path, model={"name": "char_lstm", "kwargs": {"width": 16}}, phones={"count": 2})
    settings = rs.Config.from_yaml(Path(result.path) / "config.yaml")
    assert settings.model.num_classes == len(rs.load_data(settings.data).classes)
    assert_same_weights(unsplit(settings, loss=token_loss), result.path)


def token_loss(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(scores.flatten(0, 1), labels.flatten())


def test_the_model_of_text_that_is_told_nothing_says_what_it_needs(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(rs.SettingsError) as caught:
        run(tmp_path, model={"kwargs": {"length": 9, "vocabulary": 8}})
    assert str(caught.value).startswith(
        "model.name: transformer can't take this data, batches of shape (N, 9) of int64"
    )
    data = rs.Config(data={"name": "shakespeare", "path": tmp_path, "kwargs": {"max_length": 9}}).data
    classes = len(rs.load_data(data).classes)
    assert str(caught.value).endswith(f"Set model.kwargs to '{{vocabulary: {classes}, length: 9}}', or more of either.")
    result = run(tmp_path, model={"kwargs": {"vocabulary": classes, "length": 9}})
    assert result.error is None
    check_sample_of_characters(result, "auto")
    told = {"storage_path": str(tmp_path), "name": "told", "rounds": 1, "sample": "Who€"}
    check_sample_of_characters(run(tmp_path, model={"kwargs": {"vocabulary": classes, "length": 9}}, run=told), "told")
    told |= {"name": "none", "sample": "off"}
    assert "sample" not in run(tmp_path, model={"kwargs": {"vocabulary": classes, "length": 9}}, run=told).metrics
    assert capfd.readouterr().out == ""  # callbacks=[]: not a word


def check_sample_of_characters(result: rs.Result, kind: str) -> None:
    """What a loop over the trained model writes, taking the likeliest character each time."""
    settings = rs.Config.from_yaml(Path(result.path) / "config.yaml")
    data, model = rs.load_data(settings.data), rs.load_model(result.path)
    letters = list(data.classes)
    start = data.test.inputs[0][:8].tolist() if kind == "auto" else [*map(letters.index, "Who"), 0]
    found = list(start)
    with torch.no_grad():
        for _ in range(40):
            found.append(int(model(torch.tensor([found[-9:]]))[0, -1].argmax()))
    said = ["".join(letters[token] for token in some) for some in (start, found[len(start) :])]
    assert result.metrics["sample"] == dict(zip(("prompt", "text"), said, strict=True))


def test_what_it_writes_is_shown_after_the_table_and_as_an_object_where_logs_are_json(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "barn.txt").write_text(PLAY)
    flags = ["--data.name", "shakespeare", "--data.path", str(tmp_path), "--data.kwargs", "{max_length: 9}"]
    flags += ["--model.name", "char_lstm", "--model.kwargs", "{width: 4}", "--phones.count", "2", "--run.rounds", "1"]
    command = ["train", *flags, "--cluster.backend", "inprocess", "--run.storage_path", str(tmp_path), "--run.name"]
    assert cli.main([*command, "text"]) == 0
    lines, sample = capfd.readouterr().out.splitlines(), rs.Result.from_path(tmp_path / "text").metrics["sample"]
    assert lines[-3].startswith("└")
    assert lines[-2:] == [f"a sample: {sample['prompt']!r} | {sample['text']!r}", f"results: {tmp_path}/text"]
    assert cli.main([*command, "json", "--run.log_format", "json"]) == 0
    out, err = capfd.readouterr()
    found = [json.loads(line) for line in err.splitlines()]
    assert out == "" and [each["sample"] for each in found if "sample" in each] == [sample]


def test_its_loss_is_that_of_tokens_and_with_another_a_line_says_which(tmp_path: Path) -> None:
    assert rs.Config(data={"name": "text"}).task.loss == "token_cross_entropy"
    with pytest.raises(rs.SettingsError) as caught:
        run(tmp_path, task={"loss": "cross_entropy"}, model={"kwargs": {"length": 9, "vocabulary": 60}})
    assert str(caught.value).endswith(
        "Set task.loss to token_cross_entropy, if these are a label and scores of its classes for each token."
    )


@pytest.mark.thorough
def test_a_model_by_name_reads_the_play_in_its_own_tokens(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers isn't installed")
    pytest.importorskip("peft", reason="peft isn't installed")
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {word: number for number, word in enumerate(["<end>", "<other>", *sorted(set(PLAY.split()))])}
    inner = Tokenizer(models.WordLevel(words, unk_token="<other>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    folder = tmp_path / "model"
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token="<end>", unk_token="<other>", pad_token="<end>"
    )
    tokenizer.save_pretrained(folder)
    sizes = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 24}
    made = transformers.AutoConfig.for_model("llama", vocab_size=len(words), tie_word_embeddings=True, **sizes)
    torch.manual_seed(0)
    transformers.AutoModelForCausalLM.from_config(made).save_pretrained(folder)
    result = run(
        tmp_path, model={"name": f"hf:{folder}", "lora": {"r": 2}}, task={"metrics": ["perplexity"]},
        schedule={"name": "splitfed_v1"},
    )  # fmt: skip
    settings = rs.Config.from_yaml(Path(result.path) / "config.yaml")
    assert settings.data.kwargs == {"tokenizer": str(folder), "max_length": 9}
    assert settings.task.loss == "token_cross_entropy"
    data = rs.load_data(settings.data)
    told = tokenizer.decode(data.train.inputs[0]).split()
    assert data.num_classes == len(words) and len(told) == 9 and {"Who", "ate"} & set(told)
    assert result.metrics["test_perplexity"] > 1
    prompt = torch.from_numpy(data.test.inputs[:1, : min(8, int((data.test.labels[0] != -100).sum()))])
    trained = rs.load_model(result.path)
    theirs = trained.generate(prompt, max_new_tokens=40, do_sample=False, pad_token_id=0)[0, len(prompt[0]) :]
    assert result.metrics["sample"] == {"prompt": tokenizer.decode(prompt[0]), "text": tokenizer.decode(theirs)}
