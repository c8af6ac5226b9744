"""What a notebook shows: tables of settings and results, one line of progress, and the names after `rs.`."""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import ray_split as rs
from ray_split import callbacks
from tests.ray_split.driver.test_ending_early import After, config


class Cells(HTMLParser):
    """A table's texts, and the tags that there are."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.tags: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def pairs(self) -> dict[str, str]:
        return dict(zip(self.texts[1::2], self.texts[2::2], strict=False))


def test_a_config_shows_what_is_not_the_default() -> None:
    assert Cells(rs.Config()._repr_html_()).texts == ["ray_split.Config", "All settings are the defaults."]
    settings = rs.Config(
        phones={"count": 7}, data={"partition": {"name": "dirichlet", "alpha": 0.1}}, model={"kwargs": {"width": 3}}
    )
    cells = Cells(settings._repr_html_())
    assert cells.pairs() == {
        "model.kwargs": "{width: 3}", "data.partition.name": "dirichlet", "data.partition.alpha": "0.1",
        "phones.count": "7",
    }  # fmt: skip
    assert cells.texts[-1].endswith(" more as by default.")


def test_what_is_shown_is_escaped_and_without_credentials() -> None:
    evil = "<script>alert('x')</script>"
    shown = rs.Config(
        model={"kwargs": {"a": evil}}, run={"storage_path": "s3://me:secret@bucket/x?token=abc"}
    )._repr_html_()
    assert "<script" not in shown and "secret" not in shown and "abc" not in shown
    assert Cells(shown).pairs()["model.kwargs"] == f"{{a: {evil}}}"
    failed = rs.Result(f"/x/{evil}", {"status": "failed", "error": evil}, None, evil)
    cells = Cells(failed._repr_html_())
    assert cells.pairs() == {"status": "failed", "error": evil, "path": f"/x/{evil}"} and "script" not in cells.tags


def test_a_result_shows_how_it_ended(tmp_path: Path) -> None:
    result = rs.fit(config(tmp_path), callbacks=[After(2)])
    found = Cells(result._repr_html_()).pairs()
    assert (found["status"], found["rounds"], found["path"]) == ("finished", "2", result.path)
    assert found["test_accuracy"] == f"{result.metrics['test_accuracy']:.6g}"
    assert found["stopped_by"] == "callback After: rs.STOP" and "error" not in found


def test_tab_offers_the_public_names_and_nothing_else() -> None:
    assert dir(rs) == sorted(rs.__all__)
    assert all(getattr(rs, name) is not None for name in dir(rs))


class Fails(rs.Callback):
    def __init__(self, round: int) -> None:
        self.round = round

    def on_run_start(self, settings: rs.Config, where: list[str], first_round: int) -> None:
        if self.round < 0:
            raise ValueError("at once")

    def on_round_end(self, row: dict[str, Any]) -> None:
        if row["round"] == self.round:
            raise ValueError("later")


def test_a_run_that_failed_without_a_round_frees_its_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = config(tmp_path, rounds=2)
    with pytest.raises(rs.RunFailedError, match="at once"):
        rs.fit(settings, callbacks=[Fails(-1)])
    assert rs.Result.from_path(tmp_path / "r").metrics["status"] == "failed"  # until the name is used again
    other = settings.with_values(optimizer={"lr": 0.3})  # not what is resumed
    result = rs.fit(other, callbacks=[])
    assert (result.metrics["status"], result.error) == ("finished", None)
    assert "lr: 0.3" in (tmp_path / "r" / "config.yaml").read_text()
    said = f"{tmp_path / 'r'}: a run of this name failed before it had a round, and is replaced"
    assert [record.getMessage() for record in caplog.records].count(said) == 1
    with pytest.raises(rs.SettingsError, match="holds a run"):
        rs.fit(other, callbacks=[])
    later = settings.with_values(run={"name": "later"})
    with pytest.raises(rs.RunFailedError, match="later"):
        rs.fit(later, callbacks=[Fails(0)])
    with pytest.raises(rs.SettingsError, match="holds a run"):  # it has a round
        rs.fit(later, callbacks=[])


class Handle:
    """What IPython's `display` gives, and all that it was told to show."""

    def __init__(self) -> None:
        self.shown: list[dict[str, str]] = []

    def update(self, data: dict[str, str], raw: bool) -> None:
        self.shown.append(data)


def test_in_a_notebook_one_line_is_written_anew_round_by_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    handle = Handle()

    def display(data: dict[str, str], raw: bool, display_id: bool) -> Handle:
        handle.update(data, raw)
        return handle

    ipython, module = ModuleType("IPython"), ModuleType("IPython.display")
    ipython.get_ipython = lambda: SimpleNamespace(kernel="one")  # type: ignore[attr-defined]
    module.display = display  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    rs.fit(config(tmp_path, rounds=3))
    said = capsys.readouterr().out
    assert "3 phones" in said and "run finished" in said and "round 1/3" not in said
    texts = [data["text/plain"] for data in handle.shown]
    assert texts[0] == "starting" and texts[-1].startswith("round 3/3  loss ") and "val_accuracy" in texts[-1]
    assert "<progress value='3.0000' max='3'></progress>" in handle.shown[-1]["text/html"]
    assert [text.partition("  ")[0] for text in texts if " loss -" not in text][-1] == "round 3/3"
    monkeypatch.setattr(ipython, "get_ipython", lambda: None)  # IPython without a kernel: a terminal
    assert not isinstance(callbacks.progress(), callbacks.NotebookProgress)
