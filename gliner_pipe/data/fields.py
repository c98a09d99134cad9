"""Checks single fields; every error is one DataError with file, line and field."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from gliner_pipe.data.files import Place
from gliner_pipe.util.plurals import number_of

#: (start, end, label), end exclusive, in words or characters.
Entity = tuple[int, int, str]
#: (head, tail, label), head and tail are indices into the list of entities.
Relation = tuple[int, int, str]

#: Maximum number of examples of one thing in a report.
SHOWN_EXAMPLES = 3


class Report(Counter[str]):
    """Counts of what is unusual in data, by reason.

    Attributes
    ----------
    first
        Place of the first case of each reason.
    examples
        Up to :data:`SHOWN_EXAMPLES` examples of some reasons.
    """

    def __init__(self, *counts: Any) -> None:
        super().__init__(*counts)
        self.first: dict[str, Place] = {}
        self.examples: dict[str, list[str]] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (dict(self),), vars(self)

    def merge(self, other: Report) -> None:
        """Add the counts of data that follow."""
        self.update(other)
        self.first = other.first | self.first
        for reason, some in other.examples.items():
            mine = self.examples.setdefault(reason, [])
            mine += some[: SHOWN_EXAMPLES - len(mine)]

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        first = {reason: [place.file, place.line] for reason, place in self.first.items()}
        return {"counts": dict(self), "first": first, "examples": self.examples}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Report:
        """Return the report that ``to_json`` described."""
        report = cls(values["counts"])
        report.first = {reason: Place(*place) for reason, place in values["first"].items()}
        report.examples = values["examples"]
        return report

    def settle(self, place: Place) -> None:
        """Set `place` for the reasons without a place: they were counted while its record was read."""
        if len(self) > len(self.first):
            self.first = dict.fromkeys(self, place) | self.first

    def render(self) -> list[str]:
        """Return a line for each reason, the most frequent first."""
        return [f"{number} x {reason}{self._shown(reason)}" for reason, number in self.most_common()]

    def _shown(self, reason: str) -> str:
        if reason in self.examples:
            return "".join(f"; e.g. {one}" for one in self.examples[reason])
        return f" (first: {self.first[reason].source})" if reason in self.first else ""


def note(report: Counter[str], reason: str, example: str) -> None:
    """Count `reason`, and keep the example if it is one of the first."""
    report[reason] += 1
    if isinstance(report, Report) and report[reason] <= SHOWN_EXAMPLES:
        report.examples.setdefault(reason, []).append(example)


def count(report: Counter[str], reason: str, place: Place, number: int = 1) -> None:
    """Add `number` cases of `reason` to `report`, the first of them at `place`."""
    report[reason] += number
    if isinstance(report, Report):
        report.first.setdefault(reason, place)


def shown(value: Any) -> str:
    """Return `value` for an error message: short, with its type where that helps."""
    text = repr(value)
    text = text if len(text) <= 60 else f"{text[:57]}..."
    return (
        text if value is None or isinstance(value, (str, list, dict)) else f"{text} ({type(value).__name__})"
    )


def record_object(place: Place, value: Any) -> dict[str, Any]:
    """Return `value` if it is a JSON object."""
    if not isinstance(value, dict):
        raise place.error(
            "", f"is {shown(value)}", "a JSON object for each example", 'Write {"field": value, ...}'
        )
    return value


def unknown_fields(record: dict[str, Any], known: Sequence[str], report: Counter[str]) -> None:
    """Count the fields of `record` that are not read."""
    for name in record:
        if name not in known:
            report[f"unknown field {name!r} (ignored)"] += 1


def text_value(place: Place, field: str, value: Any) -> str:
    """Return `value` if it is a non-empty text of valid characters."""
    if not isinstance(value, str):
        raise place.error(field, f"is {shown(value)}", "a text")
    if not value:
        raise place.error(field, "is empty", "a text of at least one character", "Remove the record")
    check_characters(place, field, value)
    return value


def check_characters(place: Place, field: str, value: str) -> None:
    """Refuse characters that UTF-8 cannot encode, and NUL."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        found = f"contains half a character ({value[error.start]!a}) at position {error.start}"
        raise place.error(field, found, "complete Unicode characters", "Rewrite the file as UTF-8") from None
    if "\0" in value:
        raise place.error(
            field, f"contains a NUL character at position {value.index(chr(0))}", "text", "Remove it"
        )


