"""The reader ``gliner2_json``: the training format of GLiNER2, with entities, classes, records and relations."""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from gliner_pipe.data.fields import (
    Entity,
    Relation,
    class_tasks,
    count,
    counted_number,
    label_list,
    label_value,
    note,
    record_mode,
    shown,
    text_mapping,
    text_value,
    unknown_fields,
    whole_number,
)
from gliner_pipe.data.files import Place
from gliner_pipe.data.readers.base import Record, reader
from gliner_pipe.data.readers.json_records import JsonReader, Values

#: Fields of the annotations.
FIELDS = (
    "entities",
    "entity_descriptions",
    "classifications",
    "json_structures",
    "json_descriptions",
    "record_metadata",
    "relations",
    "relation_descriptions",
)
#: Names of the text and of its annotations.
_FORMS = (("input", "output"), ("text", "schema"))
_CLASS_FIELDS = ("task", "labels", "true_label", "multi_label", "prompt", "examples", "label_descriptions")

EMPTY = "annotated text that is empty (left out)"
NOT_THERE = "annotated text that is not in the input (left out)"
IN_A_WORD = "annotated text that is only in the middle of words (left out)"
OTHER_TEXT = "annotated text that is not the text at its offsets (left out)"
SEVERAL = "text of an entity that occurs several times (each occurrence is an entity)"

#: Scripts that write no blanks between words.
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]"
)
_PARTS = re.compile(r"\w+|[^\w\s]")

#: Start and end of a text in characters, the end exclusive.
Range = tuple[int, int]


def is_gliner2(record: Any) -> bool:
    """Whether a record is one of GLiNER2's training data."""
    if not isinstance(record, Mapping):
        return False
    for text, output in _FORMS:
        if isinstance(record.get(text), str) and isinstance(record.get(output), Mapping):
            return True
    others = (
        isinstance(record.get("entities"), Mapping)
        or "classifications" in record
        or "json_structures" in record
    )
    return isinstance(record.get("text"), str) and others


@dataclass
class _Text:
    """The text of a record, its place in the file, and the report that counts what is unusual.

    ``by_text`` says whether any annotation was given by its text alone.
    """

    place: Place
    text: str
    report: Counter[str]
    by_text: bool = False

    def find(self, name: str, value: Any) -> list[Range]:
        """Return the places of an annotated text: that of its offsets, or all its occurrences."""
        if isinstance(value, Mapping):
            return self._at_offsets(name, value)
        if not isinstance(value, str):
            raise self.place.error(name, f"is {shown(value)}", 'a text, or {"text":, "start":, "end":}')
        if not value.strip():
            self.report[EMPTY] += 1
            return []
        self.by_text = True
        inside, found = False, []
        for start, end in _matches(self.text, value):
            inside = True
            if not (_joins(self.text, start) or _joins(self.text, end)):
                found.append((start, end))
        if not found:
            note(self.report, IN_A_WORD if inside else NOT_THERE, f"{self.place} ({name}): {shown(value)}")
        return found

    def _at_offsets(self, name: str, value: Mapping[str, Any]) -> list[Range]:
        start, end = (whole_number(counted_number(value.get(one), self.report)) for one in ("start", "end"))
        if start is None or end is None or not 0 <= start < end <= len(self.text):
            found = f"goes from {shown(value.get('start'))} to {shown(value.get('end'))}"
            allowed = f"offsets into {len(self.text)} characters, the end exclusive"
            raise self.place.error(name, found, allowed)
        if value.get("text") not in (None, self.text[start:end]):
            there = f"{shown(value['text'])}, the text has {shown(self.text[start:end])}"
            note(self.report, OTHER_TEXT, f"{self.place} ({name}): {there}")
            return []
        return [(start, end)]


def _matches(text: str, wanted: str) -> Iterator[Range]:
    """Yield the occurrences of a text, whatever its case and its white space, also those that overlap."""
    parts = _PARTS.findall(wanted)
    joined = [re.escape(parts[0])]
    for before, part in pairwise(parts):
        joined += [r"\s+" if before[-1].isalnum() and part[0].isalnum() else r"\s*", re.escape(part)]
    pattern = re.compile("".join(joined), re.IGNORECASE)
    match = pattern.search(text)
    while match is not None:
        yield match.span()
        match = pattern.search(text, match.start() + 1)


