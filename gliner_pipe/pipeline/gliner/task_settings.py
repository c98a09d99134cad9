"""Parses the settings ``classes`` and ``records``: what to predict beside entities and relations."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar, get_args

from gliner_pipe.errors import ConfigError
from gliner_pipe.modeling.tasks import HEAD_AND_TAIL, RecordMode, Task, TaskField
from gliner_pipe.pipeline.config_errors import did_you_mean
from gliner_pipe.pipeline.labels import (
    TEXT,
    LabelItem,
    RelationItem,
    as_items,
    check_threshold,
    is_text,
    parse_label,
    parse_labels,
)
from gliner_pipe.util.patterns import Pattern

_Item = TypeVar("_Item")

_CLASSES_KEYS = (
    "labels",
    "description",
    "multi_label",
    "threshold",
    "examples",
    "min_labels",
    "max_labels",
    "default",
    "ordinal",
    "temperature",
)
_EXAMPLES = "pairs of a text and its label"
_RECORD_KEYS = ("fields", "description", "mode", "anchor")
_FIELD_KEYS = ("field", "description", "choices", "list", "threshold", "pattern", "exclusive")


@dataclass(frozen=True)
class ClassesItem:
    """A classification of the whole text.

    Attributes
    ----------
    name
        Name of the task.
    labels
        Its labels, with descriptions.
    description
        Text that explains the task; None for none.
    multi_label
        Whether a text may have several of the labels.
    threshold
        Minimum score of a label; None for the default, see ``chosen``.
    examples
        Texts with their labels, which the model reads before it classifies.
    min_labels, max_labels
        Number of labels of a text, if it may have several; None for at least one, and for no limit.
    default
        Label in place of none: where no other label is chosen, and only there.
    ordinal
        Whether the labels are levels, the lowest first.
    temperature
        Divides the logits before they become probabilities.
    """

    name: str
    labels: tuple[LabelItem, ...]
    description: str | None = None
    multi_label: bool = False
    threshold: float | None = None
    examples: tuple[tuple[str, str], ...] = ()
    min_labels: int | None = None
    max_labels: int | None = None
    default: str | None = None
    ordinal: bool = False
    temperature: float = 1.0

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the labels."""
        return tuple(item.label for item in self.labels)

    @property
    def bounds(self) -> tuple[int, int]:
        """Fewest and most labels of a text."""
        if self.multi_label:
            least = 1 if self.min_labels is None else self.min_labels
            most = len(self.labels) if self.max_labels is None else self.max_labels
            return least if self.default is None else 1, most
        return int(self.threshold is None or self.default is not None), 1

    @cached_property
    def task(self) -> Task:
        """The task as the model reads it."""
        fields = tuple(TaskField(item.label, item.description) for item in self.labels)
        return Task("classes", self.name, fields, self.description, self.examples)

    def to_config(self) -> list[Any] | dict[str, Any]:
        """Return the task in the form of a config: a list of labels if it has no other settings."""
        labels = [item.to_config() for item in self.labels]
        more = {
            "description": self.description,
            "multi_label": self.multi_label or None,
            "threshold": self.threshold,
            "examples": [list(example) for example in self.examples] or None,
            "min_labels": self.min_labels,
            "max_labels": self.max_labels,
            "default": self.default,
            "ordinal": self.ordinal or None,
            "temperature": None if self.temperature == 1 else self.temperature,
        }
        given = {key: value for key, value in more.items() if value is not None}
        return {"labels": labels, **given} if given else labels


@dataclass(frozen=True)
class FieldItem:
    """A field of a record.

    Attributes
    ----------
    name
        Name of the field.
    description
        Text that explains it; None for none.
    choices
        The only values, which need not stand in the text; empty for a span of the text.
    is_list
        Whether a record may have several values.
    threshold
        Minimum score of a value; None for the component's.
    pattern
        Regular expression that the whole text of a value must match; None for any text.
    exclusive
        Whether a span belongs to this field in one record only (boundary models).
    """

    name: str
    description: str | None = None
    choices: tuple[str, ...] = ()
    is_list: bool = False
    threshold: float | None = None
    pattern: str | None = None
    exclusive: bool = False

    @property
    def field(self) -> TaskField:
        """The field as the model reads it."""
        return TaskField(self.name, self.description, self.choices, self.is_list, self.exclusive)

    def to_config(self) -> str | dict[str, Any]:
        """Return the field in the form of a config: a string if it has no other settings."""
        more = {
            "description": self.description,
            "choices": list(self.choices) or None,
            "list": self.is_list or None,
            "threshold": self.threshold,
            "pattern": self.pattern,
            "exclusive": self.exclusive or None,
        }
        given = {key: value for key, value in more.items() if value is not None}
        return {"field": self.name, **given} if given else self.name


