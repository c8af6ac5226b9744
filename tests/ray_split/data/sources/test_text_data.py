"""Text as windows of tokens: which tokens, which labels, whose they are, and what is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ray_split import config
from ray_split.data import load as data
from ray_split.data.sources.text import text
from ray_split.data.sources.tokenizers import tokenizer_of
from ray_split.data.sources.windows import Tokens, one_each, packed, split
from ray_split.data.types import DataSet, Part
from ray_split.errors import SettingsError
from ray_split.messages.labels import IGNORED

BREAK = ord("\n")


def lines(folder: Path, *records: Any, name: str = "texts.jsonl") -> Path:
    file = folder / name
    file.write_text("".join(f"{json.dumps(record)}\n" for record in records), encoding="utf-8")
    return file


def all_of(found: DataSet) -> list[tuple[list[int], list[int]]]:
    """Samples of both parts, as pairs of inputs and labels, sorted."""
    both = [*zip(*found.train, strict=True), *zip(*found.test, strict=True)]
    return sorted((inputs.tolist(), labels.tolist()) for inputs, labels in both)


def said(sample: tuple[list[int], list[int]]) -> tuple[str, str]:
    """What bytes say, without the padding of labels."""
    inputs, labels = sample
    return bytes(inputs).decode(), bytes([label for label in labels if label != IGNORED]).decode()


def test_windows_have_the_next_token_of_each_place_and_overlap_by_one() -> None:
    found = packed([np.arange(3), np.arange(10, 14)], 3, pad=99)
    assert found.inputs.tolist() == [[0, 1, 2], [10, 11, 12]] and found.inputs.dtype == np.int64
    assert found.labels.tolist() == [[1, 2, 10], [11, 12, 13]] and found.labels.dtype == np.int64


def test_a_rest_is_padded_on_the_right_and_its_labels_ignored() -> None:
    found = packed([np.arange(5)], 3, pad=99)
    assert found.inputs.tolist() == [[0, 1, 2], [3, 99, 99]]
    assert found.labels.tolist() == [[1, 2, 3], [4, IGNORED, IGNORED]]
    for few in ([], [np.arange(1)]):  # nothing follows
        assert packed(few, 3, pad=99).inputs.shape == (0, 3)


def test_a_document_is_cut_or_padded_and_its_prompt_is_not_learned() -> None:
    found = one_each([Tokens(np.arange(6)), Tokens(np.arange(5), prompt=2), Tokens(np.arange(2), prompt=1)], 4, pad=9)
    assert found.inputs.tolist() == [[0, 1, 2, 3], [0, 1, 2, 3], [0, 9, 9, 9]]
    no = IGNORED
    assert found.labels.tolist() == [[1, 2, 3, 4], [no, 2, 3, 4], [1, no, no, no]]


def test_the_last_fifth_of_each_groups_samples_is_for_the_test() -> None:
    ids = np.array(["b"] * 5 + ["a"] * 10 + ["c"] * 2)
    samples = Part(np.arange(17)[:, None], np.arange(17)[:, None])
    found = split(samples, "writer", ids)
    assert found.test.inputs.ravel().tolist() == [4, 13, 14]
    assert found.groups["writer"].tolist() == ["b"] * 4 + ["a"] * 8 + ["c"] * 2
    assert found.train.labels.ravel().tolist() == [0, 1, 2, 3, *range(5, 13), 15, 16]


def test_without_groups_a_fifth_of_all_samples_is() -> None:
    samples = Part(np.arange(20)[:, None], np.arange(20)[:, None])
    found = split(samples, None, np.array([""] * 20))
    assert len(found.test.inputs) == 4 and not found.groups
    assert sorted([*found.train.inputs.ravel(), *found.test.inputs.ravel()]) == list(range(20))


def test_a_file_of_text_is_one_document_in_bytes(tmp_path: Path) -> None:
    file = tmp_path / "story.txt"
    file.write_text("\ufeffA café.\r\nEnd.\n\n", encoding="utf-8")
    found = text(file, "bytes", max_length=4)
    assert found.num_classes == 256 and found.classes is None
    whole = "A café.\nEnd.\n".encode()
    windows = [(whole[i : i + 4], whole[i + 1 : i + 5]) for i in range(0, len(whole) - 1, 4)]
    expected = [(list(a[: len(b)].ljust(4, b"\0")), [*b, *[IGNORED] * (4 - len(b))]) for a, b in windows]
    assert all_of(found) == sorted(expected)


def test_the_vocabulary_is_of_the_training_parts_characters(tmp_path: Path) -> None:
    file = lines(tmp_path, *({"text": each, "user": "u"} for each in ("bab", "abb", "aab", "bba", "axb")))
    found = text(file, "characters", max_length=4, by="user")
    assert found.classes == ["<unknown>", "\n", "a", "b"] and found.num_classes == 4
    assert found.train.inputs.tolist() == [[3, 2, 3, 1], [2, 3, 3, 1], [2, 2, 3, 1], [3, 3, 2, 1]]
    assert found.train.labels.tolist() == [[2, 3, 1, 2], [3, 3, 1, 2], [2, 3, 1, 3], [3, 2, 1, 2]]
    assert found.test.inputs.tolist() == [[2, 0, 3, 0]]  # x is in the test part alone, and padding has no number
    assert found.test.labels.tolist() == [[0, 3, 1, IGNORED]]
    assert found.groups["user"].tolist() == ["u"] * 4


def test_no_sample_is_of_two_groups(tmp_path: Path) -> None:
    said_by = {"ann": "aaaaaaaaaaa", "bob": "bbbbbbbbbbb"}
    records = [{"body": said_by[who], "who": who} for who in ("ann", "bob", "ann", "bob")]
    found = text(lines(tmp_path, *records), "bytes", max_length=4, field="body", by="who")
    letters = {who: ord(who[0]) for who in said_by}
    assert found.train.inputs.shape == (10, 4) and found.test.inputs.shape == (2, 4)
    for inputs, labels, who in zip(*found.train, found.groups["who"], strict=True):
        assert set(inputs) | set(labels) <= {letters[who], BREAK, IGNORED, 0}


def test_each_record_may_be_a_sample(tmp_path: Path) -> None:
    words = ("one", "three", "seventeen", "six", "ten")
    found = text(lines(tmp_path, *({"text": word} for word in words)), "bytes", max_length=5, pack=False)
    assert sorted(map(said, all_of(found))) == [
        ("one\0\0", "ne\n"), ("seven", "event"), ("six\0\0", "ix\n"), ("ten\0\0", "en\n"), ("three", "hree\n"),
    ]  # fmt: skip


def test_each_line_of_plain_text_may_be_a_sample(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n\ntwo\nsix\n")
    (tmp_path / "b.txt").write_text("ten\n")
    (tmp_path / ".hidden.txt").write_text("no")
    found = text(tmp_path, "bytes", max_length=4, pack=False)
    assert sorted(map(said, all_of(found))) == [
        (f"{word}{end}", f"{word[1:]}\n") for word, end in zip(("one", "six", "ten", "two"), "\0\0\0\0", strict=True)
    ]


def test_the_files_of_a_folder_are_its_groups(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / f"{name}.txt").write_text(name * 11)
    found = text(tmp_path, "bytes", max_length=2, by="file")
    assert found.groups["file"].tolist() == ["a.txt"] * 5 + ["b.txt"] * 5
    assert (found.train.inputs[:5] == ord("a")).all() and len(found.test.inputs) == 2


def test_of_instructions_the_completion_is_learned(tmp_path: Path) -> None:
    records = [{"ask": "2+3=", "say": "5"}, {"ask": "7-4=", "say": "3"}, {"ask": "9+9=", "say": "18"}]
    found = text(lines(tmp_path, *records), "bytes", max_length=6, prompt="ask", completion="say")
    samples = all_of(found)
    assert [said(each) for each in samples] == [("2+3=5\0", "5\n"), ("7-4=3\0", "3\n"), ("9+9=18", "18\n")]
    assert samples[0][1] == [IGNORED, IGNORED, IGNORED, ord("5"), BREAK, IGNORED]


def test_a_record_whose_prompt_fills_a_sample_is_left_out_and_told_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    records = [{"p": "1", "c": "2"}, {"p": "3", "c": "4"}, {"p": "555555555", "c": "6"}, {"p": "7", "c": "8"}]
    with caplog.at_level("WARNING"):
        found = text(lines(tmp_path, *records), "bytes", max_length=3, prompt="p", completion="c")
    assert [said(each)[1] for each in all_of(found)] == ["2\n", "4\n", "8\n"]
    assert "1 of 4 texts are left out: no token to learn among the first 3" in caplog.text


def test_by_its_name_it_is_loaded_for_natural_partitions(tmp_path: Path) -> None:
    file = lines(tmp_path, *({"text": "abcdefghij" * 4, "user": user} for user in (7, 8, 9)))
    settings = config.Data(
        name="text", path=file, kwargs={"tokenizer": "characters", "max_length": 4, "by": "user"}, val_fraction=0.1
    )
    found = data.load(settings)
    assert found.classes == ("<unknown>", *"\nabcdefghij") and found.num_classes == 12
    assert len(found.train.inputs) + len(found.val.inputs) == 24 and len(found.test.inputs) == 6
    assert set(found.groups["user"]) == {"7", "8", "9"} and len(found.groups["user"]) == len(found.train.inputs)
    again = data.load(settings)
    assert all((getattr(found, part).inputs == getattr(again, part).inputs).all() for part in ("train", "val", "test"))


class Words:
    """What is used of a tokenizer of transformers: words from 10 on."""

    bos_token_id, eos_token_id, pad_token_id = 1, 2, 3

    def __init__(self, begins: bool = True) -> None:
        self.begins, self.vocabulary = begins, {word: 10 + i for i, word in enumerate(["the", "cat", "sat"])}

    def __len__(self) -> int:
        return 13

    def __call__(self, texts: Any, add_special_tokens: bool = True, verbose: bool = True) -> dict[str, Any]:
        if isinstance(texts, str):
            return {"input_ids": [1] if self.begins else []}
        assert not add_special_tokens
        return {"input_ids": [[self.vocabulary[word] for word in each.split()] for each in texts]}


def with_transformers(monkeypatch: pytest.MonkeyPatch, found: Any) -> list[Any]:
    """What its tokenizers are asked for."""
    asked: list[Any] = []

    def from_pretrained(*args: Any, **kwargs: Any) -> Any:
        asked.append((*args, kwargs))
        if isinstance(found, Exception):
            raise found
        return found

    auto = SimpleNamespace(from_pretrained=from_pretrained)
    monkeypatch.setitem(sys.modules, "transformers", SimpleNamespace(AutoTokenizer=auto))
    return asked


@pytest.mark.parametrize("begins", [True, False])
def test_a_tokenizer_of_transformers_puts_its_own_tokens_around_each_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begins: bool
) -> None:
    asked = with_transformers(monkeypatch, Words(begins))
    file = lines(tmp_path, *[{"text": "the cat"}, {"text": "cat"}, {"text": "sat"}])
    found = text(file, "some/words", max_length=4, pack=False)
    assert asked == [("some/words", {})] and found.num_classes == 13
    assert [inputs for inputs, _ in all_of(found)] == (
        [[1, 10, 11, 3], [1, 11, 3, 3], [1, 12, 3, 3]] if begins else [[10, 11, 3, 3], [11, 3, 3, 3], [12, 3, 3, 3]]
    )
    no = IGNORED
    assert [labels for _, labels in all_of(found)] == (
        [[10, 11, 2, no], [11, 2, no, no], [12, 2, no, no]]
        if begins
        else [[11, 2, no, no], [2, no, no, no], [2, no, no, no]]
    )


def test_a_file_of_gguf_is_told_apart_from_its_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = with_transformers(monkeypatch, Words())
    tokenizer_of("/models/small::q4.gguf")
    tokenizer_of("/models/small", "q8.gguf")
    assert asked == [("/models/small", {"gguf_file": "q4.gguf"}), ("/models/small", {"gguf_file": "q8.gguf"})]


def test_a_tokenizer_on_disk_gives_what_transformers_gives(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers isn't installed")
    from tokenizers import Tokenizer, models, pre_tokenizers

    inner = Tokenizer(models.WordLevel({"<end>": 0, "?": 1, "the": 2, "cat": 3, "sat": 4}, unk_token="?"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    made = transformers.PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<end>", unk_token="?")
    made.save_pretrained(tmp_path / "words")
    file = lines(tmp_path, *({"text": each} for each in ("the cat sat", "sat dog", "cat")))
    found = text(file, str(tmp_path / "words"), max_length=3, pack=False)
    assert [inputs for inputs, _ in all_of(found)] == [[2, 3, 4], [3, 0, 0], [4, 1, 0]]
    assert [labels for _, labels in all_of(found)] == [[3, 4, 0], [0, IGNORED, IGNORED], [1, 0, IGNORED]]
    assert found.num_classes == 5


CHOICES = "Set it to characters, bytes, or the name or folder of a tokenizer of transformers."


def refusal(path: Path | None, **kwargs: Any) -> str:
    with pytest.raises(SettingsError) as caught:
        text(path, **{"tokenizer": "bytes", **kwargs})
    return str(caught.value)


@pytest.mark.parametrize(
    ("kwargs", "line"),
    [
        ({"tokenizer": None}, f"data.kwargs: tokenizer is not set. {CHOICES}"),
        ({"tokenizer": 5}, f"data.kwargs: tokenizer can't be 5. {CHOICES}"),
        ({"tokenizer": "byte"}, f"data.kwargs: there is no 'byte'. Did you mean bytes? {CHOICES}"),
        ({"gguf_file": "a.gguf"}, "data.kwargs: gguf_file can't be used with tokenizer bytes. Remove gguf_file."),
        ({"max_length": 0}, "data.kwargs: max_length can't be 0. Set it to a whole number of 1 or more."),
        ({"pack": "no"}, "data.kwargs: pack can't be 'no'. Set it to true or false."),
        ({"by": 3}, "data.kwargs: by can't be 3. Set it to a name."),
        (
            {"prompt": "q"},
            "data.kwargs: completion is not set. Set completion too, to the name of a field, or neither.",
        ),
        (
            {"by": "writer"},
            "data.kwargs: there is no field 'writer' in line 1 of '{file}'. Name one of its fields, which are file, "
            "text and n.",
        ),
        (
            {"field": "n"},
            "data.kwargs: the field 'n' in line 1 of '{file}' is None, which is not text. Name a field that has text "
            "in each line.",
        ),
        (
            {"max_length": 100},
            "data.path: '{file}' has 1 samples, of which a fifth is too few to test on. Give more text, or set a "
            "max_length of less than 100 in data.kwargs.",
        ),
    ],
)
def test_settings_that_do_not_fit_are_refused(tmp_path: Path, kwargs: dict[str, Any], line: str) -> None:
    file = lines(tmp_path, {"text": "some words", "n": None})
    assert refusal(file, **kwargs) == line.format(file=file)


def test_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    layout = "a text file, a .jsonl file, or a folder of .txt or of .jsonl files"
    assert refusal(None) == f"data.path: is not set. Add --data.path PATH, where PATH is {layout}."
    assert refusal(tmp_path) == f"data.path: '{tmp_path}' has neither .txt nor .jsonl files. Give {layout}."
    empty = tmp_path / "empty.txt"
    empty.write_text(" \n")
    assert (
        refusal(empty) == f"data.path: '{empty}' has no text with a token to predict. Give {layout}, with text in it."
    )
    old = tmp_path / "old.txt"
    old.write_bytes(b"caf\xe9")
    assert refusal(old) == (
        f"data.path: '{old}' is not text in UTF-8: byte 3 is 0xe9. Convert it, for example with: "
        "iconv -f latin1 -t utf-8."
    )
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"text": "a"}\n["b"]\n')
    line = 'Write one object in each line, such as {"text": "..."}.'
    assert refusal(broken) == f"data.path: line 2 of '{broken}' is not a JSON object: ['b']. {line}"
    broken.write_text('{"text": \n')
    assert refusal(broken) == f"""data.path: line 1 of '{broken}' is not a JSON object: '{{"text": '. {line}"""
    assert refusal(tmp_path) == f"data.path: '{tmp_path}' has both .txt and .jsonl files. Give {layout}."


def test_without_transformers_a_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = lines(tmp_path, {"text": "some words"})
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert refusal(file, tokenizer="gpt2") == (
        "data.kwargs: tokenizer 'gpt2' needs transformers, which is not installed. Run: pip install "
        "'ray-split[language]', or set tokenizer to characters or bytes."
    )


def test_what_transformers_says_of_a_tokenizer_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = lines(tmp_path, {"text": "some words"})
    with_transformers(monkeypatch, OSError("there is no\nsuch folder"))
    found = refusal(file, tokenizer="/models/none")
    assert found.startswith(
        "data.kwargs: transformers can't load the tokenizer '/models/none': OSError: there is no such"
    )
    assert found.endswith(f"{CHOICES}") and "\n" not in found


def test_a_text_of_nothing_but_unknown_characters_has_a_vocabulary_too(tmp_path: Path) -> None:
    (tmp_path / "nothing.txt").write_text("\0" * 50)
    found = text(tmp_path / "nothing.txt", "characters", max_length=5)
    assert found.classes == ["<unknown>", "\n"] and not found.train.inputs.any()


def test_samples_of_a_length_that_no_machine_holds_are_refused(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("words")
    for pack in (True, False):
        assert "needs at least" in refusal(tmp_path / "words.txt", max_length=10**13, pack=pack)
