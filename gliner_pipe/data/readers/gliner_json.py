"""Reads GLiNER's training format: words, and entities that count words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from gliner_pipe.data.annotations import SpanSetter
from gliner_pipe.data.fields import (
    label_list,
    record_object,
    relation_list,
    shown,
    unknown_fields,
    word_entities,
    word_list,
)
from gliner_pipe.data.files import Paths, Place, read_json
from gliner_pipe.data.readers.base import LabelMap, Reader, Record
from gliner_pipe.registry import registry

#: Optional fields that hold a list of labels.
LABEL_FIELDS = ("ner_labels", "ner_negatives", "rel_labels", "rel_negatives")


class GlinerJsonReader(Reader):
    """Reader of ``{"tokenized_text": [...], "ner": [[first, last, label], ...]}``, see
    :func:`gliner_json`.
    """

    suffixes: ClassVar[tuple[str, ...]] = (".json", ".jsonl", ".ndjson")
    known: ClassVar[tuple[str, ...]] = ("tokenized_text", "ner", "relations", "id", *LABEL_FIELDS)

    def __init__(self, path: Paths | None, *, require_gold: bool = True, **options: Any) -> None:
        super().__init__(path, **options)
        self.require_gold = require_gold

    def records(self, file: Path, report: Counter[str]) -> Iterator[Record]:
        """Yield the records of a JSON array or JSON lines file."""
        for place, value in read_json(file):
            yield self._record(place, record_object(place, value), report)

    def _record(self, place: Place, value: dict[str, Any], report: Counter[str]) -> Record:
        if "tokenized_text" not in value:
            do = 'Texts with character offsets are read by @readers = "jsonl"' if "text" in value else ""
            raise place.error(
                "tokenized_text", f"is missing (fields: {', '.join(value) or 'none'})", "a list of words", do
            )
        unknown_fields(value, self.known, report)
        words = word_list(place, "tokenized_text", value["tokenized_text"], report)
        if "ner" not in value and self.require_gold:
            raise place.error(
                "ner", "is missing", "a list of entities, [] for none", "Set require_gold = false if so"
            )
        entities = word_entities(place, "ner", value.get("ner", []), len(words), report)
        return Record(
            place, words=words, entities=entities, **optional_fields(place, value, len(entities), report)
        )


def optional_fields(
    place: Place, value: dict[str, Any], entities: int, report: Counter[str]
) -> dict[str, Any]:
    """Return the checked id, relations and label lists that a JSON record has."""
    fields: dict[str, Any] = {}
    for name in LABEL_FIELDS:
        if value.get(name) is not None:
            fields[name] = label_list(place, name, value[name], report)
    if value.get("relations") is not None:
        fields["relations"] = relation_list(place, "relations", value["relations"], entities, report)
    if value.get("id") is not None:
        if isinstance(value["id"], bool) or not isinstance(value["id"], (str, int)):
            raise place.error("id", f"is {shown(value['id'])}", "a text or a whole number")
        fields["id"] = str(value["id"])
    return fields


@registry.readers.register("gliner_json")
def gliner_json(
    path: Paths | None,
    *,
    span_setter: SpanSetter = "gliner",
    limit: int | None = None,
    label_map: LabelMap | None = None,
    labels: list[str] | None = None,
    rel_label_map: LabelMap | None = None,
    rel_labels: list[str] | None = None,
    flat_ner: bool = False,
    require_gold: bool = True,
) -> GlinerJsonReader:
    """Read GLiNER's training format, as one JSON array or as JSON lines.

    Each record has ``tokenized_text`` (list of words) and ``ner`` (list of ``[first word, last word,
    label]``, both inclusive, counted from 0); optional are ``ner_labels``, ``ner_negatives``, ``relations``
    (list of ``[head, tail, label]``, positions in ``ner``), ``rel_labels``, ``rel_negatives`` and ``id``.
    Words become spaCy tokens one to one.

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
    require_gold
        Whether a record without ``ner`` is a mistake; else it has no entities.

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
    )
