"""Checkpoints to go on from: a pipeline that loads, and beside it the state of its training."""

from __future__ import annotations

import random
import re
import secrets
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from spacy.language import Language

from gliner_pipe.errors import ConfigError
from gliner_pipe.saving import save_pipeline

#: Folder of all checkpoints, beside the models.
FOLDER = "checkpoints"
#: Folder of the state inside a checkpoint, and its file.
STATE = "training_state"
FILE = "state.pt"

_NAME = re.compile(r"step-(\d+)")


def random_state() -> dict[str, Any]:
    """Return the states of all generators of this process that a training draws from."""
    state: Any = np.random.get_state()
    name, keys, *rest = state
    return {
        "python": random.getstate(),
        "numpy": (name, keys.tolist(), *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_state(state: Mapping[str, Any]) -> None:
    """Go on drawing from where ``random_state`` was taken."""
    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, np.asarray(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])


def write_checkpoint(
    nlp: Language,
    folder: Path,
    step: int,
    state: Mapping[str, Any],
    files: Mapping[str, str],
    limit: int | None,
) -> Path:
    """Write the checkpoint of a step, all at once, and remove the oldest ones.

    Parameters
    ----------
    nlp
        The pipeline, with the weights that learn (not their average).
    folder
        Of all checkpoints.
    step
        Number of steps done.
    state
        Of the training; tensors and plain values.
    files
        Text files to put beside the pipeline's own.
    limit
        Number of checkpoints to keep; None for all.

    Returns
    -------
    Path
        Its folder.
    """
    path = folder / f"step-{step:06d}"

    def write_state(target: Path) -> None:
        (target / STATE).mkdir()
        torch.save(dict(state), target / STATE / FILE)

    save_pipeline(nlp, path, files, write_state)
    if limit:
        whole = checkpoints(folder)
        here = whole.index(path) + 1  # what comes after it is of a training that this one replaces
        remove([*whole[here:], *whole[:here][:-limit]])
    return path


def remove(paths: Sequence[Path]) -> None:
    """Remove checkpoints so that no half of one is ever taken for a whole."""
    for path in paths:
        for left in path.parent.glob(".gone-*"):
            shutil.rmtree(left, ignore_errors=True)
        gone = path.rename(path.with_name(f".gone-{secrets.token_hex(8)}"))
        shutil.rmtree(gone, ignore_errors=True)


def checkpoints(folder: Path) -> list[Path]:
    """Return the whole checkpoints in `folder`, the newest last."""
    if not folder.is_dir():
        return []
    found = [(int(match[1]), path) for path in folder.iterdir() if (match := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found) if (path / STATE / FILE).is_file()]


def find_checkpoint(resume: str | Path | bool | None, folder: Path) -> Path | None:
    """Return the checkpoint that the option ``resume_from_checkpoint`` stands for.

    Parameters
    ----------
    resume
        ``"auto"`` (or True) for the newest in `folder`, if there is one; the path of a checkpoint, or of a folder
        of checkpoints; None, False or ``"no"`` for none.
    folder
        Of the checkpoints of this training.

    Raises
    ------
    ConfigError
        If there is no checkpoint at the path.
    """
    if resume in (None, False, "", "no"):
        return None
    if resume is True or resume == "auto":
        return next(reversed(checkpoints(folder)), None)
    path = Path(str(resume))
    if (path / STATE / FILE).is_file():
        return path
    for place in (path, path / FOLDER, path.parent / FOLDER):
        if found := checkpoints(place):
            return found[-1]
    raise ConfigError(
        "train.resume_from_checkpoint",
        f"is {str(resume)!r}, where no checkpoint is",
        f'"auto", or a folder such as {folder / "step-000500"}',
        "A pipeline without one can be trained further as [train] nlp = its path",
    )


def read_state(path: Path) -> dict[str, Any]:
    """Return the state of the training at a checkpoint.

    Raises
    ------
    ConfigError
        If it cannot be read.
    """
    file = path / STATE / FILE
    try:
        state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises what pickle, zipfile and the system raise
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(
            "train.resume_from_checkpoint",
            f"names {file}, which cannot be read ({reason})",
            "a checkpoint written by this version",
            "Take an older checkpoint",
        ) from error
    return state


def differences(saved: Mapping[str, Any], now: Mapping[str, Any]) -> Sequence[str]:
    """Return in words how a training differs from the one that a checkpoint is of."""
    return [
        f"{name} was {saved[name]!r} and is {now[name]!r}"
        for name in now
        if name in saved and saved[name] != now[name]
    ]
