"""What an operator sees of a run: metrics that Ray hands on to Prometheus. Told in docs/cluster.md.

Ray puts `ray_` before a name, and `_total` behind a counter's: `split_rounds` is scraped as `ray_split_rounds_total`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextvars import copy_context
from typing import Any, Protocol

from actors.gateway.figures import DeviceFigures
from ray_split import config, logs
from ray_split.callbacks import Callback

logger = logs.get(__name__)

COUNTERS = {
    "rounds": "Rounds committed.",
    "exchanges": "Exchanges that are through, also those of a round that is run again.",
    "samples": "Samples trained on, in committed rounds.",
    "phones_done": "Phones that took part in a round, in committed rounds.",
    "phones_dropped": "Phones that dropped out, in committed rounds.",
    "phones_late": "Phones that came too late, in committed rounds.",
    "phones_offline": "Phones that were drawn and were off, in committed rounds.",
    "bytes_up": "Bytes from phones to the server, in committed rounds.",
    "bytes_down": "Bytes from the server to phones, in committed rounds.",
    "bytes_weights": "Bytes of weights and states handed on, in committed rounds.",
    "phones_quarantined": "Phones left out because of what they sent.",
    "recoveries": "Failures made good: actors that died and were replaced.",
}
GAUGES = {
    "running": "1 while the run goes on, 0 when it is over.",
    "rounds_planned": "Rounds that the run is to have.",
    "round": "Rounds completed, those before the run was resumed too.",
    "round_progress": "Share of the samples of the round under way that is done.",
    "samples_per_second": "Samples trained on per second, in the round under way.",
    "round_seconds": "How long the last round took, without evaluation.",
    "queue_length": "Calls submitted and not yet answered, when the driver last turned to wait for some.",
    "server_busy_share": "Share of the last round's time in which the server computed.",
    "client_busy_share": "Share of the last round's time in which a client computed: the clients' mean.",
    "phones_left_out": "Phones that the run goes on without.",
    "train_loss": "Training loss of the last round.",
    "val_loss": "Validation loss when last evaluated.",
    "val_accuracy": "Validation accuracy when last evaluated.",
}
DEVICE_COUNTERS = {
    "devices_lost": "Connections of devices that ended without a goodbye.",
    "devices_quarantined": "Remote phones left out because of what their devices sent.",
    "device_bytes_up": "Bytes of tensors from a device, by phone.",
    "device_bytes_down": "Bytes of tensors to a device, by phone.",
}
DEVICE_GAUGES = {
    "devices_connected": "Devices that are connected, when last looked at.",
    "device_answer_seconds": (
        "Seconds in which a device answered a question, by phone: the mean since it was last looked at."
    ),
}
BY_PHONE = ("device_bytes_up", "device_bytes_down", "device_answer_seconds")
"""Those with a series for each remote phone. The label is the phone's number: a device may call itself anything."""

OF_ROUND = {
    "samples": "samples",
    "phones_done": "phones",
    "phones_dropped": "phones_dropped",
    "phones_late": "phones_late",
    "phones_offline": "phones_offline",
    "bytes_up": "bytes_up",
    "bytes_down": "bytes_down",
    "bytes_weights": "bytes_weights",
}
"""Counters, and the column of metrics.jsonl that each adds up."""

KEEP_SECONDS = 5.0
"""Ray forgets a gauge that is not set for twice the ten seconds between its reports; a round may take longer."""


class Metric(Protocol):
    """Ray's Counter or Gauge: with a name, a description and the keys of its tags."""

    def set_default_tags(self, default_tags: dict[str, str]) -> Metric:
        """The values of its tags."""

    def _record(self, value: float, tags: dict[str, str] | None = None) -> None:
        """A counter is raised by it, a gauge set to it. A counter's `inc` refuses 0, with which its series begins."""


Make = Callable[[str, str, tuple[str, ...]], Metric]


