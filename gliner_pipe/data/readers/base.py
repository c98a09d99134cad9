"""What all readers share: options, spaCy examples from checked records, and a report of everything unusual."""

from __future__ import annotations

import inspect
import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar, get_type_hints

from spacy.language import Language
from spacy.tokens import Doc, Span
from spacy.training import Example

from gliner_pipe.data.annotations import (
    SpanSetter,
    gold_place,
    primary_key,
    set_spans,
    set_supervision,
    trimmed,
)
from gliner_pipe.data.fields import LONGEST_TEXT, Entity, Relation, Report, text_problem
from gliner_pipe.data.files import Place, find_files
from gliner_pipe.data.gold_classes import set_gold_classes
from gliner_pipe.data.records import Record as GoldRecord
from gliner_pipe.data.records import set_records
from gliner_pipe.errors import ConfigError, DataError
from gliner_pipe.registry import registry
from gliner_pipe.util.ranges import Amount

logger = logging.getLogger("gliner_pipe")

#: New labels by old label, as a mapping or as pairs; ``None`` drops the annotations with the old label.
LabelMap = dict[str, str | None] | list[list[str | None]]

#: Options of :class:`Reader` for formats with relations, and for formats with character offsets.
RELATION_OPTIONS = ("rel_label_map", "rel_labels")
OFFSET_OPTIONS = ("alignment_mode",)

#: Maximum number of words of a document.
LONGEST_WORDS = 2_000_000


@dataclass
class Record:
    """One document of a file, checked but not yet tokenized.

    Either ``words`` is set, and entities count words, or ``text`` is set, and entities count characters. ``spaces``
    says after which words a blank follows; None for all. ``classes`` and ``records`` are as the functions of
    :mod:`gliner_pipe.data.fields` return them; ``links`` are relations between spans, ``[head start, head end, tail
    start, tail end, label]``, where they are not only between entities. The other fields are those of
    :class:`~gliner_pipe.data.annotations.Supervision`.
    """

    place: Place
    words: list[str] | None = None
    text: str | None = None
    sentence_starts: list[bool] | None = None
    spaces: list[bool] | None = None
    entities: list[Entity] = field(default_factory=list)
    relations: list[Relation] | None = None
    ner_labels: list[str] | None = None
    ner_negatives: list[str] | None = None
    adds_labels: bool | None = None
    rel_labels: list[str] | None = None
    rel_negatives: list[str] | None = None
    id: str | None = None
    entities_annotated: bool | None = None
    ner_descriptions: dict[str, str] | None = None
    rel_descriptions: dict[str, str] | None = None
    links: list[Any] | None = None
    classes: dict[str, dict[str, Any]] | None = None
    records: dict[str, dict[str, Any]] | None = None
    all_occurrences: bool | None = None

    def running_text(self) -> str:
        """Return the text of its document."""
        if self.words is None:
            return self.text or ""
        if self.spaces is None:
            return " ".join(self.words) + " "
        return "".join(word + " " * space for word, space in zip(self.words, self.spaces, strict=True))


