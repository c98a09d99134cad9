"""Loggers for experiment trackers: TensorBoard, Weights & Biases, MLflow, Trackio and the others of accelerate.

``TrackerLogger`` does everything that trackers have in common; each subclass creates one tracker of accelerate.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from confit import Config

from gliner_pipe.errors import ConfigError, GlinerPipeError, reason_of, shortened
from gliner_pipe.registry import registry
from gliner_pipe.training.loggers.base import RunInfo, flatten, is_installed, need_package, numbers
from gliner_pipe.util.atomic import inside, write_json
from gliner_pipe.util.console import console_note
from gliner_pipe.util.secrets import redacted

#: File beside the models with the run of each tracker, which a resumed training continues.
RUNS_FILE = "train_runs.json"


class TrackerLogger:
    """Logs a training to a tracker of accelerate; subclasses create the tracker.

    Steps are logged under ``train/`` (``loss``, ``parts/<name>``, ``lr/<group>``, ``grad_norm``,
    ``words_per_second``) and scores under ``val/`` (with the names of ``best_metric``), at the number of the step.
    The config is logged as flat hyperparameters, secrets redacted.

    Parameters
    ----------
    project
        Project of the run; ``gliner_pipe`` by default.
    run_name
        Name of the run; by default that of the training, else the name of its folder with the date.
    folder
        Folder of local files; beside the models by default.
    options
        Other options of the tracker, passed on unchanged.
    """

    #: Name of the tracker, of its package, and of the extra that installs it.
    tracker_name = ""
    package = ""
    extra = ""
    #: Project of the run, if none is given.
    default_project = "gliner_pipe"
    #: Whether a resumed run must log the config again.
    logs_config_on_resume = False

    def __init__(
        self,
        project: str | None = None,
        run_name: str | None = None,
        folder: str | Path | None = None,
        options: dict[str, Any] | None = None,
    ) -> None:
        self.project = self.default_project if project is None else project
        self.run_name = run_name
        self.folder = folder
        self.options = options
        self.tracker: Any = None

    @property
    def where(self) -> str:
        """Section of this logger in messages."""
        return f"train.loggers.{self.tracker_name}"

    def check(self) -> None:
        """Raise a ConfigError if the package is missing."""
        need_package(self.where, self.package, self.extra)

    def start(self, run: RunInfo) -> None:
        """Start a run, or continue that of the resumed training.

        Raises
        ------
        ConfigError
            If the tracker cannot start, e.g. because no login is set.
        """
        from accelerate import PartialState

        self.check()
        PartialState()  # accelerate's trackers log only in its main process, and need this to find it
        before = _read_runs(run.folder).get(self.tracker_name, {}) if run.resumed_step else {}
        dated = f"{run.folder.resolve().name}_{datetime.now():%Y-%m-%d_%H-%M-%S}".lstrip("_")
        name = self.run_name or run.name or before.get("name") or dated
        folder = run.folder if self.folder is None else Path(self.folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with _redacted_command_line():
                self.tracker = self.make(name, folder, run, before)
                self.tracker.start()
            if not before or self.logs_config_on_resume:
                self.tracker.store_init_configuration(self.clean(hyperparameters(run)))
            _write_run(run.folder, self.tracker_name, {"name": name, **self.identity()})
        except GlinerPipeError:
            raise
        except Exception as error:
            self.finish()
            text = reason_of(error, 400) or type(error).__name__
            raise ConfigError(self.where, f"cannot start: {text}", do=self.advice()) from error

    def step(self, record: Mapping[str, Any]) -> None:
        """Log a step."""
        found: dict[str, Any] = {
            name: record[name] for name in ("loss", "grad_norm", "words_per_second") if name in record
        }
        for kind in ("parts", "lr"):
            found |= {f"{kind}/{name}": value for name, value in record.get(kind, {}).items()}
        self._log("train", found, record["step"])

    def validation(self, record: Mapping[str, Any]) -> None:
        """Log the scores."""
        self._log("val", record.get("scores", {}), record["step"])

    def _log(self, kind: str, record: Mapping[str, Any], step: int) -> None:
        values = self.clean({f"{kind}/{name}": value for name, value in numbers(record).items()})
        if self.tracker is None or not values:
            return
        try:
            self.tracker.log(values, step=step)
        except Exception as error:  # a failing tracker must not end a long training
            console_note(f"warning: [{self.where}] stopped logging at step {step}: {_line(error)}")
            self.finish()

    def finish(self) -> None:
        """End the run; during an exception as a failed one, if the tracker supports it.

        If the tracker cannot be closed, e.g. without a network, a warning is printed.
        """
        tracker, self.tracker = self.tracker, None
        if tracker is None or getattr(tracker, "tracker", None) is None:
            return
        failed = sys.exc_info()[0] is not None
        try:
            self.close(tracker, failed)
        except Exception as error:
            console_note(f"warning: [{self.where}] could not be closed: {_line(error)}")

    # -- overridden by subclasses --------------------------------------------------------------------------------------

    def make(self, name: str, folder: Path, run: RunInfo, before: Mapping[str, Any]) -> Any:
        """Return the tracker of accelerate.

        Parameters
        ----------
        name
            Of the run.
        folder
            For local files; it exists.
        run
            The training.
        before
            ``name`` and `identity` of the run to continue; empty for a new training.
        """
        raise NotImplementedError

    def identity(self) -> dict[str, Any]:
        """Return what `make` needs to continue this run."""
        return {}

    def clean(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values by names that the tracker allows."""
        return dict(values)

    def close(self, tracker: Any, failed: bool) -> None:
        """End the run."""
        tracker.finish()

    def advice(self) -> str:
        """Return what to do if the tracker cannot start."""
        return ""


