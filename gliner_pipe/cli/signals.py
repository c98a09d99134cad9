"""Ends commands: signals raise, so that every ``finally`` runs, and the exit code says what happened."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from gliner_pipe.util.console import console_note
from gliner_pipe.util.visible import one_line


class Ended(BaseException):
    """Raised when a signal ends the command."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(number)


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Make Ctrl-C, SIGTERM and SIGHUP end the command with one line, and with 128 and the signal's number as exit code.

    A second signal ends the command at once. Signals that already have another handler are left alone.
    """
    try:
        with _signals_raise():
            yield
    except (KeyboardInterrupt, Ended) as stopped:
        number = stopped.number if isinstance(stopped, Ended) else signal.SIGINT
        how = "from the keyboard" if number == signal.SIGINT else f"by {signal.Signals(number).name}"
        stop(f"stopped {how}", 128 + number)


@contextmanager
def _signals_raise() -> Iterator[None]:
    """Raise ``Ended`` at Ctrl-C, SIGTERM and SIGHUP."""

    def end(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        raise Ended(number)

    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():  # only the main thread may set handlers
        numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
        before = {number: signal.getsignal(number) for number in numbers}
    mine = [
        number
        for number, handler in before.items()
        if handler in (signal.SIG_DFL, signal.default_int_handler)
    ]
    for number in mine:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in mine:
            signal.signal(number, before[number])


def stop(message: str, status: int) -> NoReturn:
    """Print an error and end the command."""
    console_note(f"error: {one_line(message, 4000)}", stderr=True)
    raise SystemExit(status)
