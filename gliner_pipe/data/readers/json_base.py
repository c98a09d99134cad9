"""What the readers of JSON share: records from files or from memory, and fields of other names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from gliner_pipe.data.fields import label_list, record_object, relation_list, shown
from gliner_pipe.data.files import Paths, Place, read_json
from gliner_pipe.data.readers.base import Reader, Record
from gliner_pipe.errors import ConfigError

#: Files, or in Python the records themselves.
Source = Paths | list[dict[str, Any]]

#: Optional fields that hold a list of labels.
LABEL_FIELDS = ("ner_labels", "ner_negatives", "rel_labels", "rel_negatives")

#: Starts going through all records of a file anew.
Values = Callable[[], Iterable[tuple[Place, Any]]]


def are_records(value: Any) -> bool:
    """Say whether `value` is a list of mappings."""
    return isinstance(value, (list, tuple)) and bool(value) and all(isinstance(v, Mapping) for v in value)


class JsonReader(Reader):
    """Base of the readers of JSON files and of lists of records in memory.

    Parameters
    ----------
    path
        Files, see :class:`Reader`, or a list of records. A record in memory is called by its position, counted
        from 0: ``"record 3 (ner[0])"``.
    fields
        Names that fields have in the data, by the name that this reader has for them.
    options
        See :class:`Reader`.
    """

    suffixes: ClassVar[tuple[str, ...]] = (".jsonl", ".ndjson", ".json")
    #: The fields, required ones first.
    known: ClassVar[tuple[str, ...]] = ()
    #: Other names of fields in the option `fields`.
    aliases: ClassVar[Mapping[str, str]] = {}

    def __init__(
        self, path: Source | None, *, fields: Mapping[str, str] | None = None, **options: Any
    ) -> None:
        super().__init__(path, **options)
        self.renamed = self._renamed(fields)
        # A name that was given to one field is not that of another one any more.
        taken = set(self.renamed.values())
        self.names = {name: name for name in self.known if name not in taken} | self.renamed

    @property
    def title(self) -> str:
        """What is read."""
        return "the records" if are_records(self.path) else super().title

    def all_records(self, report: Counter[str]) -> Iterator[Record]:
        """Return the records of all files, or those in memory."""
        if not are_records(self.path):
            return super().all_records(report)
        values: Sequence[Any] = self.path
        return self.read(lambda: ((Place(f"record {i}"), dict(v)) for i, v in enumerate(values)), report)

    def records(self, file: Path, report: Counter[str]) -> Iterator[Record]:
        """Yield the records of a JSON array or JSON lines file."""
        return self.read(lambda: read_json(file), report)

    def read(self, values: Values, report: Counter[str]) -> Iterator[Record]:
        """Yield the checked records of one file."""
        for place, value in values():
            yield self.record(place, record_object(place, value), values, report)

    def record(self, place: Place, value: dict[str, Any], values: Values, report: Counter[str]) -> Record:
        """Return the checked record `value`; `values` are all of its file."""
        raise NotImplementedError

    def optional_fields(
        self, place: Place, value: dict[str, Any], entities: int, report: Counter[str]
    ) -> dict[str, Any]:
        """Return the checked id, relations and label lists that a JSON record has."""
        fields: dict[str, Any] = {}
        for field in (*LABEL_FIELDS, "relations", "id"):
            name = self.names.get(field, "")
            found = value.get(name)
            if found is None:
                continue
            if field == "relations":
                fields[field] = relation_list(place, name, found, entities, report)
            elif field == "id":
                if isinstance(found, bool) or not isinstance(found, (str, int)):
                    raise place.error(name, f"is {shown(found)}", "a text or a whole number")
                fields[field] = str(found)
            else:
                fields[field] = label_list(place, name, found, report)
        return fields

    def _renamed(self, fields: Mapping[str, str] | None) -> dict[str, str]:
        renamed: dict[str, str] = {}
        for field, name in (fields or {}).items():
            known = self.aliases.get(field, field)
            if known not in self.known:
                allowed = ", ".join([*self.known, *self.aliases])
                raise ConfigError(f"fields.{field}", "is no field of this reader", allowed)
            if not isinstance(name, str) or not name:
                raise ConfigError(f"fields.{field}", f"is {name!r}", "the name of the field in the data")
            if known in renamed:
                raise ConfigError(f"fields.{field}", f"is the same field as {known}", "each field once")
            renamed[known] = name
        for name in renamed.values():
            if list(renamed.values()).count(name) > 1:
                raise ConfigError("fields", f"has the name {name!r} twice", "another name for each field")
        return renamed
