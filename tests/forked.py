"""Commands in processes of their own that import nothing again: forks of the test process."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any


class Forked:
    """A function that runs in a fork of this process; its output goes into two files of a folder.

    Parameters
    ----------
    work
        What to run. It ends as a command does: an exception or the code of ``SystemExit`` is the exit code.
    arguments
        ``sys.argv`` after the name.
    folder
        Working directory, with the files ``stdout`` and ``stderr``.
    environment
        Environment variables to set.
    """

    def __init__(
        self,
        work: Callable[[], Any],
        arguments: list[Any],
        folder: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        texts = [str(argument) for argument in arguments]
        context = multiprocessing.get_context("fork")
        self.process = context.Process(target=self._run, args=(work, texts, dict(environment or {})))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # a fork beside threads, from Python 3.12 on
            self.process.start()

    def _run(self, work: Callable[[], Any], arguments: list[str], environment: dict[str, str]) -> None:
        atexit._clear()
        os.environ.update(environment)
        os.chdir(self.folder)
        for number, name in ((1, "stdout"), (2, "stderr")):
            descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(descriptor, number)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        sys.argv[1:] = arguments
        warnings.resetwarnings()
        try:
            work()
        finally:
            atexit._run_exitfuncs()
            sys.stdout.flush()

    def output(self) -> str:
        """Wait for the end, which must be a good one, and return the standard output."""
        self.process.join(280)
        assert self.process.exitcode == 0, (self.folder / "stderr").read_text("utf8")
        return (self.folder / "stdout").read_text("utf8")

    def kill(self) -> None:
        """Kill the process by SIGKILL."""
        self.process.kill()
        self.process.join()


def kill_and_check(
    work: Callable[[], Any], check: Callable[[], Any], seconds: Sequence[float], folder: Path
) -> None:
    """Run endless work and kill it after each of so many seconds; what it leaves is checked each time."""
    for wait in seconds:
        forked = Forked(work, [], folder)
        time.sleep(wait)
        assert forked.process.is_alive(), (folder / "stderr").read_text("utf8")
        forked.kill()
        check()
