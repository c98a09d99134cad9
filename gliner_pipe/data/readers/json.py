"""Readers of JSON: ``gliner_json`` (words with word indices or tags) and ``jsonl`` (text with character offsets)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, ClassVar, Literal

from gliner_pipe.data.exports import (
    ENTITY_NAMES,
    OTHER_ENTITY_NAMES,
    Annotated,
    RawSpan,
    as_record,
    is_task,
    raw_links,
    raw_spans,
    region_field,
    skipped,
    task_record,
    text_field,
    tool_fields,
)
from gliner_pipe.data.fields import (
    Entity,
    Relation,
    label_value,
    record_object,
    text_value,
    unknown_fields,
    word_entities,
    word_list,
)
from gliner_pipe.data.files import Place
from gliner_pipe.data.offsets import (
    NO_DOUBT,
    Decision,
    Reading,
    Stated,
    Unit,
    character_range,
    decide_reading,
    is_plain,
    stated_span,
)
from gliner_pipe.data.readers.base import OFFSET_OPTIONS, Record, reader
from gliner_pipe.data.readers.cells import guess_columns
from gliner_pipe.data.readers.json_records import (
    FACT_FIELDS,
    LABEL_FIELDS,
    TASK_FIELDS,
    JsonReader,
    Values,
    are_records,
)
from gliner_pipe.data.tag_lists import TagNames, is_tag_list, tag_list, tags_by_id
from gliner_pipe.data.tags import TagCodec, find_codec
from gliner_pipe.errors import ConfigError, DataError


@reader("gliner_json", without=OFFSET_OPTIONS)
class GlinerJsonReader(JsonReader):
    """Reads the training format of GLiNER, as one JSON array or as JSON Lines.

    Each record has ``tokenized_text`` (list of words) and ``ner`` (list of ``[first word, last word, label]``, both
    inclusive, counted from 0). Optional fields are ``ner_labels``, ``ner_negatives``, ``relations`` (list of ``[head,
    tail, label]``, indices into ``ner``), ``rel_labels``, ``rel_negatives``, ``classes``, ``records`` (with ``[first
    word, last word]`` as values), ``adds_labels`` and ``id``. Words become spaCy tokens one to one. If ``ner`` is a
    list with one tag for each word, it is read as the reader ``bio`` reads tags. A text with ``classes`` or ``records``
    and without ``ner`` is one in which nobody looked for entities.

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

    known: ClassVar[tuple[str, ...]] = (
        "tokenized_text",
        "ner",
        "relations",
        "id",
        "adds_labels",
        *LABEL_FIELDS,
        *TASK_FIELDS,
        *FACT_FIELDS,
    )
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

        def positioned(name: str, pair: Any) -> tuple[int, int]:
            start, end, _ = word_entities(place, name, [[*pair, "value"]], len(words), report)[0]
            return start, end

        fields = self._optional_fields(place, value, len(entities), report, positioned)
        if value.get(self.entities_name) is None and self._has_tasks(value):
            fields["entities_annotated"] = False
        return Record(place, words=words, entities=entities, **fields)

    @property
    def reads_alone(self) -> bool:
        """Whether there were no tags, which are read by what all tags of a file are."""
        return self._codec is None

    def _entities(
        self, place: Place, value: dict[str, Any], words: int, values: Values, report: Counter[str]
    ) -> list[Entity]:
        name = self.entities_name
        if name not in value:
            if self.require_gold and not self._has_tasks(value):
                allowed = "a list of entities, [] for none"
                raise place.error(
                    name, "is missing", allowed, "Set require_gold = false for records without it"
                )
            return []
        if value[name] is None:
            if not self._has_tasks(value):
                report[f"record with {name} = null (no entities)"] += 1
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
    of entities), ``rel_labels``, ``rel_negatives``, ``classes``, ``records``, ``adds_labels`` and ``id``. The tokenizer
    of the pipeline splits the text. A text with ``classes`` or ``records`` and without entities is one in which nobody
    looked for entities.

    The exports of Prodigy, doccano and Label Studio (JSON and JSON_MIN) and spaCy's pairs ``[text, {"entities": ...}]``
    are read as they are. Records that were rejected or ignored, cancelled annotations and empty texts are skipped and
    counted. If entities state their text, offsets that count something else than code points are converted.

    Parameters
    ----------
    path
        File, folder, pattern such as ``"corpus/*.jsonl"``, or a list of these; in Python also a list of records.
    entity_field
        Field of the entities, if it has another name.
    require_gold
        Treat a file in which no record has entities as an error; otherwise its texts have none.
    fields
        Names of the fields in the data, if they differ: ``{"text": "body", "entities": "mentions"}``.
    offsets
        What offsets count: ``"codepoints"``, ``"utf16"`` (code units, as in JavaScript and Java), ``"bytes"`` (of
        UTF-8), or ``"auto"``: code points, unless the data shows that it is one of the others.
    options
        Options of all readers, see :class:`Reader`.
    """

    known: ClassVar[tuple[str, ...]] = (
        "text",
        "entities",
        "relations",
        "id",
        "adds_labels",
        *LABEL_FIELDS,
        *TASK_FIELDS,
        *FACT_FIELDS,
    )
    aliases: ClassVar[Mapping[str, str]] = {"spans": "entities", "ner": "entities"}

    def __init__(
        self,
        path: Any,
        *,
        entity_field: str | None = None,
        offsets: Literal["auto", "codepoints", "utf16", "bytes"] = "auto",
        **options: Any,
    ) -> None:
        super().__init__(path, **options)
        self.offsets = offsets
        named = self.renamed.get("entities")
        if named is not None and entity_field not in (None, named):
            found = f"is {entity_field!r}, while fields has {named!r}"
            raise ConfigError("entity_field", found, "one of the two", "Remove entity_field")
        named = named or entity_field
        self.entity_fields = ENTITY_NAMES if named is None else (named,)
        self.other_fields = OTHER_ENTITY_NAMES if named is None else ()
        self._facts: _Facts | None = None

    def record(
        self, place: Place, value: dict[str, Any], values: Values, report: Counter[str]
    ) -> Record | None:
        """Return text and entities of a record; None if it is no gold annotation or has no text."""
        if self._facts is None or self._facts.values is not values:
            self._facts = _Facts(values)
        facts = self._facts
        if reason := skipped(value):
            report[reason] += 1
            return None
        item = self._annotated(place, value, facts, report)
        if item is None:
            report["task without annotation (skipped)"] += 1
            return None
        if "annotation_id" in value and value.get("id") is not None:  # JSON_MIN: a record for each annotator
            task = str(value["id"])
            if task in facts.tasks:
                report["annotation of a further annotator (ignored)"] += 1
                return None
            facts.tasks.add(task)
        if value.get("_view_id") == "ner":
            report["accepted suggestion (the text may have more entities, which are learned as absent)"] += 1
        if item.text is None or (isinstance(item.text, str) and not item.text.strip()):
            report["empty text (skipped)"] += 1
            return None
        known = (*self.names.values(), "relation_scores", *self.entity_fields, *item.known)
        unknown_fields(value, known, report)
        text = text_value(place, item.text_name, item.text)
        decision = self._decision(place, text, item, facts, report)
        entities, positions = _entities(place, item, text, decision, report)
        links = item.links
        if links is not None:
            value = {name: one for name, one in value.items() if name != self.names.get("relations")}
        reading = (
            decision.reading if decision is not NO_DOUBT or self.offsets == "auto" else Reading(self.offsets)
        )

        def positioned(name: str, pair: Any) -> tuple[int, int] | None:
            given = (pair[0], pair[1], None)
            return character_range(place, name, ("[0]", "[1]", ""), given, text, Decision(reading), report)

        fields = self._optional_fields(place, value, len(item.spans), report, positioned)
        if item.entity_name is None and self._has_tasks(value):
            fields["entities_annotated"] = False
        if links is not None:
            fields["relations"] = [
                (link.head, link.tail, label_value(place, link.name, link.label, report)) for link in links
            ]
        if "relations" in fields:
            fields["relations"] = _linked(fields["relations"], positions, report)
        return Record(place, text=text, entities=entities, **fields)

    @property
    def reads_alone(self) -> bool:
        """Whether offsets count what is expected for sure, and there was no text that may have several annotators."""
        facts, unit = self._facts, "codepoints" if self.offsets == "auto" else self.offsets
        if facts is None or facts.tasks:
            return facts is None
        decision = facts.decision or NO_DOUBT
        expected = decision is NO_DOUBT or decision.reading == Reading(unit)
        return expected and decision.doubt is None

    def _object(self, place: Place, value: Any) -> dict[str, Any]:
        return record_object(place, as_record(value))

    def _annotated(
        self, place: Place, value: dict[str, Any], facts: _Facts, report: Counter[str]
    ) -> Annotated | None:
        """Return a record of any tool in one form; None if it is a task without annotation."""
        name = self.names.get("text", "text")
        task = is_task(value)
        if (task or name not in value) and "text" not in self.renamed:
            name = facts.text_name()
        if task:
            return task_record(place, value, name, report)
        if name not in value:
            found = f"is missing (fields: {', '.join(value) or 'none'})"
            do = 'Columns of words and tags are read by @readers = "bio"' if guess_columns(value) else ""
            if "tokenized_text" in value:
                do = 'Lists of words are read by @readers = "gliner_json"'
            raise place.error(name, found, "a text", do)
        item = Annotated(name, value[name], self._entity_field(place, value, facts, report))
        item.known = (*tool_fields(value), name)
        if None in value.values():
            item.known += tuple(field for field in self.other_fields if value.get(field, "") is None)
        if item.entity_name is not None:
            item.known += (item.entity_name,)
            item.spans = raw_spans(place, item.entity_name, value[item.entity_name], report)
        relations = self.names.get("relations", "")
        if are_records(value.get(relations)):
            item.links = raw_links(place, relations, value[relations], item, value, report)
        return item

    def _entity_field(
        self, place: Place, value: dict[str, Any], facts: _Facts, report: Counter[str]
    ) -> str | None:
        """Return the field of the entities of a record; None if it has none, which is counted or an error."""
        given = [field for field in self.entity_fields if value.get(field) is not None]
        if len(given) > 1:
            names = " or ".join(self.entity_fields)
            raise place.error(" and ".join(given), "are both present", f"one of {names}", "Set entity_field")
        if given:
            return given[0]
        empty = [field for field in self.entity_fields if field in value]
        if not empty and self.other_fields:
            lists = [field for field in self.other_fields if isinstance(value.get(field), (list, tuple))]
            if (found := region_field(value) or next(iter(lists), None)) is not None:
                return found
            empty = [field for field in self.other_fields if value.get(field, "") is None]
        if self._has_tasks(value):
            return None
        if empty:
            report[f"record with {empty[0]} = null (no entities)"] += 1
        elif not self.require_gold or tool_fields(value) or facts.any_record(self._has_entities):
            if self.require_gold:
                report["record without a field of entities (no entities)"] += 1
        else:
            names = " or ".join(self.entity_fields)
            found = f"is missing (fields: {', '.join(value)})"
            do = "Set entity_field to its name, or require_gold = false for texts without entities"
            raise place.error(names, found, "a list, [] for no entities", do)
        return None

    def _has_entities(self, value: Any) -> bool:
        names = (*self.entity_fields, *self.other_fields)
        return isinstance(value, Mapping) and any(isinstance(value.get(n), (list, tuple)) for n in names)

    def _decision(
        self, place: Place, text: str, item: Annotated, facts: _Facts, report: Counter[str]
    ) -> Decision:
        """Return how offsets are read. The whole file decides, as soon as there can be a doubt."""
        if facts.decision is not None:
            return facts.decision
        plain = self.offsets in ("auto", "codepoints")
        if not item.spans or (
            plain and is_plain(text, [(one.start, one.end, one.stated) for one in item.spans])
        ):
            facts.assumed += not text.isascii() and bool(item.spans)
            return NO_DOUBT
        unit: Unit = "codepoints" if self.offsets == "auto" else self.offsets
        facts.decision = decide_reading(self._stated_texts(facts), self.offsets)
        reading, doubt = facts.decision.reading, facts.decision.doubt
        if facts.assumed and reading != Reading(unit):
            found = f"has offsets in {reading}; {facts.assumed} records before it fit code points, too"
            raise place.error(item.entity_name or "", found, "one unit", f'Set offsets = "{reading.unit}"')
        if reading != Reading(unit):
            report[f"file whose offsets count {reading} (converted)"] += 1
        if doubt is not None:
            report[
                f"file whose offsets fit better as {doubt} than as {reading} (not converted; set offsets = "
                f'"{doubt.unit}" if they are)'
            ] += 1
        return facts.decision

    def _stated_texts(self, facts: _Facts) -> Iterator[tuple[str, list[Stated]]]:
        """Yield the texts of a file with the offsets of their entities; broken records are left out."""
        place, unread = Place(""), Counter[str]()
        for value in facts.records():
            with suppress(DataError):  # raised when this record is read
                item = None
                if isinstance(value, dict) and not skipped(value):
                    item = self._annotated(place, value, facts, unread)
                if item is not None and isinstance(item.text, str) and item.spans:
                    yield item.text, [one for span in item.spans if (one := _stated(span))]


def _stated(span: RawSpan) -> Stated | None:
    return stated_span(span.start, span.end, span.stated)


class _Facts:
    """What the records of a file tell together; each fact is read from the file when it is needed."""

    def __init__(self, values: Values) -> None:
        self.values = values
        self.decision: Decision | None = None
        #: Number of texts with other characters than ASCII that were read as code points before there was a doubt.
        self.assumed = 0
        self.tasks: set[str] = set()
        self._text_name: str | None = None
        self._any: bool | None = None

    def records(self) -> Iterator[Any]:
        """Yield the records up to the first that is not JSON."""
        with suppress(DataError):
            for _, value in self.values():
                yield as_record(value)

    def text_name(self) -> str:
        """Return the field of the text."""
        if self._text_name is None:
            self._text_name = text_field(self.records())
        return self._text_name

    def any_record(self, test: Callable[[Any], bool]) -> bool:
        """Whether a test is true for any record; always the same test."""
        if self._any is None:
            self._any = any(map(test, self.records()))
        return self._any


def _entities(
    place: Place, item: Annotated, text: str, decision: Decision, report: Counter[str]
) -> tuple[list[Entity], list[int | None]]:
    """Return the entities of a record, and the index in that list of each of its spans."""
    entities: list[Entity] = []
    positions: list[int | None] = []
    for span in item.spans:
        positions.append(None)
        start, end = span.start, span.end
        if decision is NO_DOUBT and type(start) is type(end) is int and 0 <= start < end <= len(text):
            found: tuple[int, int] | None = (start, end)
        else:
            given = (start, end, span.stated)
            found = character_range(place, span.name, span.parts, given, text, decision, report)
        labels = span.labels if isinstance(span.labels, (list, tuple)) else [span.labels]
        if not labels:
            report["entity without label (dropped)"] += 1
        elif found is not None:
            positions[-1] = len(entities)
            name = f"{span.name}{span.parts[2]}"
            entities += [(*found, label_value(place, name, label, report)) for label in labels]
    return entities, positions


def _linked(
    links: Sequence[tuple[int | None, int | None, str]],
    positions: Sequence[int | None],
    report: Counter[str],
) -> list[Relation]:
    """Return the relations between entities, from those between spans of the record."""
    relations = []
    for head, tail, label in links:
        first = None if head is None else positions[head]
        second = None if tail is None else positions[tail]
        if first is None or second is None:
            report["relation without its entity (dropped)"] += 1
        else:
            relations.append((first, second, label))
    return relations


gliner_json = GlinerJsonReader
jsonl = JsonlReader
