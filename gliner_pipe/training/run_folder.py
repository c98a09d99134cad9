"""The folder of a training: where its models, checkpoints and logs are, and whether it holds another training."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from gliner_pipe.errors import ConfigError, DataError
from gliner_pipe.packaging.source import TRAIN_CONFIG
from gliner_pipe.pipeline.load import BEST_MODEL, LAST_MODEL, is_pipeline
from gliner_pipe.training.checkpoints import FOLDER, checkpoints, find_checkpoint, is_auto, remove
from gliner_pipe.training.loggers.trackers import RUNS_FILE
from gliner_pipe.util.atomic import check_writable
from gliner_pipe.util.file_lock import LOCK, only_writer

if TYPE_CHECKING:
    from gliner_pipe.training.arguments import TrainOptions

#: Logs of a training: those of the loggers with their default names, and the runs of trackers.
LOG_FILES = ("train_log.jsonl", "train_log.csv", "train_plot.png", RUNS_FILE)
#: Folder of earlier trainings in the same folder, each in a folder named after date and time.
EARLIER = "earlier"


def _real(path: Path) -> Path:
    """Return a path without links; one that leads to itself is found when the folder is made."""
    return Path(os.path.realpath(path))


@dataclass(frozen=True)
class RunFolder:
    """The places of a training. All are in one folder, unless ``best_path`` names another one.

    Parameters
    ----------
    path
        Folder of the training, with checkpoints, logs and ``train_config.cfg``.
    last, best
        Folders of the last and of the best model.
    """

    path: Path
    last: Path
    best: Path

    @classmethod
    def of(cls, output_path: str | Path, best_path: str | Path | None = None) -> RunFolder:
        """Return the places for the options of a training.

        Parameters
        ----------
        output_path
            Folder of the training; or ``model-last`` in it, as in configs of EDS-NLP. A pipeline is the last model of
            a training by an earlier version, whose other files are beside it.
        best_path
            Folder of the best model; ``model-best`` in the folder of the training when not given.

        Raises
        ------
        ConfigError
            If a model would be inside another one, or in its place.
        """
        given = Path(output_path)
        path, last = given, given / LAST_MODEL
        if given.name == LAST_MODEL or is_pipeline(given):
            path, last = given.parent, given
        best = path / BEST_MODEL if best_path is None else Path(best_path)
        inside = next((place for place in (path, *_real(path).parents) if is_pipeline(place)), None)
        if inside is not None or path.name == BEST_MODEL:
            found = "a name for the best model" if inside is None else f"inside the pipeline {inside}"
            raise ConfigError("train.output_path", f"is {str(output_path)!r}, {found}", "a folder of its own")
        one, other = _real(last), _real(best)
        if one == other or one in other.parents or other in one.parents:
            raise ConfigError(
                "train.best_path",
                f"is {best}, with the last model in {last}",
                "two folders, neither inside the other",
            )
        return cls(path, last, best)

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / FOLDER

    def check_writable(self, needed: int = 0) -> None:
        """Check that models can be written, before the training.

        Parameters
        ----------
        needed
            Bytes of a model.

        Raises
        ------
        ConfigError
            If a folder cannot be written, or its disk is too full for a model.
        """
        for option, folder, output in (
            ("output_path", self.path, self.path / LOCK),
            ("output_path", self.last, self.last),
            ("best_path", self.best, self.best),
        ):
            try:
                check_writable(output, needed)
            except DataError as error:
                found = f"is {folder}, which {error.found}"
                raise ConfigError(f"train.{option}", found, error.allowed, error.do) from None

    @property
    def is_shared(self) -> bool:
        """Whether this is the layout of earlier versions, where several trainings may have used the same folder."""
        return self.last.name != LAST_MODEL

    def holds(self, checkpoint: Path) -> bool:
        """Return whether a checkpoint was written by the training in this folder.

        Where several trainings may have used it, ``train_config.cfg`` in the checkpoint says which one it was.
        """
        if _real(checkpoint).parent != _real(self.checkpoints):
            return False
        config = checkpoint / TRAIN_CONFIG
        text = config.read_text(encoding="utf-8") if self.is_shared and config.is_file() else ""
        stated = re.search(r'^output_path = "(.*)"$', text, re.MULTILINE)
        return stated is None or Path(stated[1]).name == self.last.name

    def check_free(
        self, resume: str | bool | None, overwrite: bool | None, config: str | None = None
    ) -> None:
        """Check that a new training may write here.

        Parameters
        ----------
        resume
            Option ``resume_from_checkpoint``.
        overwrite
            Whether an earlier training may be replaced; None if it will be moved.
        config
            Text of ``train_config.cfg`` of the new training. The same training may begin again with ``"auto"``: it was
            stopped before its first checkpoint. None if it is not known yet.

        Raises
        ------
        ConfigError
            If there are models or checkpoints of another training, and `overwrite` is false; or if the folder has the
            layout of earlier versions.
        """
        if self.is_shared:
            raise ConfigError(
                "train.output_path",
                f"is {str(self.last)!r}, which is a pipeline",
                "a new folder for all files of the training",
                "Give another folder. To train this pipeline further, set [train] nlp to its path",
            )
        resumable = checkpoints(self.checkpoints)
        found = [*(path for path in (self.last, self.best) if path.exists()), *resumable]
        if not found or overwrite is not False:
            return
        auto = is_auto(resume)
        if auto and (config is None or _settings(config) == _settings(self._config())):
            return
        also = ', or resume_from_checkpoint = "auto" to continue it' if resumable and not auto else ""
        raise ConfigError(
            "train.overwrite",
            f"is false, and {self.path} holds an earlier training ({', '.join(path.name for path in found)})",
            "an output_path without one",
            f"Give another output_path. Set overwrite = null to keep it in {EARLIER}/, or true to replace it{also}",
        )

    def clear(self) -> list[str]:
        """Remove checkpoints and logs of an earlier training; return their names.

        Its models stay until others replace them.
        """
        old = checkpoints(self.checkpoints)
        logs = [path for name in LOG_FILES if (path := self.path / name).is_file()]
        remove(old)
        for path in logs:
            path.unlink()
        return [path.name for path in (*old, *logs)]

    def move_earlier(self) -> Path | None:
        """Move models, checkpoints and logs of an earlier training into a folder of their own; return that folder."""
        models = {_real(path): path for path in (self.last, self.best)}.values()
        others = (self.path / name for name in (FOLDER, TRAIN_CONFIG, *LOG_FILES))
        found = [path for path in (*models, *others) if path.exists()]
        if not found:
            return None
        target = self.path / EARLIER / datetime.now().strftime("%Y-%m-%d_%H-%M-%S.%f")[:-3]
        target.mkdir(parents=True)
        for path in found:
            shutil.move(path, target / path.name)
        return target

    def _config(self) -> str:
        path = self.path / TRAIN_CONFIG
        return path.read_text(encoding="utf-8") if path.is_file() else ""


def _settings(config: str) -> list[str]:
    """Return the lines of a config without its comments, which name versions."""
    return [line for line in config.splitlines() if not line.startswith("#")]


def checkpoint_to_resume(
    folder: RunFolder, resume: str | bool | None, overwrite: bool | None, config: str | None = None
) -> Path | None:
    """Return the checkpoint to resume from, if there is one; see ``RunFolder.check_free`` for the parameters.

    Raises
    ------
    ConfigError
        If there is no checkpoint at the path, or another training in the folder, which must not be replaced.
    """
    checkpoint = find_checkpoint(resume, folder.checkpoints)
    if checkpoint is not None and folder.holds(checkpoint):
        return checkpoint
    folder.check_free(resume, overwrite, config)
    return checkpoint


def check_export(folder: Path, options: TrainOptions) -> None:
    """Check that a new training may write its tagger for transformers to a folder.

    Raises
    ------
    ConfigError
        If there is a model of transformers, and ``overwrite`` is false.
    """
    is_new = options.resume_from_checkpoint in (None, False, "", "no")
    if is_new and options.overwrite is False and (folder / "config.json").exists():
        raise ConfigError(
            "train.transformers_path",
            f"is {str(folder)!r}, which holds a model for transformers",
            "a folder without one",
            "Give another folder, or move this one; set overwrite = true to replace it",
        )


@contextmanager
def only_training(folder: RunFolder) -> Iterator[None]:
    """Lock the folders that a training writes to, so that no second training writes there.

    Of several processes of one training only the first one locks.

    Raises
    ------
    DataError
        If another process trains there.
    """
    with ExitStack() as stack:
        if os.environ.get("RANK", "0") == "0":
            for place in sorted({_real(path) for path in (folder.path, folder.best.parent)}):
                stack.enter_context(only_writer(place / LOCK))
        yield
