"""What the readers of JSON share: records of files or in memory, names of fields, and the optional fields."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from gliner_pipe.data.exports import WRAPPERS, is_pair, unwrapped
from gliner_pipe.data.fields import (
    Positioned,
    check_characters,
    class_tasks,
    label_list,
    link_list,
    record_items,
    record_object,
    relation_list,
    shown,
    text_mapping,
)
from gliner_pipe.data.files import JSON_SUFFIXES, LineBlock, Place, read_json
from gliner_pipe.data.readers.base import Reader, Record
from gliner_pipe.errors import ConfigError

#: Optional fields with a list of labels.
LABEL_FIELDS = ("ner_labels", "ner_negatives", "rel_labels", "rel_negatives")
#: Optional fields with the classes of a text, and with records. A text that has one may have no field of entities.
TASK_FIELDS = ("classes", "records")
#: Optional fields with other facts about entities, relations and records.
FACT_FIELDS = ("ner_descriptions", "rel_descriptions", "links", "all_occurrences")
#: Fields of an object that may be a whole file.
_WHOLE_FILE = frozenset(("classes", *WRAPPERS))

#: Starts a new iteration over all records of a file.
Values = Callable[[], Iterable[tuple[Place, Any]]]


def are_records(value: Any) -> bool:
    """Whether `value` is a non-empty list of mappings, or of pairs of a text and its annotations."""
    return (
        isinstance(value, (list, tuple))
        and bool(value)
        and all(isinstance(v, Mapping) or is_pair(v) for v in value)
    )


def tagged_sentences(value: Any) -> list[dict[str, Any]] | None:
    """Return records of sentences, ``(words, tags)`` or ``[(word, tag), ...]`` each; None for other values."""
    if not isinstance(value, (list, tuple)) or not value or not all(map(_of_texts, value)):
        return None
    if all(len(pair) == 2 for sentence in value for pair in sentence):
        pairs = [list(zip(*sentence, strict=True)) for sentence in value]
        if any(len(sentence) != 2 for sentence in value) or all(isinstance(one, tuple) for one in value[0]):
            return [{"tokens": list(words), "tags": list(tags)} for words, tags in pairs]
    if all(len(sentence) == 2 and len(sentence[0]) == len(sentence[1]) for sentence in value):
        return [{"tokens": list(words), "tags": list(tags)} for words, tags in value]
    return None


def _of_texts(sentence: Any) -> bool:
    return (
        isinstance(sentence, (list, tuple))
        and bool(sentence)
        and all(
            isinstance(part, (list, tuple)) and bool(part) and all(isinstance(text, str) for text in part)
            for part in sentence
        )
    )


class JsonReader(Reader):
    """Base class of the readers of JSON files and of lists of records in memory.

    Messages name a record in memory by its position, counted from 0: ``"record 3 (ner[0])"``.

    Parameters
    ----------
    path
        Files, see :class:`Reader`, or a list of records.
    require_gold
        Treat a record without the field of entities as an error; otherwise it has no entities.
    fields
        Names of the fields in the data, by the name that this reader uses.
    options
        Options of all readers, see :class:`Reader`.
    """

    suffixes: ClassVar[tuple[str, ...]] = JSON_SUFFIXES
    #: The fields, required ones first.
    known: ClassVar[tuple[str, ...]] = ()
    #: Alternative names of fields in the option `fields`.
    aliases: ClassVar[Mapping[str, str]] = {}

    def __init__(
        self,
        path: Any,
        *,
        require_gold: bool = True,
        fields: dict[str, str] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(path, **options)
        self.require_gold = require_gold
        self._values: tuple[str, Values] | None = None
        self.renamed = self._renamed(fields or {})
        # A name that the option gives to one field is no longer the name of another field.
        taken = set(self.renamed.values())
        self.names = {name: name for name in self.known if name not in taken} | self.renamed

    @property
    def title(self) -> str:
        """Name of the data in messages."""
        return "the records" if are_records(self.path) else super().title

    def all_records(self, report: Counter[str]) -> Iterator[Record]:
        """Return the records of all files, or the records in memory."""
        if not are_records(self.path):
            return super().all_records(report)
        values: Sequence[Any] = self.path
        return self._read(
            lambda: (
                (Place(f"record {i}"), dict(v) if isinstance(v, Mapping) else v) for i, v in enumerate(values)
            ),
            report,
        )

    def records(self, file: Path, report: Counter[str]) -> Iterator[Record]:
        """Yield the records of a JSON array or of a JSON Lines file."""
        return self._read(lambda: _unwrapped(read_json(file)), report)

    def records_of(self, lines: LineBlock, report: Counter[str]) -> Iterator[Record]:
        """Yield the records of some lines of a file; all are valid only if :attr:`reads_alone` is true afterwards."""
        if self._values is None or self._values[0] != lines.file:
            file = Path(lines.file)
            self._values = lines.file, lambda: _unwrapped(read_json(file))
        return self._read(self._values[1], report, _unwrapped(lines.read()))

    @property
    def reads_alone(self) -> bool:
        """Whether no record that was read depends on those before it, or on a fact about its whole file."""
        return False

    def _read(
        self, values: Values, report: Counter[str], some: Iterable[tuple[Place, Any]] | None = None
    ) -> Iterator[Record]:
        """Yield the records of a file, or only `some` of them."""
        for place, value in values() if some is None else some:
            record = self.record(place, self._object(place, value), values, report)
            if record is not None:
                yield record

    def record(
        self, place: Place, value: dict[str, Any], values: Values, report: Counter[str]
    ) -> Record | None:
        """Return the checked record `value`, or None to skip it; `values` gives all records of its file."""
        raise NotImplementedError

    def _object(self, place: Place, value: Any) -> dict[str, Any]:
        return record_object(place, value)

    def _has_tasks(self, value: Mapping[str, Any]) -> bool:
        """Whether a record has classes or records, so that it may have no field of entities."""
        return any(isinstance(value.get(self.names.get(field, "")), dict) for field in TASK_FIELDS)

    def _optional_fields(
        self,
        place: Place,
        value: dict[str, Any],
        entities: int,
        report: Counter[str],
        positioned: Positioned,
    ) -> dict[str, Any]:
        """Return the checked optional fields of a record with that many entities.

        These are id, relations, classes, records, label lists and ``adds_labels``; `positioned` converts the positions
        of the values of records.
        """
        fields: dict[str, Any] = {}
        for field in (*LABEL_FIELDS, *TASK_FIELDS, *FACT_FIELDS, "relations", "id", "adds_labels"):
            name = self.names.get(field, "")
            found = value.get(name)
            if found is None:
                continue
            if field == "relations":
                fields[field] = relation_list(place, name, found, entities, report)
            elif field in TASK_FIELDS and not isinstance(found, dict):
                report[f"field {name!r} that is no mapping (ignored)"] += 1
            elif field == "classes":
                fields[field] = class_tasks(place, name, found, report)
            elif field == "records":
                fields[field] = record_items(place, name, found, report, positioned)
            elif field == "id":
                if isinstance(found, bool) or not isinstance(found, (str, int)):
                    raise place.error(name, f"is {shown(found)}", "a string or a whole number")
                fields[field] = str(found)
                check_characters(place, name, fields[field])
            elif field == "links":
                fields[field] = link_list(place, name, found, report, positioned)
            elif field.endswith("_descriptions"):
                fields[field] = text_mapping(place, name, found)
            elif field in ("adds_labels", "all_occurrences"):
                if not isinstance(found, bool):
                    raise place.error(name, f"is {shown(found)}", "true or false")
                fields[field] = found
            else:
                fields[field] = label_list(place, name, found, report)
        return fields

    def _renamed(self, fields: Mapping[str, str]) -> dict[str, str]:
        renamed: dict[str, str] = {}
        for field, name in fields.items():
            known = self.aliases.get(field, field)
            if known not in self.known:
                allowed = ", ".join([*self.known, *self.aliases])
                raise ConfigError(f"fields.{field}", "is not a field of this reader", allowed)
            if not isinstance(name, str) or not name:
                raise ConfigError(f"fields.{field}", f"is {name!r}", "the name of the field in the data")
            if known in renamed:
                raise ConfigError(f"fields.{field}", f"is the same field as {known}", "each field once")
            if name in renamed.values():
                raise ConfigError("fields", f"has the name {name!r} twice", "another name for each field")
            renamed[known] = name
        return renamed


def _unwrapped(values: Iterable[tuple[Place, Any]]) -> Iterator[tuple[Place, Any]]:
    for place, value in values:
        if type(value) is dict and _WHOLE_FILE.isdisjoint(value):
            yield place, value
        else:
            yield from unwrapped(place, value)
