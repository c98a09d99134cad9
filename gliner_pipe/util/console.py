"""Prints messages on the console: on a terminal lines break between words, elsewhere they are whole."""

from __future__ import annotations

import functools
import inspect
import io
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from gliner_pipe.util.secrets import redacted_text
from gliner_pipe.util.visible import visible


def console_note(text: str, *, stderr: bool = False, whole: bool = False) -> None:
    """Print a message, with secrets redacted and control characters visible; above the bar if one is shown.

    Parameters
    ----------
    text
        The message.
    stderr
        Whether on standard error, not on standard output.
    whole
        Whether lines are whole on a terminal too: a command to copy must not contain line breaks.
    """
    stream = sys.stderr if stderr else sys.stdout
    text = visible(redacted_text(text))
    if hasattr(stream, "rich_proxied_file"):  # of a bar, which prints it
        print(text, file=stream)
    else:
        show(Text(text), Console(stderr=stderr), whole=whole)


def writes_anything() -> None:
    """Make standard output and error escape the characters that their encoding lacks, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def show(text: Text, console: Console, *, whole: bool = False) -> None:
    """Print a text; with `whole` its lines do not break on a terminal either."""
    console.print(text, soft_wrap=whole or not console.is_terminal)


class ConsoleHandler(logging.Handler):
    """Prints log messages.

    Parameters
    ----------
    stderr
        Whether on standard error, not on standard output.
    """

    def __init__(self, *, stderr: bool) -> None:
        super().__init__()
        self.stderr = stderr

    def emit(self, record: logging.LogRecord) -> None:
        """Print a message."""
        console_note(self.format(record), stderr=self.stderr)


def says_what_is_unwritten(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator: if Ctrl-C or another signal stops the function, it says which files were not written.

    Parameters
    ----------
    names
        Arguments with the paths of the files or folders, or None.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            given = signature.bind_partial(*args, **kwargs).arguments
            before = {str(given[name]): _state(given[name]) for name in names if given.get(name) is not None}
            try:
                return function(*args, **kwargs)
            except BaseException as error:
                left = [path for path, state in before.items() if _state(path) == state]
                if left and not isinstance(error, Exception):
                    console_note(f"nothing was written to {', '.join(left)}", stderr=True)
                raise

        return call

    return decorate


def _state(path: str | Path) -> tuple[int, int] | None:
    """Return what changes when a path is replaced; None if nothing is there."""
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns
