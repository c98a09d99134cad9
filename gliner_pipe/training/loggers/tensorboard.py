"""A training in TensorBoard's event files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gliner_pipe.registry import registry
from gliner_pipe.saving import inside
from gliner_pipe.training.loggers._tracker import TrackerLogger
from gliner_pipe.training.loggers.base import RunInfo


@registry.loggers.register("tensorboard")
class TensorBoardLogger(TrackerLogger):
    """Writes event files to ``runs/<run name>`` beside the models; ``tensorboard --logdir`` shows them.

    A resumed training goes on in the same folder; TensorBoard hides what stood there after the step that it
    goes on from. Needs the extra ``tensorboard``.

    Parameters
    ----------
    project
        Name of the folder under which the runs are.
    run_name
        Name of the run; by default that of the training, else the date.
    folder
        Where the folder of the project goes; beside the models by default.
    options
        Other options of ``torch.utils.tensorboard.SummaryWriter``, e.g. ``{"flush_secs": 30}``.
    """

    tracker_name = package = extra = "tensorboard"

    def __init__(
        self,
        project: str = "runs",
        run_name: str | None = None,
        folder: str | Path | None = None,
        options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(project, run_name, folder, options)

    def make(self, name: str, folder: Path, run: RunInfo, before: Mapping[str, Any]) -> Any:
        """Return the tracker; the run's place in its folder is what it is known by."""
        from accelerate.tracking import TensorBoardTracker

        options = {"purge_step": run.resumed_step + 1} if before else {}
        place = inside(folder, self.project, f"{self.where}.project")
        inside(place, name, f"{self.where}.run_name")
        return TensorBoardTracker(name, logging_dir=place, **options, **(self.options or {}))
