"""The options of a command: which values are taken as text, whatever they look like, and which may be positional."""

from __future__ import annotations

import itertools
import json
import logging
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from gliner_pipe.cli.app import run
from gliner_pipe.errors import ConfigError


def command_line(
    app: Callable[[list[str]], Any],
    command: Callable[..., Any],
    argv: Sequence[str] | None,
    *,
    positional: Sequence[str] = (),
    text: Iterable[str] = (),
    parsed: Iterable[str] = (),
    logs: bool = False,
) -> None:
    """Run a command with the arguments of a command line.

    Parameters
    ----------
    app
        Called with the arguments: the ``confit.Cli`` of the command.
    command
        The function of the command; its annotations say which options are texts.
    argv
        Arguments; those of the process when None.
    positional
        Options whose values may come first, without their names.
    text, parsed
        Options that are texts, or are not, against their annotations.
    logs
        Whether the log of this package goes to standard output.
    """
    if logs:
        logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stdout)
        logging.getLogger("gliner_pipe").setLevel(logging.INFO)
    arguments = list(sys.argv[1:] if argv is None else argv)
    values = list(itertools.takewhile(lambda value: not value.startswith("-"), arguments))[: len(positional)]
    for place, value in enumerate(values):
        arguments[2 * place : 2 * place + 1] = [f"--{positional[place]}", value]
    names = {*text_options(command), *text}.difference(parsed)
    run(lambda: app(literal(arguments, names)), arguments)


def text_options(command: Callable[..., Any]) -> list[str]:
    """Return the options of a command that may be texts, and neither numbers nor switches."""
    found = []
    for name, hint in get_type_hints(command).items():
        kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
        plain = {get_origin(kind) or kind for kind in kinds}
        if name != "return" and plain & {Any, str, Path, Literal} and not plain & {bool, int, float}:
            found.append(name)
    return found


def literal(argv: Sequence[str], names: Iterable[str]) -> list[str]:
    """Quote the values of text options, so that confit does not parse them as numbers, references or comments.

    Parameters
    ----------
    argv
        Arguments of a command line.
    names
        Names of the text options, e.g. ``{"text"}``.

    Returns
    -------
    list[str]
        The arguments, with the values of text options as JSON strings.

    Examples
    --------
    >>> literal(["--text", "1e3", "--threshold", "0.4"], ["text"])
    ['--text', '"1e3"', '--threshold', '0.4']
    """
    options = {"--" + name.replace("_", "-") for name in names}
    result: list[str] = []
    rest = list(argv)
    while rest:
        option, joined, value = rest.pop(0).partition("=")
        if option.replace("_", "-") not in options or not option.startswith("--"):
            result.append(option + joined + value)
            continue
        if not joined:
            if not rest:
                raise ConfigError(option, "has no value", "", f"Write {option} VALUE")
            value = rest.pop(0)
        text = json.dumps(value, ensure_ascii=False)
        result += [option, text.encode("utf-8", "backslashreplace").decode()]  # bytes that are not UTF-8
    return result