@dataclass(frozen=True)
class RecordItem:
    """A record: a group of values that belong together.

    Attributes
    ----------
    name
        Name of the record.
    fields
        Its fields.
    description
        Text that explains it; None for none.
    mode, anchor
        See ``Task``.
    """

    name: str
    fields: tuple[FieldItem, ...]
    description: str | None = None
    mode: RecordMode | None = None
    anchor: str | None = None

    @cached_property
    def task(self) -> Task:
        """The task as the model reads it."""
        fields = tuple(item.field for item in self.fields)
        return Task("record", self.name, fields, self.description, mode=self.mode, anchor=self.anchor)

    def to_config(self) -> list[Any] | dict[str, Any]:
        """Return the record in the form of a config: a list of fields if it has no other settings."""
        fields = [item.to_config() for item in self.fields]
        more = {"description": self.description, "mode": self.mode, "anchor": self.anchor}
        given = {key: value for key, value in more.items() if value is not None}
        return {"fields": fields, **given} if given else fields


def relation_task(item: RelationItem) -> Task:
    """Return a relation as the model reads it."""
    return Task("relation", item.label, HEAD_AND_TAIL, item.description)


def parse_classes(classes: Any, where: str) -> tuple[ClassesItem, ...]:
    """Parse classifications: a mapping from each task to its labels, or to its settings.

    Parameters
    ----------
    classes
        ``{"tone": ["good", "bad"], "topics": {"labels": [...], "multi_label": True}}``, or a list of mappings that hold
        the name as ``task``. Labels are strings, mappings with ``label`` and ``description``, or a mapping from labels
        to descriptions.
    where
        Section, for errors.

    Raises
    ------
    ConfigError
        If it or a part has another form.
    """
    return _parse(classes, where, ClassesItem, "labels", _CLASSES_KEYS, _classes_item)


def parse_records(records: Any, where: str) -> tuple[RecordItem, ...]:
    """Parse records: a mapping from each name to its fields, or to its settings.

    Parameters
    ----------
    records
        ``{"product": ["name", {"field": "price", "list": True}]}``, or a list of mappings that hold the name as
        ``task``.
    where
        Section, for errors.

    Raises
    ------
    ConfigError
        If it or a part has another form.
    """
    return _parse(records, where, RecordItem, "fields", _RECORD_KEYS, _record_item)


def refuse_keys(tasks: Any, where: str) -> None:
    """Refuse names in a config that spaCy's config files cannot hold as keys.

    Raises
    ------
    ConfigError
        If a key of the mapping, or of a mapping inside, holds ``.``, ``:``, ``=`` or another such character.
    """
    if not isinstance(tasks, Mapping):
        return
    for key, value in tasks.items():
        if re.search(r"^[#;@]|[.:=\[\]\r\n]", str(key)) or str(key) != str(key).strip():
            raise ConfigError(
                where,
                f"found the name {key!r} as a key, which spaCy's config files cannot hold",
                "keys without '.', ':', '=', brackets, '#' and ';' at the start, and spaces at either end",
                'Write tasks as [{"task": ...}], and labels as [{"label": ..., "description": ...}]',
            )
        refuse_keys(value, f"{where}.{key}")


