"""A training in Trackio."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gliner_pipe.registry import registry
from gliner_pipe.training.loggers._tracker import TrackerLogger
from gliner_pipe.training.loggers.base import RunInfo


@registry.loggers.register("trackio")
class TrackioLogger(TrackerLogger):
    """Logs to Trackio: a database on this machine, which ``trackio show`` shows, or a Space of the hub.

    The database is where Trackio has all of them: the folder in TRACKIO_DIR, else in its cache. A resumed
    training goes on in the same run. Needs the extra ``trackio``.

    Parameters
    ----------
    project
        Project of the run.
    run_name
        Name of the run; by default that of the training, else the date.
    options
        Other options of ``trackio.init``, e.g. ``{"space_id": "my-name/my-space"}``.
    """

    tracker_name = package = extra = "trackio"
    tells_config_again = True

    def __init__(
        self,
        project: str = "gliner_pipe",
        run_name: str | None = None,
        options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(project, run_name, options=options)

    def make(self, name: str, folder: Path, run: RunInfo, before: Mapping[str, Any]) -> Any:
        """Return the tracker; a run is known by its name."""
        from accelerate.tracking import TrackioTracker

        options: dict[str, Any] = {"name": name, "resume": "allow" if before else "never"}
        return TrackioTracker(self.project, **options | (self.options or {}))
