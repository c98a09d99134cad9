"""Runs commands: a user error becomes one line on stderr and an exit code."""

from __future__ import annotations

import configparser
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import Any

import catalogue
from confection import ConfigValidationError
from confit.config import Config, CyclicReferenceError, MissingReference
from confit.errors import ConfitValidationError, flatten_errors
from confit.utils.xjson import Reference

from gliner_pipe.cli.application import parsed_options
from gliner_pipe.cli.signals import ended_by_signals, stop
from gliner_pipe.errors import GlinerPipeError, reason_of
from gliner_pipe.pipeline.config_errors import find_mistake, flat
from gliner_pipe.pipeline.config_files import read_configs
from gliner_pipe.util.devices import is_out_of_memory
from gliner_pipe.util.listing import advice_on

#: Errors in the input, not in the program: shown without a traceback.
USER_ERRORS = (
    GlinerPipeError,
    ConfitValidationError,
    ConfigValidationError,
    MissingReference,
    CyclicReferenceError,
    catalogue.RegistryError,
    configparser.Error,
    OSError,
)

#: What the name of a temporary file has before the name of the file that it replaces.
_SIBLING = re.compile(r"\.(?:tmp|old)-[0-9a-f]+-")
#: How pydantic says what a value must be, and what it is.
_EXPECTED = re.compile(r"input should be (.+?)(?:, unable to parse [^,]*)?, got (.+) \(\w+\)$")
#: What pydantic adds to the place of an error in one of several types.
_UNION_MEMBER = re.compile(r"int|float|str|bool|[\w-]+\[.*\]")


def run(
    app: Callable[[], Any], argv: Sequence[str] | None = None, usage: str = "", own: Iterable[str] = ()
) -> None:
    """Run a confit command line; ``CONFIT_DEBUG=1`` shows the traceback of a user error.

    Parameters
    ----------
    app
        The ``confit.Cli``, or a function that calls it.
    argv
        The arguments that it parses, used to find the faulty section; those of the process by default.
    usage
        What to write, for the error about a missing value.
    own
        Options of the command that are options of no section, although it reads the section ``[train]``.
    """
    show = os.environ.get("CONFIT_DEBUG", "0") not in ("", "0", "false")
    try:
        with ended_by_signals(), _confit_raises():
            app()
    except Exception as error:
        message = None if show else _message(error, list(sys.argv[1:] if argv is None else argv))
        if message is None:
            raise
        for name in own:
            message = message.replace(f"[train.{name}]", f"[{name}]")
        if usage and message.endswith(" is missing"):
            message = f"{message}. Write {usage}"
        stop(_with_advice(message, list(sys.argv[1:] if argv is None else argv)), 1)


def _message(error: Exception, argv: list[str]) -> str | None:
    """Return the message for a user error; None for an error in the program."""
    config = _config_of(argv)
    if isinstance(error, GlinerPipeError) and "components.*" not in str(error):
        return flat(str(error))
    known = isinstance(error, USER_ERRORS) and not isinstance(error, OSError)
    if config is not None and (known or _is_confit(error)) and (mistake := find_mistake(config)):
        return flat(str(mistake))
    if config is not None and isinstance(error, KeyError) and _is_confit(error):
        return f"[{error.args[0]}] this section is missing; found: {', '.join(config) or 'none'}."
    if isinstance(error, configparser.Error):
        files = ", ".join(map(str, _paths_and_overrides(argv)[0]))
        return flat(str(error)).replace("'<string>'", files)
    if isinstance(error, USER_ERRORS):
        return explain(error, config)
    if type(error) is Exception:  # confit raises bare exceptions for wrong options
        found = f"; allowed: {', '.join(config)}" if config and "existing section" in str(error) else ""
        return flat(str(error)) + found
    if is_out_of_memory(error):
        return f"memory is full ({reason_of(error) or type(error).__name__}). Use smaller batches or fewer processes"
    if isinstance(error, TypeError) and _is_confit(error):
        return f"an expression ${{...}} of the config cannot be computed ({flat(str(error))}). Check the values in it."
    return None


def _with_advice(message: str, argv: Sequence[str]) -> str:
    """Add what to do to the message about an option without a value, which confit reads as true."""
    for option, following in zip_longest(argv, argv[1:], fillvalue="--"):
        if not option.startswith("--") or "=" in option or not following.startswith("--"):
            continue
        name = re.escape(option.removeprefix("--").replace("-", "_"))
        if re.match(rf"\[(?:\w+\.)?{name}\]", message):
            return f"{message.removesuffix('.')}. Without a value {option} is true: write {option} VALUE"
    return message


