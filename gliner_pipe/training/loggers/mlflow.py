"""A training in MLflow."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gliner_pipe.registry import registry
from gliner_pipe.training.loggers._tracker import TrackerLogger
from gliner_pipe.training.loggers.base import RunInfo, is_installed

_NOT_IN_NAMES = re.compile(r"[^\w./ -]", re.ASCII)


@registry.loggers.register("mlflow")
class MlflowLogger(TrackerLogger):
    """Logs to MLflow: to the server or store that is set (MLFLOW_TRACKING_URI), else to a store beside the models.

    That store is ``mlflow.db`` with the whole of MLflow, and the folder ``mlruns`` with ``mlflow-skinny``,
    which has no database. What MLflow does not allow in names becomes an underscore. A resumed training goes on
    in the same run. Needs the extra ``mlflow``.

    Parameters
    ----------
    project
        Experiment of the run.
    run_name
        Name of the run; by default that of the training, else the date.
    folder
        Where the local store goes; beside the models by default.
    options
        Other options of accelerate's ``MLflowTracker``, e.g. ``{"tags": {"corpus": "small"}}``.
    """

    tracker_name = package = extra = "mlflow"
    _own_store = False

    def make(self, name: str, folder: Path, run: RunInfo, before: Mapping[str, Any]) -> Any:
        """Return the tracker, of the run called by its id if there is one."""
        import mlflow
        from accelerate.tracking import MLflowTracker

        if not mlflow.is_tracking_uri_set():
            mlflow.set_tracking_uri(_local_store(folder.resolve()))
            self._own_store = True
        options = {"run_name": name, "run_id": before.get("id")} | (self.options or {})
        return MLflowTracker(self.project, **options)

    def identity(self) -> dict[str, Any]:
        """Return the run's id."""
        return {"id": self.tracker.tracker.info.run_id}

    def clean(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values by names that MLflow allows, no two of them the same."""
        cleaned: dict[str, Any] = {}
        for name, value in values.items():
            allowed = unique = _NOT_IN_NAMES.sub("_", name)
            number = 2
            while unique in cleaned:
                unique, number = f"{allowed}_{number}", number + 1
            cleaned[unique] = value
        return cleaned

    def close(self, tracker: Any, failed: bool) -> None:
        """End the run, as a failed one where it is."""
        import mlflow

        mlflow.end_run("FAILED" if failed else "FINISHED")
        if self._own_store:  # the next training may be in another folder
            unset: Any = None
            mlflow.set_tracking_uri(unset)
            self._own_store = False


def _local_store(folder: Path) -> str:
    if is_installed("sqlalchemy") and is_installed("alembic"):
        return f"sqlite:///{folder / 'mlflow.db'}"
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # there is no other one without a database
    return (folder / "mlruns").as_uri()
