"""Pushes the models and checkpoints of a training to a hub in the background."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from gliner_pipe.errors import ConfigError
from gliner_pipe.hub.push import complete, staged, upload
from gliner_pipe.util.console import console_note
from gliner_pipe.util.hub_client import check_hub, explain, make_api, make_repo

if TYPE_CHECKING:
    from concurrent.futures import Future

#: What a training pushes: the final model; also the model at each save; also the latest checkpoint, or all checkpoints.
Strategy = Literal["end", "every_save", "checkpoint", "all_checkpoints"]

#: What was saved: the current model, the best model so far, or a checkpoint to resume from.
Kind = Literal["last", "best", "checkpoint"]

#: Folder of the latest checkpoint in the repository.
LAST_CHECKPOINT = "last-checkpoint"

_WHERE = "train.push_to_hub"


@dataclass
class _Upload:
    """An upload in progress."""

    what: str
    step: int
    path_in_repo: str | None
    future: Future[str]


class HubUploader:
    """Pushes the models of a training to a hub in the background: the training neither waits nor fails.

    Call `start` before the training, `saved` after each save, and `finish` at the end, also after a failure. A failed
    upload is reported with its reason; the files are still on disk.

    Parameters
    ----------
    repo_id
        Repository, ``user/name``, or a name in the user's namespace; by default the name of the training's folder.
    output_path
        Folder of the last model.
    strategy
        ``end``: the final model. ``every_save``: also the last model at each save. ``checkpoint``: also the latest
        checkpoint, in the folder ``last-checkpoint``, to resume from. ``all_checkpoints``: all checkpoints, each in a
        folder of its name.
    private
        Whether a new repository is private.
    always_push
        Whether to push at every save, one after another. Otherwise a save is skipped while uploads of an earlier save
        are in progress.
    note
        Receives messages for the user.
    """

    def __init__(
        self,
        repo_id: str | None,
        output_path: str | Path,
        *,
        strategy: Strategy = "every_save",
        private: bool = True,
        always_push: bool = False,
        note: Callable[[str], None] = console_note,
    ) -> None:
        if strategy not in get_args(Strategy):
            raise ConfigError("train.hub_strategy", f"is {strategy!r}", ", ".join(get_args(Strategy)))
        self.repo_id = repo_id or default_name(Path(output_path))
        self.strategy = strategy
        self.private = private
        self.always_push = always_push
        self.note = note
        self._api: Any = None
        self._uploads: list[_Upload] = []
        self._skipped: dict[str, Path] = {}
        self._reasons: set[str] = set()
        self._exit = ExitStack()

    def start(self) -> str:
        """Check the login and create the repository; return its full name.

        Raises
        ------
        ConfigError
            If there is no login, or it may not write to the repository.
        """
        user = check_hub(_WHERE)
        if "/" not in self.repo_id:
            self.repo_id = f"{user}/{self.repo_id}"
        self._api = make_api()
        self.repo_id = make_repo(self._api, self.repo_id, self.private, None, _WHERE)
        self._exit.enter_context(_quiet())
        return self.repo_id

    def saved(self, folder: str | Path, step: int, kind: Kind = "last") -> None:
        """Push a folder that was just saved, if the strategy includes it; return immediately.

        Parameters
        ----------
        folder
            The folder; it may be replaced or removed afterwards.
        step
            Step of the save.
        kind
            ``last``: the current model, pushed to the top of the repository. ``best``: not pushed before the end.
            ``checkpoint``: pushed with the training state.
        """
        self._report_failures()
        folder = Path(folder)
        path = None
        if kind == "best" or self.strategy == "end":
            return
        if kind == "checkpoint":
            if self.strategy == "every_save":
                return
            path = LAST_CHECKPOINT if self.strategy == "checkpoint" else folder.name
        busy = any(item.step != step and not item.future.done() for item in self._uploads)
        if busy and not self.always_push:
            if path is not None:
                self._skipped[path] = folder  # replaces an older one
            return
        self._skipped.pop(path or "", None)
        self._push(folder, path, step, f"Step {step}")

    def finish(self, folder: str | Path | None) -> str | None:
        """Wait for all uploads, and push skipped checkpoints and the final model.

        Parameters
        ----------
        folder
            Folder of the final model; None (after a failure) only waits.

        Returns
        -------
        str or None
            URL of the last commit; None if there is none, or the upload failed.
        """
        if self._api is None:
            return None
        last = None
        try:
            if folder is not None:
                for path, skipped in self._skipped.items():
                    if skipped.is_dir():
                        self._push(skipped, path, -1, f"Checkpoint {skipped.name}")
                    else:
                        self.note(
                            f"warning: [{_WHERE}] {skipped.name} was removed before it could be uploaded: "
                            "increase save_total_limit, or set hub_always_push"
                        )
                last = self._push(Path(folder), None, -1, "End of the training")
            for item in self._uploads:
                item.future.exception()  # waits
            self._report_failures()
        finally:
            self._api = None
            self._exit.close()
        if last is None or last.exception() is not None:
            return None
        self.note(f"pushed to the hub: {last.result()}")
        return last.result()

    def _push(self, folder: Path, path: str | None, step: int, message: str) -> Future[str] | None:
        """Link the files, and upload them in the client's single upload thread."""
        stack = ExitStack()
        try:
            files = stack.enter_context(staged(folder, with_state=path is not None))
        except Exception as error:
            self._warn(f"the upload of {folder}", f"{type(error).__name__}: {error}", "")
            return None
        api, repo_id = self._api, self.repo_id

        def job() -> str:
            with stack:
                complete(files, repo_id if path is None else None)
                return upload(api, files, repo_id, message, path_in_repo=path)

        future: Future[str] = api.run_as_future(job)
        self._uploads.append(_Upload(f"the upload of {folder} ({message})", step, path, future))
        return future

    def _report_failures(self) -> None:
        done = [item for item in self._uploads if item.future.done()]
        self._uploads = [item for item in self._uploads if item not in done]
        for item in done:
            error = item.future.exception()
            if error is not None:
                self._warn(item.what, *explain(error))

    def _warn(self, what: str, reason: str, do: str) -> None:
        """Warn once of each reason: an hour without a network is one line."""
        if reason not in self._reasons:
            self._reasons.add(reason)
            advice = f". {do}" if do else ""
            self.note(f"warning: [{_WHERE}] {what} failed: {reason}{advice}")


def default_name(output_path: Path) -> str:
    """Return the default name of a training's repository: the model's folder, or the parent of ``model-last``."""
    path = output_path.absolute()
    name = path.parent.name if path.name == "model-last" and path.parent.name else path.name
    return re.sub(r"[^A-Za-z0-9._-]+|--+|\.\.+", "-", name).strip("-.") or "model"


@contextmanager
def _quiet() -> Iterator[None]:
    """Disable the client's progress bars, which would disturb that of the training."""
    from huggingface_hub import utils

    before = utils.are_progress_bars_disabled()
    utils.disable_progress_bars()
    try:
        yield
    finally:
        if not before:
            utils.enable_progress_bars()
