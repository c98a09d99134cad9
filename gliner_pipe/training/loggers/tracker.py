"""A training in any other tracker that accelerate knows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gliner_pipe.errors import ConfigError
from gliner_pipe.registry import registry
from gliner_pipe.training.loggers._tracker import TrackerLogger
from gliner_pipe.training.loggers.base import RunInfo, is_installed


@registry.loggers.register("tracker")
class AccelerateLogger(TrackerLogger):
    """Logs to any tracker of accelerate by its name: ``aim``, ``clearml``, ``comet_ml``, ``dvclive``, ``swanlab``.

    So also to one that was registered with ``accelerate.tracking.register_tracker_class``. The tracker's own
    package has to be installed. A resumed training begins a new run, unless `options` say otherwise.

    Parameters
    ----------
    name
        Name of the tracker.
    project
        What the tracker keeps runs together by.
    run_name
        Name of the run, where the tracker has such; by default that of the training, else the date.
    folder
        Where local files go, where the tracker has such; beside the models by default.
    options
        Other options of the tracker, e.g. ``{"resume": true}`` for dvclive.
    """

    def __init__(
        self,
        name: str,
        project: str = "gliner_pipe",
        run_name: str | None = None,
        folder: str | Path | None = None,
        options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(project, run_name, folder, options)
        self.name = name
        self.tracker_name = self.package = name

    def check(self) -> None:
        """Raise a ConfigError if there is no such tracker, or its package is missing."""
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS
        from accelerate.utils import LoggerType

        if self.name not in LOGGER_TYPE_TO_CLASS:
            allowed = ", ".join(sorted(LOGGER_TYPE_TO_CLASS))
            raise ConfigError("train.loggers.tracker.name", f"is {self.name!r}", allowed)
        if self.name in LoggerType.list() and not is_installed(self.package):
            raise ConfigError(
                self.where,
                f"needs the package {self.package}, which is not installed",
                do=f"pip install {self.package}",
            )

    def make(self, name: str, folder: Path, run: RunInfo, before: Mapping[str, Any]) -> Any:
        """Return the tracker."""
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS

        kind = LOGGER_TYPE_TO_CLASS[self.name]
        first, named = self.project, {"clearml": {"task_name": name}, "swanlab": {"experiment_name": name}}
        if self.name == "aim":  # which takes a run's name where the others take the project's
            first, named = name, {"aim": {"experiment": self.project}}
        options = named.get(self.name, {}) | (self.options or {})
        if kind.requires_logging_directory:
            return kind(first, folder, **options)
        return kind(first, **options)
