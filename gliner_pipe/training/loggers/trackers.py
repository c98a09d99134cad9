"""Loggers for experiment trackers: TensorBoard, Weights & Biases, MLflow, Trackio and any other of accelerate's."""

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

from gliner_pipe.errors import ConfigError, GlinerPipeError
from gliner_pipe.registry import registry
from gliner_pipe.training.loggers.base import (
    RunInfo,
    flatten,
    is_installed,
    missing_package,
    numbers,
)
from gliner_pipe.util.atomic import inside, replace_file
from gliner_pipe.util.console import console_note
from gliner_pipe.util.secrets import redacted

#: File beside the models that says which run of a tracker a resumed training goes on with.
RUNS_FILE = "train_runs.json"


class TrackerLogger:
    """Hands a training to a tracker of accelerate; subclasses say which, and how it is made.

    Numbers go under ``train/`` (``loss``, ``parts/<name>``, ``lr/<group>``, ``grad_norm``,
    ``words_per_second``) and ``val/`` (the scores, by the names that ``best_metric`` has for them), at the
    number of the step. The config goes along as flat hyperparameters, secrets redacted.

    Parameters
    ----------
    project
        Name under which the tracker keeps runs together.
    run_name
        Name of the run; by default that of the training, else the date.
    folder
        Where local files go; beside the models by default.
    options
        Other options of the tracker, handed to it as they are.
    """

    #: Name of the tracker, of its package, and of the extra that installs it.
    tracker_name = ""
    package = ""
    extra = ""
    #: Whether a run that is resumed forgets its config.
    tells_config_again = False

    def __init__(
        self,
        project: str = "gliner_pipe",
        run_name: str | None = None,
        folder: str | Path | None = None,
        options: dict[str, Any] | None = None,
    ) -> None:
        self.project = project
        self.run_name = run_name
        self.folder = folder
        self.options = options
        self.tracker: Any = None

    @property
    def where(self) -> str:
        """What messages call this logger."""
        return f"train.loggers.{self.tracker_name}"

    def check(self) -> None:
        """Raise a ConfigError if the package is missing."""
        if not is_installed(self.package):
            raise missing_package(self.where, self.package, self.extra)

    def start(self, run: RunInfo) -> None:
        """Begin a run, or go on with that of the training that is resumed.

        Raises
        ------
        ConfigError
            If the tracker cannot start, e.g. for want of a login.
        """
        from accelerate import PartialState

        self.check()
        PartialState()  # accelerate's trackers write only in its main process, and ask which one this is
        before = _read_runs(run.folder).get(self.tracker_name, {}) if run.resumed_step else {}
        name = self.run_name or run.name or before.get("name") or f"{datetime.now():%Y-%m-%d_%H-%M-%S}"
        folder = run.folder if self.folder is None else Path(self.folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with _redacted_command():
                self.tracker = self.make(name, folder, run, before)
                self.tracker.start()
            if not before or self.tells_config_again:
                self.tracker.store_init_configuration(self.clean(hyperparameters(run)))
            _write_run(run.folder, self.tracker_name, {"name": name, **self.identity()})
        except GlinerPipeError:
            raise
        except Exception as error:
            self.finish()
            text = " ".join(str(error).split())[:400] or type(error).__name__
            raise ConfigError(self.where, f"cannot start: {text}", do=self.advice()) from error

    def step(self, record: Mapping[str, Any]) -> None:
        """Hand over a step."""
        found: dict[str, Any] = {
            name: record[name] for name in ("loss", "grad_norm", "words_per_second") if name in record
        }
        for kind in ("parts", "lr"):
            found |= {f"{kind}/{name}": value for name, value in record.get(kind, {}).items()}
        self._log("train", found, record["step"])

    def validation(self, record: Mapping[str, Any]) -> None:
        """Hand over the scores."""
        self._log("val", record.get("scores", {}), record["step"])

    def finish(self) -> None:
        """End the run; during an exception, as a failed one where the tracker knows such.

        A tracker that cannot be closed, e.g. for want of a network, is told and does not stand in the way.
        """
        tracker, self.tracker = self.tracker, None
        if tracker is None or getattr(tracker, "tracker", None) is None:
            return
        failed = sys.exc_info()[0] is not None
        try:
            self.close(tracker, failed)
        except Exception as error:
            console_note(f"warning: [{self.where}] could not be closed: {_line(error)}")

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
            What `identity` and ``name`` were in the training that is resumed; empty in a new one.
        """
        raise NotImplementedError

    def identity(self) -> dict[str, Any]:
        """Return what `make` needs to go on with this run."""
        return {}

    def clean(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return names and values as the tracker takes them."""
        return dict(values)

    def close(self, tracker: Any, failed: bool) -> None:
        """End the run."""
        tracker.finish()

    def advice(self) -> str:
        """Return what to do when the tracker cannot start."""
        return ""

    def _log(self, kind: str, record: Mapping[str, Any], step: int) -> None:
        values = self.clean({f"{kind}/{name}": value for name, value in numbers(record).items()})
        if self.tracker is None or not values:
            return
        try:
            self.tracker.log(values, step=step)
        except Exception as error:  # hours of training are worth more than a curve
            console_note(f"warning: [{self.where}] gets nothing more after step {step}: {_line(error)}")
            self.finish()


@contextmanager
def _redacted_command() -> Iterator[None]:
    """Redact secrets in the command line meanwhile: some trackers keep it."""
    before = sys.argv
    sys.argv = redacted("", before)
    try:
        yield
    finally:
        sys.argv = before


def _line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:400]


def hyperparameters(run: RunInfo) -> dict[str, bool | int | float | str]:
    """Return the config of a training by flat names, e.g. ``train.batch_size``; secrets are redacted."""
    found: dict[str, Any] = {"max_steps": run.max_steps}
    found |= {f"versions.{name}": number for name, number in run.versions.items()}
    if run.config:
        config = Config.from_str(run.config, resolve=False)
        found |= dict(flatten(Config.serialize(config)))
    return {name: _plain(name, value) for name, value in found.items()}


def _plain(name: str, value: Any) -> bool | int | float | str:
    value = redacted(name, value)
    if isinstance(value, (bool, int, float, str)):
        return value
    return json.dumps(value, default=str, ensure_ascii=False) if _is_json(value) else str(value)


def _is_json(value: Any) -> bool:
    return value is None or isinstance(value, (dict, list))


def _read_runs(folder: Path) -> dict[str, dict[str, Any]]:
    try:
        runs = json.loads((folder / RUNS_FILE).read_text(encoding="utf8"))
    except (OSError, ValueError):
        return {}
    return runs if isinstance(runs, dict) else {}


def _write_run(folder: Path, tracker: str, identity: Mapping[str, Any]) -> None:
    with replace_file(folder / RUNS_FILE) as sibling:
        sibling.write_text(
            json.dumps({**_read_runs(folder), tracker: dict(identity)}, indent=2), encoding="utf8"
        )


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
