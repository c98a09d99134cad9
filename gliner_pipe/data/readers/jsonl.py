"""Reads texts with entities that count characters, one JSON object a line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

from gliner_pipe.data.annotations import SpanSetter
from gliner_pipe.data.fields import character_entities, record_object, text_value, unknown_fields
from gliner_pipe.data.files import Paths, Place, read_json
from gliner_pipe.data.readers.base import LabelMap, Reader, Record
from gliner_pipe.data.readers.gliner_json import LABEL_FIELDS, optional_fields
from gliner_pipe.registry import registry

#: Names that the field of entities may have.
ENTITY_FIELDS = ("entities", "spans", "ner")


class JsonlReader(Reader):
    """Reader of ``{"text": ..., "entities": [[start, end, label], ...]}``, see :func:`jsonl`."""

    suffixes: ClassVar[tuple[str, ...]] = (".jsonl", ".ndjson", ".json")

    def __init__(
        self,
        path: Paths | None,
        *,
        entity_field: str | None = None,
        require_gold: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(path, **options)
        self.entity_fields = ENTITY_FIELDS if entity_field is None else (entity_field,)
        self.require_gold = require_gold

    def records(self, file: Path, report: Counter[str]) -> Iterator[Record]:
        """Yield the records of a JSON lines or JSON array file."""
        for place, value in read_json(file):
            yield self._record(place, record_object(place, value), report)

    def _record(self, place: Place, value: dict[str, Any], report: Counter[str]) -> Record:
        if "text" not in value:
            do = 'Lists of words are read by @readers = "gliner_json"' if "tokenized_text" in value else ""
            raise place.error("text", f"is missing (fields: {', '.join(value) or 'none'})", "a text", do)
        unknown_fields(
            value, ("text", "relations", "relation_scores", "id", *self.entity_fields, *LABEL_FIELDS), report
        )
        text = text_value(place, "text", value["text"])
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
            place, text=text, entities=entities, **optional_fields(place, value, len(entities), report)
        )


@registry.readers.register("jsonl")
def jsonl(
    path: Paths | None,
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
        File, folder, pattern such as ``"corpus/*.jsonl"``, or a list of these.
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
    )
