"""A run that ends before its last round: a callback or run.stop asks for it, or a callback raises."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas
import pytest

import ray_split as rs
from ray_split import cli
from ray_split.callbacks import STOP, BarProgress, PlainProgress, listeners
from ray_split.driver.guarded_callbacks import Guarded
from ray_split.driver.stop_rule import StopRule
from tests.runs.equality.test_same_bytes import model_bytes
from tests.tiers import thorough


def config(path: Path, name: str = "r", rounds: int = 6, schedule: str = "splitfed_v1", **sections: Any) -> rs.Config:
    run = {"storage_path": str(path), "name": name, "rounds": rounds, **sections.pop("run", {})}
    return rs.Config(
        model=sections.pop("model", {"name": "tests.nets:three_linear"}),
        phones={"count": 3, "local_steps": 2, **sections.pop("phones", {})},
        data={"name": "synthetic", "kwargs": {"samples": 90, "shape": [4], "num_classes": 3}},
        schedule={"name": schedule}, cluster={"backend": "inprocess"}, run=run, **sections,
    )  # fmt: skip


class After(rs.Callback):
    """Asks for the end after so many rounds, and keeps what it was told."""

    def __init__(self, rounds: int) -> None:
        self.rounds, self.rows, self.summary = rounds, [], {}  # type: ignore[var-annotated]

    def on_round_end(self, row: dict[str, Any]) -> Any:
        self.rows.append(row)
        return rs.STOP if row["round"] + 1 == self.rounds else None

    def on_run_end(self, summary: dict[str, Any], path: str) -> None:
        self.summary = summary


def figures(result: rs.Result) -> dict[str, Any]:
    """The last round's, but for those of time."""
    return {k: v for k, v in json.loads(rows_of(result)[-1]).items() if not k.endswith("seconds")}


def rows_of(result: rs.Result) -> list[str]:
    return (Path(result.path) / "metrics.jsonl").read_text().splitlines()


@pytest.mark.parametrize("schedule", ["splitfed_v1", "splitfed_v3", *thorough("sequential", "parallel", "unsplit")])
@pytest.mark.few(1)
def test_a_callback_that_says_stop_leaves_what_a_run_of_so_many_rounds_leaves(tmp_path: Path, schedule: str) -> None:
    own: dict[str, Any] = {"phones": {"held_out": 0.3}, "checkpoint": {"every": 2}, "run": {"eval_every": 5}}
    after = After(3)
    stopped = rs.fit(config(tmp_path, "stopped", 6, schedule, **own), callbacks=[After(9), after])
    whole = rs.fit(config(tmp_path, "whole", 3, schedule, **own), callbacks=[])
    assert (stopped.metrics["status"], stopped.metrics["stopped_by"]) == ("finished", "callback After: rs.STOP")
    assert stopped.error is None and len(after.rows) == 3 and after.summary["status"] == "finished"
    assert model_bytes(stopped.path) == model_bytes(whole.path)
    tested = {k: v for k, v in figures(whole).items() if not k.startswith("val_")}  # one of the whole run's last round
    assert tested.items() <= figures(stopped).items() and "test_loss" in tested
    phones = [pandas.read_parquet(Path(each.path) / "phones.parquet") for each in (stopped, whole)]
    pandas.testing.assert_frame_equal(*phones)
    assert stopped.checkpoint and stopped.checkpoint.endswith("round_000003")


def test_resumed_the_same_callback_ends_it_at_once_and_without_it_the_run_goes_on(tmp_path: Path) -> None:
    first = rs.fit(config(tmp_path), callbacks=[After(2)])
    before = model_bytes(first.path)
    again, resumed = After(2), config(tmp_path, run={"resume": "auto"})
    same = rs.fit(resumed, callbacks=[again])
    assert again.rows == [] and model_bytes(same.path) == before
    assert (same.metrics["status"], same.metrics["rounds"]) == ("finished", 2)
    assert same.metrics["stopped_by"] == "callback After: rs.STOP"
    on = rs.fit(resumed, callbacks=[])
    assert (on.metrics["rounds"], on.metrics["stopped_by"]) == (6, None)
    assert model_bytes(on.path) == model_bytes(rs.fit(config(tmp_path, "whole"), callbacks=[]).path)


