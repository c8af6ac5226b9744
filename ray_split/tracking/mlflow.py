"""Runs in MLflow: where its own environment variables say, or `mlflow.set_tracking_uri` and `set_experiment`."""

from __future__ import annotations

import time
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from ray_split import config
from ray_split.results.hparams import hparams
from ray_split.tracking.tracker import Figures, Tracker

STATUS = {"finished": "FINISHED", "stopped": "KILLED"}
MOST_PARAMS = 100  # in a call
LONGEST = 500  # characters of a parameter: the least that a version of MLflow takes
RUN = "ray_split.run"


class Mlflow(Tracker):
    """A run of ours is one of MLflow's: settings as parameters, columns of metrics.jsonl as metrics, config.yaml."""

    def begin(self, settings: config.Config, run: str) -> None:
        """Open MLflow's run, and make it the active one."""
        found = mlflow.search_runs(
            search_all_experiments=True, filter_string=f"tags.`{RUN}` = '{run}'", output_format="list"
        )
        before: Any = found[0] if found else None
        opened = mlflow.start_run(
            run_id=before.info.run_id if before else None,
            run_name=None if before else settings.run.name,
            tags={RUN: run, "ray_split.folder": str(settings.run.folder)},
            nested=mlflow.active_run() is not None,
        )
        self._id, self._client = opened.info.run_id, MlflowClient()
        there = before.data.params if before else {}  # MLflow changes none
        given = [Param(name, str(value)[:LONGEST]) for name, value in hparams(settings).items() if name not in there]
        for start in range(0, len(given), MOST_PARAMS):
            self._client.log_batch(self._id, params=given[start : start + MOST_PARAMS])
        self._client.log_text(self._id, settings.to_yaml(), "config.yaml")

    def log(self, round: int, figures: Figures) -> None:
        """As metrics, with the round as their step."""
        now = int(time.time() * 1000)
        self._client.log_batch(self._id, metrics=[Metric(name, value, now, round) for name, value in figures.items()])

    def end(self, status: str, figures: Figures) -> None:
        """The summary as metrics, and MLflow's run closed."""
        self.log(0, figures)
        active = mlflow.active_run()
        if active is not None and active.info.run_id == self._id:
            mlflow.end_run(STATUS.get(status, "FAILED"))
        else:  # somebody opened another within it
            self._client.set_terminated(self._id, STATUS.get(status, "FAILED"))