@dataclass(frozen=True)
class _LabelRules:
    """Renames and checks the labels of entities (``kind`` is ``"ner"``) or of relations (``"rel"``)."""

    kind: str
    new_names: dict[str, str | None]
    closed: list[str] | None

    def renamed(self, place: Place, name: str, label: str, report: Counter[str] | None) -> str | None:
        """Return the new name of `label`; None if the label map drops it, which `report` counts."""
        new = self.new_names.get(label, label)
        if new is None:
            if report is not None:
                report[f"{name} {label!r} (dropped by the label map)"] += 1
        elif self.closed is not None and new not in self.closed:
            do = "Add it to labels, or map it with label_map (null drops it)"
            raise place.error(name, f"is {new!r}", ", ".join(map(repr, self.closed)), do)
        return new

    def label_sets(
        self, record: Record, present: Iterable[str], report: Counter[str]
    ) -> tuple[list[str] | None, list[str] | None]:
        """Return the complete label set and the negatives of a record, checked against the labels in use."""
        name = f"{self.kind}_negatives"
        stated: list[list[str] | None] = [getattr(record, name), getattr(record, f"{self.kind}_labels")]
        if self.closed is None and stated == [None, None]:
            return None, None
        in_use = list(dict.fromkeys(present))
        # The closed set need not contain the negatives.
        negatives = _LabelRules(self.kind, self.new_names, None)._list(record, name)
        wrong = [label for label in negatives or [] if label in in_use]
        if wrong:
            found = f"contains {wrong[0]!r}, which the example has"
            allowed = "labels that the example does not have"
            raise record.place.error(name, found, allowed, "Remove it from the negatives")
        complete = self._list(record, f"{self.kind}_labels")
        if self.closed is not None:
            return list(self.closed), negatives
        if complete is not None:
            missing = [label for label in in_use if label not in complete]
            if missing:
                report[f"label in use but not in {self.kind}_labels (added)"] += len(missing)
            complete += missing
        return complete, negatives

    def _list(self, record: Record, name: str) -> list[str] | None:
        values = getattr(record, name)
        if values is None:
            return None
        new = [self.renamed(record.place, name, value, None) for value in values]
        return list(dict.fromkeys(label for label in new if label is not None))