def test_run_stop_ends_a_run_and_counts_patience_over_its_resumes(tmp_path: Path) -> None:
    own = {"optimizer": {"lr": 1e-30}, "run": {"stop": {"patience": 3}}}  # no round is better than the first
    whole = rs.fit(config(tmp_path, "whole", 9, **own), callbacks=[])
    assert (whole.metrics["rounds"], whole.metrics["status"]) == (4, "finished")
    assert whole.metrics["stopped_by"] == "run.stop: 3 evaluated rounds without a better validation"
    assert "test_accuracy" in json.loads(rows_of(whole)[-1])
    part = rs.fit(config(tmp_path, "part", 2, **own), callbacks=[])
    assert part.metrics["stopped_by"] is None
    on = own | {"run": {"stop": {"patience": 3}, "resume": "auto"}}
    after = After(99)
    resumed = rs.fit(config(tmp_path, "part", 9, **on), callbacks=[after])
    assert [row["round"] for row in after.rows] == [2, 3] and resumed.metrics["rounds"] == 4
    assert model_bytes(resumed.path) == model_bytes(whole.path)
    nothing = After(99)
    again = rs.fit(config(tmp_path, "part", 9, **on), callbacks=[nothing])
    assert nothing.rows == [] and again.metrics["rounds"] == 4
    assert again.metrics["stopped_by"] == whole.metrics["stopped_by"]


def test_a_run_resumed_where_nobody_knew_that_it_ends_is_tested_all_the_same(tmp_path: Path) -> None:
    settings = config(tmp_path, run={"eval_every": 7})

    class Killed(rs.Callback):
        def on_round_end(self, row: dict[str, Any]) -> None:
            if row["round"] == 1:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rs.fit(settings, callbacks=[Killed()])
    resumed = rs.fit(settings.with_values(run={"resume": "auto", "rounds": 2}), callbacks=[])
    whole = rs.fit(config(tmp_path, "whole", 2), callbacks=[])
    assert resumed.metrics["test_loss"] == whole.metrics["test_loss"] is not None
    assert len(rows_of(resumed)) == 2


def row(round: int, **values: float | None) -> dict[str, Any]:
    return {"round": round, **values}


def test_a_rule_reads_limits_by_their_columns() -> None:
    assert (
        StopRule({"val_accuracy": 0.5}, [row(0, val_accuracy=0.5)]).reason == "run.stop: val_accuracy >= 0.5, with 0.5"
    )
    assert StopRule({"val_accuracy": 0.5}, [row(0, val_accuracy=0.49)]).reason is None
    assert StopRule({"val_mse": 0.5}, [row(0, val_mse=0.6)]).reason is None
    assert StopRule({"val_perplexity": 9}, [row(0, val_perplexity=9.5)]).reason is None
    assert (
        StopRule({"val_perplexity": 9}, [row(0, val_perplexity=8.5)]).reason
        == "run.stop: val_perplexity <= 9, with 8.5"
    )
    assert StopRule({"train_loss": 0.5}, [row(0, train_loss=0.4)]).reason == "run.stop: train_loss <= 0.5, with 0.4"
    assert StopRule({"val_mine": "<=2"}, [row(0, val_mine=2.0)]).reason == "run.stop: val_mine <= 2, with 2"
    assert StopRule({"val_mine": "<=2"}, [row(0, val_mine=2.0), row(1, val_mine=None)]).reason is None


def test_patience_counts_evaluated_rounds_since_the_best() -> None:
    rule = StopRule({"patience": 2}, [row(0, val_accuracy=0.5), row(1, val_accuracy=0.6), row(2, val_accuracy=None)])
    assert rule.add(row(3, val_accuracy=0.6)) is None  # as good is not better
    assert rule.add(row(4)) is None
    assert rule.add(row(5, val_accuracy=0.55)) == "run.stop: 2 evaluated rounds without a better validation"
    assert StopRule({"patience": 1}, [row(0, val_accuracy=None, val_loss=1.0), row(1, val_loss=0.9)]).reason is None


