"""Runs a command so that a mistake in the input ends in one line on stderr and exit status 1."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import catalogue
from confection import ConfigValidationError
from confit.config import CyclicReferenceError, MissingReference
from confit.errors import ConfitValidationError

from gliner_pipe.errors import GlinerPipeError

#: Mistakes of the user, not of the program: no traceback.
USER_ERRORS = (
    GlinerPipeError,
    ConfitValidationError,
    ConfigValidationError,
    MissingReference,
    CyclicReferenceError,
    catalogue.RegistryError,
    OSError,
)


def run(app: Callable[[], Any]) -> None:
    """Run a confit command line; ``CONFIT_DEBUG=1`` shows the traceback of a user error.

    Parameters
    ----------
    app
        The ``confit.Cli``.
    """
    try:
        app()
    except KeyboardInterrupt:
        _stop("stopped from the keyboard", 130)
    except USER_ERRORS as error:
        _stop(explain(error), 1, error)
    except Exception as error:
        if type(error) is not Exception:  # confit raises bare exceptions for wrong sections and options
            raise
        _stop(str(error), 1, error)


def explain(error: BaseException) -> str:
    """Say in one line a text what a user error is about.

    Returns
    -------
    str
        ``[section] what was found; what is allowed``, several of them joined by a bar.
    """
    if isinstance(error, ConfitValidationError):
        return " | ".join(f"[{_where(item['loc'])}] {_flat(item['msg'])}" for item in error.errors())
    if isinstance(error, ConfigValidationError):
        items = [f"[{_where(item['loc'])}] {_flat(item['msg'])}" for item in error.errors or []]
        return " | ".join(items) or _flat(str(error))
    return _flat(str(error))


def _where(location: Any) -> str:
    return ".".join(str(part) for part in location if part not in ("__root__",))


def _flat(text: str) -> str:
    return " ".join(text.split())


def _stop(message: str, status: int, error: BaseException | None = None) -> None:
    if error is not None and os.environ.get("CONFIT_DEBUG"):
        raise error
    print(f"error: {message}", file=sys.stderr)  # noqa: T201
    raise SystemExit(status)
