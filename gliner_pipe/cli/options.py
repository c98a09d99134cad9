"""Command-line values that are text, whatever they look like, and lists of labels."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from gliner_pipe.errors import ConfigError


def literal(argv: Sequence[str], names: Iterable[str]) -> list[str]:
    """Protect the values of some options from being read as config values (numbers, references, comments).

    Parameters
    ----------
    argv
        Arguments of a command line.
    names
        Options whose values are taken as they are, e.g. ``{"text"}``.

    Returns
    -------
    list[str]
        The arguments, with these values as JSON strings.

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


def split_labels(labels: str | Sequence[Any] | None, where: str = "labels") -> list[Any] | None:
    """Split labels that a command line gives as one text.

    Parameters
    ----------
    labels
        ``"person, organization"``, a JSON list (for labels with commas in them: ``'["city, state"]'``), or a
        list already.
    where
        Name of the setting, for messages.

    Returns
    -------
    list or None
        The labels in their order, blank ones left out; None for None.

    Raises
    ------
    ConfigError
        If there is no label, or what looks like a JSON list is none.
    """
    if labels is None:
        return None
    if not isinstance(labels, str):
        items = list(labels)
    elif labels.lstrip().startswith("["):
        items = _json_list(labels, where)
    else:
        items = [label.strip() for label in labels.split(",") if label.strip()]
    if not items:
        raise ConfigError(where, "holds no label", "at least one", 'Write e.g. "person,organization"')
    return items


def _json_list(text: str, where: str) -> list[Any]:
    try:
        items = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(
            where, f"is not a JSON list ({error})", 'e.g. ["person", "city, state"]', "Mind the double quotes"
        ) from error
    return list(items)
