"""Readers of JSON: ``gliner_json`` (words with word indices or tags) and ``jsonl`` (text with character offsets)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Literal

from gliner_pipe.data.annotations import SpanSetter
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
from gliner_pipe.data.files import Paths, Place, read_json
from gliner_pipe.data.readers.base import LabelMap, Reader, Record
from gliner_pipe.data.readers.tables import guess_columns
from gliner_pipe.data.tags import TagNames, find_scheme, is_tag_list, tag_entities, tag_list, tags_by_id
from gliner_pipe.errors import ConfigError, DataError
from gliner_pipe.registry import registry

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


class GlinerJsonReader(JsonReader):
    """Reader of ``{"tokenized_text": [...], "ner": [[first, last, label], ...]}``, see
    :func:`gliner_json`.
    """

    suffixes: ClassVar[tuple[str, ...]] = (".json", ".jsonl", ".ndjson")
    known: ClassVar[tuple[str, ...]] = ("tokenized_text", "ner", "relations", "id", *LABEL_FIELDS)
    aliases: ClassVar[Mapping[str, str]] = {"tokens": "tokenized_text"}

    def __init__(
        self,
        path: Source | None,
        *,
        require_gold: bool = True,
        tag_names: TagNames | None = None,
        **options: Any,
    ) -> None:
        super().__init__(path, **options)
        self.require_gold = require_gold
        self.tag_names = tags_by_id(tag_names)
        self._found: tuple[Values, str] | None = None

    def record(self, place: Place, value: dict[str, Any], values: Values, report: Counter[str]) -> Record:
        """Return words and entities of a record."""
        words_name = self.names.get("tokenized_text", "tokenized_text")
        if words_name not in value:
            found = f"is missing (fields: {', '.join(value) or 'none'})"
            raise place.error(words_name, found, "a list of words", _gliner_json_advice(value))
        unknown_fields(value, tuple(self.names.values()), report)
        words = word_list(place, words_name, value[words_name], report)
        entities = self._entities(place, value, words, values, report)
        return Record(
            place,
            words=words,
            entities=entities,
            **self.optional_fields(place, value, len(entities), report),
        )

    def _entities(
        self, place: Place, value: dict[str, Any], words: list[str], values: Values, report: Counter[str]
    ) -> list[Entity]:
        name = self.names.get("ner", "ner")
        if name not in value:
            if self.require_gold:
                raise place.error(
                    name, "is missing", "a list of entities, [] for none", "Set require_gold = false if so"
                )
            return []
        if not self._are_tags(value[name], len(words)):
            return word_entities(place, name, value[name], len(words), report)
        words_name = self.names.get("tokenized_text", "tokenized_text")
        tags = tag_list(place, name, value[name], len(words), words_name, self.tag_names)
        return tag_entities(place, name, tags, self._scheme(values, report), report)

    def _are_tags(self, value: Any, words: int) -> bool:
        """Tell tags from entities; those of a wrong number are tags only where tags are to be expected."""
        expected = "ner" in self.renamed or self.tag_names is not None
        return is_tag_list(value) and (expected or len(value) == words)

    def _scheme(self, values: Values, report: Counter[str]) -> str:
        """Return the scheme of the tags of a file, which only all of them show."""
        if self._found is None or self._found[0] is not values:
            self._found = values, find_scheme("auto", list(self._all_tags(values)), report)
        return self._found[1]

    def _all_tags(self, values: Values) -> Iterator[list[str]]:
        words_name, name = (self.names.get(field, field) for field in ("tokenized_text", "ner"))
        for place, value in values():
            words, tags = (
                (value.get(words_name), value.get(name)) if isinstance(value, dict) else (None, None)
            )
            if isinstance(words, list) and self._are_tags(tags, len(words)):
                with suppress(DataError):  # raised when it is this record's turn
                    yield tag_list(place, name, tags, len(words), words_name, self.tag_names)


def _gliner_json_advice(record: Mapping[str, Any]) -> str:
    guessed = guess_columns(record)
    if "text" in record:
        return 'Texts with character offsets are read by @readers = "jsonl"'
    return "" if guessed is None else f'Set fields = {{"tokens": "{guessed[0]}", "ner": "{guessed[1]}"}}'


@registry.readers.register("gliner_json")
def gliner_json(
    path: Source | None,
    *,
    span_setter: SpanSetter = "gliner",
    limit: int | None = None,
    label_map: LabelMap | None = None,
    labels: list[str] | None = None,
    rel_label_map: LabelMap | None = None,
    rel_labels: list[str] | None = None,
    flat_ner: bool = False,
    require_gold: bool = True,
    fields: dict[str, str] | None = None,
    tag_names: TagNames | None = None,
) -> GlinerJsonReader:
    """Read GLiNER's training format, as one JSON array or as JSON lines.

    Each record has ``tokenized_text`` (list of words) and ``ner`` (list of ``[first word, last word,
    label]``, both inclusive, counted from 0); optional are ``ner_labels``, ``ner_negatives``, ``relations``
    (list of ``[head, tail, label]``, positions in ``ner``), ``rel_labels``, ``rel_negatives`` and ``id``.
    Words become spaCy tokens one to one. Where ``ner`` is a list of tags, one a word, these are read as
    :func:`~gliner_pipe.data.readers.bio.bio` does.

    Parameters
    ----------
    path
        File, folder, pattern such as ``"corpus/*.jsonl"``, or a list of these; in Python also a list of records.
    span_setter
        Where entities go: a span group, ``"ents"``, ``"*"`` (a group for each label), or several of these.
    limit
        Number of examples after which a pass ends; 0 for all.
    label_map
        New entity labels by old label, as a mapping or ``[old, new]`` pairs; null drops the entities.
    labels
        The complete entity label set of this data; a label that is not among them is a mistake.
    rel_label_map
        As `label_map`, for relations.
    rel_labels
        As `labels`, for relations.
    flat_ner
        Whether two entities that overlap are a mistake.
    require_gold
        Whether a record without ``ner`` is a mistake; else it has no entities.
    fields
        Names of the fields in the data, where they have others: ``{"tokens": "words", "ner": "ner_tags"}``
        (``tokens`` is short for ``tokenized_text``).
    tag_names
        Tags in the order of their ids, or by id, where ``ner`` holds ids of tags.

    Returns
    -------
    GlinerJsonReader
        Called with a pipeline, it yields spaCy examples.
    """
    return GlinerJsonReader(
        path,
        span_setter=span_setter,
        limit=limit,
        label_map=label_map,
        labels=labels,
        rel_label_map=rel_label_map,
        rel_labels=rel_labels,
        flat_ner=flat_ner,
        require_gold=require_gold,
        fields=fields,
        tag_names=tag_names,
    )


#: Names that the field of entities may have.
ENTITY_FIELDS = ("entities", "spans", "ner")


class JsonlReader(JsonReader):
    """Reader of ``{"text": ..., "entities": [[start, end, label], ...]}``, see :func:`jsonl`."""

    suffixes: ClassVar[tuple[str, ...]] = (".jsonl", ".ndjson", ".json")
    known: ClassVar[tuple[str, ...]] = ("text", "entities", "relations", "id", *LABEL_FIELDS)
    aliases: ClassVar[Mapping[str, str]] = {"spans": "entities", "ner": "entities"}

    def __init__(
        self,
        path: Source | None,
        *,
        entity_field: str | None = None,
        require_gold: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(path, **options)
        named = self.renamed.get("entities")
        if named is not None and entity_field not in (None, named):
            found = f"is {entity_field!r}, while fields has {named!r}"
            raise ConfigError("entity_field", found, "one of the two", "Remove entity_field")
        named = named or entity_field
        self.entity_fields = ENTITY_FIELDS if named is None else (named,)
        self.require_gold = require_gold

    def record(self, place: Place, value: dict[str, Any], values: Values, report: Counter[str]) -> Record:
        """Return text and entities of a record."""
        name = self.names.get("text", "text")
        if name not in value:
            found = f"is missing (fields: {', '.join(value) or 'none'})"
            raise place.error(name, found, "a text", _advice(value))
        unknown_fields(value, (*self.names.values(), "relation_scores", *self.entity_fields), report)
        text = text_value(place, name, value[name])
        fields = [name for name in self.entity_fields if name in value]
        names = " or ".join(self.entity_fields)
        if len(fields) > 1:
            raise place.error(" and ".join(fields), "both stand there", f"one of {names}", "Set entity_field")
        if not fields and self.require_gold:
            do = "Set entity_field to the name it has, or require_gold = false for texts without entities"
            raise place.error(
                names, f"is missing (fields: {', '.join(value)})", "a list, [] for no entities", do
            )
        entities = character_entities(place, fields[0], value[fields[0]], text, report) if fields else []
        return Record(
            place, text=text, entities=entities, **self.optional_fields(place, value, len(entities), report)
        )


def _advice(record: Mapping[str, Any]) -> str:
    if "tokenized_text" in record:
        return 'Lists of words are read by @readers = "gliner_json"'
    return 'Columns of words and tags are read by @readers = "bio"' if guess_columns(record) else ""


@registry.readers.register("jsonl")
def jsonl(
    path: Source | None,
    *,
    span_setter: SpanSetter = "gliner",
    limit: int | None = None,
    label_map: LabelMap | None = None,
    labels: list[str] | None = None,
    rel_label_map: LabelMap | None = None,
    rel_labels: list[str] | None = None,
    flat_ner: bool = False,
    alignment_mode: Literal["strict", "contract", "expand"] = "expand",
    entity_field: str | None = None,
    require_gold: bool = True,
    fields: dict[str, str] | None = None,
) -> JsonlReader:
    """Read texts with character offsets, one JSON object a line (or one JSON array of objects).

    Each record has ``text`` and one of ``entities``, ``spans`` and ``ner``: a list of ``[start, end, label]``
    or of ``{"start":, "end":, "label":}``, in characters (Unicode code points) counted from 0, the end
    exclusive. Optional are ``ner_labels``, ``ner_negatives``, ``relations`` (list of ``[head, tail, label]``,
    positions in the list of entities), ``rel_labels``, ``rel_negatives`` and ``id``. The pipeline's tokenizer
    makes the words.

    Parameters
    ----------
    path
        File, folder, pattern such as ``"corpus/*.jsonl"``, or a list of these; in Python also a list of records.
    span_setter
        Where entities go: a span group, ``"ents"``, ``"*"`` (a group for each label), or several of these.
    limit
        Number of examples after which a pass ends; 0 for all.
    label_map
        New entity labels by old label, as a mapping or ``[old, new]`` pairs; null drops the entities.
    labels
        The complete entity label set of this data; a label that is not among them is a mistake.
    rel_label_map
        As `label_map`, for relations.
    rel_labels
        As `labels`, for relations.
    flat_ner
        Whether two entities that overlap are a mistake.
    alignment_mode
        What becomes of an entity that does not begin and end with a token: ``"expand"`` widens it,
        ``"contract"`` narrows it, ``"strict"`` drops it. All three are counted.
    entity_field
        Name of the field of entities, where it is another one.
    require_gold
        Whether a record without such a field is a mistake; else it has no entities.
    fields
        Names of the fields in the data, where they have others: ``{"text": "body", "entities": "mentions"}``.

    Returns
    -------
    JsonlReader
        Called with a pipeline, it yields spaCy examples.
    """
    return JsonlReader(
        path,
        span_setter=span_setter,
        limit=limit,
        label_map=label_map,
        labels=labels,
        rel_label_map=rel_label_map,
        rel_labels=rel_labels,
        flat_ner=flat_ner,
        alignment_mode=alignment_mode,
        entity_field=entity_field,
        require_gold=require_gold,
        fields=fields,
    )
