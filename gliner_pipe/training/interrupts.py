"""Ctrl-C during a training: the step in progress is completed and a checkpoint saved, then the training ends."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from typing import Any


class Interrupts:
    """Notes the first Ctrl-C instead of raising; a second one ends the training at once. A context manager.

    Parameters
    ----------
    note
        Prints a line for the user.
    wanted
        Whether to do this; False leaves Ctrl-C alone.
    """

    def __init__(self, note: Callable[[str], None], *, wanted: bool) -> None:
        self.note = note
        self.wanted = wanted and threading.current_thread() is threading.main_thread()
        self.asked = False
        self._process = os.getpid()
        self._before: Any = None

    def __enter__(self) -> Interrupts:
        """Handle Ctrl-C from now on, unless the program ignores it."""
        self._before = signal.getsignal(signal.SIGINT) if self.wanted else None
        self.wanted = callable(self._before)
        if self.wanted:
            signal.signal(signal.SIGINT, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        """Leave Ctrl-C to the program again."""
        if self.wanted and not self.asked:
            signal.signal(signal.SIGINT, self._before)

    def end(self) -> None:
        """Raise what Ctrl-C raises in this program."""
        self._before(signal.SIGINT, None)

    def _ask(self, number: int, _: object) -> None:
        if os.getpid() == self._process:  # not in a worker, which the terminal tells, too
            signal.signal(number, self._before)
            self.asked = True
            # in a thread, as this may interrupt another line that is being printed
            text = "stopping after this step, with a checkpoint; Ctrl-C again stops at once"
            threading.Thread(target=self.note, args=(text,), daemon=True).start()