@registry.loggers.register("tensorboard")
class TensorBoardLogger(TrackerLogger):
    """Writes event files to ``runs/<run name>`` beside the models; ``tensorboard --logdir`` shows them.

    A resumed training continues in the same folder; TensorBoard hides earlier values after the step of the
    checkpoint. Needs the extra ``tensorboard``.

    Parameters
    ----------
    project
        Folder of the runs, in `folder`; ``runs`` by default.
    run_name, folder
        See `TrackerLogger`.
    options
        Other options of ``torch.utils.tensorboard.SummaryWriter``, e.g. ``{"flush_secs": 30}``.
    """

    tracker_name = package = extra = "tensorboard"
    default_project = "runs"

    def make(self, name: str, folder: Path, run: RunInfo, before: Mapping[str, Any]) -> Any:
        """Return the tracker; the folder of a run identifies it."""
        from accelerate.tracking import TensorBoardTracker

        options = {"purge_step": run.resumed_step + 1} if before else {}
        place = inside(folder, self.project, f"{self.where}.project")
        inside(place, name, f"{self.where}.run_name")
        return TensorBoardTracker(name, logging_dir=place, **options, **(self.options or {}))


@registry.loggers.register("wandb")
class WandbLogger(TrackerLogger):
    """Logs to Weights & Biases; needs ``wandb login``, or WANDB_MODE=offline, which writes files beside the models.

    A resumed training continues the same run. Needs the extra ``wandb``.

    Parameters
    ----------
    project, run_name, folder
        See `TrackerLogger`.
    options
        Other options of ``wandb.init``, e.g. ``{"entity": "my-team", "tags": ["small"]}``.
    """

    tracker_name = package = extra = "wandb"

    def make(self, name: str, folder: Path, run: RunInfo, before: Mapping[str, Any]) -> Any:
        """Return the tracker; an id identifies a run."""
        from accelerate.tracking import WandBTracker

        options: dict[str, Any] = {"dir": str(folder), "name": name}
        if before.get("id"):
            options |= {"id": before["id"], "resume": "allow"}
        return WandBTracker(self.project, **options | (self.options or {}))

    def identity(self) -> dict[str, Any]:
        """Return the id of the run."""
        return {"id": self.tracker.tracker.id}

    def close(self, tracker: Any, failed: bool) -> None:
        """End the run, with exit code 1 if it failed."""
        tracker.tracker.finish(exit_code=int(failed))

    def advice(self) -> str:
        """Return how to log in or work offline."""
        return "Run wandb login, or set WANDB_MODE=offline"


