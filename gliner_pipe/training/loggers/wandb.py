"""A training in Weights & Biases."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gliner_pipe.registry import registry
from gliner_pipe.training.loggers._tracker import TrackerLogger
from gliner_pipe.training.loggers.base import RunInfo


@registry.loggers.register("wandb")
class WandbLogger(TrackerLogger):
    """Logs to Weights & Biases: needs ``wandb login``, or WANDB_MODE=offline, which writes files beside the models.

    A resumed training goes on in the same run. Needs the extra ``wandb``.

    Parameters
    ----------
    project
        Project of the run.
    run_name
        Name of the run; by default that of the training, else the date.
    folder
        Where local files go; beside the models by default.
    options
        Other options of ``wandb.init``, e.g. ``{"entity": "my-team", "tags": ["small"]}``.
    """

    tracker_name = package = extra = "wandb"

    def make(self, name: str, folder: Path, run: RunInfo, before: Mapping[str, Any]) -> Any:
        """Return the tracker, of the run called by its id if there is one."""
        from accelerate.tracking import WandBTracker

        options: dict[str, Any] = {"dir": str(folder), "name": name}
        if before.get("id"):
            options |= {"id": before["id"], "resume": "allow"}
        return WandBTracker(self.project, **options | (self.options or {}))

    def identity(self) -> dict[str, Any]:
        """Return the run's id."""
        return {"id": self.tracker.tracker.id}

    def close(self, tracker: Any, failed: bool) -> None:
        """End the run; a failed one with another exit code."""
        tracker.tracker.finish(exit_code=int(failed))

    def advice(self) -> str:
        """Return how to log in or do without."""
        return "Run wandb login, or set WANDB_MODE=offline"
