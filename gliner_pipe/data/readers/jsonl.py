"""Reads texts with entities that count characters, one JSON object a line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from gliner_pipe.data.annotations import SpanSetter
from gliner_pipe.data.fields import character_entities, text_value, unknown_fields
from gliner_pipe.data.files import Place
from gliner_pipe.data.readers.base import LabelMap, Record
from gliner_pipe.data.readers.json_base import LABEL_FIELDS, JsonReader, Source, Values
from gliner_pipe.data.tables import guess_columns
from gliner_pipe.errors import ConfigError
from gliner_pipe.registry import registry

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
