"""Checks options against the types and ranges of a class; a mistake becomes a ``ConfigError``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import is_dataclass
from types import NoneType
from typing import Any, TypeVar, get_args, get_type_hints

from pydantic import ValidationError

from gliner_pipe.errors import ConfigError

Options = TypeVar("Options")


def checked(kind: type[Options], options: Any, where: str) -> Options:
    """Return an object of options, checked by pydantic.

    Parameters
    ----------
    kind
        A model or dataclass of pydantic. Its validators may raise a ``ConfigError`` whose section is the name of an
        option.
    options
        Values by name; or the object, which is returned.
    where
        Section of the options in messages; empty if the name of an option is enough.

    Raises
    ------
    ConfigError
        For the first option that is unknown, missing or invalid.
    """
    if is_dataclass(kind) and isinstance(options, kind):
        return options
    refuse_unknown(kind, options, where)
    try:
        return kind(**options)
    except ValidationError as error:
        problems = error.errors(include_url=False)
    first = problems[0]
    raised = first.get("ctx", {}).get("error")
    name = str(raised.where if isinstance(raised, ConfigError) else first["loc"][0])
    place = f"{where}.{name}" if where else name
    if isinstance(raised, ConfigError):
        raise ConfigError(place, raised.found, raised.allowed, raised.do)
    if first["type"] == "missing":
        raise ConfigError(place, "is missing", "a value")
    allowed = [
        problem["msg"].removeprefix("Input should be ").removeprefix("Value error, ").partition(", unable")[0]
        for problem in problems
        if problem["loc"][0] == first["loc"][0]
    ]
    if NoneType in get_args(get_type_hints(kind)[name]):
        allowed.append("null")
    found = first["input"]
    raise ConfigError(
        place, f"is {found!r}" if isinstance(found, str) else f"is {found}", ", or ".join(allowed)
    )


def refuse_unknown(kind: type[object], options: Any, where: str) -> None:
    """Raise a ConfigError if something is no mapping, or has a name that is no option of a class."""
    known = [name for name in get_type_hints(kind) if not name.startswith(("_", "model_config"))]
    if not isinstance(options, Mapping):
        raise ConfigError(where, f"is {options!r}", f"a section with {', '.join(known)}")
    for name in options:
        if name not in known:
            place = f"{where}.{name}" if where else str(name)
            raise ConfigError(place, "is no option of this section", ", ".join(known))
