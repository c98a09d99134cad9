"""The options of a command as its source states them: nothing is imported, so that ``--help`` is quick."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import griffe

#: Parameters of commands that are no options of the command line.
NO_OPTIONS = ("config_meta", "on_validation_callback")

_NUMBERS = {"float", "Number", "Share", "Rate", "NonNegative", "Positive"}
_WHOLE = {"int", "Integer", "Amount", "Count", "Processes", "Size", "Seed"}


@dataclass(frozen=True)
class OptionInfo:
    """One option.

    Parameters
    ----------
    name
        The parameter of the function.
    annotation
        Its type, as written.
    default
        Its default, as written; None if it is required.
    text
        What it does.
    """

    name: str
    annotation: str
    default: str | None
    text: str

    @property
    def kinds(self) -> list[str]:
        """The members of the type, without None, e.g. ``["str", "list[str]"]``."""
        kinds = re.split(r"\s\|\s(?![^\[]*\])", self.annotation)
        return [kind for kind in kinds if kind != "None"]

    @property
    def is_switch(self) -> bool:
        """Whether it is true or false."""
        return self.kinds == ["bool"]

    @property
    def takes_several(self) -> bool:
        """Whether it takes several values."""
        return any(kind.startswith(("list[", "Sequence[")) for kind in self.kinds)

    @property
    def choices(self) -> list[str]:
        """The values of a ``Literal``."""
        return re.findall(r"['\"]([^'\"]+)['\"]", self.annotation) if "Literal[" in self.annotation else []

    @property
    def value(self) -> str:
        """A word for its value; empty for a switch that is off by default."""
        if self.is_switch:
            return "" if self.default == "False" else "true|false"
        if self.choices:
            return "|".join(self.choices)
        kinds = {kind.partition("[")[0] for kind in self.kinds}
        if "Path" in kinds:
            return "PATH"
        if kinds <= _WHOLE:
            return "INTEGER"
        if kinds <= _WHOLE | _NUMBERS:
            return "NUMBER"
        if self.takes_several:
            return "VALUE ..."
        return "TEXT" if "str" in kinds else "VALUE"

    @property
    def shown_default(self) -> str:
        """The default for a user; empty if there is nothing to say."""
        if self.default in (None, "None", "False", "{}", "[]") or self.default.startswith("field("):
            return ""
        if self.default == "Path()":
            return "."
        return re.sub(r"^Path\((.*)\)$|^True$", lambda match: match[1] or "true", self.default).strip("'\"")


@dataclass(frozen=True)
class Signature:
    """Paragraphs of the docstring of a function, and its options by name."""

    paragraphs: list[str]
    options: dict[str, OptionInfo]


@cache
def signature_of(module: str, function: str) -> Signature:
    """Return the documented options of a function, or of a dataclass, which is not imported.

    Parameters
    ----------
    module
        Module of this package, e.g. ``"train"``.
    function
        Its name in the module.
    """
    found = _source(module)[function]
    sections = found.docstring.parse("numpy", warn_unknown_params=False, warn_missing_types=False)
    texts = [one.value for one in sections if one.kind is griffe.DocstringSectionKind.text]
    documented = {
        item.name: item.description
        for one in sections
        if one.kind is griffe.DocstringSectionKind.parameters
        for item in one.value
    }
    if found.is_class:  # the fields of a dataclass
        given = [(one.name, one.annotation, one.value) for one in found.attributes.values()]
    else:
        given = [
            (one.name, one.annotation, one.default)
            for one in found.parameters
            if one.kind is not griffe.ParameterKind.var_keyword
        ]
    options = {
        name: OptionInfo(
            name,
            str(annotation),
            None if default is None else str(default),
            " ".join(plain(documented.get(name, "")).split()),
        )
        for name, annotation, default in given
        if name not in NO_OPTIONS
    }
    paragraphs = [" ".join(plain(text).split()) for text in "\n\n".join(texts).split("\n\n")]
    return Signature(paragraphs, options)


def title_of(module: str) -> str:
    """Return the first line of a module's docstring, up to the colon."""
    return " ".join(plain(_source(module).docstring.value.partition(":")[0]).split())


@cache
def _source(module: str) -> Any:
    file = Path(__file__).parent.parent.joinpath(*module.split(".")).with_suffix(".py")
    return griffe.visit(module, file, file.read_text(encoding="utf-8"))


def plain(text: str) -> str:
    """Return text of a docstring without its marks: code, roles and references."""
    text = re.sub(r":\w+:`~?([^`]+)`", r"\1", text)
    return re.sub(r"``([^`]*)``|`([^`]*)`", lambda match: match[1] or match[2], text)
