"""Parses labels and relations: a string, or a mapping with description, threshold and pattern."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeGuard, TypeVar

from gliner_pipe.errors import ConfigError
from gliner_pipe.util.patterns import Pattern

_KEYS = ("label", "description", "threshold")
#: Rules of a relation, with their defaults.
_RULES: dict[str, Any] = {
    "max_per_head": None,
    "max_per_tail": None,
    "symmetric": False,
    "inverse": None,
    "acyclic": False,
    "allow_self": True,
}
#: Largest ``max_per_head`` and ``max_per_tail``.
_MOST = 10**9
_HALF = re.compile(r"[\ud800-\udfff]")
#: What `is_text` allows.
TEXT = "a string that is not blank, of characters that UTF-8 can encode"
_Item = TypeVar("_Item", bound="LabelItem")


@dataclass(frozen=True)
class LabelItem:
    """One label.

    Attributes
    ----------
    label
        Label of the entities.
    description
        Text that the model reads in place of the label.
    threshold
        Minimum score for this label; None for the component's.
    pattern
        Regular expression that the whole text of an entity must match; None for any text.
    """

    label: str
    description: str | None = None
    threshold: float | None = None
    pattern: str | None = None

    @cached_property
    def text(self) -> str:
        """Text that the model reads."""
        return self.description or self.label

    def to_config(self) -> str | dict[str, Any]:
        """Return the label in the form of a config: a string if it has no other fields."""
        item: dict[str, Any] = {"label": self.label}
        if self.description is not None:
            item["description"] = self.description
        if self.threshold is not None:
            item["threshold"] = self.threshold
        if self.pattern is not None:
            item["pattern"] = self.pattern
        return self.label if len(item) == 1 else item


@dataclass(frozen=True)
class RelationItem(LabelItem):
    """One relation; it has no pattern.

    Attributes
    ----------
    head, tail
        Entity labels allowed for the head and the tail; None for any.
    max_per_head, max_per_tail
        Most relations of an entity as head and as tail; None for any number.
    symmetric
        Whether it holds in both directions or in none.
    inverse
        Label of the relation that holds in the other direction wherever this one does; None for none.
    acyclic
        Whether it has no cycles.
    allow_self
        Whether head and tail may be the same words.
    """

    head: tuple[str, ...] | None = None
    tail: tuple[str, ...] | None = None
    max_per_head: int | None = None
    max_per_tail: int | None = None
    symmetric: bool = False
    inverse: str | None = None
    acyclic: bool = False
    allow_self: bool = True

    @property
    def has_rules(self) -> bool:
        """Whether it has rules beside the types of its ends."""
        return any(getattr(self, name) != default for name, default in _RULES.items())

    def to_config(self) -> str | dict[str, Any]:
        """Return the relation in the form of a config."""
        item = LabelItem.to_config(self)
        more: dict[str, Any] = {
            side: list(labels) for side, labels in (("head", self.head), ("tail", self.tail)) if labels
        }
        given = {name: getattr(self, name) for name in _RULES}
        more |= {name: value for name, value in given.items() if value != _RULES[name]}
        return {**({"label": item} if isinstance(item, str) else item), **more} if more else item


def parse_labels(labels: Iterable[Any], where: str) -> tuple[LabelItem, ...]:
    """Parse a list of labels; of duplicates the first is kept.

    Parameters
    ----------
    labels
        Strings, or mappings with ``label`` and perhaps ``description``, ``threshold`` and ``pattern``.
    where
        Section, for errors.

    Raises
    ------
    ConfigError
        If the list or an item has another form.
    """
    return _parse_list(labels, where, LabelItem, parse_label)


def parse_relations(relations: Iterable[Any], where: str) -> tuple[RelationItem, ...]:
    """Parse a list of relations as ``parse_labels`` does; a mapping may also hold ``head``, ``tail`` and rules.

    Raises
    ------
    ConfigError
        If the list or an item has another form, or the rules of two relations do not fit together.
    """
    items = _parse_list(relations, where, RelationItem, _parse_relation)
    by_label = {item.label: item for item in items}
    for index, item in enumerate(items):
        if item.symmetric and {*(item.head or ())} != {*(item.tail or ())}:
            found = f"found true for {item.label!r}, whose head and tail differ"
            raise ConfigError(f"{where}[{index}].symmetric", found, "relations with the same head and tail")
        if item.symmetric and item.acyclic:
            found = f"found true for {item.label!r}, which is symmetric, so that each relation is a cycle"
            raise ConfigError(f"{where}[{index}].acyclic", found, "false, or symmetric = false")
        if item.inverse is None:
            continue
        place, other = f"{where}[{index}].inverse", by_label.get(item.inverse)
        if other is None or other is item or item.symmetric or other.symmetric:
            names = ", ".join(one for one in by_label if one != item.label) or "none"
            allowed = f"another relation: {names}; and both with symmetric = false"
            raise ConfigError(place, f"found {item.inverse!r} for {item.label!r}", allowed)
        ends = {*(item.head or ())}, {*(item.tail or ())}
        if ends != ({*(other.tail or ())}, {*(other.head or ())}):
            found = f"found {other.label!r} for {item.label!r}, whose head is not its tail, or the reverse"
            raise ConfigError(place, found, "a relation with head and tail exchanged")
        if other.inverse not in (None, item.label):
            raise ConfigError(
                place, f"found {other.label!r}, the inverse of {other.inverse!r}", "one inverse"
            )
    return items


def _parse_list(
    labels: Iterable[Any], where: str, kind: type[_Item], parse: Callable[[Any, str], _Item]
) -> tuple[_Item, ...]:
    if isinstance(labels, str) or not isinstance(labels, Iterable):
        names = [name.strip() for name in str(labels).split(",") if name.strip()]
        do = f"Write {json.dumps(names, ensure_ascii=False)}"
        raise ConfigError(where, f"found {labels!r}", "a list of labels", do)
    if isinstance(labels, Mapping):
        name, text = next(iter(labels.items()), ("person", "..."))
        do = f"Write {json.dumps([{'label': str(name), 'description': str(text)}], ensure_ascii=False)}"
        raise ConfigError(where, f"found {labels!r}", "a list of labels", do)
    items: dict[str, _Item] = {}
    for index, label in enumerate(labels):
        item = label if isinstance(label, kind) else parse(label, f"{where}[{index}]")
        items.setdefault(item.label, item)
    return tuple(items.values())


def as_items(labels: Iterable[Any] | Mapping[str, Any]) -> Iterable[Any]:
    """Return labels as a list for `parse_labels`.

    Parameters
    ----------
    labels
        A list, which is returned; or a mapping from each label to its description, to its other fields, or to None.
    """
    if not isinstance(labels, Mapping):
        return labels
    return [
        {"label": name, "description": value}
        if not isinstance(value, Mapping) or "label" in value
        else {"label": name, **value}
        for name, value in labels.items()
    ]


def with_own_items(own: Sequence[LabelItem], given: Sequence[LabelItem]) -> list[LabelItem]:
    """Return `given`; a label that is only a name is the one of the same name in `own`, with its other fields."""
    known = {item.label: item for item in own}
    return [known.get(item.label, item) if item.to_config() == item.label else item for item in given]


def refuse_references(labels: Any, where: str) -> None:
    """Refuse labels with ``${`` in a config, which spaCy would read back as a reference.

    Raises
    ------
    ConfigError
        If a label holds ``${``.
    """
    if "${" in str(labels):
        raise ConfigError(
            where,
            f"found '${{' in {labels!r}",
            "labels without it: spaCy's config files read it as a reference",
            "Set such labels at run time: nlp.get_pipe(...).labels = [...]",
        )


def _parse_relation(relation: Any, where: str) -> RelationItem:
    fields = _fields(relation, where, (*_KEYS, "head", "tail", *_RULES))
    item = _parse({key: value for key, value in fields.items() if key in _KEYS}, where)
    head, tail = (_types(fields.get(side), f"{where}.{side}") for side in ("head", "tail"))
    rules = {name: fields[name] for name in _RULES if fields.get(name) is not None}
    for name, value in rules.items():
        if name.startswith("max_"):
            right, allowed = (
                type(value) is int and 0 <= value <= _MOST,
                f"a whole number up to {_MOST}, or null",
            )
        elif name == "inverse":
            right, allowed = isinstance(value, str), "the label of a relation"
        else:
            right, allowed = isinstance(value, bool), "true or false"
        if not right:
            raise ConfigError(f"{where}.{name}", f"found {value!r}", allowed)
    return RelationItem(item.label, item.description, item.threshold, head=head, tail=tail, **rules)


def _types(labels: Any, where: str) -> tuple[str, ...] | None:
    if labels is None:
        return None
    right = isinstance(labels, (list, tuple)) and labels and all(map(is_text, labels))
    if not right:
        do = f"Write [{json.dumps(labels)}]" if isinstance(labels, str) else "Leave it out for any entity"
        raise ConfigError(where, f"found {labels!r}", "a list of entity labels", do)
    return tuple(labels)


def _fields(label: Any, where: str, keys: Sequence[str]) -> Mapping[str, Any]:
    fields = {"label": label} if isinstance(label, str) else label
    if not isinstance(fields, Mapping):
        allowed = ", ".join(f'"{key}"' for key in keys)
        raise ConfigError(where, f"found {label!r}", f"a string, or {{{allowed}}}")
    for key in fields:
        if key not in keys:
            raise ConfigError(where, f"found the key {key!r}", ", ".join(keys))
    return fields


def parse_label(label: Any, where: str) -> LabelItem:
    """Parse one label; see ``parse_labels``."""
    if type(label) is str and is_text(label):  # there may be 100,000 of them
        return LabelItem(label)
    fields = _fields(label, where, (*_KEYS, "pattern"))
    item = _parse({key: value for key, value in fields.items() if key in _KEYS}, where)
    pattern = fields.get("pattern")
    if pattern is None:
        return item
    allowed, do = "a regular expression for the whole text of an entity", r"Write e.g. [\w.]+@[\w.]+"
    if not isinstance(pattern, str) or not pattern:
        raise ConfigError(f"{where}.pattern", f"found {pattern!r}", allowed, do)
    try:
        Pattern(pattern)
    except (re.error, OverflowError, RecursionError, MemoryError) as error:
        raise ConfigError(f"{where}.pattern", f"found {pattern!r} ({error})", allowed, do) from None
    return replace(item, pattern=pattern)


def is_text(value: Any) -> TypeGuard[str]:
    """Whether a value is a string that is not blank and that files and tokenizers can hold: without half characters."""
    return isinstance(value, str) and bool(value.strip()) and (value.isascii() or not _HALF.search(value))


def _parse(label: Any, where: str) -> LabelItem:
    fields = _fields(label, where, _KEYS)
    name, description, threshold = (fields.get(key) for key in ("label", "description", "threshold"))
    if not is_text(name):
        raise ConfigError(where, f"found the label {name!r}", TEXT)
    if description is not None and not is_text(description):
        raise ConfigError(where, f"found the description {description!r}", TEXT)
    return LabelItem(name, description, None if threshold is None else check_threshold(threshold, where))


def check_threshold(value: Any, where: str) -> float:
    """Return `value` as a score.

    Raises
    ------
    ConfigError
        If it is not a number from 0 to 1.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise ConfigError(where, f"found the threshold {value!r}", "a number from 0 to 1")
    return float(value)


def split_labels(labels: str | Sequence[Any] | None, where: str = "labels") -> list[Any] | None:
    """Split labels given as one command line option.

    Parameters
    ----------
    labels
        ``"person, organization"``, a JSON list (for labels that contain commas: ``'["city, state"]'``), or a list.
    where
        Name of the option, for errors.

    Returns
    -------
    list or None
        The labels in order, without blank ones; None for None.

    Raises
    ------
    ConfigError
        If there is no label, or a text that begins with ``[`` is not valid JSON.
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
    for item in items:  # of a command line, whose bytes may be in another encoding
        if isinstance(item, str) and not item.isascii() and _HALF.search(item):
            raise ConfigError(where, f"holds {item!r}, which is not valid Unicode", "text in UTF-8")
    return items


def _json_list(text: str, where: str) -> list[Any]:
    try:
        items = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            where, f"is not a JSON list ({error})", 'e.g. ["person", "city, state"]', "Use double quotes"
        ) from error
    return list(items)