def _joins(text: str, at: int) -> bool:
    """Whether a position is in the middle of a word."""
    if not 0 < at < len(text):
        return False
    before, after = text[at - 1], text[at]
    return _in_word(before) and _in_word(after) and not (_UNSPACED.match(before) or _UNSPACED.match(after))


def _in_word(character: str) -> bool:
    return character.isalnum() or character == "_" or unicodedata.category(character)[0] == "M"


@reader("gliner2_json", without=("require_gold", "fields"))
class Gliner2JsonReader(JsonReader):
    """Reads the training format of GLiNER2, as JSON Lines or as one JSON array.

    Each record has ``input`` (a text) and ``output`` (its annotations): ``entities`` (``{label: [text, ...]}``),
    ``entity_descriptions``, ``classifications``, ``json_structures``, ``json_descriptions``, ``record_metadata``,
    ``relations`` and ``relation_descriptions``, each optional. Also read are ``text`` and ``schema`` in place of these
    two, and annotations beside ``text``. The tokenizer of the pipeline splits the text.

    A text of an annotation is looked for in the input, whatever its case. Each of its occurrences is an entity; an end
    of a relation or a value of a record is the occurrence next to the others of its relation or record, and all are
    right in training. ``{"text":, "start":, "end":}`` names a single place. What is not found, or only within words, is
    left out and counted.

    What a record does not state is unknown and not absent: a text without ``entities`` is not learned as one without
    entities. A label with an empty list is absent (``ner_negatives``), and so is a described relation without an
    instance (``rel_negatives``).

    Parameters
    ----------
    path
        File, folder, pattern such as ``"corpus/*.jsonl"``, or a list of these; in Python also a list of records.
    options
        Options of all readers, see :class:`Reader`.
    """

    def __init__(self, path: Any, **options: Any) -> None:
        super().__init__(path, **options)

    def record(
        self, place: Place, value: dict[str, Any], values: Values, report: Counter[str]
    ) -> Record | None:
        """Return text and annotations of a record; None if it has no text."""
        text_name, text, output = _parts_of(place, value, report)
        if isinstance(text, str) and not text.strip():
            report["empty text (skipped)"] += 1
            return None
        found = _Text(place, text_value(place, text_name, text), report)
        record = Record(place, text=text)
        _read_entities(found, output, record)
        if output.get("classifications") is not None:
            record.classes = _classes(found, output["classifications"])
        found.by_text = False
        if output.get("json_structures") is not None or output.get("json_descriptions"):
            record.records = _records(found, output)
        if output.get("relations") is not None or output.get("relation_descriptions"):
            _read_relations(found, output, record)
        record.all_occurrences = found.by_text or None
        return record

    @property
    def reads_alone(self) -> bool:
        """Always: nothing depends on other records."""
        return True


def _parts_of(place: Place, value: dict[str, Any], report: Counter[str]) -> tuple[str, Any, dict[str, Any]]:
    """Return the name of the text, the text, and its annotations."""
    for text, name in _FORMS:
        if text in value and name in value:
            output = value[name]
            if not isinstance(output, dict):
                raise place.error(name, f"is {shown(output)}", "a mapping", 'Write {"entities": {...}}')
            unknown_fields(value, (text, name), report)
            unknown_fields(output, FIELDS, report)
            return text, value[text], output
    if "text" not in value:
        found = f"is missing (fields: {', '.join(value) or 'none'})"
        raise place.error("input", found, "a text, and its annotations in output")
    unknown_fields(value, ("text", *FIELDS), report)
    return "text", value["text"], value


def _read_entities(found: _Text, output: dict[str, Any], record: Record) -> None:
    """Set the entities of a record, and the labels that it does not have."""
    place, report = found.place, found.report
    stated = output.get("entities")
    described = text_mapping(place, "entity_descriptions", output.get("entity_descriptions") or {})
    if stated is None and not described:
        record.entities_annotated = False
        return
    entities: dict[Entity, None] = {}
    absent = []
    lists = {**dict.fromkeys(described, ()), **_mapping(place, "entities", stated or {})}
    for name, mentions in lists.items():
        label = label_value(place, "entities (label)", name, report)
        for position, mention in enumerate(_list(place, f"entities.{name}", mentions)):
            ranges = found.find(f"entities.{name}[{position}]", mention)
            if len(ranges) > 1:
                count(report, SEVERAL, place)
            entities |= dict.fromkeys((*ends, label) for ends in ranges)
        if not mentions:
            absent.append(label)
    record.entities = list(entities)
    record.ner_negatives = absent or None
    record.ner_descriptions = described or None