def _parse(
    tasks: Any,
    where: str,
    kind: type[_Item],
    main: str,
    keys: Sequence[str],
    parse: Callable[[str, Mapping[str, Any], str], _Item],
) -> tuple[_Item, ...]:
    items: dict[str, _Item] = {}
    for name, settings, place in _named(tasks, where, kind):
        if not is_text(name):
            raise ConfigError(where, f"found the name {name!r}", TEXT)
        if name in items:
            raise ConfigError(place, f"found the name {name!r} twice", "different names")
        if isinstance(settings, kind):
            items[name] = settings
            continue
        if isinstance(settings, (list, tuple)):
            settings = {main: settings}
        if not isinstance(settings, Mapping):
            allowed = f'a list of {main}, or a mapping with "{main}"'
            raise ConfigError(place, f"found {settings!r}", allowed)
        _check_keys(settings, place, keys)
        items[name] = parse(name, settings, place)
    return tuple(items.values())


def _named(tasks: Any, where: str, kind: type[Any]) -> Iterable[tuple[str, Any, str]]:
    """Yield name, settings and section of each task."""
    if tasks is None:
        return
    if isinstance(tasks, Mapping):
        for name, settings in tasks.items():
            yield name, settings, f"{where}.{name}"
        return
    allowed = 'a mapping such as {"name": [...]}, or a list of mappings with "task"'
    if isinstance(tasks, str) or not isinstance(tasks, Iterable):
        raise ConfigError(where, f"found {tasks!r}", allowed)
    for index, item in enumerate(tasks):
        place = f"{where}[{index}]"
        if isinstance(item, kind):
            yield item.name, item, place
        elif isinstance(item, Mapping) and isinstance(item.get("task"), str):
            yield item["task"], {key: value for key, value in item.items() if key != "task"}, place
        else:
            raise ConfigError(place, f"found {item!r}", allowed)


def _check_keys(settings: Mapping[str, Any], where: str, keys: Sequence[str]) -> None:
    for key in settings:
        if key not in keys:
            raise ConfigError(where, f"found the key {key!r}", ", ".join(keys), did_you_mean(str(key), keys))


def _classes_item(name: str, settings: Mapping[str, Any], where: str) -> ClassesItem:
    place = f"{where}.labels"
    labels = settings.get("labels")
    items = parse_labels(() if labels is None else as_items(labels), place)
    for index, item in enumerate(items):
        if item.threshold is not None or item.pattern is not None:
            option = "pattern" if item.threshold is None else "threshold"
            do = f"Set {where}.threshold" if option == "threshold" else ""
            raise ConfigError(f"{place}[{index}]", f"found the key {option!r}", "label, description", do)
    if len(items) < 1:
        raise ConfigError(place, f"found {labels!r}", "at least one label")
    threshold = settings.get("threshold")
    names = [item.label for item in items]
    several, ordinal = (_flag(settings, key, where) for key in ("multi_label", "ordinal"))
    threshold = None if threshold is None else check_threshold(threshold, f"{where}.threshold")
    default = settings.get("default")
    if default is not None and default not in names:
        raise ConfigError(f"{where}.default", f"found {default!r}", f"one of the labels: {', '.join(names)}")
    if default is not None and not several and threshold is None:
        found = f"found {default!r} for a task without a threshold, whose best label is always chosen"
        raise ConfigError(f"{where}.default", found, "null, or a task with a threshold or multi_label = true")
    if ordinal and several:
        raise ConfigError(
            f"{where}.ordinal", "found true with multi_label = true", "false, or one label a text"
        )
    least, most = _numbers_of_labels(settings, where, several, len(items), default)
    temperature = settings.get("temperature", 1.0)
    if (
        isinstance(temperature, bool)
        or not isinstance(temperature, (int, float))
        or not 1e-6 <= temperature <= 1e6
    ):
        raise ConfigError(f"{where}.temperature", f"found {temperature!r}", "a number from 1e-6 to 1e6")
    examples = settings.get("examples") or ()
    if not isinstance(examples, (list, tuple)):
        raise ConfigError(f"{where}.examples", f"found {examples!r}", _EXAMPLES)
    return ClassesItem(
        name,
        items,
        _text(settings, "description", where),
        several,
        threshold,
        tuple(_example(one, f"{where}.examples", names) for one in examples),
        least,
        most,
        default,
        ordinal,
        float(temperature),
    )


