"""Command-line values that are taken as text, whatever they look like."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from gliner_pipe.errors import ConfigError


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
