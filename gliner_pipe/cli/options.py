"""The options of a command: which values are taken as text, whatever they look like, and which need no option."""

from __future__ import annotations

import itertools
import json
import logging
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from gliner_pipe.cli.app import run
from gliner_pipe.cli.commands import COMMANDS, CONFIGS, CommandInfo, start
from gliner_pipe.cli.signatures import OptionInfo
from gliner_pipe.errors import ConfigError
from gliner_pipe.migration import configured
from gliner_pipe.pipeline.config_errors import did_you_mean
from gliner_pipe.util.console import ConsoleHandler, writes_anything

#: Values of a switch.
_SWITCH = ("true", "false", "null")


def command_line(
    name: str,
    app: Callable[[list[str]], Any],
    command: Callable[..., Any] | None,
    argv: Sequence[str] | None,
    *,
    text: Iterable[str] = (),
    parsed: Iterable[str] = (),
    logs: bool = False,
    arranges: bool = True,
) -> None:
    """Run a command with the arguments of a command line.

    Parameters
    ----------
    name
        The command, a key of `COMMANDS`.
    app
        Called with the arguments: the ``confit.Cli`` of the command.
    command
        The function of the command; its annotations say which options are texts. None if confit parses all values.
    argv
        Arguments; those of the process when None.
    text, parsed
        Options that are texts, or are not, against their annotations.
    logs
        Whether the log of this package goes to standard output.
    arranges
        Whether values are put behind their options here; False if `app` does that.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if {"--help", "-h"} & set(arguments):
        start(name, arguments)
    writes_anything()
    logging.basicConfig(
        level=logging.WARNING, format="%(message)s", handlers=[ConsoleHandler(stderr=not logs)]
    )
    if logs:
        logging.getLogger("gliner_pipe").setLevel(logging.INFO)
    info = COMMANDS[name]
    own = [] if command is None else text_options(command)
    texts = {*own, *text}.difference(parsed)

    def work() -> None:
        if arranges:
            arguments[:] = literal(arranged(arguments, info, texts), texts)
        if info.trains:
            arguments[:] = configured(arguments)
        app(arguments)

    unsectioned = info.signature.options if name == "check" else ()
    run(work, arguments, f"gliner-pipe {name} {info.usage}", unsectioned)


def arranged(argv: Sequence[str], info: CommandInfo, texts: Iterable[str] = ()) -> list[str]:
    """Put every value behind its option, as confit reads it.

    Values without an option get theirs. Several values of one option become one: joined by commas if it is a text, a
    JSON list otherwise.

    Parameters
    ----------
    argv
        Arguments of a command line.
    info
        The command.
    texts
        Names of the text options.

    Raises
    ------
    ConfigError
        If an option is unknown, or a value belongs to none.
    """
    texts = {*texts}
    given = {_name(part) for part in argv if part.startswith("--")}
    places = [name for name in info.positional if name not in given]
    result: list[str] = []
    rest = list(argv)
    while rest:
        part = rest.pop(0)
        if re.match(r"-[^-\d.]", part):
            raise ConfigError(part, "is no option of this command", do="Options begin with --")
        if not part.startswith("--"):
            is_config = info.configs_by_ending and part.lower().endswith(CONFIGS)
            if not is_config and not places:
                usage = f"gliner-pipe {info.name} {info.usage} [OPTIONS]"
                raise ConfigError(part, "is a value without an option", usage, "Write --OPTION VALUE")
            result += ["--config" if is_config else f"--{places.pop(0)}", part]
            continue
        option = info.options.get(_name(part))
        if option is None and not info.trains and "." not in part.partition("=")[0]:
            do = did_you_mean(_name(part), info.options)
            raise ConfigError(part, "is no option of this command", "" if do else ", ".join(info.options), do)
        if "=" in part:
            result.append(part)
            continue
        values = list(itertools.takewhile(lambda value: not value.startswith("--"), rest))
        if option is None:  # a path of the config, or a name in another library
            values = list(itertools.takewhile(lambda value: not value.endswith(CONFIGS), values))
        elif option.is_switch:
            values = [value for value in values[:1] if value.lower() in _SWITCH]
        elif not option.takes_several:
            values = rest[:1] if option.name in texts else values[:1]
        del rest[: len(values)]
        result.append(part)
        if _name(part) not in texts and (len(values) > 1 or _is_item(option, values)):
            values = [json.dumps(values, ensure_ascii=False)]
        result += [",".join(values)] if values else []
    return result


def _is_item(option: OptionInfo | None, values: Sequence[str]) -> bool:
    """Return whether one value is an item of a list, as confit would not read it as a list."""
    several = option is not None and option.takes_several
    return several and len(values) == 1 and not re.match(r"[\[\"'$]|null$", values[0])


def _name(part: str) -> str:
    return part.partition("=")[0].removeprefix("--").replace("-", "_")


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