def _is_confit(error: Exception) -> bool:
    """Return whether confit, or an expression in a config, raised the error."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    if frame is None:
        return False
    code = frame.tb_frame
    return code.f_code.co_filename == "<AST>" or str(code.f_globals.get("__name__")).startswith("confit.")


def explain(error: BaseException, config: Mapping[str, Any] | None = None) -> str:
    """Return a one-line message for a user error.

    Parameters
    ----------
    error
        A user error.
    config
        The config as written in the file; its section names are used in the message.

    Returns
    -------
    str
        ``[section] found; allowed: ...``. Several messages are joined by a bar.
    """
    if isinstance(error, ConfitValidationError):
        return " | ".join(dict.fromkeys(_items(error, config or {})))
    if isinstance(error, ConfigValidationError):
        items = [f"[{'.'.join(map(str, item['loc']))}] {flat(item['msg'])}" for item in error.errors or []]
        return " | ".join(items) or flat(str(error))
    if isinstance(error, FileNotFoundError) and error.filename is not None:
        return f"{error.filename} does not exist. {advice_on(Path(os.fsdecode(error.filename)))}"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{_SIBLING.sub('', os.fsdecode(error.filename))}: {error.strerror}"
    return flat(str(error))


def _items(error: ConfitValidationError, config: Mapping[str, Any]) -> Iterator[str]:
    for raw, item in zip(flatten_errors(error.raw_errors), error.errors(), strict=True):
        message = flat(item["msg"])
        if isinstance(raw.exc, GlinerPipeError):
            yield flat(str(raw.exc))
            continue
        if message == "field required":
            message = "is missing"
        if message == "unexpected keyword argument":
            message = "is no setting here"
            if fields := [name for name in getattr(error.model, "model_fields", {}) if not _is_private(name)]:
                message += f"; allowed: {', '.join(fields)}"
        message = _EXPECTED.sub(r"is \2; allowed: \1", message)
        yield f"[{_where(item['loc'], config)}] {message}"


def _is_private(name: str) -> bool:
    return name.startswith("v__") or name in ("args", "kwargs", "config_meta", "aliases")


def _where(location: Sequence[Any], config: Mapping[str, Any]) -> str:
    """Return the path in the file; a section that ``${...}`` refers to is named by its own path."""
    parts = [part for part in location if part != "__root__" and not _UNION_MEMBER.fullmatch(str(part))]
    if len(parts) > 2 and parts[0] in config and parts[1] not in config[parts[0]] and parts[1] in config:
        parts = parts[1:]  # confit puts the command before paths of other sections
    found: Any = config
    path: list[str] = []
    for part in parts:
        path.append(str(part))
        found = found.get(part) if isinstance(found, Mapping) else None
        if isinstance(found, Reference) and found.value.replace(".", "").replace("_", "").isalnum():
            path = found.value.split(".")
            found = config
            for name in path:
                found = found.get(name) if isinstance(found, Mapping) else None
    return ".".join(path)


def _paths_and_overrides(argv: Sequence[str]) -> tuple[list[Path], list[str]]:
    paths, overrides = [], []
    rest = list(argv)
    while rest:
        option, joined, value = rest.pop(0).partition("=")
        if option != "--config":
            overrides.append(option + joined + value)
        elif joined or rest:
            paths.append(Path(value if joined else rest.pop(0)))
    return paths, overrides


def _config_of(argv: Sequence[str]) -> Config | None:
    """Return the config of a command line with its overrides; None if it cannot be read."""
    paths, overrides = _paths_and_overrides(argv)
    try:
        if not all(path.is_file() for path in paths):  # a pipe has been read
            return None
        config = read_configs(paths)[-1]
        for key, value in parsed_options(overrides).items():
            *sections, last = key.split(".")
            if sections and sections[0] in config:
                found: Any = config
                for name in sections:
                    found = found.setdefault(name, Config())
                found[last] = value
    except (Exception, SystemExit):  # the command's own error says why
        return None
    return config


@contextmanager
def _confit_raises() -> Iterator[None]:
    """Make confit raise errors instead of printing them."""
    before = os.environ.get("CONFIT_DEBUG")
    os.environ["CONFIT_DEBUG"] = "1"
    try:
        with (
            warnings.catch_warnings()
        ):  # of values that confit reads as texts: where they are wrong, an error says so
            warnings.filterwarnings("ignore", "Some values may be malformed", UserWarning)
            yield
    finally:
        if before is None:
            del os.environ["CONFIT_DEBUG"]
        else:
            os.environ["CONFIT_DEBUG"] = before
