"""A name that another system has for a setting, and the error about a name that is unknown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Literal

from gliner_pipe.errors import ConfigError
from gliner_pipe.migration.values import Reader, anything

#: A longer list of allowed names is left out of an error that has a suggestion.
_LONG = 200


@dataclass(frozen=True)
class Name:
    """A name of another system: one row of the tables.

    Parameters
    ----------
    name
        The name in the other system.
    target
        Full path of the setting it becomes, e.g. ``train.max_steps``; empty if it becomes none.
    read
        Converts its value to ours.
    meaning
        One sentence for the documentation: what the setting does, why it is ignored, or why it is refused.
    fate
        ``option``; ``ignored`` with a note, because the training is the same without it; or ``refused``.
    do
        What to do instead of a refused name.
    part
        Name of a part, if several names decide `target` together
        (:func:`~gliner_pipe.migration.routing.route` joins the parts).
    null
        Whether null is a value; by default it means that the option is not set.
    literal
        Whether the text "none" is a value; by default it means that the option is not set.
    older
        Whether this is a name of earlier GLiNER versions.
    """

    name: str
    target: str
    read: Reader
    meaning: str
    fate: Literal["option", "ignored", "refused"] = "option"
    do: str = ""
    part: str = ""
    null: bool = False
    literal: bool = False
    older: bool = False

    @property
    def key(self) -> str:
        """What only one name of a file may set: the part, or else the target."""
        return self.part or self.target

    @property
    def clause(self) -> str:
        """The meaning as it follows a colon."""
        return self.meaning[:1].lower() + self.meaning[1:].rstrip(".")


def ignored(names: str, meaning: str, read: Reader = anything, *, older: bool = False) -> Iterable[Name]:
    """Return the rows of names (separated by blanks) that change nothing."""
    return [Name(name, "", read, meaning, "ignored", older=older) for name in names.split()]


def refused(names: str, meaning: str, do: str) -> Iterable[Name]:
    """Return the rows of names (separated by blanks) that are refused."""
    return [Name(name, "", anything, meaning, "refused", do) for name in names.split()]


def renamed(rows: Iterable[Name], names: str, *, older: bool = False) -> Iterable[Name]:
    """Return the rows of other names for the same options.

    Parameters
    ----------
    rows
        Rows of the options.
    names
        ``new=name``, or just the name where it is the same, separated by blanks.
    older
        Whether the new names are those of earlier GLiNER versions.
    """
    known = {row.name: row for row in rows}
    for pair in names.split():
        name, _, now = pair.partition("=")
        row = replace(known[now or name], name=name)
        yield replace(row, meaning=f"Older name of {now}.", older=True) if older else row


def unknown(name: str, where: str, names: Sequence[str], allowed: str = "") -> ConfigError:
    """Return the error about an unknown name.

    Parameters
    ----------
    name
        The name.
    where
        Its place.
    names
        Known names; the closest one is suggested.
    allowed
        List for the message; left out if it is long and there is a suggestion.
    """
    close = get_close_matches(name, names, 1)
    if close and len(allowed) > _LONG:
        allowed = ""
    return ConfigError(where, "is unknown", allowed, f"Did you mean {close[0]!r}?" if close else "")