def _classes(found: _Text, value: Any) -> dict[str, dict[str, Any]]:
    """Return the tasks of classification."""
    place, report = found.place, found.report
    tasks: dict[str, dict[str, Any]] = {}
    for position, item in enumerate(_list(place, "classifications", value)):
        name = f"classifications[{position}]"
        stated = _mapping(place, name, item)
        unknown_fields(stated, _CLASS_FIELDS, report)
        task = label_value(place, f"{name}.task", stated.get("task"), report)
        if stated.get("true_label") is None:
            report["classification without true_label (ignored)"] += 1
            continue
        if task in tasks:
            raise place.error(name, f"is the task {task!r} again", "each task once", "Rename or remove it")
        one = {
            "label": stated["true_label"],
            "labels": stated.get("labels"),
            "multi_label": stated.get("multi_label"),
        }
        one |= {"description": stated.get("prompt"), "descriptions": stated.get("label_descriptions")}
        read = class_tasks(place, name, {task: one | {"examples": stated.get("examples")}}, report)[task]
        if not stated.get("multi_label") and len(read["true"]) == 1:
            read.pop("multi_label", None)  # GLiNER2 writes a single label as a list, too
        tasks[task] = read
    return tasks


def _read_relations(found: _Text, output: dict[str, Any], record: Record) -> None:
    """Set the relations of a record: between entities, or between any spans."""
    place, report = found.place, found.report
    described = text_mapping(place, "relation_descriptions", output.get("relation_descriptions") or {})
    links: list[tuple[Range, Range, str]] = []
    for position, item in enumerate(_list(place, "relations", output.get("relations") or [])):
        for name, ends in _mapping(place, f"relations[{position}]", item).items():
            where = f"relations[{position}].{name}"
            label = label_value(place, where, name, report)
            ends = _mapping(place, where, ends)
            if not {"head", "tail"} <= ends.keys():
                report["relation without head or tail (ignored)"] += 1
                continue
            unknown_fields(ends, ("head", "tail"), report)
            heads, tails = (found.find(f"{where}.{end}", ends[end]) for end in ("head", "tail"))
            if heads and tails:
                links.append((*_nearest(heads, tails), label))
            else:
                report["relation without one of its ends (dropped)"] += 1
    record.rel_descriptions = described or None
    record.rel_negatives = [label for label in described if label not in {link[2] for link in links}] or None
    places: dict[Range, int] = {}
    for number, (start, end, _) in enumerate(record.entities):
        places.setdefault((start, end), number)
    between: list[Relation] = [
        (places[head], places[tail], label)
        for head, tail, label in links
        if head in places and tail in places
    ]
    if record.entities_annotated is None:
        record.relations = between
    if len(between) < len(links):
        record.links = [[*head, *tail, label] for head, tail, label in links]
        count(report, "relation with an end that is no entity", place, len(links) - len(between))


