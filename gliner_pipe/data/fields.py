"""Checks single fields; every error is one DataError with file, line and field."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from gliner_pipe.data.files import Place
from gliner_pipe.util.plurals import number_of

#: (start, end, label), end exclusive, in words or characters.
Entity = tuple[int, int, str]
#: (head, tail, label), head and tail are indices into the list of entities.
Relation = tuple[int, int, str]

#: Maximum number of examples of one thing in a report.
SHOWN_EXAMPLES = 3
#: Maximum number of reasons in a report.
SHOWN_REASONS = 30

#: Maximum number of characters of a text and of a label.
LONGEST_TEXT, LONGEST_LABEL = 5_000_000, 10_000
#: Maximum number of signs in a row, without a letter, a digit or a blank: the time of spaCy's tokenizer grows with the
#: square of this number.
LONGEST_RUN = 5_000

_RUN = re.compile(rf"[^\w\s]{{{LONGEST_RUN + 1}}}|_{{{LONGEST_RUN + 1}}}")
_NUMBER = re.compile(r"-?[0-9]{1,18}")
WRITTEN_NUMBER = "number written as a text (read as a number)"


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
        lines = [
            f"{number} x {reason}{self._shown(reason)}" for reason, number in self.most_common(SHOWN_REASONS)
        ]
        return lines + ([f"{len(self) - SHOWN_REASONS} more"] if len(self) > SHOWN_REASONS else [])

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


def shortened_name(name: str) -> str:
    """Return a name from a file for a message: escaped, and of at most 60 characters."""
    text = repr(name)
    return text if len(text) <= 60 else f"{text[:57]}...'"


def text_problem(text: str) -> tuple[str, str, str] | None:
    """Return what is found, allowed and to do about a text that is too long for tokenizers; None if it is not."""
    if len(text) > LONGEST_TEXT:
        found = f"has {len(text):,} characters"
        return found, f"at most {LONGEST_TEXT:,} characters", "Write the document as several texts"
    if len(text) > LONGEST_RUN and (run := _RUN.search(text)):
        found = f"has over {LONGEST_RUN:,} signs in a row from character {run.start()} on"
        return found, "letters, digits or blanks between signs", "Remove or shorten them"
    return None


def whole_number(value: Any) -> int | None:
    """Return a whole number, also one that is written as a text; None for anything else."""
    if type(value) is int:
        return value
    return int(value) if isinstance(value, str) and _NUMBER.fullmatch(value) else None


def counted_number(value: Any, report: Counter[str]) -> Any:
    """Return a whole number that is written as a text, which is counted, as a number; anything else unchanged."""
    if isinstance(value, str) and (number := whole_number(value)) is not None:
        report[WRITTEN_NUMBER] += 1
        return number
    return value


def flag(place: Place, field: str, value: Any) -> bool:
    """Return `value` if it is true or false; null is false."""
    if value is None:
        return False
    if not isinstance(value, bool):
        raise place.error(field, f"is {shown(value)}", "true or false")
    return value


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
            report[f"unknown field {shortened_name(name)} (ignored)"] += 1


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
    if len(label) > LONGEST_LABEL:
        allowed = f"a label of at most {LONGEST_LABEL:,} characters"
        raise place.error(field, f"has {len(label):,} characters", allowed, "Shorten it")
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
        number = str(value) if abs(value) < 10**18 else "a number of more than 18 digits"
        raise place.error(field, f"is {number}, out of range", f"{allowed} ({counted})", do)
    return value


def word_entities(place: Place, field: str, value: Any, words: int, report: Counter[str]) -> list[Entity]:
    """Return the entities of ``[[first word, last word, label], ...]``."""
    entities = []
    for position, item in enumerate(_items(place, field, value)):
        name = f"{field}[{position}]"
        first, last, label = _triple(place, name, item, "[first word, last word, label]")
        first, last = counted_number(first, report), counted_number(last, report)
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
        head, tail = counted_number(head, report), counted_number(tail, report)
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


# -- classes and records -----------------------------------------------------------------------------------------------

#: What the annotation of a task of classification may hold, besides the true labels.
_CLASS_FIELDS = ("label", "labels", "multi_label", "description", "descriptions", "examples")

#: What may be known about a kind of record, besides its records.
_KIND_FIELDS = ("fields", "description", "mode", "anchor")

#: How records of a kind belong together.
RECORD_MODES = ("natural", "latent", "anchorless")

#: Converts the position of a value, ``[start, end]`` as in the file; None drops it.
Positioned = Callable[[str, Any], tuple[int, int] | None]


def class_tasks(place: Place, field: str, value: Any, report: Counter[str]) -> dict[str, dict[str, Any]]:
    """Return the tasks of ``{task: label}``, ``{task: [labels]}`` or ``{task: {"label":, "labels":, ...}}``.

    Returns
    -------
    dict
        As :func:`gliner_pipe.data.gold_classes.set_gold_classes` takes them. A task that is null is left out.
    """
    tasks = {}
    for task, stated in _mapping(place, field, value, 'Write {"sentiment": "positive"}').items():
        name = f"{field}.{task}"
        key = label_value(place, f"{field} (name of a task)", task, report)
        if key in tasks:
            raise place.error(name, f"is the task {key!r} again", "each task once", "Rename or remove it")
        if stated is not None:
            tasks[key] = _class_task(place, name, stated, report)
    return tasks


def _class_task(place: Place, name: str, stated: Any, report: Counter[str]) -> dict[str, Any]:
    if not isinstance(stated, dict):
        stated = {"label": stated}
    elif "label" not in stated:
        raise place.error(name, "has no field label", "the true label, or a list of labels", "Add it")
    unknown_fields(stated, _CLASS_FIELDS, report)
    label = stated["label"]
    several = isinstance(label, (list, tuple))
    true = label_list(place, f"{name}.label", label if several else [label], report)
    task: dict[str, Any] = {"true": true}
    if stated.get("labels") is not None:
        task["labels"] = label_list(place, f"{name}.labels", stated["labels"], report)
        if missing := [one for one in true if one not in task["labels"]]:
            report["true class that is not among the labels of its task (added)"] += len(missing)
            task["labels"] += missing
    multi_label = flag(place, f"{name}.multi_label", stated.get("multi_label"))
    if len(true) > 1 and stated.get("multi_label") is False:
        report["several true classes of a task with multi_label = false (read as multi_label = true)"] += 1
    if several or multi_label:
        task["multi_label"] = True
    if stated.get("description"):
        task["description"] = text_value(place, f"{name}.description", stated["description"])
    if stated.get("descriptions"):
        task["descriptions"] = text_mapping(place, f"{name}.descriptions", stated["descriptions"])
    if stated.get("examples"):
        task["examples"] = [
            [text_value(place, f"{name}.examples[{i}]", part) for part in _pair(place, name, i, example)]
            for i, example in enumerate(_items(place, f"{name}.examples", stated["examples"]))
        ]
    return task


def _pair(place: Place, name: str, position: int, value: Any) -> list[Any]:
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        raise place.error(f"{name}.examples[{position}]", f"is {shown(value)}", "[text, label]")
    return list(value)


def text_mapping(place: Place, field: str, value: Any) -> dict[str, str]:
    """Return `value` if it is a mapping from names to texts."""
    found = _mapping(place, field, value, 'Write {"name": "text"}')
    for name in found:
        check_characters(place, f"{field} (name)", name)
    return {name: text_value(place, f"{field}.{name}", text) for name, text in found.items()}


def record_items(
    place: Place, field: str, value: Any, report: Counter[str], positioned: Positioned
) -> dict[str, dict[str, Any]]:
    """Return the records of ``{name: [{field: value, ...}, ...]}``; an empty list says that there is none.

    A value is null, ``[start, end]``, one of the choices of its field as a text, or a list of these. In place of the
    list there may be ``{"items": list, "fields": [{"field": name, "description":, "choices":, "list":}]}``.

    Returns
    -------
    dict
        For each kind of record ``{"items": [{field: value, ...}, ...]}``, with converted positions, and its other
        entries.
    """
    kinds = {}
    for kind, items in _mapping(place, field, value, 'Write {"product": [{"name": [0, 5]}]}').items():
        key = label_value(place, f"{field} (name of a record)", kind, report)
        found, about = [], {}
        if isinstance(items, dict):
            unknown_fields(items, ("items", *_KIND_FIELDS), report)
            about = _about_kind(place, f"{field}.{kind}", items, report)
            items = items.get("items", [])
        if key in kinds:
            raise place.error(f"{field}.{kind}", f"is the record {key!r} again", "each once", "Rename it")
        for number, item in enumerate(_items(place, f"{field}.{kind}", items)):
            where = f"{field}.{kind}[{number}]"
            fields = _mapping(place, where, item, 'Write {"name": [0, 5]}')
            found.append(
                {
                    label_value(place, f"{where} (name of a field)", name, report): _record_value(
                        place, f"{where}.{name}", one, positioned
                    )
                    for name, one in fields.items()
                }
            )
        kinds[key] = {"items": found, **about}
        _add_choices(kinds[key], report)
    return kinds


def _about_kind(place: Place, name: str, stated: dict[str, Any], report: Counter[str]) -> dict[str, Any]:
    """Return what is known about a kind of record."""
    about: dict[str, Any] = {}
    for part in _KIND_FIELDS:
        value = stated.get(part)
        if value is None:
            continue
        if part == "fields":
            about[part] = _kind_fields(place, f"{name}.fields", value, report)
        elif part == "mode":
            about[part] = record_mode(place, f"{name}.mode", value)
        else:
            about[part] = text_value(place, f"{name}.{part}", value)
    return about


def record_mode(place: Place, field: str, value: Any) -> str:
    """Return `value` if it is one of :data:`RECORD_MODES`."""
    if value not in RECORD_MODES:
        raise place.error(field, f"is {shown(value)}", ", ".join(RECORD_MODES))
    mode: str = value
    return mode


def _add_choices(kind: dict[str, Any], report: Counter[str]) -> None:
    """Add values of the records of a kind to the choices of their field, if it has others, and count them."""
    fields = {field["field"]: field for field in kind.get("fields", ()) if "choices" in field}
    for item in kind["items"]:
        for name in fields.keys() & item.keys():
            value, known = item[name], fields[name]["choices"]
            stated = [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, str)]
            if missing := [one for one in dict.fromkeys(stated) if one not in known]:
                report["value that is not among the choices of its field (added)"] += len(missing)
                known += missing


def _kind_fields(place: Place, name: str, value: Any, report: Counter[str]) -> list[dict[str, Any]]:
    fields: list[dict[str, Any]] = []
    for number, item in enumerate(_items(place, name, value)):
        where = f"{name}[{number}]"
        stated = (
            {"field": item}
            if isinstance(item, str)
            else _mapping(place, where, item, 'Write {"field": "price"}')
        )
        unknown_fields(stated, ("field", "description", "choices", "list"), report)
        field: dict[str, Any] = {"field": label_value(place, f"{where}.field", stated.get("field"), report)}
        if any(field["field"] == other["field"] for other in fields):
            raise place.error(where, f"is the field {field['field']!r} again", "each field once", "Remove it")
        if stated.get("description"):
            field["description"] = text_value(place, f"{where}.description", stated["description"])
        if stated.get("choices"):
            field["choices"] = label_list(place, f"{where}.choices", stated["choices"], report)
        if flag(place, f"{where}.list", stated.get("list")):
            field["list"] = True
        fields.append(field)
    return fields


def link_list(
    place: Place, field: str, value: Any, report: Counter[str], positioned: Positioned
) -> list[list[Any]]:
    """Return the relations of ``[[head start, head end, tail start, tail end, label], ...]``, positions converted."""
    links = []
    for number, item in enumerate(_items(place, field, value)):
        name = f"{field}[{number}]"
        if not isinstance(item, (list, tuple)) or len(item) != 5:
            allowed = "[head start, head end, tail start, tail end, label]"
            raise place.error(name, f"is {shown(item)}", allowed)
        head, tail = positioned(name, item[:2]), positioned(name, item[2:4])
        if head is not None and tail is not None:
            links.append([*head, *tail, label_value(place, name, item[4], report)])
    return links


def _record_value(place: Place, name: str, value: Any, positioned: Positioned) -> Any:
    """Return None, a choice, a position, or a list of choices and positions."""
    if value is None:
        return None
    if isinstance(value, str):
        return text_value(place, name, value)
    if not isinstance(value, (list, tuple)):
        raise place.error(name, f"is {shown(value)}", "null, [start, end], a choice, or a list of these")
    if len(value) == 2 and not any(isinstance(one, (str, list, tuple)) for one in value):
        return positioned(name, value)
    several = [_record_value(place, f"{name}[{i}]", one, positioned) for i, one in enumerate(value)]
    if any(isinstance(one, list) for one in several):
        raise place.error(name, "is a list of lists of values", "a list of [start, end] or of choices")
    return [one for one in several if one is not None]


def _mapping(place: Place, field: str, value: Any, do: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise place.error(field, f"is {shown(value)}", "a mapping", do)
    return value
