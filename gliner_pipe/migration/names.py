"""Names that training options have elsewhere, and their way into a configuration of this package."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Literal

from gliner_pipe.errors import ConfigError
from gliner_pipe.migration.values import Reader, WrongValue, anything, is_nothing

#: Systems that a name can come from.
SYSTEMS = ("GLiNER", "GLiNER (older)", "transformers", "EDS-NLP", "AutoTrain")

#: Characters of a list that does not bury what stands behind it.
_SHORT = 200


@dataclass(frozen=True)
class Name:
    """A name of another system, and what becomes of it.

    Parameters
    ----------
    name
        As it stands there.
    systems
        Where it stands, some of :data:`SYSTEMS`.
    target
        Where it goes: the full path of a setting, e.g. ``train.max_steps``; empty when it goes nowhere.
    meaning
        One sentence for the documentation: what it does here, why it does nothing, or why it is refused.
    read
        Turns its value into ours.
    fate
        ``option``; ``ignored``, with a note, as the training is the same without it; ``refused``.
    do
        What to do about a name that is refused.
    part
        Name of what several of these decide together; the target by itself when not given.
    null
        Whether null is a value, not the absence of one.
    literal
        Whether the text "none" is a name, not the absence of one.
    """

    name: str
    systems: tuple[str, ...]
    target: str
    meaning: str
    read: Reader = anything
    fate: Literal["option", "ignored", "refused"] = "option"
    do: str = ""
    part: str = ""
    null: bool = False
    literal: bool = False

    @property
    def key(self) -> str:
        """What must be said once only."""
        return self.part or self.target

    @property
    def section(self) -> str:
        """Section of the target."""
        return self.target.rpartition(".")[0]


@dataclass
class Given:
    """A value under the name of another system.

    Parameters
    ----------
    name
        What the name means.
    value
        As it stands.
    where
        Where it stands, for messages.
    """

    name: Name
    value: Any
    where: str

    @property
    def absent(self) -> bool:
        """Whether the value says that nothing is set."""
        return self.value is None if self.name.literal else is_nothing(self.value)


@dataclass
class Routed:
    """Values on their way: read, and sorted by where they go.

    Parameters
    ----------
    settings
        By full path.
    parts
        What several names decide together, by the name of the part.
    places
        Where each of both was said.
    notes
        Lines for the user.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    parts: dict[str, Any] = field(default_factory=dict)
    places: dict[str, Given] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def place(self, *keys: str) -> str:
        """Where the first of these settings or parts was said."""
        return next((self.places[key].where for key in keys if key in self.places), keys[0])


def route(given: Iterable[Given]) -> Routed:
    """Read values and sort them by where they go.

    Raises
    ------
    ConfigError
        About the first that cannot be, that is refused, or that says again what another one said.
    """
    routed = Routed()
    for item in given:
        name = item.name
        if item.absent:
            if name.null:
                routed.settings[name.key], routed.places[name.key] = None, item
            continue
        if name.fate == "refused":
            if item.value is False or item.value in ([], {}):
                continue  # not asked for
            raise ConfigError(item.where, f"cannot be taken over: {_clause(name.meaning)}", do=name.do)
        try:
            value = name.read(item.value)
        except WrongValue as error:
            raise error.at(item.where) from None
        if name.fate == "ignored":
            routed.notes.append(f"{name.name} changes nothing: {_clause(name.meaning)}")
            continue
        if value is None and not name.null:
            continue
        if name.key in routed.places:
            first = routed.places[name.key]
            raise ConfigError(
                item.where,
                f"says what {first.name.name} says already ({first.where})",
                do=f"Keep one of the two: both set {name.target}",
            )
        routed.places[name.key] = item
        (routed.parts if name.part else routed.settings)[name.key] = value
    return routed


def _clause(sentence: str) -> str:
    """Return a sentence as it stands behind a colon."""
    return sentence[:1].lower() + sentence[1:].rstrip(".")


def unknown(name: str, where: str, names: Sequence[str], allowed: str = "") -> ConfigError:
    """Return the error about a name that nobody knows: with the nearest that is known, or else with all `allowed`."""
    close = get_close_matches(name, names, 1)
    if close and len(allowed) > _SHORT:
        allowed = ""
    return ConfigError(where, "is unknown", allowed, f"Did you mean {close[0]!r}?" if close else "")


def translate(
    options: Mapping[str, Any], known: Sequence[str], note: Callable[[str], None]
) -> dict[str, Any]:
    """Return options of a training given under the names that other systems have for them, under their names here.

    Only names whose place is an option of ``[train]`` are taken; the error about another one says in which section it
    belongs.

    Parameters
    ----------
    options
        Options that ``train()`` does not have.
    known
        Those that it has.
    note
        Takes a line for the user.

    Raises
    ------
    ConfigError
        If an option is unknown under any name, belongs elsewhere, or cannot be.
    """
    from gliner_pipe.migration.joining import join
    from gliner_pipe.migration.tables import OPTIONS

    given = []
    for option, value in options.items():
        where = f"train.{option}"
        name = OPTIONS.get(option)
        if name is None:
            close = get_close_matches(option, [*known, *OPTIONS], n=1)
            hint = f"Did you mean {close[0]!r}?" if close else ""
            raise ConfigError(where, "is no option of train", ", ".join(known), hint)
        if name.fate == "option" and not _is_option(name):
            shown = "" if isinstance(value, str) and "token" in option else f" ({_clause(name.meaning)})"
            raise ConfigError(
                where,
                f"is no option of train: it is set elsewhere{shown}",
                do=f"Put {name.target.rpartition('.')[2]} in the section [{name.section}]",
            )
        given.append(Given(name, value, where))
    routed = join(route(given))
    for line in routed.notes:
        note(f"note: {line}")
    result = {target.removeprefix("train."): value for target, value in routed.settings.items()}
    sources: dict[str, list[str]] = {}
    for item in routed.places.values():
        sources.setdefault(item.name.target.removeprefix("train."), []).append(item.name.name)
    for option, value in result.items():
        names = sources.get(option, [option])
        if names != [option]:
            verb = "is" if len(names) == 1 else "are"
            note(f"note: {' and '.join(names)} {verb} read as {option} = {value}")
    return result


def _is_option(name: Name) -> bool:
    return name.target.startswith("train.") and name.target.count(".") == 1