def _records(found: _Text, output: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the records by kind, with what is known about their fields."""
    place, report = found.place, found.report
    descriptions = _mapping(place, "json_descriptions", output.get("json_descriptions") or {})
    metadata = _mapping(place, "record_metadata", output.get("record_metadata") or {})
    kinds = {label_value(place, "json_descriptions", name, report): _Kind(found) for name in descriptions}
    for position, item in enumerate(_list(place, "json_structures", output.get("json_structures") or [])):
        for name, fields in _mapping(place, f"json_structures[{position}]", item).items():
            where = f"json_structures[{position}].{name}"
            kind = kinds.setdefault(label_value(place, where, name, report), _Kind(found))
            kind.add(where, _mapping(place, where, fields))
    made = {}
    for name, kind in kinds.items():
        described = text_mapping(place, f"json_descriptions.{name}", descriptions.get(name) or {})
        made[name] = kind.made(
            described, _mapping(place, f"record_metadata.{name}", metadata.get(name) or {})
        )
    return made


class _Kind:
    """The records of one kind: the places of their values, and what is known about their fields."""

    def __init__(self, found: _Text) -> None:
        self.found = found
        self.items: list[dict[str, Any]] = []
        self.fields: dict[str, dict[str, Any]] = {}
        self._seen: set[str] = set()
        self._used: Counter[tuple[Range, ...]] = Counter()

    def add(self, where: str, stated: Mapping[str, Any]) -> None:
        """Add a record, unless it has no value or is there already."""
        read = {name: self._field(f"{where}.{name}", name, value) for name, value in stated.items()}
        if not any(read.values()):
            return
        if repr(read) in self._seen:
            self.found.report["record that is there twice (merged)"] += 1
            return
        self._seen.add(repr(read))
        near: int | None = None
        item: dict[str, Any] = {}
        for name, values in read.items():
            chosen: list[Any] = []
            for value in values:
                if isinstance(value, str):
                    chosen.append(value)
                    continue
                chosen.append(self._place(value, near))
                near = chosen[-1][0] if near is None else near
            several = self.fields[name].get("list", False)
            item[name] = chosen if several else next(iter(chosen), None)
        self.items.append(item)

    def _field(self, where: str, name: str, value: Any) -> list[Any]:
        """Return the values of a field: choices, or the places of a text."""
        place = self.found.place
        about = self.fields.setdefault(label_value(place, where, name, self.found.report), {"field": name})
        choices = None
        if isinstance(value, Mapping) and "choices" in value:
            choices = label_list(place, f"{where}.choices", value["choices"], self.found.report)
            value = value.get("value")
        if isinstance(value, (list, tuple)):
            about["list"] = True
        values = [
            one for one in (value if isinstance(value, (list, tuple)) else [value]) if one not in (None, "")
        ]
        if choices is None:
            found = [self.found.find(f"{where}[{i}]", one) for i, one in enumerate(values)]
            return [ranges for ranges in found if ranges]
        known = about.setdefault("choices", [])
        chosen = label_list(place, where, values, self.found.report)
        missing = [one for one in chosen if one not in choices]
        if missing:
            self.found.report["value that is not among the choices of its field (added)"] += len(missing)
        known += [one for one in [*choices, *missing] if one not in known]
        return list(chosen)

    def _place(self, ranges: Sequence[Range], near: int | None) -> Range:
        """Return the occurrence next to the others of the record; of its first value the next that is not taken."""
        if near is not None:
            return min(ranges, key=lambda one: (abs(one[0] - near), one))
        key = tuple(ranges)
        number = self._used[key]
        self._used[key] += 1
        return ranges[min(number, len(ranges) - 1)]

    def made(self, descriptions: Mapping[str, str], metadata: Mapping[str, Any]) -> dict[str, Any]:
        """Return the records and their fields."""
        place = self.found.place
        for field, text in descriptions.items():
            self.fields.setdefault(field, {"field": field})["description"] = text
        for field, about in _mapping(place, "record_metadata.fields", metadata.get("fields") or {}).items():
            stated = _mapping(place, f"record_metadata.fields.{field}", about)
            if field in self.fields and str(stated.get("cardinality", "")).endswith("more"):
                self.fields[field]["list"] = True
        for item in self.items:  # a field that is a list in one record is one in all
            for name, about in self.fields.items():
                if about.get("list") and name in item and not isinstance(item[name], list):
                    item[name] = [] if item[name] is None else [item[name]]
        kind: dict[str, Any] = {"items": self.items, "fields": list(self.fields.values())}
        if metadata.get("mode") is not None:
            kind["mode"] = record_mode(place, "record_metadata.mode", metadata["mode"])
        if metadata.get("anchor") is not None:
            kind["anchor"] = text_value(place, "record_metadata.anchor", metadata["anchor"])
        return kind


def _nearest(heads: Sequence[Range], tails: Sequence[Range]) -> tuple[Range, Range]:
    """Return the two places next to each other, the first such pair; both are the same only if there is no other."""
    pairs: list[tuple[Range, Range]] = []
    tails = sorted(tails)
    for head in heads:
        at = bisect_left(tails, head)
        # the places of one text begin at different characters, so that two neighbours on either side are enough
        pairs += [(head, tail) for tail in tails[max(at - 2, 0) : at + 2]]
    return min(pairs, key=lambda pair: (pair[0] == pair[1], abs(pair[0][0] - pair[1][0]), pair))


def _mapping(place: Place, name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise place.error(name, f"is {shown(value)}", "a mapping")
    return value


def _list(place: Place, name: str, value: Any) -> list[Any]:
    if not isinstance(value, (list, tuple)):
        raise place.error(name, f"is {shown(value)}", "a list", "Write [] for none")
    return list(value)


gliner2_json = Gliner2JsonReader
