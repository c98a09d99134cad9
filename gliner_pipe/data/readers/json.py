"""Readers of JSON: ``gliner_json`` (words with word indices or tags) and ``jsonl`` (text with character offsets)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

from gliner_pipe.data.fields import (
    Entity,
    character_entities,
    label_list,
    record_object,
    relation_list,
    shown,
    text_value,
    unknown_fields,
    word_entities,
    word_list,
)
from gliner_pipe.data.files import JSON_SUFFIXES, Place, read_json
from gliner_pipe.data.readers.base import OFFSET_OPTIONS, Reader, Record, reader
from gliner_pipe.data.readers.cells import guess_columns
from gliner_pipe.data.tag_lists import TagNames, is_tag_list, tag_list, tags_by_id
from gliner_pipe.data.tags import TagCodec, find_codec
from gliner_pipe.errors import ConfigError, DataError

#: Optional fields with a list of labels.
LABEL_FIELDS = ("ner_labels", "ner_negatives", "rel_labels", "rel_negatives")

#: Starts a new iteration over all records of a file.
Values = Callable[[], Iterable[tuple[Place, Any]]]


def are_records(value: Any) -> bool:
    """Whether `value` is a non-empty list of mappings."""
    return isinstance(value, (list, tuple)) and bool(value) and all(isinstance(v, Mapping) for v in value)


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
        return self._read(lambda: ((Place(f"record {i}"), dict(v)) for i, v in enumerate(values)), report)

    def records(self, file: Path, report: Counter[str]) -> Iterator[Record]:
        """Yield the records of a JSON array or of a JSON Lines file."""
        return self._read(lambda: read_json(file), report)

    def _read(self, values: Values, report: Counter[str]) -> Iterator[Record]:
        for place, value in values():
            yield self.record(place, record_object(place, value), values, report)

    def record(self, place: Place, value: dict[str, Any], values: Values, report: Counter[str]) -> Record:
        """Return the checked record `value`; `values` gives all records of its file."""
        raise NotImplementedError

    def _optional_fields(
        self, place: Place, value: dict[str, Any], entities: int, report: Counter[str]
    ) -> dict[str, Any]:
        """Return the checked id, relations and label lists of a record with that many entities."""
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
                    raise place.error(name, f"is {shown(found)}", "a string or a whole number")
                fields[field] = str(found)
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


@reader("gliner_json", without=OFFSET_OPTIONS)
class GlinerJsonReader(JsonReader):
    """Reads the training format of GLiNER, as one JSON array or as JSON Lines.

    Each record has ``tokenized_text`` (list of words) and ``ner`` (list of ``[first word, last word, label]``, both
    inclusive, counted from 0). Optional fields are ``ner_labels``, ``ner_negatives``, ``relations`` (list of ``[head,
    tail, label]``, indices into ``ner``), ``rel_labels``, ``rel_negatives`` and ``id``. Words become spaCy tokens one
    to one. If ``ner`` is a list with one tag for each word, it is read as the reader ``bio`` reads tags.

    Parameters
    ----------
    path
        File, folder, pattern such as ``"corpus/*.jsonl"``, or a list of these; in Python also a list of records.
    tag_names
        Tags in the order of their ids, or by id, if ``ner`` contains ids of tags.
    require_gold
        Treat a record without ``ner`` as an error; otherwise it has no entities.
    fields
        Names of the fields in the data, if they differ: ``{"tokens": "words", "ner": "ner_tags"}`` (``tokens`` is
        short for ``tokenized_text``).
    options
        Options of all readers, see :class:`Reader`.
    """

    known: ClassVar[tuple[str, ...]] = ("tokenized_text", "ner", "relations", "id", *LABEL_FIELDS)
    aliases: ClassVar[Mapping[str, str]] = {"tokens": "tokenized_text"}

    def __init__(
        self,
        path: Any,
        *,
        tag_names: TagNames | None = None,
        **options: Any,
    ) -> None:
        super().__init__(path, **options)
        self.tag_names = tags_by_id(tag_names)
        self.words_name = self.names.get("tokenized_text", "tokenized_text")
        self.entities_name = self.names.get("ner", "ner")
        self._codec: tuple[Values, TagCodec] | None = None

    def record(self, place: Place, value: dict[str, Any], values: Values, report: Counter[str]) -> Record:
        """Return words and entities of a record."""
        if self.words_name not in value:
            found = f"is missing (fields: {', '.join(value) or 'none'})"
            do = ""
            if "text" in value:
                do = 'Texts with character offsets are read by @readers = "jsonl"'
            elif guessed := guess_columns(value):
                do = f'Set fields = {{"tokens": "{guessed[0]}", "ner": "{guessed[1]}"}}'
            raise place.error(self.words_name, found, "a list of words", do)
        unknown_fields(value, tuple(self.names.values()), report)
        words = word_list(place, self.words_name, value[self.words_name], report)
        entities = self._entities(place, value, len(words), values, report)
        fields = self._optional_fields(place, value, len(entities), report)
        return Record(place, words=words, entities=entities, **fields)

    def _entities(
        self, place: Place, value: dict[str, Any], words: int, values: Values, report: Counter[str]
    ) -> list[Entity]:
        name = self.entities_name
        if name not in value:
            if self.require_gold:
                allowed = "a list of entities, [] for none"
                raise place.error(
                    name, "is missing", allowed, "Set require_gold = false for records without it"
                )
            return []
        if not self._are_tags(value[name], words):
            return word_entities(place, name, value[name], words, report)
        tags = tag_list(place, name, value[name], words, self.words_name, self.tag_names)
        if self._codec is None or self._codec[0] is not values:
            # The codec can be inferred from all tags of a file together only.
            every = list(self._all_tags(values))
            lists = [one for _, one in every]
            named = (self.tag_names or {}).values()
            do = "Check tags and tag_names"
            codec = find_codec(
                "auto", lists, lambda i, j: (every[i][0], f"{name}[{j}]"), report, names=named, do=do
            )
            self._codec = values, codec
        return self._codec[1].entities(tags, report, lambda position: place)

    def _are_tags(self, value: Any, words: int) -> bool:
        """Whether `value` is a list of tags. One of another length than the words counts only if tags are expected."""
        expected = "ner" in self.renamed or self.tag_names is not None
        return is_tag_list(value) and (expected or len(value) == words)

    def _all_tags(self, values: Values) -> Iterator[tuple[Place, list[str]]]:
        for place, value in values():
            record = value if isinstance(value, dict) else {}
            words, tags = record.get(self.words_name), record.get(self.entities_name)
            if isinstance(words, list) and self._are_tags(tags, len(words)):
                with suppress(DataError):  # raised when this record is read
                    yield (
                        place,
                        tag_list(
                            place, self.entities_name, tags, len(words), self.words_name, self.tag_names
                        ),
                    )


@reader("jsonl")
class JsonlReader(JsonReader):
    """Reads texts with character offsets, as JSON Lines or as one JSON array.

    Each record has ``text`` and one of ``entities``, ``spans`` and ``ner``: a list of ``[start, end, label]`` or of
    ``{"start":, "end":, "label":}``, in characters (Unicode code points) counted from 0, the end exclusive. Optional
    fields are ``ner_labels``, ``ner_negatives``, ``relations`` (list of ``[head, tail, label]``, indices into the list
    of entities), ``rel_labels``, ``rel_negatives`` and ``id``. The tokenizer of the pipeline splits the text.

    Parameters
    ----------
    path
        File, folder, pattern such as ``"corpus/*.jsonl"``, or a list of these; in Python also a list of records.
    entity_field
        Field of the entities, if it has another name.
    require_gold
        Treat a record without entities as an error; otherwise it has none.
    fields
        Names of the fields in the data, if they differ: ``{"text": "body", "entities": "mentions"}``.
    options
        Options of all readers, see :class:`Reader`.
    """

    known: ClassVar[tuple[str, ...]] = ("text", "entities", "relations", "id", *LABEL_FIELDS)
    aliases: ClassVar[Mapping[str, str]] = {"spans": "entities", "ner": "entities"}

    def __init__(
        self,
        path: Any,
        *,
        entity_field: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(path, **options)
        named = self.renamed.get("entities")
        if named is not None and entity_field not in (None, named):
            found = f"is {entity_field!r}, while fields has {named!r}"
            raise ConfigError("entity_field", found, "one of the two", "Remove entity_field")
        named = named or entity_field
        self.entity_fields = ("entities", *self.aliases) if named is None else (named,)

    def record(self, place: Place, value: dict[str, Any], values: Values, report: Counter[str]) -> Record:
        """Return text and entities of a record."""
        name = self.names.get("text", "text")
        if name not in value:
            found = f"is missing (fields: {', '.join(value) or 'none'})"
            do = 'Columns of words and tags are read by @readers = "bio"' if guess_columns(value) else ""
            if "tokenized_text" in value:
                do = 'Lists of words are read by @readers = "gliner_json"'
            raise place.error(name, found, "a text", do)
        unknown_fields(value, (*self.names.values(), "relation_scores", *self.entity_fields), report)
        text = text_value(place, name, value[name])
        entities: list[Entity] = []
        given = [field for field in self.entity_fields if field in value]
        names = " or ".join(self.entity_fields)
        if len(given) > 1:
            raise place.error(" and ".join(given), "are both present", f"one of {names}", "Set entity_field")
        if given:
            entities = character_entities(place, given[0], value[given[0]], text, report)
        elif self.require_gold:
            found = f"is missing (fields: {', '.join(value)})"
            do = "Set entity_field to its name, or require_gold = false for texts without entities"
            raise place.error(names, found, "a list, [] for no entities", do)
        fields = self._optional_fields(place, value, len(entities), report)
        return Record(place, text=text, entities=entities, **fields)


gliner_json = GlinerJsonReader
jsonl = JsonlReader
