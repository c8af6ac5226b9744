"""What an operator sees of a run on real Ray: metrics as they are scraped, and actors as they are listed."""

from __future__ import annotations

import json
import re
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import ray_split as rs
from actors.ray_backend import prometheus
from tests.conftest import ROOT, alive_actors
from tests.loopback import devices, remotely, samples_of

OF_DEVICES = {f"ray_split_{name}_total" for name in prometheus.DEVICE_COUNTERS} | {
    f"ray_split_{name}" for name in prometheus.DEVICE_GAUGES
}
SAMPLE = re.compile(r'^(ray_split_\w+)\{.*run="([^"]*)".*\} (\S+)$')
ROLES = {"client 0", "client 1", "server", "fed server"}


def scraped(run: str, until: str) -> dict[str, float]:
    """The metrics of a run, by name, as `scraped_text` has them."""
    lines = scraped_text(run, until).splitlines()
    found = {match[1]: float(match[3]) for line in lines if (match := SAMPLE.match(line))}
    assert len(found) == len(lines)
    return found


def scraped_text(run: str, until: str) -> str:
    """A run's lines of the endpoint that Prometheus is pointed at, once a text is among them."""
    import ray

    (node,) = [node for node in ray.nodes() if node["Alive"]]
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    for _ in range(120):
        text = urllib.request.urlopen(url, timeout=10).read().decode()
        lines = [line for line in text.splitlines() if f'run="{run}"' in line]
        if any(re.search(until, line) for line in lines):
            break
        time.sleep(0.5)  # Ray reports every ten seconds
    return "\n".join(lines)


class Killer(rs.Callback):
    """Kills a client after the first round, and looks at who is there after each."""

    def __init__(self) -> None:
        self.names: list[set[str]] = []
        self.shown: set[tuple[str, str]] = set()

    def on_round_end(self, row: dict[str, Any]) -> None:
        import ray

        ours = {actor.name: actor for actor in alive_actors() if actor.name.startswith("watched/")}
        self.names.append(set(ours))
        self.shown = {(actor.name, actor.repr_name) for actor in ours.values()}
        if row["round"] == 0:
            ray.kill(ray.get_actor("watched/client 0", namespace=ours["watched/client 0"].ray_namespace))


class Seen(NamedTuple):
    rows: list[dict[str, Any]]
    metrics: dict[str, float]
    killer: Killer


def config(path: Path, name: str, **sections: Any) -> rs.Config:
    base = {
        "model": {"name": "mlp"}, "phones": {"count": 4, "local_steps": 3}, "schedule": {"name": "splitfed_v1"},
        "cluster": {"client_actors": 2}, "run": {"name": name, "storage_path": str(path), "rounds": 3},
    }  # fmt: skip
    return rs.Config(**base).with_values(**sections)