REFUSED = {
    "{val_acuracy: 0.9}": (r"run\.stop: there is no column 'val_acuracy'\. Did you mean val_accuracy\?"),
    "{test_accuracy: 0.9}": r"run\.stop: can't use test_accuracy, because test results must not influence training",
    "{virtual_seconds: 3}": r"there is no column 'virtual_seconds'",
    "{val_macro_f1: 0.3}": r"there is no column 'val_macro_f1'",
    "{patience: 0}": "a whole number of evaluated rounds, at least 1",
    "{patience: true}": "a whole number of evaluated rounds",
    "{val_loss: low}": "val_loss must be a number, or one with its direction",
}


@pytest.mark.parametrize("stop", REFUSED)
def test_what_no_row_will_have_is_refused_before_anything_starts(tmp_path: Path, stop: str) -> None:
    with pytest.raises(rs.SettingsError, match=REFUSED[stop]):
        rs.fit(config(tmp_path, run={"stop": stop}))
    assert not list(tmp_path.iterdir())


def test_where_nothing_is_validated_nothing_waits_for_it(tmp_path: Path) -> None:
    none = {"data": {"name": "synthetic", "kwargs": {"samples": 60}, "val_fraction": 0}}
    for key in ("patience", "val_loss"):
        settings = config(tmp_path, run={"stop": {key: 1}}).with_values(**none, model={"name": "mlp"})
        with pytest.raises(
            rs.SettingsError, match=f"run.stop: can't use {key}, because there are no validation samples"
        ):
            rs.fit(settings)
    own = config(tmp_path, task={"metrics": ["tests.ray_split.driver.test_ending_early:mine"]})
    with pytest.raises(rs.SettingsError, match=r"run\.stop\.val_mine: must say whether .* '>=1' or '<=1'"):
        rs.fit(own.with_values(run={"stop": {"val_mine": 1}}))


def mine(outputs: Any, labels: Any) -> float:
    return 1.0


class Broken(rs.Callback):
    """Raises in a hook, from the second round on."""

    def __init__(self, hook: str) -> None:
        self._hook, self._rounds = hook, 0
        setattr(self, hook, self._raise)

    def _raise(self, *arguments: Any) -> None:
        self._rounds += 1
        if self._rounds == 2 or self._hook in ("on_run_start", "on_run_end"):
            raise ValueError("no more")


@pytest.mark.parametrize(
    "hook", ["on_round_end", "on_run_end", *thorough("on_run_start", "on_progress", "on_exchanges")]
)
def test_a_callback_that_raises_fails_the_run_by_its_name_and_nothing_is_lost(tmp_path: Path, hook: str) -> None:
    settings, other = config(tmp_path, rounds=4, checkpoint={"every": 4}), After(9)
    line = f"callback Broken: {hook} raised ValueError: no more (test_ending_early.py:"
    with pytest.raises(rs.RunFailedError) as failed:
        rs.fit(settings, callbacks=[Broken(hook), other])
    assert str(failed.value).startswith(line)
    result = rs.Result.from_path(tmp_path / "r")
    assert result.metrics["status"] == "failed" and str(result.error).startswith(line)
    assert other.summary["status"] == ("finished" if hook == "on_run_end" else "failed")
    done = {"on_round_end": 2, "on_run_start": 0, "on_run_end": 4}.get(hook, 1)
    assert result.metrics["rounds"] == done
    assert result.checkpoint is None if not done else result.checkpoint.endswith(f"round_{done:06d}")  # type: ignore
    on = rs.fit(settings.with_values(run={"resume": "auto"}), callbacks=[])
    assert model_bytes(on.path) == model_bytes(rs.fit(config(tmp_path, "whole", 4), callbacks=[]).path)


