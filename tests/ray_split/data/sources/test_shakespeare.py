"""Plays as files: who says what, and what of a file nobody says."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from ray_split import config
from ray_split.data import load as data
from ray_split.data.sources.plays import shakespeare, speeches
from ray_split.errors import SettingsError
from ray_split.messages.labels import IGNORED

ABOVE = """The Project Gutenberg eBook of The Baker

COOK.
This is not a part of the play.

*** START OF THE PROJECT GUTENBERG EBOOK THE BAKER ***

THE BAKER

PERSONS REPRESENTED.

FIRST BAKER.
COOK, her Friend.

SCENE: A kitchen.

ACT I.

SCENE I. The Kitchen.

[Enter FIRST BAKER, and COOK
with a spoon.]

FIRST BAKER.
Who eats my bread?
Nobody [aside] does.

[Exit a Mouse.]

Then I must eat alone.

COOK
I come, <<NO COPIES ARE TO BE SOLD>>and I am hungry.

FIRST BAKER. [Aside.]
                       Alas!

Enter a second Mouse, with
a very small hat.

COOK.
Act as you like.

SCENE II. A Street.

Cook. The end of it.

THE END

*** END OF THE PROJECT GUTENBERG EBOOK THE BAKER ***

COOK.
Nor is this.
"""

BESIDE = """The Tragedie of the Mouse

Actus Primus. Scoena Prima.

Enter Mouse and two Cats.

  Mouse. Who's there?
  1.Cat. Nay answere me: it is
my house

   Mouse. O ho
Enter a Dog.

Farewell the[m]selues

   2 Cat. He's gone, St. Mouse. indeed

Exeunt.

Finis Actus Primus.

Actus Secundus.

Alarum within. Enter the Dog
and Cats.

  Mouse. I am heere.

FINIS. THE TRAGEDIE of the Mouse.

  Mouse. No.
"""


def test_roles_names_stand_above_what_they_say() -> None:
    assert speeches(ABOVE) == {
        "FIRST BAKER": ["Who eats my bread?\nNobody  does.\nThen I must eat alone.", "Alas!"],
        "COOK": ["I come, and I am hungry.", "Act as you like."],
    }


def test_roles_names_stand_beside_what_they_say() -> None:
    assert speeches(BESIDE) == {
        "MOUSE": ["Who's there?", "O ho\nFarewell the[m]selues", "I am heere."],
        "1 CAT": ["Nay answere me: it is\nmy house"],
        "2 CAT": ["He's gone, St. Mouse. indeed"],
    }


@pytest.mark.parametrize(
    "text", ["", "\n\n", "A line.\n\nAnd another\n", "SONNETS\n\nI\n\nFrom fairest\n\nII\n\nWhen\n"]
)
def test_what_is_no_play_has_no_roles(text: str) -> None:
    assert speeches(text) == {}


def play(**said: list[str]) -> str:
    """Roles that speak in turn."""
    turns = [
        (role, speech) for each in zip(*said.values(), strict=True) for role, speech in zip(said, each, strict=True)
    ]
    return "ACT I.\n\n" + "\n\n".join(f"{role}.\n{speech}" for role, speech in turns)


def test_each_role_of_each_play_is_a_group(tmp_path: Path) -> None:
    (tmp_path / "first.txt").write_text(play(ANN=["abab", "baba"], BOB=["aabb", "bbaa"]))
    (tmp_path / "second.txt").write_text(play(ANN=["abba", "baab"], LOW=["a", "b"]) + "\n\nONCE.\n" + "c" * 50)
    found = shakespeare(tmp_path, max_length=3, min_characters=9)
    assert Counter(found.groups["role"].tolist()) == {"first: ANN": 2, "first: BOB": 2, "second: ANN": 2}
    assert found.classes == ["<unknown>", "\n", "a", "b"] and found.num_classes == 4
    # "abab\nbaba\n": the last fifth of three windows is one of them
    assert found.train.inputs[:2].tolist() == [[2, 3, 2], [3, 1, 3]]
    assert found.train.labels[:2].tolist() == [[3, 2, 3], [1, 3, 2]]
    assert found.test.inputs[0].tolist() == [2, 3, 2]
    assert found.test.labels[0].tolist() == [3, 2, 1]
    assert len(found.test.inputs) == 3 and not (found.train.labels == IGNORED).any()


def test_by_its_name_its_samples_are_leafs_of_80_characters(tmp_path: Path) -> None:
    sentence = "What light through yonder window breaks? " * 30
    (tmp_path / "play.txt").write_text(play(ROMEO=[sentence, sentence], NURSE=["Peace!", "Come."]))
    (tmp_path / "notes.txt").write_text("Nobody speaks here.")
    found = data.load(config.Data(name="shakespeare", path=tmp_path, val_fraction=0))
    assert found.train.inputs.shape == (25, 80) and found.test.inputs.shape == (6, 80)
    assert set(found.groups["role"].tolist()) == {"play: ROMEO"}  # NURSE has fewer than 160 characters
    first = "".join(found.classes[token] for token in found.train.inputs[0])
    assert first == sentence[:80]
    assert (found.train.labels[:, :-1] == found.train.inputs[:, 1:]).all()
    assert found.train.inputs.dtype == found.train.labels.dtype == np.int64


def test_which_files_are_plays_may_be_told(tmp_path: Path) -> None:
    for name in ("a_one.txt", "b_two.txt"):
        (tmp_path / name).write_text(play(ANN=["ab" * 20, "ba" * 20]))
    found = shakespeare(tmp_path, "bytes", max_length=8, files="b_*")
    assert set(found.groups["role"]) == {"b_two: ANN"} and found.num_classes == 256
    alone = shakespeare(tmp_path / "a_one.txt", "bytes", max_length=8)
    assert set(alone.groups["role"]) == {"a_one: ANN"}


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text(play(ANN=["a", "b"]))
    for given, line in (
        ({"path": None}, "data.path: is not set. Add --data.path FOLDER, where FOLDER has plays as .txt."),
        (
            {},
            f"data.path: no '*.txt' in '{tmp_path}' has a role with 2 speeches and 160 characters. Give a folder of "
            "plays whose speeches have the role's name above them or before them, as Gutenberg has it.",
        ),
        ({"min_characters": -1}, "data.kwargs: min_characters can't be -1. Set it to a whole number."),
        ({"files": ""}, "data.kwargs: files can't be ''. Set it to a pattern such as *.txt."),
    ):
        with pytest.raises(SettingsError) as caught:
            shakespeare(**{"path": tmp_path, **given})
        assert str(caught.value) == line