def _numbers_of_labels(
    settings: Mapping[str, Any], where: str, several: bool, n_labels: int, default: str | None
) -> tuple[int | None, int | None]:
    """Return the settings ``min_labels`` and ``max_labels``."""
    least, most = settings.get("min_labels"), settings.get("max_labels")
    for key, value in (("min_labels", least), ("max_labels", most)):
        if value is None:
            continue
        if not several:
            found = f"found {value!r} for a task with one label to a text"
            do = "Set multi_label = true; for no label at all set a threshold instead"
            raise ConfigError(f"{where}.{key}", found, "null", do)
        low = 0 if key == "min_labels" else max(1, least or 0)
        high = 1 if key == "min_labels" and default is not None else n_labels
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ConfigError(f"{where}.{key}", f"found {value!r}", f"a whole number from {low} to {high}")
    return least, most


def _example(example: Any, where: str, labels: Sequence[str]) -> tuple[str, str]:
    if not isinstance(example, (list, tuple)) or len(example) != 2 or not is_text(example[0]):
        raise ConfigError(where, f"found {example!r}", _EXAMPLES)
    if example[1] not in labels:
        raise ConfigError(where, f"found the label {example[1]!r}", ", ".join(labels))
    return example[0], example[1]


def _record_item(name: str, settings: Mapping[str, Any], where: str) -> RecordItem:
    place, given = f"{where}.fields", settings.get("fields")
    if not isinstance(given, (list, tuple)) or not given:
        raise ConfigError(place, f"found {given!r}", "a list of at least one field")
    fields: dict[str, FieldItem] = {}
    for index, field in enumerate(given):
        item = _field_item(field, f"{place}[{index}]")
        if item.name in fields:
            raise ConfigError(f"{place}[{index}]", f"found the field {item.name!r} twice", "different fields")
        fields[item.name] = item
    mode, anchor = settings.get("mode"), settings.get("anchor")
    if mode is not None and mode not in get_args(RecordMode):
        raise ConfigError(f"{where}.mode", f"found {mode!r}", ", ".join(get_args(RecordMode)))
    if anchor is not None and anchor not in [*fields]:
        raise ConfigError(f"{where}.anchor", f"found {anchor!r}", ", ".join(fields))
    if (mode == "natural") != (anchor is not None):
        found = f"found mode {mode!r} and anchor {anchor!r}"
        raise ConfigError(where, found, 'an anchor with mode "natural", and only with it')
    return RecordItem(name, tuple(fields.values()), _text(settings, "description", where), mode, anchor)


def _field_item(field: Any, where: str) -> FieldItem:
    settings = {"field": field} if isinstance(field, str) else field
    if not isinstance(settings, Mapping):
        raise ConfigError(where, f"found {field!r}", 'a string, or a mapping with "field"')
    _check_keys(settings, where, _FIELD_KEYS)
    name, pattern, choices = (settings.get(key) for key in ("field", "pattern", "choices"))
    limits = {key: settings[key] for key in ("threshold", "pattern") if settings.get(key) is not None}
    if not is_text(name):
        raise ConfigError(where, f"found the field {name!r}", TEXT)
    parse_label({"label": name, **limits}, where)  # the checks are those of labels
    right = choices is None or (
        isinstance(choices, (list, tuple)) and len({*map(str, choices)}) == len(choices)
    )
    if not right or not all(map(is_text, choices or ())):
        raise ConfigError(f"{where}.choices", f"found {choices!r}", "a list of different strings")
    for one in choices or ():
        if pattern is not None and not Pattern(pattern).fullmatch(one):
            raise ConfigError(
                f"{where}.choices", f"found {one!r}", f"texts that match the pattern {pattern!r}"
            )
    return FieldItem(
        name,
        _text(settings, "description", where),
        tuple(choices or ()),
        _flag(settings, "list", where),
        None if limits.get("threshold") is None else float(limits["threshold"]),
        pattern,
        _flag(settings, "exclusive", where),
    )


def _text(settings: Mapping[str, Any], key: str, where: str) -> str | None:
    text = settings.get(key)
    if text is not None and not is_text(text):
        raise ConfigError(f"{where}.{key}", f"found {text!r}", TEXT)
    return text


def _flag(settings: Mapping[str, Any], key: str, where: str) -> bool:
    value = settings.get(key, False)
    if not isinstance(value, bool):
        raise ConfigError(f"{where}.{key}", f"found {value!r}", "true or false")
    return value