class Named(rs.Callback):
    """Writes down that it was there."""

    def on_round_end(self, row: dict[str, Any]) -> Any:
        with (Path(self.folder) / "told").open("a") as file:
            file.write(f"{row['round']}\n")
        return STOP if row["round"] == 1 else None

    def on_run_start(self, settings: rs.Config, where: list[str], first_round: int) -> None:
        self.folder = str(settings.run.folder)


HERE = "tests.ray_split.driver.test_ending_early"


def test_a_callback_may_be_named_in_the_settings_of_every_command(tmp_path: Path) -> None:
    flags = ["--cluster.backend", "inprocess", "--model.name", "tests.nets:three_linear", "--data.name", "synthetic"]
    flags += ["--data.kwargs", "{samples: 90, shape: [4], num_classes: 3}", "--phones.count", "3"]
    flags += ["--run.storage_path", str(tmp_path), "--run.callbacks", f"{HERE}:Named"]
    assert cli.main(["train", *flags, "--run.name", "r"]) == 0
    assert cli.main(["compare", *flags, "--seeds", "0", "--schedules", "splitfed_v1", "--run.name", "c"]) == 0
    for folder in (tmp_path / "r", *sorted((tmp_path / "c").glob("splitfed_v1*"))):
        assert (folder / "told").read_text() == "0\n1\n"
        assert f"{HERE}:Named" in (folder / "config.yaml").read_text()
    assert len(list(tmp_path.glob("*/*/told"))) == 1


@pytest.mark.parametrize(
    ("name", "told"),
    [
        (f"{HERE}:Nobody", "has no function 'Nobody'"), ("mlfow", "package.module:function"),
        (f"{HERE}:Path", ":Path is not a subclass of rs.Callback. Derive it from rs.Callback"),
        (f"{HERE}:row", ":row failed at .* with TypeError"), (f"{HERE}:After", ":After failed at .* with TypeError"),
        (f"{HERE}:three", "returned a int"),
    ],
)  # fmt: skip
def test_a_name_that_is_no_callback_is_refused(tmp_path: Path, name: str, told: str) -> None:
    with pytest.raises(rs.SettingsError, match=told) as refused:
        rs.fit(config(tmp_path, run={"callbacks": [name]}))
    assert refused.value.field == "run.callbacks"


def three() -> int:
    return 3


def test_the_progress_stays_unless_it_is_taken_away() -> None:
    mine, bar = After(1), BarProgress()
    assert [type(each) for each in listeners(None, None, "text")] == [PlainProgress]
    assert [type(each) for each in listeners([mine], None, "text")] == [PlainProgress, After]
    assert listeners([], None, "text") == [] and listeners([mine], False, "text") == [mine]
    assert listeners([bar, mine], None, "text") == [bar, mine]
    assert [type(each) for each in listeners([], True, "text")] == [PlainProgress]
    for wrong in (After, 3):
        with pytest.raises(rs.SettingsError, match="callbacks: "):
            listeners([wrong], None, "text")  # type: ignore[list-item]
    for given, line in (
        (mine, r"After\(...\) is no list. Write callbacks=\[A"),
        ([f"{HERE}:Named"], "goes into the settings"),
    ):
        with pytest.raises(rs.SettingsError, match=line):
            listeners(given, None, "text")  # type: ignore[arg-type]


class Misspelt(rs.Callback):
    """Has a hook that there isn't, and stops where no run can."""

    def on_round_ended(self, row: dict[str, Any]) -> None:
        raise AssertionError

    def on_exchanges(self, round: int, exchanges: int, queued: int) -> Any:
        return STOP


def test_a_hook_that_there_is_not_and_a_stop_that_is_none_are_told_of(caplog: pytest.LogCaptureFixture) -> None:
    guarded = Guarded(Misspelt())
    guarded.on_exchanges(0, 1, 0)
    guarded.on_exchanges(0, 1, 0)
    assert caplog.messages == [
        "callback Misspelt has on_round_ended, which is no hook: did you mean on_round_end?",
        "callback Misspelt: on_exchanges returned rs.STOP, which only on_round_end can: the run goes on",
    ]