@registry.loggers.register("mlflow")
class MlflowLogger(TrackerLogger):
    """Logs to MLflow: to the server or store in MLFLOW_TRACKING_URI, else to a store beside the models.

    The store is ``mlflow.db`` with the full package, and the folder ``mlruns`` with ``mlflow-skinny``, which has no
    database. Characters that MLflow does not allow in names become underscores. A resumed training continues the
    same run. Needs the extra ``mlflow``.

    Parameters
    ----------
    project
        Experiment of the run.
    run_name, folder
        See `TrackerLogger`.
    options
        Other options of accelerate's ``MLflowTracker``, e.g. ``{"tags": {"corpus": "small"}}``.
    """

    tracker_name = package = extra = "mlflow"
    _own_store = False

    def make(self, name: str, folder: Path, run: RunInfo, before: Mapping[str, Any]) -> Any:
        """Return the tracker; an id identifies a run."""
        import mlflow
        from accelerate.tracking import MLflowTracker

        if not mlflow.is_tracking_uri_set():
            mlflow.set_tracking_uri(self._local_store(folder.resolve()))
            self._own_store = True
        options = {"run_name": name, "run_id": before.get("id")} | (self.options or {})
        return MLflowTracker(self.project, **options)

    @staticmethod
    def _local_store(folder: Path) -> str:
        if is_installed("sqlalchemy") and is_installed("alembic"):
            return f"sqlite:///{folder / 'mlflow.db'}"
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # the only store without a database
        return (folder / "mlruns").as_uri()

    def identity(self) -> dict[str, Any]:
        """Return the id of the run."""
        return {"id": self.tracker.tracker.info.run_id}

    def clean(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values by names that MLflow allows, all different."""
        cleaned: dict[str, Any] = {}
        for name, value in values.items():
            allowed = unique = re.sub(r"[^\w./ -]", "_", name, flags=re.ASCII)
            number = 2
            while unique in cleaned:
                unique, number = f"{allowed}_{number}", number + 1
            cleaned[unique] = value
        return cleaned

    def close(self, tracker: Any, failed: bool) -> None:
        """End the run, as failed or finished."""
        import mlflow

        mlflow.end_run("FAILED" if failed else "FINISHED")
        if self._own_store:  # the next training may be in another folder
            unset: Any = None
            mlflow.set_tracking_uri(unset)
            self._own_store = False


@registry.loggers.register("trackio")
class TrackioLogger(TrackerLogger):
    """Logs to Trackio: a database on this machine, which ``trackio show`` shows, or a Space of the hub.

    The database is in the folder TRACKIO_DIR, else in the cache of Trackio. A resumed training continues the same
    run. Needs the extra ``trackio``.

    Parameters
    ----------
    project, run_name
        See `TrackerLogger`.
    options
        Other options of ``trackio.init``, e.g. ``{"space_id": "my-name/my-space"}``.
    """

    tracker_name = package = extra = "trackio"
    logs_config_on_resume = True

    def __init__(
        self,
        project: str | None = None,
        run_name: str | None = None,
        options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(project, run_name, options=options)

    def make(self, name: str, folder: Path, run: RunInfo, before: Mapping[str, Any]) -> Any:
        """Return the tracker; its name identifies a run."""
        from accelerate.tracking import TrackioTracker

        options: dict[str, Any] = {"name": name, "resume": "allow" if before else "never"}
        return TrackioTracker(self.project, **options | (self.options or {}))


@registry.loggers.register("tracker")
class AccelerateLogger(TrackerLogger):
    """Logs to any other tracker of accelerate: ``aim``, ``clearml``, ``comet_ml``, ``dvclive``, ``swanlab``.

    Also to a tracker that was registered with ``accelerate.tracking.register_tracker_class``. The package of the
    tracker must be installed. A resumed training starts a new run, unless `options` say otherwise.

    Parameters
    ----------
    name
        Name of the tracker.
    project, run_name, folder
        See `TrackerLogger`; not every tracker has run names and local files.
    options
        Other options of the tracker, e.g. ``{"resume": true}`` for dvclive.
    """

    def __init__(
        self,
        name: str,
        project: str | None = None,
        run_name: str | None = None,
        folder: str | Path | None = None,
        options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(project, run_name, folder, options)
        self.name = name
        self.tracker_name = self.package = name

    def check(self) -> None:
        """Raise a ConfigError if the tracker is unknown, or its package is missing."""
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS
        from accelerate.utils import LoggerType

        if self.name not in LOGGER_TYPE_TO_CLASS:
            allowed = ", ".join(sorted(LOGGER_TYPE_TO_CLASS))
            raise ConfigError("train.loggers.tracker.name", f"is {self.name!r}", allowed)
        if self.name in LoggerType.list():
            need_package(self.where, self.package)

    def make(self, name: str, folder: Path, run: RunInfo, before: Mapping[str, Any]) -> Any:
        """Return the tracker."""
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS

        kind = LOGGER_TYPE_TO_CLASS[self.name]
        first, named = self.project, {"clearml": {"task_name": name}, "swanlab": {"experiment_name": name}}
        if self.name == "aim":  # its first argument is the name of the run, not of the project
            first, named = name, {"aim": {"experiment": self.project}}
        options = named.get(self.name, {}) | (self.options or {})
        if kind.requires_logging_directory:
            return kind(first, folder, **options)
        return kind(first, **options)


# -- helpers -----------------------------------------------------------------------------------------------------------


@contextmanager
def _redacted_command_line() -> Iterator[None]:
    """Redact secrets in ``sys.argv``, which some trackers store, for the duration of the context."""
    before = sys.argv
    sys.argv = redacted("", before)
    try:
        yield
    finally:
        sys.argv = before


def hyperparameters(run: RunInfo) -> dict[str, bool | int | float | str]:
    """Return the config of a training by flat names, e.g. ``train.batch_size``; secrets are redacted."""
    found: dict[str, Any] = {"max_steps": run.max_steps}
    found |= {f"versions.{name}": number for name, number in run.versions.items()}
    if run.config:
        config = Config.from_str(run.config, resolve=False)
        found |= dict(flatten(Config.serialize(config)))
    return {name: _plain(redacted(name, value)) for name, value in found.items()}


def _plain(value: Any) -> bool | int | float | str:
    if isinstance(value, (bool, int, float, str)):
        return value
    is_json = value is None or isinstance(value, (dict, list))
    return json.dumps(value, default=str, ensure_ascii=False) if is_json else str(value)


def _read_runs(folder: Path) -> dict[str, dict[str, Any]]:
    try:
        runs = json.loads((folder / RUNS_FILE).read_text(encoding="utf8"))
    except (OSError, ValueError):
        return {}
    return runs if isinstance(runs, dict) else {}


def _write_run(folder: Path, tracker: str, identity: Mapping[str, Any]) -> None:
    write_json(folder / RUNS_FILE, {**_read_runs(folder), tracker: dict(identity)})


def _line(error: Exception) -> str:
    return shortened(f"{type(error).__name__}: {error}", 400)
