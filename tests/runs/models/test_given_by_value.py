"""What a notebook's cell defines trains as what a module has: the same bytes, here and on Ray, also after a death."""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas
import pytest
import torch
from safetensors.torch import load_file

import ray_split as rs
from tests.conftest import RayHead
from tests.tiers import thorough

CELL = """
import numpy as np
import torch
from torch import nn

import ray_split as rs

WIDTH, told = 8, []


class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 8), nn.ReLU())
        self.head = nn.Linear(8, num_classes)

    def forward(self, x):
        return self.head(self.layers(x))


def points():
    draw = np.random.default_rng(0)
    x = draw.normal(size=(90, 2)).astype(np.float32)
    return x, (x.sum(1) > 0).astype(np.int64)


def loss(outputs, labels):
    return nn.functional.cross_entropy(outputs, labels) * scale


def error(outputs, labels):
    return (outputs.argmax(-1) != labels).float().mean()


def dealt(labels, settings, count, draw):
    return np.arange(len(labels)) % count


def middle(rows, shares, start):
    return {key: np.median(values, axis=0) for key, values in rows.items()}


def damped(gradients, weights, start):
    return {name: gradient * 0.9 for name, gradient in gradients.items()}


def halved(change, memory, lr):
    return change * 0.5, memory


class Momentum(torch.optim.SGD):
    def __init__(self, params, lr=0.1):
        super().__init__(params, lr=lr, momentum=0.8)


class Falling:
    def __init__(self, optimizer, by=0.9):
        self.optimizer, self.by = optimizer, by

    def step(self):
        for group in self.optimizer.param_groups:
            group["lr"] *= self.by


def abreast(turn, stream, roles):
    ends, server = roles.fed_server.client_state.remote(turn), roles.server
    left, finished = [], []
    for number, phones in enumerate(stream.cohorts(turn.round)):
        client, at = roles.client(number), turn._replace(phones=phones)
        yield client.load.remote(at, ends)
        yield server.open.remote(at)
        for step in range(int(stream.taken(turn.round, phones)[0])):
            now = at._replace(step=step)
            hidden = server.forward.remote(now, client.forward.remote(now))
            yield client.backward.remote(now, server.backward.remote(now, client.loss.remote(now, hidden)))
        left.append(client.close.remote(at, stream.shares(turn.round, phones)))
        yield server.close.remote(at, stream.shares(turn.round, phones), number)
        finished.append(stream.finishing(turn.round, phones))
    yield roles.fed_server.collect.remote(turn, finished, *left)
    return None, server.state.remote(turn)


class Told(rs.Callback):
    def on_round_end(self, row):
        told.append(row["round"])


scale = 1.5
mine = rs.Schedule(abreast, takes={}, way="own_copies")
"""


def cell(text: str = CELL) -> Any:
    """What a notebook's cell defines, as `__main__` has it."""
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(text, "<cell>", "exec", dont_inherit=True), names)
    return SimpleNamespace(**names)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The same, in a file."""
    (tmp_path / "cell_of_mine.py").write_text(CELL)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield importlib.import_module("cell_of_mine")
    sys.modules.pop("cell_of_mine", None)


def config(folder: Path, name: str, own: Any, with_optimizer: bool = False, **run: Any) -> rs.Config:
    """Whatever may be of one's own is; the optimizer only if wanted, for torch takes seconds to import one."""
    optimizer = {"name": own.Momentum, "schedule": {"name": own.Falling}} if with_optimizer else {}
    return rs.Config(
        model={"name": own.Net, "cuts": ["layers.1", "layers.3"]}, phones={"count": 3},
        data={"name": own.points, "partition": {"name": own.dealt}}, task={"loss": own.loss, "metrics": [own.error]},
        schedule={"name": own.mine}, aggregator={"name": own.middle}, algorithm={"name": own.damped},
        server_optimizer={"name": own.halved}, optimizer=optimizer,
        cluster={"backend": run.pop("backend", "inprocess"), "client_actors": 1},
        run={"rounds": 3, "storage_path": str(folder), "name": name, "callbacks": [own.Told], **run},
    )  # fmt: skip


