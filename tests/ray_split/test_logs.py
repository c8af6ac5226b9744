from __future__ import annotations

import json
import logging
import sys
from contextvars import Context
from pathlib import Path
from typing import Any

import pytest

import ray_split as rs
from ray_split import logs
from tests.runs.phones.test_quarantine import SPOILT, config


def test_a_record_says_its_run_and_round_also_to_a_handler_of_somebody_elses(caplog: pytest.LogCaptureFixture) -> None:
    def log() -> None:
        logger = logs.get("ray_split.driver.training_loop")
        logger.warning("before")
        with logs.run("digits"):
            logs.at(3)
            logger.warning("here")
            logger.warning("there", extra=logs.about(1, (4, 7)))
        logger.warning("after")

    Context().run(log)  # an empty one: a test before this one may have run rounds without a run's name
    said = [(r.getMessage(), r.run, r.round, r.phones) for r in caplog.records]  # type: ignore[attr-defined]
    assert said == [
        ("before", None, None, None), ("here", "digits", 3, None), ("there", "digits", 1, [4, 7]),
        ("after", None, None, None),
    ]  # fmt: skip


def lines(text: str) -> list[dict[str, Any]]:
    """Every line, as JSON."""
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def quarantined(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """The log of a run that leaves phone 4 out."""
    data, _ = SPOILT["unreadable"]
    rs.fit(config(tmp_path, "skipped", data, run={"log_format": "json"}))
    captured = capsys.readouterr()
    assert captured.out == ""
    return lines(captured.err)


def test_as_json_every_line_is_an_object_with_the_same_keys(quarantined: list[dict[str, Any]]) -> None:
    keys = ["time", "level", "logger", "message", "run", "round", "phones"]
    assert all(list(line)[:7] == keys and line["run"] == "skipped" for line in quarantined)
    assert {line["logger"] for line in quarantined} == {"ray_split.callbacks"}


def test_a_quarantine_names_round_phone_and_reason(quarantined: list[dict[str, Any]]) -> None:
    (line,) = [line for line in quarantined if line["level"] == "WARNING"]
    assert (line["round"], line["phones"]) == (0, [4])
    assert "OSError: a broken image" in line["reason"] and "without phone 4" in line["message"]


def test_a_round_has_its_figures_and_the_end_its_summary(quarantined: list[dict[str, Any]], tmp_path: Path) -> None:
    folder = tmp_path / "skipped"
    rounds = [line for line in quarantined if "metrics" in line]
    assert [line["metrics"] for line in rounds] == lines((folder / "metrics.jsonl").read_text())
    assert [line["round"] for line in rounds] == [0, 1]
    assert quarantined[-1]["summary"] == json.loads((folder / "summary.json").read_text())
    assert quarantined[-1]["results"] == str(folder)


def test_a_figure_that_is_no_number_is_null_and_an_exception_is_told() -> None:
    try:
        raise ValueError("wrong")
    except ValueError:
        raised = sys.exc_info()
    record = logging.LogRecord("ray_split.x", logging.ERROR, "", 0, "%s!", ("oh",), raised)
    record.fields = {"loss": float("nan")}
    line = json.loads(logs.Json().format(record))
    assert (line["message"], line["loss"], line["run"]) == ("oh!", None, None)
    assert line["exception"].endswith("ValueError: wrong")


def test_loggers_are_as_they_were_after_a_run(quarantined: list[dict[str, Any]]) -> None:
    for name in logs.PACKAGES:
        logger = logging.getLogger(name)
        assert (logger.handlers, logger.level, logger.propagate) == ([], logging.NOTSET, True)


def test_another_log_format_is_refused() -> None:
    with pytest.raises(rs.SettingsError, match=r"run\.log_format: must be text or json, not 'xml'"):
        rs.Config(run={"log_format": "xml"})


def test_a_resumed_run_may_log_in_another_format(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = {"name": "tests.runs.phones.test_quarantine:rings"}
    rs.fit(config(tmp_path, "r", data), callbacks=[])
    again = config(tmp_path, "r", data, run={"log_format": "json", "resume": "auto", "rounds": 3})
    assert rs.fit(again).metrics["rounds"] == 3
    assert [line["round"] for line in lines(capsys.readouterr().err) if "metrics" in line] == [2]