class Reader:
    """Base class of the readers: called with a pipeline, a reader yields spaCy examples.

    Files are located when the reader is called, and read while the examples are consumed. An error in the data
    raises one :class:`DataError`. Anything unusual that is no error is counted in ``report``, which is logged once,
    at the end of the first pass.

    Parameters
    ----------
    path
        File, folder, pattern such as ``"corpus/*.jsonl"``, or a list of these.
    span_setter
        Where entities are stored: a span group, ``"ents"``, ``"*"`` (a group for each label), several of these, or
        a mapping from these to labels. By default where the components of the pipeline read gold entities.
    limit
        Number of examples after which a pass ends; ``None`` or 0 for all.
    label_map
        New entity labels by old label, as a mapping or as ``[old, new]`` pairs; null drops the entities.
    labels
        The complete set of entity labels of this data (after `label_map`). It is stored as ``ner_labels`` of every
        example; any other label is an error.
    rel_label_map
        Like `label_map`, for relations.
    rel_labels
        Like `labels`, for relations.
    flat_ner
        Treat overlapping entities as an error.
    alignment_mode
        How an entity that does not align with token boundaries is handled: ``"expand"`` widens it, ``"contract"``
        narrows it, ``"strict"`` drops it. Each case is counted.
    """

    #: File name endings that are read from a folder. One that no built-in reader has also selects this reader for a
    #: path without a named reader.
    suffixes: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        path: Any,
        *,
        span_setter: SpanSetter | None = None,
        limit: Amount | None = None,
        label_map: LabelMap | None = None,
        labels: list[str] | None = None,
        rel_label_map: LabelMap | None = None,
        rel_labels: list[str] | None = None,
        flat_ner: bool = False,
        alignment_mode: Literal["strict", "contract", "expand"] = "expand",
    ) -> None:
        if span_setter is not None:
            primary_key(span_setter)
        self.path = path
        self.span_setter = span_setter
        self.limit = limit
        self.flat_ner = flat_ner
        self.alignment_mode = alignment_mode
        self.report = Report()
        self._entity_labels = _LabelRules("ner", _pairs("label_map", label_map), _label_set("labels", labels))
        self._relation_labels = _LabelRules(
            "rel", _pairs("rel_label_map", rel_label_map), _label_set("rel_labels", rel_labels)
        )
        self._reported = False

    def records(self, file: Path, report: Counter[str]) -> Iterator[Record]:
        """Yield the records of one file, and count in `report` what is unusual."""
        raise NotImplementedError

    def all_records(self, report: Counter[str]) -> Iterator[Record]:
        """Locate the files and return the records of a pass."""
        files = self.files()
        return (record for file in files for record in self.records(file, report))

    def files(self) -> list[Path]:
        """Return the files of a pass, in order."""
        return find_files(self.path, self.suffixes)

    @property
    def title(self) -> str:
        """Name of the data in messages."""
        return str(self.path)

    def __call__(self, nlp: Language) -> Iterator[Example]:
        """Start a pass: locate the files, reset ``report``, and return an iterator of the examples.

        Parameters
        ----------
        nlp
            Provides the vocabulary and, for running text, the tokenizer.
        """
        return (example for _, example in self.pairs(nlp))

    def pairs(self, nlp: Language) -> Iterator[tuple[Record, Example]]:
        """Start a pass as a call does, and return an iterator of the records with their examples."""
        report = Report()
        records = self.all_records(report)
        self.report = report
        return self._pairs(nlp, records, report)

    def _pairs(
        self, nlp: Language, records: Iterator[Record], report: Report
    ) -> Iterator[tuple[Record, Example]]:
        count = 0
        try:
            for record in records:
                example = self.to_example(nlp, record, report)
                report.settle(record.place)
                yield record, example
                count += 1
                if self.limit and count >= self.limit:
                    return
        finally:
            self.tell(report)
        if not count:
            found = f"contains no text ({'; '.join(report.render())})" if report else "contains no text"
            raise DataError(self.title, found, "at least one non-empty text", "Check the path")

    def tell(self, report: Report) -> None:
        """Log the report of the first pass, at its end."""
        if report and not self._reported:
            self._reported = True
            logger.warning("%s: %s", self.title, "; ".join(report.render()))

    def to_example(self, nlp: Language, record: Record, report: Counter[str]) -> Example:
        """Return a spaCy example: the bare document, and the same document with its annotations."""
        predicted = tokenized(nlp, record)
        return Example(predicted, self.annotated(nlp, predicted.copy(), record, report))

    def annotated(self, nlp: Language, reference: Doc, record: Record, report: Counter[str]) -> Doc:
        """Return the bare document with the annotations of its record."""
        if record.sentence_starts is not None:
            for token, starts in zip(reference, record.sentence_starts, strict=True):
                token.is_sent_start = starts
        spans, positions = self._spans(reference, record, report)
        setter = gold_place(nlp) if self.span_setter is None else self.span_setter
        stored = set_spans(reference, spans, setter, report)
        labels = (span.label_ for span in spans)
        ner_labels, ner_negatives = self._entity_labels.label_sets(record, labels, report)
        relations = self._relations(record, [None if p is None else stored[p] for p in positions], report)
        links = None if record.links is None else self._links(reference, record, report)
        labels = (label for *_, label in chain(relations or (), links or ()))
        rel_labels, rel_negatives = self._relation_labels.label_sets(record, labels, report)
        if record.classes is not None:
            set_gold_classes(reference, record.classes)
        set_supervision(
            reference,
            id=record.id,
            source=record.place.source,
            ner_labels=ner_labels,
            ner_negatives=ner_negatives,
            adds_labels=record.adds_labels,
            relations=relations,
            rel_labels=rel_labels,
            rel_negatives=rel_negatives,
            entities_annotated=record.entities_annotated,
            ner_descriptions=record.ner_descriptions,
            rel_descriptions=record.rel_descriptions,
            links=links,
            records=None if record.records is None else self._set_records(reference, record, report),
            all_occurrences=record.all_occurrences,
        )
        return reference

    def _spans(self, doc: Doc, record: Record, report: Counter[str]) -> tuple[list[Span], list[int | None]]:
        """Return the entities without duplicates, and the index in that list of each entity of the record."""
        spans: list[Span] = []
        known: dict[Entity, int] = {}
        positions: list[int | None] = []
        for start, end, label in record.entities:
            positions.append(None)
            new = self._entity_labels.renamed(record.place, "label", label, report)
            if new is None:
                continue
            span = self._span(doc, record, start, end, new, report)
            if span is None:
                continue
            key = (span.start, span.end, new)
            if key in known:
                report["duplicate entity (merged)"] += 1
            else:
                known[key] = len(spans)
                spans.append(span)
            positions[-1] = known[key]
        if self.flat_ner:
            _check_flat(record.place, spans)
        return spans, positions

    def _span(
        self, doc: Doc, record: Record, start: int, end: int, label: str, report: Counter[str]
    ) -> Span | None:
        """Return the span of a record's words or characters."""
        if record.text is None:
            return _span_of_words(doc, start, end, label, report)
        return self._span_of_characters(doc, record.text, start, end, label, report)

    def _span_of_characters(
        self, doc: Doc, text: str, start: int, end: int, label: str, report: Counter[str]
    ) -> Span | None:
        """Return the tokens of the characters from `start` to `end`; `text` equals ``doc.text``."""
        part = text[start:end]
        stripped = part.strip()
        if not stripped:
            report["whitespace-only entity (dropped)"] += 1
            return None
        if len(stripped) < len(part):
            report["entity with surrounding whitespace (trimmed)"] += 1
            start += len(part) - len(part.lstrip())
            end = start + len(stripped)
        span = doc.char_span(start, end, label=label)
        if span is None and self.alignment_mode != "strict":
            span = doc.char_span(start, end, label=label, alignment_mode=self.alignment_mode)
            if span is not None:
                done = "widened" if self.alignment_mode == "expand" else "narrowed"
                report[f"entity does not align with token boundaries ({done})"] += 1
                return trimmed(span)
        if span is None:
            report["entity does not align with token boundaries (dropped)"] += 1
        return span

    def _relations(
        self, record: Record, positions: Sequence[int | None], report: Counter[str]
    ) -> list[list[Any]] | None:
        if record.relations is None:
            return None
        kept: dict[tuple[int, int, str], None] = {}
        for head, tail, label in record.relations:
            new = self._relation_labels.renamed(record.place, "relation label", label, report)
            if new is None:
                continue
            first, second = positions[head], positions[tail]
            if first is None or second is None:
                report["relation without its entity (dropped)"] += 1
            elif (first, second, new) in kept:
                report["duplicate relation (merged)"] += 1
            else:
                kept[first, second, new] = None
        return [list(relation) for relation in kept]

    def _links(self, doc: Doc, record: Record, report: Counter[str]) -> list[list[Any]]:
        """Return the relations between any spans, in tokens."""
        kept: dict[tuple[Any, ...], None] = {}
        for *ends, label in record.links or ():
            new = self._relation_labels.renamed(record.place, "relation label", label, report)
            if new is None:
                continue
            head = self._span(doc, record, ends[0], ends[1], "head", report)
            tail = self._span(doc, record, ends[2], ends[3], "tail", report)
            if head is None or tail is None:
                report["relation without one of its ends (dropped)"] += 1
            else:
                kept[head.start, head.end, tail.start, tail.end, new] = None
        return [list(link) for link in kept]

    def _set_records(self, doc: Doc, record: Record, report: Counter[str]) -> dict[str, dict[str, Any]]:
        """Store the records of a document, and return what is known about their kinds."""

        def value(field: str, stored: Any) -> Any:
            if stored is None or isinstance(stored, str):
                return stored
            if len(stored) == 2 and isinstance(stored[0], int):
                span = self._span(doc, record, stored[0], stored[1], field, report)
                if span is None:
                    report["value of a record without its span (dropped)"] += 1
                return span
            return [one for one in (value(field, item) for item in stored) if one is not None]

        found, kinds = [], {}
        for kind, stated in (record.records or {}).items():
            for item in stated["items"]:
                found.append(
                    GoldRecord(kind, {field: value(field, stored) for field, stored in item.items()})
                )
            kinds[kind] = {name: one for name, one in stated.items() if name != "items"}
        set_records(doc, found)
        return kinds


