"""Where a training leaves its models: the last, the best, and checkpoints to go on from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spacy.language import Language

from gliner_pipe.adapters.base import saving
from gliner_pipe.errors import ConfigError
from gliner_pipe.saving import save_pipeline
from gliner_pipe.training.accelerator import gathered
from gliner_pipe.training.checkpoints import (
    differences,
    random_state,
    read_state,
    set_random_state,
    write_checkpoint,
)

if TYPE_CHECKING:
    from gliner_pipe.hub.uploader import HubUploader, Kind
    from gliner_pipe.training.loop import Learner


@dataclass
class ModelStore:
    """Saves a pipeline while it is trained, and finds it again.

    Parameters
    ----------
    nlp
        The pipeline.
    learner
        Whose state goes into checkpoints.
    last, best, checkpoints
        Folders of the last model, of the best one, and of the checkpoints.
    files
        Text files that go beside every model.
    limit
        Checkpoints to keep; None for all, 0 for none.
    settings
        Options that decide which batches are drawn: a training that goes on with others is told so.
    uploader
        Puts what is saved on the hub.
    """

    nlp: Language
    learner: Learner
    last: Path
    best: Path
    checkpoints: Path
    files: Mapping[str, str]
    limit: int | None
    settings: Mapping[str, Any]
    uploader: HubUploader | None = None

    def averaged(self) -> AbstractContextManager[None]:
        """Have the running mean of the weights stand in the model meanwhile, if there is one."""
        return nullcontext() if self.learner.average is None else self.learner.average.applied()

    def save_last(self, step: int) -> None:
        """Save the last model."""
        self._save(self.last, step, "last")

    def save_best(self, step: int) -> None:
        """Save the best model."""
        self._save(self.best, step, "best")

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
            Number of steps done.
        state
            Of what is not the learner's.
        """
        if self.limit == 0:
            return
        learner = self.learner
        rng = gathered(learner.accelerator, random_state())
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
        """Give the learner the state of a checkpoint, whose weights it has already; return the state.

        Chance is not touched: call ``set_random_state`` with ``state["random"]`` right before the first step.
        """
        state = read_state(path)
        learner = self.learner
        for text in differences(state["settings"], self.settings):
            note(
                f"warning: [train.resume_from_checkpoint] {text}: the steps to come are others than without the break"
            )
        self._take_optimizer(state)
        _set_schedule(learner.scheduler, state["scheduler"]["last_epoch"])
        if learner.accelerator.scaler is not None and state["scaler"] is not None:
            learner.accelerator.scaler.load_state_dict(state["scaler"])
        vars(learner.guard).update(state["guard"])
        for name in ("average", "anchor"):
            part = getattr(learner, name)
            if part is not None and state[name] is not None:
                part.load_state_dict(state[name])
        return state

    def _take_optimizer(self, state: Mapping[str, Any]) -> None:
        """Take the state of the optimizer; its settings are those of now."""
        optimizer = self.learner.optimizer
        before, now = state["settings"].get("optimizer"), self.settings["optimizer"]
        if before != now:
            raise ConfigError("train.optimizer", f"is {now}, that of the checkpoint is {before}", str(before))
        settings = [
            {name: value for name, value in group.items() if name not in ("params", "lr", "initial_lr")}
            for group in optimizer.param_groups
        ]
        try:
            optimizer.load_state_dict(state["optimizer"])
        except ValueError as error:
            raise ConfigError(
                "train.resume_from_checkpoint",
                f"is of other parameters than those that learn now ({error})",
                "the same components, freeze_components and param_groups",
            ) from error
        for group, own in zip(optimizer.param_groups, settings, strict=True):
            group.update(own)

    def restore_chance(self, state: Mapping[str, Any], note: Callable[[str], None]) -> None:
        """Have all generators of this process go on from where the checkpoint was written."""
        index = self.learner.accelerator.process_index
        if index < len(state["random"]):
            set_random_state(state["random"][index])
        else:
            note("warning: the checkpoint is of fewer processes: this one draws anew")


def _set_schedule(scheduler: Any, steps: int) -> None:
    """Have a schedule stand after so many steps, with the learning rates that it gives now."""
    scheduler.last_epoch = steps
    for group, base, factor in zip(
        scheduler.optimizer.param_groups, scheduler.base_lrs, scheduler.lr_lambdas, strict=True
    ):
        group["lr"] = base * factor(steps)
    scheduler._last_lr = [group["lr"] for group in scheduler.optimizer.param_groups]
