import re
import subprocess
import sys

import pytest
import yaml

import ray_split as rs
from ray_split import cli
from ray_split.command_line.training import settings_of
from ray_split.config import Config
from ray_split.config.fields import Section
from tests.conftest import ROOT


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "1000")


def printed(capsys, *flags):
    """The settings that `--print-config` shows for these flags."""
    assert cli.main(["train", *flags, "--print-config"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return yaml.safe_load(captured.out)


def parsed(*flags):
    """The settings that these flags say, before anything is filled in."""
    settings, _ = settings_of(flags)
    return settings.model_dump(mode="json")


@pytest.mark.parametrize(
    ("flags", "path", "value"),
    [
        ([], "run.resume", "never"),
        (["--run.resume"], "run.resume", "auto"),
        (["--run.resume", "--phones.count", "3"], "run.resume", "auto"),
        (["--run.resume", "runs/x"], "run.resume", "runs/x"),
        (["--run.resume=never"], "run.resume", "never"),
        (["--model.cuts", "a,b.1"], "model.cuts", ["a", "b.1"]),
        (["--model.cuts", "1,2"], "model.cuts", ["1", "2"]),
        (["--model.cuts", "a"], "model.cuts", ["a"]),
        (["--model.freeze", "a,c"], "model.freeze", ["a", "c"]),
        (["--model.kwargs", "{width: 3}"], "model.kwargs", {"width": 3}),
        (["--model.kwargs", "{width: 3, deep: [1, {x: 1.5}]}"], "model.kwargs.deep", [1, {"x": 1.5}]),
        (["--model.cuts", "none"], "model.cuts", None),
        (["--checkpoint.num_to_keep", "none"], "checkpoint.num_to_keep", None),
        (["--cluster.address", "null"], "cluster.address", None),
        (["--phones.count", "100"], "phones.count", 100),
        (["--phones.count=100"], "phones.count", 100),
        (["--phones.per_round", "10"], "phones.per_round", 10),
        (["--phones.per_round", "0.1"], "phones.per_round", 0.1),
        (["--phones.per_round", "none"], "phones.per_round", None),
        (["--phones.hostile", "0.1"], "phones.hostile", 0.1),
        (["--phones.hostile", "2"], "phones.hostile", 2),
        (["--phones.hostile_scale", "-10"], "phones.hostile_scale", -10.0),
        (["--aggregator.kwargs", "{trim: 0.1}"], "aggregator.kwargs", {"trim": 0.1}),
        (["--phones.cohort", "auto"], "phones.cohort", "auto"),
        (["--phones.cohort", "32"], "phones.cohort", 32),
        (["--phones.stacked", "a,c"], "phones.stacked", ["a", "c"]),
        (["--phones.stacked", ""], "phones.stacked", []),
        (["--phones.held_out", "0.3"], "phones.held_out", 0.3),
        (["--data.partition.alpha", "0.1"], "data.partition.alpha", 0.1),
        (["--optimizer.lr", "1e-3"], "optimizer.lr", 0.001),
        (["--run.max_failures", "-1"], "run.max_failures", -1),
        (["--server.num_gpus", "0.5"], "server.num_gpus", 0.5),
        (["--server.num_gpus", "auto"], "server.num_gpus", "auto"),
        (["--cluster.client_actors", "3"], "cluster.client_actors", 3),
        (["--data.partition.name", "my.module:parts"], "data.partition.name", "my.module:parts"),
        (["--data.path", "some/where"], "data.path", "some/where"),
        (["--run.name", "3"], "run.name", "3"),
    ],
)
def test_a_flag_sets_its_field(flags, path, value):
    found = parsed(*flags)
    for name in path.split("."):
        found = found[name]
    assert found == value


def test_flags_win_over_the_file(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("phones: {count: 7, local_steps: 2}\ndata: {batch_size: 5}\nmodel: {kwargs: {width: 3}}\n")
    flags = ["--phones.count", "9", "--data.partition.name", "x:y", "--model.kwargs", "{hidden: 4}"]
    settings = parsed("--config", str(file), *flags)
    assert (settings["phones"]["count"], settings["phones"]["local_steps"]) == (9, 2)
    assert settings["data"]["batch_size"] == 5
    assert settings["data"]["partition"] == {**Config().data.partition.model_dump(), "name": "x:y"}
    assert settings["model"]["kwargs"] == {"hidden": 4}


def test_the_printed_settings_are_settings(capsys, tmp_path):
    filled = printed(capsys)
    assert filled["model"]["cuts"] == ["block1", "hidden"] and filled["model"]["num_classes"] == 10
    assert filled["run"]["name"].startswith("digits_cnn_sequential_")
    settled = {"cohort": 1, "stacked": [], "held_out": 0.0}
    assert filled["phones"] == {**yaml.safe_load(Config().to_yaml())["phones"], **settled}
    first = printed(capsys, "--phones.count", "9", "--optimizer.lr", "1e-5")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(first))
    assert printed(capsys, "--config", str(tmp_path / "config.yaml")) == first


def test_help_shows_every_field_with_its_default(capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["train", "--help-all"])
    assert caught.value.code == 0
    shown = re.findall(r"^  --(\w+\.\S+).*?\(default: ([^)]*)\)$", capsys.readouterr().out, re.MULTILINE | re.DOTALL)

    def fields(section, prefix):
        for name, value in section:
            if isinstance(value, Section):
                yield from fields(value, f"{prefix}{name}.")
            else:
                yield prefix + name, "none" if value is None else str(value)

    assert shown[-len(dict(fields(Config(), ""))) :] == list(fields(Config(), ""))


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_says_in_one_screen_what_there_is(capsys, flag):
    assert cli.main([flag]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 24 and max(map(len, lines)) <= 100
    commands = [line.split()[0] for line in lines if line.startswith("  ")]
    first = ["train", "compare", "sweep", "plan", "trace", "runs", "show", "diff", "export"]
    assert commands == [*first, "device", "devices", "paper"]


def test_the_version_is_told(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"ray-split {rs.__version__}\n"


def test_alone_it_says_what_there_is_and_that_nothing_was_done(capsys):
    assert cli.main([]) == 2
    captured = capsys.readouterr()
    assert captured.out == f"{cli.overview()}\n"
    assert captured.err.startswith("error: no command was given. The commands are ") and captured.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "forbidden"),
    [(["--help"], ["torch", "ray", "pydantic"]), (["train", "--help"], ["torch", "ray"])],
    ids=" ".join,
)
def test_help_loads_no_more_than_it_needs(arguments, forbidden):
    script = f"from ray_split.cli import main\ntry:\n    main({arguments})\nexcept SystemExit:\n    pass\n"
    script += "import sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert not set(forbidden) & set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("command", [name for name in cli.COMMANDS if name != "train"])
def test_every_command_has_a_help_and_refuses_in_one_line(capsys, command):
    with pytest.raises(SystemExit) as ended:
        cli.main([command, "--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: ray-split {command} ")
    assert cli.main([command, "--nonsense"]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith("error: ") and captured.err.count("\n") == 1


def test_a_command_whose_extra_is_not_installed_says_how_to_install_it(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, cli.COMMANDS["sweep"].module, None)
    assert cli.main(["sweep", "--seeds", "0,1"]) == 2
    captured = capsys.readouterr()
    assert "pip install 'ray-split[sweep]'" in captured.err and captured.err.count("\n") == 1


def test_a_dry_run_says_who_is_placed_where_and_writes_nothing(capsys, tmp_path):
    flags = ["--cluster.backend", "inprocess", "--run.storage_path", str(tmp_path), "--cluster.client_actors", "3"]
    assert cli.main(["train", *flags, "--dry-run"]) == 0
    assert capsys.readouterr().out == "all actors in this process: 3 client(s), server, fed server\n"
    assert list(tmp_path.iterdir()) == []
    assert cli.main(["train", *flags, "--dry-run", "--model.cuts", "nowhere,fc"]) == 2