ReaderClass = TypeVar("ReaderClass", bound=type[Reader])


def reader(name: str, *, without: Collection[str] = ()) -> Callable[[ReaderClass], ReaderClass]:
    """Register a reader class under ``@readers = name``.

    Its constructor names only its own options and takes those of its base classes as ``**options``. This
    decorator adds them to the signature, so that configs are validated against all of them.

    Parameters
    ----------
    name
        Name in the registry.
    without
        Options of :class:`Reader` that mean nothing for this format.
    """

    def register(cls: ReaderClass) -> ReaderClass:
        init: Any = cls.__init__
        parameters: dict[str, inspect.Parameter] = {}
        hints: dict[str, Any] = {}
        for function in [vars(one)["__init__"] for one in cls.__mro__[:-1] if "__init__" in vars(one)]:
            types = get_type_hints(function, include_extras=True)
            for key, parameter in inspect.signature(function).parameters.items():
                if parameter.kind is not parameter.VAR_KEYWORD and key not in {*parameters, *without}:
                    hints[key] = types.get(key, Any)
                    parameters[key] = parameter.replace(annotation=hints[key])
        init.__signature__ = inspect.Signature(list(parameters.values()))
        init.__annotations__ = hints
        registered: ReaderClass = registry.readers.register(name)(cls)
        return registered

    return register


