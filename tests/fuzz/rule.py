"""The rule of all fuzzers: a clear error of ours or a right result, within 20 seconds and 2 GiB.

Work runs in the test process: its processor time is watched by a signal, and the memory that it may add is limited.
`obeys` runs a function and returns what came out; `command` runs a command line. Both raise `Broken` where the rule does
not hold. `tries` sets the number of inputs of a test: a few in CI, always the same ones; many and new ones with

    pytest tests/fuzz --hypothesis-profile nightly
"""

from __future__ import annotations

import faulthandler
import io
import os
import re
import signal
import sys
import threading
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from hypothesis import settings

from gliner_pipe.errors import GlinerPipeError

SECONDS = (
    20  # of processor time, so that a busy machine is no failure; pytest's own timeout ends what only waits
)
BYTES = 2 << 30
#: Longest message: an error about a large input must not hold the input.
LONGEST = 4000
#: Inputs by outcome, shown at the end of the tests.
OUTCOMES: Counter[str] = Counter()

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class Broken(AssertionError):
    """An input that does not obey the rule."""


class _Hang(BaseException):
    """Raised in the work when its time is over; a BaseException, so that no ``except Exception`` catches it."""


@dataclass(frozen=True)
class Outcome:
    """What came out of an input.

    Parameters
    ----------
    result
        What the work returned; None after an error.
    error
        The error of ours; None if there was none.
    """

    result: Any = None
    error: Exception | None = None


@dataclass(frozen=True)
class Finished:
    """How a command ended: its exit code and what it wrote."""

    code: int
    stdout: str
    stderr: str


def tries(number: int) -> settings:
    """Return a decorator: so many inputs in CI, fifty times as many in the profile ``nightly``."""
    factor = settings.get_profile("nightly").max_examples // settings.get_profile("tests").max_examples
    nightly = settings.default.max_examples == settings.get_profile("nightly").max_examples
    return settings(max_examples=number * factor if nightly else number)


def obeys(
    work: Callable[..., Any], *arguments: Any, errors: Sequence[type[Exception]] = (GlinerPipeError,)
) -> Outcome:
    """Run work, which must return something or raise an error of ours with one clear line.

    Parameters
    ----------
    work
        A function.
    arguments
        Its arguments.
    errors
        The errors that count as ours.

    Raises
    ------
    Broken
        If it raises another error, takes too long or too much memory, or has a message of several lines.
    """
    try:
        with limits():
            outcome = Outcome(work(*arguments))
    except tuple(errors) as error:
        check_message(str(error))
        OUTCOMES["refused"] += 1
        return Outcome(error=error)
    except _Hang as hang:
        OUTCOMES["hang"] += 1
        raise Broken(f"took longer than {SECONDS} seconds:\n{_trace(hang)}") from None
    except Exception as error:
        OUTCOMES["memory" if isinstance(error, MemoryError) else "traceback"] += 1
        raise Broken(f"raised {type(error).__name__}:\n{_trace(error)}") from None
    OUTCOMES["answered"] += 1
    return outcome


def command(
    main: Callable[[Sequence[str]], Any],
    arguments: Sequence[str],
    folder: Path,
    encoding: str = "utf-8",
    reports: bool = False,
) -> Finished:
    """Run a command line, which must end with code 0, or with one line on standard error that begins with "error: ".

    Parameters
    ----------
    main
        The ``main`` of a command, or of ``gliner_pipe.cli.commands``.
    arguments
        Of the command line.
    folder
        Working directory.
    encoding
        Of standard output and error.
    reports
        Whether the command says why it failed in a report on standard output, as ``check`` does.

    Raises
    ------
    Broken
        If it ends in another way, takes too long or too much memory, or writes a traceback.
    """
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding, errors) for errors in ("strict", "backslashreplace"))
    before = Path.cwd()
    code: Any = 0
    os.chdir(folder)
    try:
        with redirect_stdout(out), redirect_stderr(err), limits():
            main(list(arguments))
    except SystemExit as ended:
        code = ended.code or 0
    except _Hang as hang:
        OUTCOMES["hang"] += 1
        raise Broken(f"took longer than {SECONDS} seconds:\n{_trace(hang)}") from None
    except Exception as error:
        OUTCOMES["memory" if isinstance(error, MemoryError) else "traceback"] += 1
        raise Broken(f"raised {type(error).__name__}:\n{_trace(error)}") from None
    finally:
        os.chdir(before)
    written = []
    for stream in (out, err):
        stream.flush()
        written.append(stream.buffer.getvalue().decode(encoding))
    finished = Finished(code, *written)
    if not (reports and code == 1 and finished.stdout and "Traceback" not in finished.stderr):
        check_ended(finished)
    OUTCOMES["answered" if code == 0 else "refused"] += 1
    return finished


def check_ended(finished: Finished) -> None:
    """Check that a command ended well, or with one line about an error of its user."""
    lines = finished.stderr.splitlines()
    if "Traceback (most recent call last)" in finished.stderr:
        raise Broken(f"wrote a traceback:\n{finished.stderr}")
    if (
        finished.code == 2 and lines[-1:] and lines[-1].startswith("Error: ")
    ):  # of click, about the command itself
        return
    if finished.code not in (0, 1):
        raise Broken(f"ended with code {finished.code}:\n{finished.stderr}")
    errors = [line for line in lines if line.startswith("error: ")]
    if finished.code == 1 and (len(errors) != 1 or lines[-1] != errors[0]):
        raise Broken(f"ended with code 1 and not with one line about an error:\n{finished.stderr}")
    if errors:
        check_message(errors[0].removeprefix("error: "))


def check_message(message: str) -> None:
    """Check that the message of an error is one short line without control characters."""
    if not message.strip() or len(message) > LONGEST or _CONTROL.search(message):
        raise Broken(f"has a message that is not one clear line: {message[:LONGEST]!r}")


@contextmanager
def limits(seconds: float = SECONDS, memory: int = BYTES) -> Iterator[None]:
    """Limit the processor time of a block, and the memory that it adds, where the system can."""
    with _limited_time(seconds), _limited_memory(memory), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a warning is no failure here
        yield


@contextmanager
def _limited_time(seconds: float) -> Iterator[None]:
    if not hasattr(signal, "SIGPROF") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        raise _Hang

    before = signal.signal(signal.SIGPROF, end)
    # for work inside C code that never looks at signals: the process ends, with the place
    faulthandler.dump_traceback_later(10 * seconds, exit=True, file=sys.__stderr__)
    # again every second: an error raised inside a destructor or callback is lost
    signal.setitimer(signal.ITIMER_PROF, seconds, 1)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        faulthandler.cancel_dump_traceback_later()
        signal.signal(signal.SIGPROF, before)


@contextmanager
def _limited_memory(most: int) -> Iterator[None]:
    try:
        import resource  # which Windows lacks

        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (ImportError, OSError):
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = pages * resource.getpagesize() + most
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _trace(error: BaseException) -> str:
    with suppress(Exception):
        return "".join(traceback.format_exception(error)[-12:])
    return repr(error)