class Telemetry(Callback):
    """Keeps a run's metrics. What goes wrong with that is said, once, and ends no run."""

    def __init__(self, counter: Make, gauge: Make) -> None:
        self._make = {"counter": counter, "gauge": gauge}
        self._metrics: dict[str, Metric] = {}
        self._gauges: dict[tuple[str, str | None], float] = {}  # as they were last set, of a phone or of none
        self._remote = frozenset[int]()
        self._devices = DeviceFigures()
        self._over = threading.Event()
        self._keeper: threading.Thread | None = None

    def _tell(self, values: Mapping[str, Any], phone: str | None = None) -> None:
        """Hand the values on; None is no value."""
        found = {(name, phone): float(value) for name, value in values.items() if value is not None}
        self._gauges |= {key: value for key, value in found.items() if key[0] in (*GAUGES, *DEVICE_GAUGES)}
        self._record(found)

    def _record(self, values: Mapping[tuple[str, str | None], float]) -> None:
        try:
            for (name, phone), value in values.items():
                if self._metrics:
                    self._metrics[name]._record(value, *([] if phone is None else [{"phone": phone}]))
        except Exception as error:  # noqa: BLE001  whatever Ray says of it: nobody trains for the metrics' sake
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self._metrics = {}
        logger.warning("no metrics for Prometheus from here on: %s: %s", type(error).__name__, error)

    def on_run_start(self, settings: config.Config, where: list[str], first_round: int) -> None:
        """Every series begins, so that what never happens reads 0."""
        self._remote = frozenset(settings.phones.remote_phones)
        try:
            self._metrics = self._made(str(settings.run.name))
        except Exception as error:  # noqa: BLE001  as in `_tell`
            self._give_up(error)
        self._tell(dict.fromkeys(COUNTERS, 0))
        self._tell({"running": 1, "rounds_planned": settings.run.rounds, "round": first_round, "round_progress": 0})
        self._tell({"queue_length": 0, "samples_per_second": 0})
        if self._remote:
            self._tell({"devices_connected": 0, "devices_lost": 0, "devices_quarantined": 0})
        self._keeper = threading.Thread(target=copy_context().run, args=(self._keep,), daemon=True)
        self._keeper.start()

    def _keep(self) -> None:
        while not self._over.wait(KEEP_SECONDS):
            self._record(dict(self._gauges))

    def _made(self, run: str) -> dict[str, Metric]:
        kinds = [("counter", COUNTERS), ("gauge", GAUGES)]
        kinds += [("counter", DEVICE_COUNTERS), ("gauge", DEVICE_GAUGES)] if self._remote else []
        made = {
            name: self._make[kind](f"split_{name}", text, ("run", "phone") if name in BY_PHONE else ("run",))
            for kind, texts in kinds
            for name, text in texts.items()
        }
        for metric in made.values():
            metric.set_default_tags({"run": run})
        return made

    def on_progress(self, round: int, done: int, total: int, samples_per_second: float) -> None:
        """How far the round is."""
        self._tell({"round_progress": done / total, "samples_per_second": samples_per_second})

    def on_exchanges(self, round: int, exchanges: int, queued: int) -> None:
        """More are through."""
        self._tell({"exchanges": exchanges, "queue_length": queued})

    def on_round_end(self, row: dict[str, Any]) -> None:
        """The round's figures, as in metrics.jsonl."""
        self._tell({"rounds": 1, "round": row["round"] + 1, "round_seconds": row["round_seconds"]})
        self._tell({counter: row.get(column, 0) for counter, column in OF_ROUND.items()})
        self._tell({"phones_left_out": row["left_out"]})
        self._tell({name: row[name] for name in ("train_loss", "val_loss", "val_accuracy")})
        seconds = max(row["round_seconds"], 1e-9)
        self._tell({f"{role}_busy_share": row[f"{role}_compute_seconds"] / seconds for role in ("server", "client")})

    def on_recovery(self, round: int, lost: list[str]) -> None:
        """One more."""
        self._tell({"recoveries": 1})

    def on_quarantine(self, round: int, phones: tuple[int, ...], reason: str) -> None:
        """Some more."""
        self._tell({"phones_quarantined": len(phones)})
        if self._remote:
            self._tell({"devices_quarantined": len(self._remote & set(phones))})

    def on_devices(self, round: int, devices: list[dict[str, Any]]) -> None:
        """How it stands with them."""
        of_run, by_phone = self._devices.of_all(devices)
        self._tell(of_run)
        for phone, figures in by_phone.items():
            self._tell(figures, phone)

    def on_run_end(self, summary: dict[str, Any], path: str) -> None:
        """The run is over."""
        self._over.set()
        if self._keeper:
            self._keeper.join()
        self._record(self._gauges)
        self._tell({"running": 0, "queue_length": 0, "samples_per_second": 0})
        if self._remote:
            self._tell({"devices_connected": 0})