def files(folder: str | Path) -> bytes:
    return (Path(folder) / "model.safetensors").read_bytes()


@pytest.mark.thorough
def test_a_cells_functions_train_to_a_modules_bytes_and_the_folder_tells_their_text(
    tmp_path: Path, module: Any
) -> None:
    own = cell()
    ours, theirs = (
        rs.fit(config(tmp_path, name, each, with_optimizer=True), callbacks=[])
        for name, each in (("a", own), ("b", module))
    )
    assert files(ours.path) == files(theirs.path) and own.told == module.told == [0, 1, 2]
    assert ours.metrics["test_error"] == theirs.metrics["test_error"]
    written = Path(ours.path, "config.yaml").read_text()
    assert written.count(": by value ") == 10 and "- by value " in written and "cell_of_mine" not in written
    named = Path(theirs.path, "config.yaml").read_text()
    assert named.count(": by value ") == 1 and "name: cell_of_mine:Net\n" in named  # the schedule's record has no name
    texts = [Path(each.path, "by_value.txt").read_text() for each in (ours, theirs)]
    assert texts[0].count("by value ") == 12 and texts[1].startswith("# schedule.name: by value ")


def test_a_run_is_resumed_with_the_same_functions_alone_and_its_model_loaded_with_its_own(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = rs.fit(config(tmp_path, "whole", cell(), rounds=4), callbacks=[])
    rs.fit(config(tmp_path, "r", cell(), rounds=2), callbacks=[])
    for was, now, field in (
        ("scale = 1.5", "scale = 1.6", "task.loss"),
        ("size=(90", "size=(96", "data.name"),
        ("WIDTH, told = 8", "WIDTH, told = 9", "model.name"),
    ):
        other = config(tmp_path, "r", cell(CELL.replace(was, now)), rounds=4, resume="auto")
        with pytest.raises(
            rs.SettingsError,
            match=(rf"^{field}: can't change when .*: {field} " rf"was 'by value .* \(its code, what that uses"),
        ):
            rs.fit(other, callbacks=[])
    read = rs.Config.from_yaml(tmp_path / "r" / "config.yaml").with_values(run={"resume": "auto", "callbacks": []})
    with pytest.raises(rs.SettingsError, match=r"so it can't be found by a name\. Start from Python, and give"):
        rs.fit(read, callbacks=[])
    resumed = rs.fit(config(tmp_path, "r", cell(), rounds=4, resume="auto"), callbacks=[])
    assert files(resumed.path) == files(whole.path)
    with pytest.raises(
        rs.SettingsError,
        match=(r"^model: the model of this run is Net, .* " r"load_model\(\.\.\., model=Net\)\. .*by_value\.txt"),
    ):
        rs.load_model(resumed.path, trust=True)
    loaded = rs.load_model(resumed.path, model=cell().Net).state_dict()
    written = load_file(Path(resumed.path, "model.safetensors"))
    assert loaded.keys() == written.keys() and all(torch.equal(loaded[key], written[key]) for key in written)
    assert not caplog.records
    assert rs.load_model(resumed.path, model=cell(CELL.replace("self.head(", "-self.head(")).Net)
    assert "the model's function is another than the run was given" in caplog.text


@pytest.mark.thorough
def test_data_that_is_given_trains_as_what_a_function_returns(tmp_path: Path) -> None:
    draw = np.random.default_rng(1)
    inputs = draw.normal(size=(80, 3)).astype(np.float32)
    labels = (inputs.sum(1) > 0).astype(np.int64)
    frame = pandas.DataFrame(inputs, columns=list("abc")).assign(kind=np.where(labels, "more", "less"))

    def trained(name: str, **sections: Any) -> bytes:
        run = {"name": name, "storage_path": str(tmp_path), "rounds": 1}
        sections.setdefault("model", {"name": "mlp"})
        settings = rs.Config(phones={"count": 2}, cluster={"backend": "inprocess"}, run=run, **sections)
        return files(rs.fit(settings, callbacks=[]).path)

    pairs = torch.utils.data.TensorDataset(torch.tensor(inputs), torch.tensor(labels))
    usual = trained("function", data={"name": lambda: (inputs, labels)})
    assert usual == trained("pair", data=(inputs, labels)) == trained("dataset", data=pairs)
    table = {"name": frame, "kwargs": {"target": "kind"}}
    assert trained("table", data=rs.Table(frame, "kind"), model={}) == trained("frame", data=table, model={})
    with pytest.raises(
        rs.SettingsError, match=r"^data\.kwargs: must say which column has the labels\..* a, b, c and kind"
    ):
        trained("refused", data=frame)
    with pytest.raises(rs.SettingsError, match=r"^data\.kwargs: can't be used where data\.name is the data itself"):
        trained("refused", data={"name": pairs, "kwargs": {"samples": 3}})


def test_what_cannot_be_what_it_is_given_for_is_refused_in_a_line(tmp_path: Path) -> None:
    own = cell()
    for sections, line in (
        (
            {"model": {"name": own.Net(2), "cuts": ["layers.1"]}},
            (r"^model\.name: is a module, but must be " r"a class or a function that makes one"),
        ),
        ({"task": {"loss": threading.Lock()}}, r"^task\.loss: .*:lock'? is .*a "),
        ({"run": {"callbacks": [own.Told()]}}, r"^run\.callbacks: .*rs\.fit\(settings, callbacks=\[Told\(\)\]\)"),
    ):
        settings = config(tmp_path, "r", own).model_dump()
        with pytest.raises(rs.SettingsError, match=line):
            rs.fit(rs.Config(**{**settings, **sections}), callbacks=[])
    assert not [*tmp_path.iterdir()]


class Kills(rs.Callback):
    """A client's process dies after the first round."""

    def on_round_end(self, row: dict[str, Any]) -> None:
        if row["round"] == 0:
            import ray

            ray.kill(ray.get_actor(*next(each for each in actors() if "client" in each[0])))


def actors() -> list[tuple[str, str]]:
    import ray

    return [(each["name"], each["namespace"]) for each in ray.util.list_named_actors(all_namespaces=True)]


@pytest.mark.few(thorough=1)
@pytest.mark.parametrize("killed", thorough(False, True), ids=["", "and to one that replaces the dead"])
def test_on_ray_it_goes_to_the_actors(tmp_path: Path, ray_session: RayHead, module: Any, killed: bool) -> None:
    rounds = 3 if killed else 1
    here = rs.fit(config(tmp_path, "here", module, killed, rounds=rounds), callbacks=[])
    own = cell()
    own.Told.lock = threading.Lock()  # which stays here
    settings = config(tmp_path, "there", own, killed, rounds=rounds, backend="ray")
    there = rs.fit(settings, callbacks=[Kills()] if killed else [])
    assert files(here.path) == files(there.path)
    assert there.metrics["recoveries"] == killed and own.told == [*range(rounds)]


def test_on_ray_what_cannot_be_sent_is_refused_before_an_actor_starts(tmp_path: Path, ray_session: RayHead) -> None:
    own = cell(
        CELL.replace("scale = 1.5", "import threading\nscale = threading.Lock()").replace(
            "* scale", "* (not scale.locked())"
        )
    )
    with pytest.raises(rs.SettingsError, match=r"^task\.loss: .*can't be sent to the actors, .* failed: TypeError"):
        rs.fit(config(tmp_path, "r", own, backend="ray"), callbacks=[])
    assert not (tmp_path / "r" / "summary.json").exists() and not actors()
