"""Nasty settings, through the command as it is called: one line, status 2, and nothing is written."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ray_split import cli
from ray_split.command_line.flags import fields_of, nested
from ray_split.command_line.training import settings_of
from ray_split.config import Config
from ray_split.errors import SettingsError

MODULES = {
    "theirs3": """
def exits(*given, **more):
    raise SystemExit(0)

def lacks(*given, **more):
    return {}["key"]

def nothing(*given, **more):
    return None

def schedule(turn, stream, roles):
    yield roles.fed_server.collect.remote(turn, [])
    return None, None

def wrapped(turn, stream, roles):
    return schedule(turn, stream, roles)
""",
    "slow": "async def net(*given, **more):\n    return 1\n",
    "stops": "class Stop(BaseException):\n    pass\nraise Stop('no')\n", 
    "dividing": "1 / 0\n", "leaving": "import sys\nsys.exit(0)\n", "wrong": "def f(:\n",
    "lacking": "import not_there\n",
}  # fmt: skip
SMALL = {"--phones.count": "3", "--phones.local_steps": "1", "--run.rounds": "1", "--cluster.backend": "inprocess"}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, code in MODULES.items():
        (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("COLUMNS", "1000")
    yield
    for name in MODULES:
        sys.modules.pop(name, None)


def refused(capsys: pytest.CaptureFixture[str], *flags: str) -> str:
    """The one line, once it is sure that there is no other, and that nothing was written."""
    given = {flag.partition("=")[0] for flag in flags}
    given |= {"--phones.local_steps"} if "--phones.local_epochs" in given else set()
    small = [word for pair in SMALL.items() if pair[0] not in given for word in pair]
    assert cli.main(["train", "--run.storage_path=results", *small, *flags]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1 == len(captured.err.splitlines())
    assert len(captured.err) < 700
    assert not Path("results").exists()
    return captured.err


LARGE = "1" + "0" * 18
FLAGS = {
    "phones.count": ["1000000000", LARGE, "010_", "0x", "1:30", "yes", "9" * 5000, "3.5", "nan", "1e308", "[3]", "-0"],
    "phones.local_steps": ["1000000000", LARGE], "phones.local_epochs": ["1000000000", LARGE],
    "phones.dropout": ["1", "1.0", "nan"], "phones.availability": ["0"], "phones.per_round": ["0", "1.5",
    "nan"],
    "phones.held_out": ["1"], "phones.left_out": ["{0: 0, 0: 1}", "{0: true}", "{0: 0, 1: 0, 2: 0}", "[", "{3: 0}"],
    "phones.device": ["{gflops: 1e-300}", "{gflops: 3, gflops: 4}", "[]", "{}", "nokia", "{gflops: .inf}"],
    "phones.over_select": ["1e300"], "phones.hostile_scale": ["1e19"], "phones.max_norm.activation": ["1e300"],
    "model.freeze": ["a,b,c", "a,a", "["], "model.name": ["a\nb", "x" * 300, "x" * 5000, "", "builtins:dict"],
    "model.num_classes": [LARGE, "1"], "model.kwargs": ["{width: 3, width: 4}", "{width: yes}", "3", "{width: 1e-1}"],
    "data.batch_size": [LARGE, "0"], "data.eval_batch_size": [LARGE], "data.decoders": ["-1", "65", "many"],
    "data.group_by_length": ["true", "2", "sometimes"],
    "data.path": ["", "~nobody_here", "x" * 300],
    "data.partition.min_samples": ["1000000000"], "data.partition.alpha": ["1e-300", "inf", "1e300"],
    "task.class_weights": ["1,2", "1e300,1", "[]", "true"], "task.metrics": ["mse,mse", "loss"],
    "optimizer.lr": ["1e308", "1e-300", "inf", "-0.0", "0", "1e999"], "optimizer.weight_decay": ["1e300", "-1"],
    "server.num_gpus": ["1.5", "1e-9", "1e300"], "server.num_cpus": ["257", LARGE], "server.replicas": ["65", LARGE],
    "server.lanes": [LARGE], "cluster.client_actors": ["65", "1000000", LARGE], "cluster.cpus_per_client": ["257"],
    "cluster.wait_seconds": ["1e300", "0"], "cluster.address": ["", "nonsense", "http://x:1"],
    "checkpoint.every": ["0", LARGE], "checkpoint.num_to_keep": ["0", LARGE], "run.max_hours": ["1e300", "1:30", "0"],
    "run.rounds": [LARGE, "0"], "run.seed": ["-1", "1" + "0" * 40], "run.eval_every": ["0", LARGE],
    "run.name": ["x" * 300, "é" * 200, "a\nb", "a\x00", " x", "a/b", "", "\udcff"], "run.resume": ["s3:/b",
    "~nobody_here"],
    "run.storage_path": ["~nobody_here/x", "x" * 300, "s3:/bucket", "s3:bucket", "file:/x", "S3://", ""],
    "gateway.node": ["", "x" * 64], "schedule.name": ["os:getcwd", "sys:exit", "theirs3:nothing", "theirs3:exits"],
    "data.name": ["os:getcwd", "theirs3:exits", "theirs3:lacks", "theirs3:nothing"],
    "data.augment": ["theirs3:exits", "theirs3:nothing"], "task.loss": ["theirs3:exits", "theirs3:lacks", "os:getcwd"],
    "data.partition.name": ["theirs3:exits", "theirs3:nothing", "os:getcwd"],
}  # fmt: skip
OTHER = {"server.num_cpus": "server.num_cpus", "data.partition.min_samples": "phones.count"}
"""Where another setting is named, and rightly."""


@pytest.mark.parametrize(
    ("field", "value"), [(field, value) for field, values in FLAGS.items() for value in values],
    ids=lambda text: repr(text)[:40],
)  # fmt: skip
def test_a_nasty_value_is_one_line_that_names_the_field(
    capsys: pytest.CaptureFixture[str], field: str, value: str
) -> None:
    extra = ["--schedule.name=splitfed_v1"] if field == "server.replicas" else []
    line = refused(capsys, f"--{field}={value}", *extra)
    assert line.startswith(f"error: {OTHER.get(field, field)}")


@pytest.mark.parametrize("field", ["model.name", "data.name", "schedule.name", "task.loss", "aggregator.name"])
@pytest.mark.parametrize(
    ("module", "told"),
    [
        ("dividing", "ZeroDivisionError: division by zero (dividing.py:1)"),
        ("leaving", "SystemExit: 0 (leaving.py:2)"),
        ("wrong", "SyntaxError: invalid syntax (wrong.py:1)"),
        ("stops", "Stop: no (stops.py:3)"),
        ("lacking", "No module named 'not_there' (lacking.py:1)"),
    ],
)  # fmt: skip
def test_a_module_that_fails_when_it_is_imported_is_told_of_with_its_line(
    capsys: pytest.CaptureFixture[str], field: str, module: str, told: str
) -> None:
    assert told in refused(capsys, f"--{field}={module}:f")


@pytest.mark.parametrize("field", ["model.name", "data.name", "schedule.name", "task.loss", "aggregator.name"])
def test_an_async_function_and_the_name_of_a_file_are_one_line(
    capsys: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder, field: str
) -> None:
    assert "is async, so calling it gives a coroutine instead of a result. Define it with def" in refused(
        capsys, f"--{field}=slow:net"
    )
    assert "write slow:net, without .py, instead of 'slow.py:net'" in refused(capsys, f"--{field}=slow.py:net")
    assert "write models.slow:net, without .py" in refused(capsys, f"--{field}=models/slow.py:net")
    assert not [warning for warning in recwarn if "never awaited" in str(warning.message)]


def test_a_pipe_of_the_shells_is_read_and_one_with_a_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo("named")
    assert "this is a pipe or a terminal, and a file is needed" in refused(capsys, "--config=named")
    end, begin = os.pipe()
    os.write(begin, b"run: {rounds: 7}\n")
    os.close(begin)
    assert settings_of([f"--config=/dev/fd/{end}"])[0].run.rounds == 7
    os.close(end)


def test_an_interrupt_while_a_module_is_imported_is_one(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "interrupting.py").write_text("raise KeyboardInterrupt\n")
    assert cli.main(["train", "--model.name=interrupting:f"]) == 130
    assert capsys.readouterr().err == "stopped before the run began\n"


def test_a_schedule_is_a_generator_or_makes_one() -> None:
    for name in ("theirs3:schedule", "theirs3:wrapped"):
        settings = {"schedule": {"name": name}, "phones": {"count": 3}, "cluster": {"backend": "inprocess"}}
        from ray_split.preparation.prepare import prepare

        assert prepare(Config(**settings)).settings.schedule.name == name


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("synthetic", "{samples: 1000000000000}"), ("synthetic", "{shape: [1000000, 1000000]}"),
        ("synthetic", "{samples: 1" + "0" * 390 + "}"), ("synthetic", "{samples: -1}"),
        ("synthetic", "{samples: many}"),
        ("synthetic", "{num_classes: 1000000000}"), ("synthetic", "{noise: .inf}"), ("synthetic", "{noise: 1e300}"),
        ("fake_images", "{samples: 1000000000000}"), ("fake_images", "{samples: 9, shape: [3, 1000000, 1000000]}"),
        ("synthetic_tokens", "{length: 10000000000}"), ("synthetic_segmentation", "{size: 1000000}"),
        ("synthetic_regression", "{inputs: 100000000000}"), ("digits", "{size: 100000}"),
        ("digits", "{size: 8, size: 9}"), ("digits", "{size: no}"), ("digits", "[8]"),
    ],
    ids=lambda text: text[:40],
)  # fmt: skip
def test_data_that_no_machine_holds_is_refused_before_it_is_made(
    capsys: pytest.CaptureFixture[str], name: str, kwargs: str
) -> None:
    assert "data.kwargs" in refused(capsys, f"--data.name={name}", f"--data.kwargs={kwargs}")


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("mlp", "{depth: 1000000000}"), ("mlp", "{width: 1000000000}"), ("mlp", "{width: 10000000}"),
        ("mlp", "{width: 0}"),
        ("digits_cnn", "{width: 1000000}"), ("unet", "{width: 1000000}"), ("transformer", "{depth: 100000}"),
    ],
)  # fmt: skip
def test_a_model_that_no_machine_holds_is_refused_before_it_is_made(
    capsys: pytest.CaptureFixture[str], name: str, kwargs: str
) -> None:
    assert "model.kwargs" in refused(capsys, f"--model.name={name}", f"--model.kwargs={kwargs}")


BOMB = "x0: &x0 [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"x{i}: &x{i} [{','.join([f'*x{i - 1}'] * 9)}]\n" for i in range(1, 30)
)
FILES = [
    # what is in the file, flags beside it, what the line says
    ("optimizer: {lr: 0.01}\nphones: {count: 4}\noptimizer: {momentum: 0.9}\n", (), "'c.yaml' has 'optimizer' "
    "twice, on lines 1 and 3"),
    ("data:\n  partition:\n    name: iid\n    name: shards\n", (), "'c.yaml' has 'name' twice, on lines 3 and 4"),
    ("phones: 5\n", ("--phones.count=3",),
    ("error: phones: must be a section, with its settings below it (count, per_round, local_epochs, "
"local_steps, cohort, stacked, dtype, held_out, left_out, max_norm, hostile, hostile_scale, device, link, "
"on_misfit, availability, dropout, deadline, over_select, absent, remote, remote_samples), not 5 (line 1 of ")),
    ("phones: [1]\n", ("--phones.count=3",),
    ("phones: must be a section, with its settings below it (count, per_round, local_epochs, local_steps, "
"cohort, stacked, dtype, held_out, left_out, max_norm, hostile, hostile_scale, device, link, on_misfit, "
"availability, dropout, deadline, over_select, absent, remote, remote_samples), not [1] (line 1 o")),
    ("data: {partition: iid}\n", ("--data.partition.name=iid",),
    ("error: data.partition: must be a section, with its settings below it (name, by, alpha, "
"shards_per_phone, min_samples), not 'iid' (line 1 of 'c.yaml')")),
    (
        "- a\n", (),
        ("--config: 'c.yaml' has no sections. Write the name of a section, such as 'phones:', and below it "
"its settings, such as '  count: 3'.")), ("5\n", (), "has no sections"), ("false\n", (),
        "has no sections",
    ),
    (
        "[]\n", (), "has no sections"), ("''\n", (), "has no sections"), ("1: 2\n", (), "has no sections"), (BOMB, (),
        "200000 keys",
    ),
    ("{" * 1000, (), "deep"), ("a: " + "[" * 70, (), "deep"), (b"\x00\x01\x02", (), "--config"),
    (b"\xff\xfe", (), "UTF-8"),
    ("run: {max_hours: 1:30}\n", (), "run.max_hours: must be a number, not '1:30' (line 1 of 'c.yaml')"),
    ("run: {name: 010}\n", (), "run.name: must be text, not 10 (line 1 of 'c.yaml')"),
    ("phones: {cuont: 3}\n", (), "Did you mean phones.count?"),
    ('"phones\\nx": {}\n', (), "line 1 of 'c.yaml': there is no section 'phones\\nx'"),
    ("task: {class_weights: [1, true]}\n", (), "must be a number or a name, not [1, True] (line 1 of 'c.yaml')"),
    ("model: {kwargs: {x: no}}\n", (), "a word or a boolean"),
    ("phones: {count: 1e1000}\n", (), "larger than a number can be"),
    ("phones: {count: yes}\n", (), "phones.count: must be a whole number, not 'yes' (line 1 of 'c.yaml')"),
    ("model: {kwargs: !!python/object/apply:os.system ['true']}\n", (), "line 1 of 'c.yaml' has a value of the "
    "kind tag:yaml.org,2002:python/object/apply:os.system"),
]  # fmt: skip


@pytest.mark.parametrize(("content", "flags", "told"), FILES, ids=lambda text: repr(text)[:30])
def test_a_nasty_file_is_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, content: str | bytes, flags: tuple[str, ...], told: str
) -> None:
    (tmp_path / "c.yaml").write_bytes(content.encode() if isinstance(content, str) else content)
    given = cli.main(["train", "--config", "c.yaml", *flags])
    captured = capsys.readouterr()
    assert (given, captured.out, captured.err.count("\n")) == (2, "", 1)
    assert told in captured.err


@pytest.mark.parametrize(
    "path", ["", "/", "/dev/zero", "~nobody_here/x", "x" * 300, "a\nb", "nothing://x", "none.yaml"]
)
def test_a_file_that_is_none_is_one_line(capsys: pytest.CaptureFixture[str], path: str) -> None:
    assert "error: --config: " in refused(capsys, f"--config={path}")


def test_of_a_flag_given_twice_the_last_counts_and_that_is_said(caplog: pytest.LogCaptureFixture) -> None:
    settings, _ = settings_of(["--phones.count=2", "--phones.count", "4", "--run.rounds=1", "--run.rounds=1"])
    assert (settings.phones.count, settings.run.rounds) == (4, 1)
    assert [record.getMessage() for record in caplog.records] == [
        "given more than once, and the last counts: --phones.count 4"
    ]


NASTY = [
    "", " ", "none", "nan", "inf", "-inf", "-0.0", "-1", "0", "1.5", "1e308", "1e-300", "1e999", "0x10", "010",
    "yes", "1:30",
    LARGE, "9" * 5000, "a\nb", "\x00", "\udcff", "[", "{", "{a: 1}", "[1]", "a,a", "~nobody_here/x",
    "x" * 300, "s3:/b", "--",
]  # fmt: skip


@pytest.mark.parametrize("field", [name for name, _ in fields_of(Config)])
def test_any_nasty_value_of_any_field_is_taken_or_refused_in_one_line(field: str) -> None:
    for value in NASTY:
        try:
            settings = Config(**nested({field: value}))
        except SettingsError as error:
            assert error.field.startswith(field)
            assert len(str(error).splitlines()) == 1
            assert len(str(error)) < 700
        else:
            assert Config(**nested({field: value})) == settings


def test_what_python_gives_is_bounded_too() -> None:
    holds_itself: list[object] = []
    holds_itself.append(holds_itself)
    bomb: list[object] = ["x"]
    for _ in range(40):
        bomb = [bomb] * 9
    for kwargs in ({"x": holds_itself}, {"x": bomb}, {"x": 10**5000, "y": bomb}):
        with pytest.raises(SettingsError) as caught:
            Config(model={"kwargs": kwargs})
        assert (caught.value.field, len(str(caught.value).splitlines())) == ("model.kwargs", 1)
        assert len(str(caught.value)) < 400
    said = str(SettingsError("a", bomb, "b"))  # apart: pytest would show the bomb
    assert said.startswith("a: must be b, not [[[[")
    assert str(SettingsError("a", 10**5000, "b")) == "a: must be b, not a number of 5001 digits."
