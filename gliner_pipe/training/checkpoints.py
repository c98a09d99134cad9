"""Saving during a training: the last model, the best model, and checkpoints to resume from."""

from __future__ import annotations

import random
import re
import secrets
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from spacy.language import Language

from gliner_pipe.errors import ConfigError, reason_of
from gliner_pipe.modeling.adapters.base import saving
from gliner_pipe.pipeline.load import LAST_MODEL, TRAINING_STATE, is_pipeline
from gliner_pipe.training.distributed import gathered
from gliner_pipe.util.atomic import save_pipeline

if TYPE_CHECKING:
    from gliner_pipe.hub.uploader import HubUploader, Kind
    from gliner_pipe.training.step import Learner


#: Name of the folder of all checkpoints, in that of the training.
FOLDER = "checkpoints"
#: File of the training state inside a checkpoint.
STATE = Path(TRAINING_STATE) / "state.pt"

_NAME = re.compile(r"step-(\d+)")


def random_state(device: torch.device) -> dict[str, Any]:
    """Return the states of all random generators of this process, which trains on `device`."""
    state: Any = np.random.get_state()
    name, keys, *rest = state
    return {
        "python": random.getstate(),
        "numpy": (name, keys.tolist(), *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "mps": torch.mps.get_rng_state() if device.type == "mps" else None,
        "device": str(device),
    }


def set_random_state(state: Mapping[str, Any], device: torch.device) -> str | None:
    """Restore the states from ``random_state`` in a process that trains on `device`.

    Returns
    -------
    str or None
        Why dropout differs from that of an unbroken training, if it does.
    """
    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, np.asarray(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    own, problem = state_of_device(state, device)
    if own is not None and device.type == "mps":
        torch.mps.set_rng_state(own)
    elif own is not None:
        torch.cuda.set_rng_state(own, device)
    return problem


def state_of_device(state: Mapping[str, Any], device: torch.device) -> tuple[torch.Tensor | None, str | None]:
    """Return the state to restore for the generator of `device`, and why there is none although one is missing.

    The earlier training may have seen another number of CUDA devices, or used another one. What counts is the generator
    of the device that it trained on: no random numbers are drawn on others.

    Parameters
    ----------
    state
        From ``random_state``.
    device
        Device that this process trains on.
    """
    # earlier checkpoints hold the states of all CUDA devices, and do not say which was used: most likely the same
    before = torch.device(state.get("device", device))
    if before.type != device.type:
        return None, f"was written on {before.type}, and this training runs on {device.type}"
    if device.type == "mps":
        return state.get("mps"), None
    saved: Sequence[torch.Tensor] = state["cuda"] if device.type == "cuda" else []
    if device.type == "cuda" and not saved:
        return None, "was written without CUDA, and this training runs on it"
    return (saved[min(before.index or 0, len(saved) - 1)] if saved else None), None


def write_checkpoint(
    nlp: Language,
    folder: Path,
    step: int,
    state: Mapping[str, Any],
    files: Mapping[str, str],
    limit: int | None,
) -> Path:
    """Write the checkpoint of a step atomically, and remove the oldest ones.

    Parameters
    ----------
    nlp
        The pipeline, with the trained weights (not their average).
    folder
        Of all checkpoints.
    step
        Number of completed steps.
    state
        Of the training; tensors and plain values.
    files
        Text files to write beside the pipeline's own.
    limit
        Number of checkpoints to keep; None for all.

    Returns
    -------
    Path
        Folder of the checkpoint.
    """
    path = folder / f"step-{step:06d}"

    def write_state(target: Path) -> None:
        (target / STATE).parent.mkdir()
        torch.save(dict(state), target / STATE)

    save_pipeline(nlp, path, files, write_state)
    if limit:
        complete = checkpoints(folder)
        here = complete.index(path) + 1  # later ones are of an earlier training that this one replaces
        remove([*complete[here:], *complete[:here][:-limit]])
    return path


def remove(paths: Sequence[Path]) -> None:
    """Remove checkpoints or models; each is renamed first, so that no partial one is ever found."""
    for path in paths:
        for left in path.parent.glob(".gone-*"):
            shutil.rmtree(left, ignore_errors=True)
        gone = path.rename(path.with_name(f".gone-{secrets.token_hex(8)}"))
        shutil.rmtree(gone, ignore_errors=True)


def checkpoints(folder: Path) -> list[Path]:
    """Return the complete checkpoints in `folder`, the newest last."""
    if not folder.is_dir():
        return []
    found = [(int(match[1]), path) for path in folder.iterdir() if (match := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found) if (path / STATE).is_file()]


def is_auto(resume: str | Path | bool | None) -> bool:
    """Return whether the option ``resume_from_checkpoint`` means the newest checkpoint, if there is one."""
    return resume is True or resume == "auto"


def find_checkpoint(resume: str | Path | bool | None, folder: Path) -> Path | None:
    """Return the checkpoint for the option ``resume_from_checkpoint``.

    Parameters
    ----------
    resume
        ``"auto"`` (or True) for the newest in `folder`, if there is one; the path of a checkpoint, of the folder of a
        training, or of its last model; None, False or ``"no"`` for none.
    folder
        Of the checkpoints of this training.

    Raises
    ------
    ConfigError
        If there is no checkpoint at the path.
    """
    if resume in (None, False, "", "no"):
        return None
    if is_auto(resume):
        return next(reversed(checkpoints(folder)), None)
    path = Path(str(resume))
    if (path / STATE).is_file():
        return path
    beside = [path.parent / FOLDER] if path.name == LAST_MODEL or is_pipeline(path) else []
    for place in (path, path / FOLDER, *beside):
        if found := checkpoints(place):
            return found[-1]
    raise ConfigError(
        "train.resume_from_checkpoint",
        f"is {str(resume)!r}, which contains no checkpoint",
        f'"auto", or a folder such as {folder / "step-000500"}',
        "To train a saved pipeline further, set [train] nlp to its path",
    )


def read_state(path: Path) -> dict[str, Any]:
    """Return the state of the training at a checkpoint.

    Raises
    ------
    ConfigError
        If the file cannot be read.
    """
    file = path / STATE
    try:
        state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises what pickle, zipfile and the system raise
        reason = reason_of(error, 200)
        raise ConfigError(
            "train.resume_from_checkpoint",
            f"contains {file}, which cannot be read ({reason})",
            "a checkpoint written by this version",
            "Resume from an older checkpoint",
        ) from error
    return state


def differences(saved: Mapping[str, Any], now: Mapping[str, Any]) -> Sequence[str]:
    """Return a text for each setting that changed since a checkpoint was written."""
    return [
        f"{name} was {saved[name]!r} and is {now[name]!r}"
        for name in now
        if name in saved and saved[name] != now[name]
    ]


@dataclass
class ModelStore:
    """Saves the models and checkpoints of a training, and restores the state of a checkpoint.

    Parameters
    ----------
    nlp
        The pipeline.
    learner
        Its state is saved in checkpoints.
    last, best, checkpoints
        Folders of the last model, of the best model, and of the checkpoints.
    files
        Text files that are written into every model folder.
    limit
        Checkpoints to keep; None for all, 0 for none.
    replaces
        Whether the best model is of an earlier training that this one replaces. If this one has none by then, it is
        removed when the last model is saved.
    settings
        Options that change the steps: a training that resumes with other values is warned.
    uploader
        Uploads what is saved to the hub.
    """

    nlp: Language
    learner: Learner
    last: Path
    best: Path
    checkpoints: Path
    files: Mapping[str, str]
    limit: int | None
    replaces: bool
    settings: Mapping[str, Any]
    uploader: HubUploader | None = None

    def averaged(self) -> AbstractContextManager[None]:
        """Return a context in which the model has the EMA weights, if there are any."""
        return nullcontext() if self.learner.average is None else self.learner.average.applied()

    def save_last(self, step: int) -> None:
        """Save the last model."""
        self._save(self.last, step, "last")
        if self.replaces and is_pipeline(self.best):
            remove([self.best])
        self.replaces = False

    def save_best(self, step: int) -> None:
        """Save the best model."""
        self._save(self.best, step, "best")
        self.replaces = False

    def _save(self, path: Path, step: int, kind: Kind) -> None:
        with self.averaged():
            save_pipeline(self.nlp, path, files=self.files)
        if self.uploader is not None:
            self.uploader.saved(path, step, kind)

    def save_checkpoint(self, step: int, state: Mapping[str, Any]) -> None:
        """Write a checkpoint; all processes must call this.

        Parameters
        ----------
        step
            Number of completed steps.
        state
            Of everything but the learner.
        """
        if self.limit == 0:
            return
        learner = self.learner
        rng = gathered(learner.accelerator, random_state(learner.accelerator.device))
        if not learner.accelerator.is_main_process:
            return
        scaler = learner.accelerator.scaler
        whole = {
            **state,
            "step": step,
            "settings": dict(self.settings),
            "random": rng,
            "optimizer": learner.optimizer.state_dict(),
            "scheduler": {"last_epoch": learner.scheduler.last_epoch},
            "scaler": None if scaler is None else scaler.state_dict(),
            "guard": vars(learner.guard),
            "average": None if learner.average is None else learner.average.state_dict(),
            "anchor": None if learner.anchor is None else learner.anchor.state_dict(),
        }
        learner.module.eval()
        with saving("full"):
            path = write_checkpoint(self.nlp, self.checkpoints, step, whole, self.files, self.limit)
        learner.module.train()
        if self.uploader is not None:
            self.uploader.saved(path, step, "checkpoint")

    def resume(self, path: Path, note: Callable[[str], None]) -> dict[str, Any]:
        """Restore the learner from a checkpoint, whose weights are loaded already; return the whole state.

        Random generators are not restored: call ``restore_random_state`` right before the first step.
        """
        state = read_state(path)
        learner = self.learner
        for text in differences(state["settings"], self.settings):
            note(
                f"warning: [train.resume_from_checkpoint] {text}: the result differs from that of an unbroken training"
            )
        self._restore_optimizer(state)
        _set_schedule(learner.scheduler, state["scheduler"]["last_epoch"])
        if learner.accelerator.scaler is not None and state["scaler"] is not None:
            learner.accelerator.scaler.load_state_dict(state["scaler"])
        vars(learner.guard).update(state["guard"])
        for name in ("average", "anchor"):
            part = getattr(learner, name)
            if part is not None and state[name] is not None:
                part.load_state_dict(state[name])
        return state

    def _restore_optimizer(self, state: Mapping[str, Any]) -> None:
        """Restore the state of the optimizer, but not its settings."""
        optimizer = self.learner.optimizer
        before, now = state["settings"].get("optimizer"), self.settings["optimizer"]
        if before != now:
            raise ConfigError("train.optimizer", f"is {now}, but {before} in the checkpoint", str(before))
        settings = [
            {name: value for name, value in group.items() if name not in ("params", "lr", "initial_lr")}
            for group in optimizer.param_groups
        ]
        try:
            optimizer.load_state_dict(state["optimizer"])
        except ValueError as error:
            raise ConfigError(
                "train.resume_from_checkpoint",
                f"has other trained parameters ({error})",
                "the same components, freeze_components and param_groups",
            ) from error
        for group, own in zip(optimizer.param_groups, settings, strict=True):
            group.update(own)

    def restore_random_state(self, state: Mapping[str, Any], note: Callable[[str], None]) -> None:
        """Restore all random generators of this process."""
        accelerator = self.learner.accelerator
        index = accelerator.process_index
        if index < len(state["random"]):
            problem = set_random_state(state["random"][index], accelerator.device)
            if problem:
                note(f"warning: the checkpoint {problem}: dropout differs from that of an unbroken training")
        else:
            note("warning: the checkpoint has fewer processes: the random state of this process is new")


def _set_schedule(scheduler: Any, steps: int) -> None:
    """Advance a schedule to a number of completed steps, and set the learning rates."""
    scheduler.last_epoch = steps
    for group, base, factor in zip(
        scheduler.optimizer.param_groups, scheduler.base_lrs, scheduler.lr_lambdas, strict=True
    ):
        group["lr"] = base * factor(steps)
    scheduler._last_lr = [group["lr"] for group in scheduler.optimizer.param_groups]
