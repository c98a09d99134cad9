"""Reads GLiNER's training format: words, and entities that count words; or words and their tags."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, ClassVar

from gliner_pipe.data.annotations import SpanSetter
from gliner_pipe.data.fields import Entity, unknown_fields, word_entities, word_list
from gliner_pipe.data.files import Place
from gliner_pipe.data.readers.base import LabelMap, Record
from gliner_pipe.data.readers.json_base import LABEL_FIELDS, JsonReader, Source, Values
from gliner_pipe.data.tables import guess_columns
from gliner_pipe.data.tag_lists import TagNames, find_scheme, is_tag_list, tag_entities, tag_list, tags_by_id
from gliner_pipe.errors import DataError
from gliner_pipe.registry import registry


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
            raise place.error(words_name, found, "a list of words", _advice(value))
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


def _advice(record: Mapping[str, Any]) -> str:
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
