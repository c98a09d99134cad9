"""What a training pushes while it goes on."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from gliner_pipe.errors import ConfigError
from gliner_pipe.hub.push import complete, staged, upload
from gliner_pipe.util.console import console_note
from gliner_pipe.util.hub_client import check_hub, make_api, make_repo, told

if TYPE_CHECKING:
    from concurrent.futures import Future

#: When a training pushes: only its end; also the model at each saving; that and the newest checkpoint; that
#: and every checkpoint.
Strategy = Literal["end", "every_save", "checkpoint", "all_checkpoints"]

#: What was saved: the model as it is, the best one so far, or a checkpoint to resume from.
Kind = Literal["last", "best", "checkpoint"]

#: Folder of the repository in which the newest checkpoint is.
LAST_CHECKPOINT = "last-checkpoint"

_WHERE = "train.push_to_hub"


@dataclass
class _Upload:
    """An upload under way."""

    what: str
    step: int
    path_in_repo: str | None
    future: Future[str]
    told: bool = False


class HubUploader:
    """Pushes a training's models to a hub in the background: the training does not wait, nor does it fail.

    Call `start` before anything is trained, `saved` after each saving, and `finish` at the end, also of a
    training that failed. An upload that fails is told with its reason; the files are on disk all the same.

    Parameters
    ----------
    repo_id
        Repository, ``user/name``, or a name under the user's own; named after the training's folder when not
        given.
    output_path
        Folder of the last model.
    strategy
        ``end``: once, at the end. ``every_save``: also the last model at each saving. ``checkpoint``: also the
        newest checkpoint, in the folder ``last-checkpoint``, to resume from. ``all_checkpoints``: every
        checkpoint, in a folder of its name.
    private
        Whether a new repository is seen by its owners alone.
    always_push
        Push at every saving, one after the other. Otherwise a saving is left out while the uploads of an
        earlier one are under way.
    revision
        Branch; made if it is not there.
    note
        Takes a line for the user.
    """

    def __init__(
        self,
        repo_id: str | None,
        output_path: str | Path,
        *,
        strategy: Strategy = "every_save",
        private: bool = True,
        always_push: bool = False,
        revision: str | None = None,
        note: Callable[[str], None] = console_note,
    ) -> None:
        if strategy not in get_args(Strategy):
            raise ConfigError("train.hub_strategy", f"is {strategy!r}", ", ".join(get_args(Strategy)))
        self.repo_id = repo_id or default_name(Path(output_path))
        self.strategy = strategy
        self.private = private
        self.always_push = always_push
        self.revision = revision
        self.note = note
        self._api: Any = None
        self._uploads: list[_Upload] = []
        self._left_out: dict[str, Path] = {}
        self._reasons: set[str] = set()
        self._exit = ExitStack()

    def start(self) -> str:
        """Check the login and make the repository; return its full name.

        Raises
        ------
        ConfigError
            If there is no login, or it has no right to the repository.
        """
        user = check_hub(_WHERE)
        if "/" not in self.repo_id:
            self.repo_id = f"{user}/{self.repo_id}"
        self._api = make_api()
        self.repo_id = make_repo(self._api, self.repo_id, self.private, self.revision, _WHERE)
        self._exit.enter_context(_quiet())
        return self.repo_id

    def saved(self, folder: str | Path, step: int, kind: Kind = "last") -> None:
        """Push a folder that was just saved, if the strategy says so; return at once.

        Parameters
        ----------
        folder
            The folder; it may be replaced or removed at once.
        step
            Step that it was saved at.
        kind
            ``last``: the model as it is, which goes to the top of the repository. ``best``: not pushed before
            the end. ``checkpoint``: with what a resumed training needs.
        """
        self._tell_failures()
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
                self._left_out[path] = folder  # the newest takes the place of an older one
            return
        self._left_out.pop(path or "", None)
        self._push(folder, path, step, f"Step {step}")

    def finish(self, folder: str | Path | None) -> str | None:
        """Wait for all uploads and push the model that the training ends with.

        Parameters
        ----------
        folder
            That model; None (after a failure) only to wait.

        Returns
        -------
        str or None
            Address of the last commit; None if there is none, or it could not be made.
        """
        if self._api is None:
            return None
        last = None
        try:
            if folder is not None:
                for path, left_out in self._left_out.items():
                    if left_out.is_dir():
                        self._push(left_out, path, -1, f"Checkpoint {left_out.name}")
                    else:
                        self.note(
                            f"warning: [{_WHERE}] {left_out.name} was removed before it could be uploaded: "
                            "raise save_total_limit, or set hub_always_push"
                        )
                last = self._push(Path(folder), None, -1, "End of the training")
            for item in self._uploads:
                item.future.exception()  # waits
            self._tell_failures()
        finally:
            self._api = None
            self._exit.close()
        if last is None or last.exception() is not None:
            return None
        self.note(f"pushed to the hub: {last.result()}")
        return last.result()

    def _push(self, folder: Path, path: str | None, step: int, message: str) -> Future[str] | None:
        """Link the files and hand them to the client's one thread for uploads."""
        stack = ExitStack()
        try:
            files = stack.enter_context(staged(folder, with_state=path is not None))
        except Exception as error:
            self._tell(f"the upload of {folder}", f"{type(error).__name__}: {error}", "")
            return None
        api, repo_id, revision = self._api, self.repo_id, self.revision

        def job() -> str:
            with stack:
                complete(files, repo_id if path is None else None)
                return upload(api, files, repo_id, message, revision, path)

        future: Future[str] = api.run_as_future(job)
        self._uploads.append(_Upload(f"the upload of {folder} ({message})", step, path, future))
        return future

    def _tell_failures(self) -> None:
        for item in self._uploads:
            if not item.told and item.future.done():
                item.told = True
                error = item.future.exception()
                if error is not None:
                    self._tell(item.what, *told(error))
        self._uploads = [item for item in self._uploads if not item.told]

    def _tell(self, what: str, reason: str, do: str) -> None:
        """Warn once of each reason: an hour without a network is one line."""
        if reason not in self._reasons:
            self._reasons.add(reason)
            advice = f". {do}" if do else ""
            self.note(f"warning: [{_WHERE}] {what} failed: {reason}{advice}")


def default_name(output_path: Path) -> str:
    """Return a name for a training's repository: the model's folder, or the one around ``model-last``."""
    path = output_path.absolute()
    name = path.parent.name if path.name == "model-last" and path.parent.name else path.name
    return re.sub(r"[^A-Za-z0-9._-]+|--+|\.\.+", "-", name).strip("-.") or "model"


class _quiet:
    """The client's progress bars, off meanwhile: they would tear the training's own."""

    def __enter__(self) -> None:
        from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars

        self._before = are_progress_bars_disabled()
        if not self._before:
            disable_progress_bars()

    def __exit__(self, *_: object) -> None:
        from huggingface_hub.utils import enable_progress_bars

        if not self._before:
            enable_progress_bars()