def tokenized(nlp: Language, record: Record) -> Doc:
    """Return the bare document of a record; a text that is too long is an error."""
    if record.words is not None:
        if len(record.words) > LONGEST_WORDS or sum(map(len, record.words)) > LONGEST_TEXT:
            found = f"has {len(record.words):,} words of {sum(map(len, record.words)):,} characters"
            allowed = f"at most {LONGEST_WORDS:,} words, and {LONGEST_TEXT:,} characters"
            raise record.place.error("words", found, allowed, "Write the document as several texts")
        return Doc(nlp.vocab, words=record.words, spaces=record.spaces)
    # The tokenizer itself: nlp.make_doc refuses texts longer than nlp.max_length, a limit meant for parsers.
    if problem := text_problem(record.text or ""):
        raise record.place.error("text", *problem)
    doc = nlp.tokenizer(record.text)
    if doc.text != record.text:
        found = "was changed by the tokenizer, so character offsets no longer fit"
        allowed = "a tokenizer that keeps the text"
        raise record.place.error("text", found, allowed, "Set another [nlp.tokenizer]")
    return doc


def _span_of_words(doc: Doc, start: int, end: int, label: str, report: Counter[str]) -> Span | None:
    """Return the span of the words from `start` to `end` (exclusive), without whitespace tokens at its ends."""
    span = trimmed(Span(doc, start, end, label=label))
    if span is None:
        report["whitespace-only entity (dropped)"] += 1
    elif len(span) < end - start:
        report["entity with surrounding whitespace (trimmed)"] += 1
    return span


def _check_flat(place: Place, spans: Sequence[Span]) -> None:
    last: Span | None = None
    for span in sorted(spans, key=lambda span: (span.start, span.end)):
        if last is not None and span.start < last.end:
            found = f"has {last.text!r} ({last.label_}) and {span.text!r} ({span.label_}), which overlap"
            allowed = "entities without overlap (flat_ner = true)"
            raise place.error("entities", found, allowed, "Set flat_ner = false")
        last = span


def _pairs(name: str, value: LabelMap | None) -> dict[str, str | None]:
    pairs: list[Any] = list(value.items()) if isinstance(value, dict) else list(value or [])
    wrong = [pair for pair in pairs if len(pair) != 2 or not pair[0] or pair[1] == ""]
    if wrong:
        raise ConfigError(name, f"contains {wrong[0]!r}", "pairs [old label, new label or null]")
    return dict(pairs)


def _label_set(name: str, value: Any) -> list[str] | None:
    if value is None:
        return None
    if isinstance(value, str) or not value or not all(isinstance(v, str) and v.strip() for v in value):
        raise ConfigError(name, f"is {value!r}", 'a list of labels such as ["person", "date"]')
    return list(dict.fromkeys(value))