@pytest.fixture(scope="module")
def seen(ray_session: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    killer = Killer()
    result = rs.fit(config(tmp_path_factory.mktemp("seen"), "watched"), callbacks=[killer])
    rows = [json.loads(line) for line in (Path(result.path) / "metrics.jsonl").read_text().splitlines()]
    assert result.metrics["recoveries"] == 1
    yield Seen(rows, scraped("watched", r"ray_split_running.* 0\.0$"), killer)


@pytest.mark.thorough
def test_what_prometheus_scrapes_is_what_metrics_jsonl_says(seen: Seen) -> None:
    metrics, rows = seen.metrics, seen.rows
    sums = {"samples": "samples", "phones": "phones_done"} | {
        f"bytes_{n}": f"bytes_{n}" for n in ("up", "down", "weights")
    }
    told = {column: metrics[f"ray_split_{name}_total"] for column, name in sums.items()}
    assert told == {column: sum(row[column] for row in rows) for column in sums}
    assert metrics["ray_split_rounds_total"] == metrics["ray_split_round"] == len(rows) == 3
    assert metrics["ray_split_rounds_planned"] == 3 and metrics["ray_split_round_progress"] == 1
    assert metrics["ray_split_exchanges_total"] >= sum(row["exchanges"] for row in rows) == 4 * 3 * 3
    last = {name: rows[-1][name] for name in ("train_loss", "val_loss", "val_accuracy", "round_seconds")}
    assert {name: metrics[f"ray_split_{name}"] for name in last} == last
    share = rows[-1]["server_compute_seconds"] / rows[-1]["round_seconds"]
    assert metrics["ray_split_server_busy_share"] == pytest.approx(share) and 0 < share < 1


@pytest.mark.thorough
def test_failures_are_counted_and_what_did_not_happen_is_zero(seen: Seen) -> None:
    assert seen.metrics["ray_split_recoveries_total"] == 1
    for name in ("phones_quarantined_total", "phones_dropped_total", "phones_left_out", "queue_length", "running"):
        assert seen.metrics[f"ray_split_{name}"] == 0


@pytest.mark.thorough
def test_actors_are_listed_by_run_and_role_and_who_replaces_one_has_a_name_of_its_own(seen: Seen) -> None:
    before, after, _ = seen.killer.names
    assert before == {f"watched/{role}" for role in ROLES}
    assert after == before - {"watched/client 0"} | {"watched/client 0 (2)"}
    assert all(name == shown for name, shown in seen.killer.shown)


@pytest.mark.thorough
def test_the_dashboard_shows_every_metric_and_no_other(seen: Seen) -> None:
    board = json.loads((ROOT / "deploy" / "grafana.json").read_text())
    assert [v["name"] for v in board["templating"]["list"]] == ["datasource", "run"]
    targets = [target for panel in board["panels"] for target in panel.get("targets", ())]
    expressions = [target["expr"] for target in targets]
    assert all(re.search(r'ray_split_\w+\{run=~"\$run"\}', expression) for expression in expressions)
    assert {name for e in expressions for name in re.findall(r"ray_split_\w+", e)} == set(seen.metrics) | OF_DEVICES
    assert [p["title"] for p in board["panels"] if p["type"] == "row"] == [
        "Progress", "Exchanges and bytes", "Server", "Failures", "Devices",
    ]  # fmt: skip


@pytest.mark.thorough
def test_the_table_in_the_docs_names_every_metric_and_no_other(seen: Seen) -> None:
    text = (ROOT / "docs" / "cluster.md").read_text()
    assert set(re.findall(r"^\| `(ray_split_\w+)`", text, re.M)) == set(seen.metrics) | OF_DEVICES


@pytest.mark.slow
def test_prometheus_scrapes_what_crossed_to_and_from_each_device(tmp_path: Path, ray_session: object) -> None:
    """Of two devices: bytes are those of the rows, by phone. A run without devices has none of these metrics."""
    simulated = config(tmp_path, "simulated")
    settings = remotely(simulated, tmp_path, "devices", remote=2)
    with devices(settings, samples_of(simulated)):
        result = rs.fit(settings, callbacks=[])
    rows = [json.loads(line) for line in (Path(result.path) / "metrics.jsonl").read_text().splitlines()]
    text = scraped_text("devices", r"ray_split_running.* 0\.0$")
    found = re.findall(r'^(ray_split_devices?_\w+)\{(?:[^}]*phone="(\d+)")?[^}]*\} (\S+)$', text, re.M)
    told = {(name, phone): float(value) for name, phone, value in found}
    assert {name for name, _ in told} == OF_DEVICES
    assert {phone for name, phone in told if name.startswith("ray_split_device_")} == {"2", "3"}
    for way in ("up", "down"):
        own = [told[f"ray_split_device_bytes_{way}_total", phone] for phone in ("2", "3")]
        assert own[0] == own[1] > 0 and sum(own) == sum(row[f"device_bytes_{way}"] for row in rows)
    assert told["ray_split_device_answer_seconds", "2"] > 0
    assert told["ray_split_devices_connected", ""] == told["ray_split_devices_quarantined_total", ""] == 0


def test_each_devices_bytes_are_told_by_its_phones_number_and_add_up_to_the_rows(tmp_path: Path) -> None:
    told: dict[tuple[str, str | None], float] = {}

    class Added:
        def __init__(self, name: str, text: str, tags: tuple[str, ...]) -> None:
            self._name, self._tags = name.removeprefix("split_"), tags

        def set_default_tags(self, tags: dict[str, str]) -> Added:
            return self

        def _record(self, value: float, tags: dict[str, str] | None = None) -> None:
            assert {"run", *(tags or {})} == set(self._tags)
            key = self._name, (tags or {}).get("phone")
            adds = self._name in (*prometheus.COUNTERS, *prometheus.DEVICE_COUNTERS)
            told[key] = value + (told.get(key, 0) if adds else 0)

    simulated = config(tmp_path, "simulated", cluster={"backend": "inprocess"})
    settings = remotely(simulated, tmp_path, "devices", remote=2)
    with devices(settings, samples_of(simulated)):
        result = rs.fit(settings, callbacks=[prometheus.Telemetry(Added, Added)])
    rows = [json.loads(line) for line in (Path(result.path) / "metrics.jsonl").read_text().splitlines()]
    for way in ("up", "down"):
        own = [told[f"device_bytes_{way}", phone] for phone in ("2", "3")]
        assert own[0] == own[1] > 0 and sum(own) == sum(row[f"device_bytes_{way}"] for row in rows)
    assert {name for name, phone in told if phone} == set(prometheus.BY_PHONE)
    assert told["devices_lost", None] == told["devices_quarantined", None] == told["devices_connected", None] == 0
    assert told["device_answer_seconds", "2"] > 0


@pytest.mark.slow
def test_two_runs_of_one_name_at_the_same_time_have_both_their_actors(tmp_path: Path, ray_session: object) -> None:
    listed: list[tuple[str, str]] = []
    settings = config(tmp_path, "twin", cluster={"client_actors": 1}, server={"num_gpus": 0}, run={"rounds": 1})

    class Look(rs.Callback):
        def on_run_start(self, settings: rs.Config, where: list[str], first_round: int) -> None:
            listed.extend((a.name, a.ray_namespace) for a in alive_actors() if a.name.startswith("twin/"))

    class RunsTheOther(rs.Callback):
        def on_run_start(self, settings: rs.Config, where: list[str], first_round: int) -> None:
            rs.fit(settings.with_values(run={"storage_path": str(tmp_path / "other")}), callbacks=[Look()])

    assert rs.fit(settings, callbacks=[RunsTheOther()]).metrics["status"] == "finished"
    assert rs.Result.from_path(tmp_path / "other" / "twin").metrics["status"] == "finished"
    names = ["twin/client 0", "twin/fed server", "twin/server"]
    assert sorted(name for name, _ in listed) == sorted(names * 2)
    assert len(set(listed)) == 6 and len({namespace for _, namespace in listed}) == 2


def test_metrics_that_fail_are_told_of_once_and_end_no_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def __init__(self, name: str, text: str, tags: tuple[str, ...]) -> None:
            pass

        def set_default_tags(self, tags: dict[str, str]) -> Broken:
            return self

        def _record(self, value: float) -> None:
            raise RuntimeError("no agent")

    callback = prometheus.Telemetry(Broken, Broken)
    settings = config(tmp_path, "broken", cluster={"backend": "inprocess"})
    assert rs.fit(settings, callbacks=[callback]).metrics["status"] == "finished"
    (said,) = [record for record in caplog.records if record.name == "actors.ray_backend.prometheus"]
    assert said.getMessage() == "no metrics for Prometheus from here on: RuntimeError: no agent"


def test_gauges_are_set_again_while_nothing_happens_and_counters_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: dict[str, list[float]] = {}

    class Kept:
        def __init__(self, name: str, text: str, tags: tuple[str, ...]) -> None:
            self._values = told.setdefault(name, [])

        def set_default_tags(self, tags: dict[str, str]) -> Kept:
            return self

        def _record(self, value: float) -> None:
            self._values.append(value)

    monkeypatch.setattr(prometheus, "KEEP_SECONDS", 0.01)
    callback, before = prometheus.Telemetry(Kept, Kept), set(threading.enumerate())
    callback.on_run_start(config(tmp_path, "long"), [], 0)
    deadline = time.monotonic() + 600
    while len(told["split_rounds_planned"]) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    callback.on_run_end({}, "")
    assert not set(threading.enumerate()) - before  # others', from before, may have ended meanwhile
    assert told["split_rounds_planned"][:4] == [3] * 4 and told["split_running"][-1] == 0
    assert told["split_rounds"] == [0] and told["split_train_loss"] == []


@pytest.mark.slow
def test_gauges_are_still_there_after_longer_than_ray_keeps_them(tmp_path: Path, ray_session: object) -> None:
    found: list[dict[str, float]] = []

    class Long(rs.Callback):
        def on_round_end(self, row: dict[str, Any]) -> None:
            time.sleep(30)
            found.append(scraped("long", "ray_split_rounds_planned"))

    rs.fit(config(tmp_path, "long", run={"rounds": 1}), callbacks=[Long()])
    assert found[0]["ray_split_rounds_planned"] == found[0]["ray_split_running"] == 1


def test_a_run_in_this_process_has_no_metrics_for_prometheus() -> None:
    from actors.inprocess import InProcessBackend

    assert InProcessBackend().callbacks() == []