def word_list(place: Place, field: str, value: Any, report: Counter[str]) -> list[str]:
    """Return `value` if it is a list of words."""
    if not isinstance(value, (list, tuple)):
        raise place.error(field, f"is {shown(value)}", "a list of words", 'Write ["A", "word", "list"]')
    if not value:
        raise place.error(field, "is an empty list", "at least one word", "Remove the record")
    for position, word in enumerate(value):
        if not isinstance(word, str):
            raise place.error(
                f"{field}[{position}]", f"is {shown(word)}", "a string", 'Put it in quotes, e.g. "7"'
            )
        if not word:
            raise place.error(
                f"{field}[{position}]", "is an empty text", "a word", "Remove it and shift the entities"
            )
        if word.isspace():
            report["whitespace-only word (kept)"] += 1
    check_characters(place, field, "".join(value))
    return list(value)


def label_value(place: Place, field: str, value: Any, report: Counter[str]) -> str:
    """Return the label `value` without surrounding whitespace."""
    if not isinstance(value, str):
        raise place.error(field, f"is {shown(value)}", "a label in quotes")
    label = value.strip()
    if not label:
        raise place.error(
            field, f"is the empty label {value!r}", "a label such as 'person'", "Name or remove it"
        )
    if label != value:
        report["label with surrounding whitespace (stripped)"] += 1
    check_characters(place, field, label)
    return label


def label_list(place: Place, field: str, value: Any, report: Counter[str]) -> list[str]:
    """Return the list of labels `value`, each label once."""
    if not isinstance(value, (list, tuple)):
        raise place.error(field, f"is {shown(value)}", "a list of labels", 'Write ["person", "date"]')
    return list(
        dict.fromkeys(label_value(place, f"{field}[{i}]", item, report) for i, item in enumerate(value))
    )


def index_value(place: Place, field: str, value: Any, highest: int, counted: str, do: str = "") -> int:
    """Return `value` if it is a whole number from 0 to `highest`."""
    allowed = f"a whole number from 0 to {highest}" if highest >= 0 else "nothing"
    if isinstance(value, bool) or not isinstance(value, int):
        raise place.error(field, f"is {shown(value)}", allowed)
    if not 0 <= value <= highest:
        raise place.error(field, f"is {value}, out of range", f"{allowed} ({counted})", do)
    return value


def word_entities(place: Place, field: str, value: Any, words: int, report: Counter[str]) -> list[Entity]:
    """Return the entities of ``[[first word, last word, label], ...]``."""
    entities = []
    for position, item in enumerate(_items(place, field, value)):
        name = f"{field}[{position}]"
        first, last, label = _triple(place, name, item, "[first word, last word, label]")
        counted = f"the text has {number_of(words, 'word')}"
        start = index_value(place, f"{name}[0]", first, words - 1, counted)
        end = index_value(place, f"{name}[1]", last, words - 1, counted)
        if start > end:
            raise place.error(
                name, f"starts at word {start}, after its end {end}", "start <= end, both inclusive"
            )
        entities.append((start, end + 1, label_value(place, f"{name}[2]", label, report)))
    return entities


def relation_list(
    place: Place, field: str, value: Any, entities: int, report: Counter[str]
) -> list[Relation]:
    """Return the relations of ``[[head, tail, label], ...]``."""
    relations = []
    for position, item in enumerate(_items(place, field, value)):
        name = f"{field}[{position}]"
        head, tail, label = _triple(place, name, item, "[head, tail, label]")
        counted = f"indices into a list of {number_of(entities, 'entity')}"
        relations.append(
            (
                index_value(place, f"{name}[0]", head, entities - 1, counted),
                index_value(place, f"{name}[1]", tail, entities - 1, counted),
                label_value(place, f"{name}[2]", label, report),
            )
        )
    return relations


def _items(place: Place, field: str, value: Any) -> list[Any]:
    if not isinstance(value, (list, tuple)):
        raise place.error(field, f"is {shown(value)}", "a list", "Write [] for none")
    return list(value)


def _triple(place: Place, name: str, item: Any, allowed: str) -> tuple[Any, Any, Any]:
    if not isinstance(item, (list, tuple)) or len(item) != 3:
        raise place.error(name, f"is {shown(item)}", allowed)
    return item[0], item[1], item[2]
