"""What the bench refuses before it starts a Ray: one line, status 2, nothing written."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.bench.__main__ import main


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["--out", "."],
            "error: --out: . can't be read: [Errno 21] Is a directory: '.'. Name a file that jobs.bench has written",
        ),
        (["--out", "bad.json"], "error: --out: bad.json can't be read"),
        (["--out", "list.json"], "error: --out: list.json is not a file of rows"),
        (["--out", "bad.json/x.json"], "error: --out: "),
        (["--repeats", "0"], "error: --repeats: must be at least 1, not 0."),
        (["--calls", "-3"], "error: --calls: must be at least 1, not -3."),
        (["--repeats", "many"], "error: --repeats: must be a whole number, not 'many'."),
        (["exchange of mpl"], "Did you mean exchange of mlp?"),
        (["--repeat", "3"], "Did you mean --repeats?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_can_not_be_is_one_line(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.json").write_text("{")
    (tmp_path / "list.json").write_text("[1]")
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert (printed.out, printed.err.count("\n")) == ("", 1)
    assert said in printed.err
    assert {path.name for path in tmp_path.iterdir()} == {"bad.json", "list.json"}
