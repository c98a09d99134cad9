"""Turns confit's errors about the arguments of a function or class into ours."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

from confit.errors import ConfitValidationError, flatten_errors

from gliner_pipe.errors import ConfigError, GlinerPipeError


class ArgumentError(ConfigError, ConfitValidationError):  # type: ignore[misc]
    """A wrong argument of a block or command; confit adds the section of a config to it, as to its own errors."""

    def __init__(self, where: str, found: str, allowed: str = "", do: str = "") -> None:
        said = ConfigError(where, found, allowed, do)
        self.where, self.found, self.allowed, self.do = said.where, said.found, said.allowed, said.do
        ConfitValidationError.__init__(self, [])
        Exception.__init__(self, str(said))

    __str__ = Exception.__str__
    __repr__ = Exception.__repr__


def own_errors(function: Callable[..., Any], where: str, *, stated: bool = False) -> Callable[..., Any]:
    """Return a function whose errors about its arguments are a :class:`ConfigError`.

    Parameters
    ----------
    function
        A function that confit validates.
    where
        Place of its arguments in messages; empty if the name of an argument is enough.
    stated
        Whether an error of ours, which reading an argument raised, is raised as it is.
    """

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except ArgumentError:
            raise
        except ConfitValidationError as error:
            raise _own(error, where, stated) from None

    return call


def _own(error: ConfitValidationError, where: str, stated: bool) -> Exception:
    first = next(iter(flatten_errors(list(error.raw_errors))))
    if stated and isinstance(first.exc, GlinerPipeError):
        return first.exc
    (item, *_) = error.errors()
    place = ".".join([where, *map(str, item["loc"])] if where else map(str, item["loc"]))
    message = " ".join(item["msg"].split())
    if isinstance(first.exc, ConfigError):
        own = ArgumentError(place, first.exc.found, first.exc.allowed, first.exc.do)
    elif message.startswith("unexpected keyword"):
        own = ArgumentError(place, "is no argument", do="Remove it, or check its name")
    elif (value := getattr(first.exc, "actual_value", None)) is not None:
        allowed = re.sub(r", (?:got|unable to parse).*", "", message.removeprefix("input should be "))
        own = ArgumentError(place, f"is {value}", allowed)
    else:
        found, _, allowed = message.partition("; allowed: ")
        own = ArgumentError(place, found, allowed)
    own.raw_errors, own.model, own.name = error.raw_errors, error.model, error.name
    return own
