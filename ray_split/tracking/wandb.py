"""Runs in Weights & Biases: where its own environment variables say (WANDB_MODE=offline writes them here alone)."""

from __future__ import annotations

import os

import wandb

from ray_split import config
from ray_split.results.hparams import hparams
from ray_split.tracking.tracker import Figures, Tracker

PROJECT = "ray-split"  # if WANDB_PROJECT names none


class Wandb(Tracker):
    """A run of ours is one of theirs: settings as its config, columns of metrics.jsonl over the rounds, the summary."""

    def begin(self, settings: config.Config, run: str) -> None:
        """Open their run."""
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=run,
            name=settings.run.name,
            resume="allow",
            reinit="create_new",
            config={**hparams(settings), "folder": str(settings.run.folder)},
            settings=wandb.Settings(console="off"),
        )
        # Not their own step, which never goes back: a run that is resumed may repeat rounds.
        self._run.define_metric("*", step_metric="round")

    def log(self, round: int, figures: Figures) -> None:
        """Over the rounds."""
        self._run.log({"round": round, **figures})

    def end(self, status: str, figures: Figures) -> None:
        """The summary, and their run closed."""
        self._run.summary.update(figures)
        self._run.finish(exit_code=0 if status == "finished" else 1)
