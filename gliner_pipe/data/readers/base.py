"""What all readers share: files to records, records to spaCy examples, and a report of what was dropped."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from spacy.language import Language
from spacy.tokens import Doc, Span
from spacy.training import Example

from gliner_pipe.data.annotations import SpanSetter, primary_key, set_spans, set_supervision, trimmed
from gliner_pipe.data.fields import Entity, Relation
from gliner_pipe.data.files import Place, find_files
from gliner_pipe.errors import ConfigError, DataError

logger = logging.getLogger("gliner_pipe")

BLANK = "entity of blanks only (dropped)"
TRIMMED = "entity with blanks around it (trimmed)"

#: New labels by old label, as a mapping or as pairs; ``None`` drops what has the old label.
LabelMap = dict[str, str | None] | list[list[str | None]]

ALIGNMENT_MODES = ("strict", "contract", "expand")


@dataclass
class Record:
    """One document as its file says it, checked but not yet tokenized.

    ``words`` (then entities count words) or ``text`` (then they count characters) is given.
    """

    place: Place
    words: list[str] | None = None
    text: str | None = None
    sentence_starts: list[bool] | None = None
    entities: list[Entity] = field(default_factory=list)
    relations: list[Relation] | None = None
    ner_labels: list[str] | None = None
    ner_negatives: list[str] | None = None
    rel_labels: list[str] | None = None
    rel_negatives: list[str] | None = None
    id: str | None = None


class Reader:
    """Base of the readers: called with a pipeline, it yields spaCy examples.

    Files are looked for when the reader is called, and read while its examples are taken. A mistake in the
    data ends in one :class:`DataError`. Everything unusual that is no mistake is counted in ``report``, and
    logged once, at the end of the first pass.

    Parameters
    ----------
    path
        File, folder, pattern such as ``"corpus/*.jsonl"``, or a list of these.
    span_setter
        Where entities go, see :data:`~gliner_pipe.data.annotations.SpanSetter`.
    limit
        Number of examples after which a pass ends; ``None`` or 0 for all.
    label_map
        New entity labels by old label, as a mapping or a list of ``[old, new]`` pairs; ``None`` as the new
        label drops its entities.
    labels
        The complete entity label set of this data (after `label_map`), written as ``ner_labels`` on every
        example. A label that is not among them is a mistake.
    rel_label_map
        As `label_map`, for relations.
    rel_labels
        As `labels`, for relations.
    flat_ner
        Whether two entities that overlap are a mistake.
    alignment_mode
        What becomes of an entity of a running text that does not begin and end with a token: ``"expand"``
        widens it, ``"contract"`` narrows it, ``"strict"`` drops it. All three are counted.
    """

    #: What the files of a folder must end in.
    suffixes: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        path: Any,
        *,
        span_setter: SpanSetter = "gliner",
        limit: int | None = None,
        label_map: LabelMap | None = None,
        labels: Sequence[str] | None = None,
        rel_label_map: LabelMap | None = None,
        rel_labels: Sequence[str] | None = None,
        flat_ner: bool = False,
        alignment_mode: str = "expand",
    ) -> None:
        primary_key(span_setter)
        if limit is not None and limit < 0:
            raise ConfigError("limit", f"is {limit}", "a number of examples, or 0 for all")
        if alignment_mode not in ALIGNMENT_MODES:
            raise ConfigError("alignment_mode", f"is {alignment_mode!r}", ", ".join(ALIGNMENT_MODES))
        self.path = path
        self.span_setter = span_setter
        self.limit = limit
        self.label_map = _label_map("label_map", label_map)
        self.labels = _label_set("labels", labels)
        self.rel_label_map = _label_map("rel_label_map", rel_label_map)
        self.rel_labels = _label_set("rel_labels", rel_labels)
        self.flat_ner = flat_ner
        self.alignment_mode = alignment_mode
        self.report: Counter[str] = Counter()
        self._reported = False

    def records(self, file: Path, report: Counter[str]) -> Iterator[Record]:
        """Yield the records of one file; count in `report` what is unusual."""
        raise NotImplementedError

    def all_records(self, report: Counter[str]) -> Iterator[Record]:
        """Check that there is something to read, and return the records of a pass."""
        files = self.files()
        return (record for file in files for record in self.records(file, report))

    def files(self) -> list[Path]:
        """Return the files that a pass reads, in order."""
        return find_files(self.path, self.suffixes)

    @property
    def title(self) -> str:
        """What is read, for messages."""
        return str(self.path)

    def __call__(self, nlp: Language) -> Iterator[Example]:
        """Start a pass: check that the files are there, empty ``report``, and return the examples.

        Parameters
        ----------
        nlp
            Gives the vocabulary and, for running text, the tokenizer.
        """
        report: Counter[str] = Counter()
        records = self.all_records(report)
        self.report = report
        return self._examples(nlp, records, report)

    def _examples(self, nlp: Language, records: Iterator[Record], report: Counter[str]) -> Iterator[Example]:
        count = 0
        try:
            for record in records:
                yield self.to_example(nlp, record, report)
                count += 1
                if self.limit and count >= self.limit:
                    return
        finally:
            if report and not self._reported:
                self._reported = True
                logger.warning("%s: %s", self.title, render_report(report))
        if not count:
            raise DataError(
                self.title, "holds no text", "at least one text that is not empty", "Check the path"
            )

    def to_example(self, nlp: Language, record: Record, report: Counter[str]) -> Example:
        """Return the spaCy example of `record`: the bare document, and the same with its annotations."""
        predicted = _tokenized(nlp, record)
        reference = predicted.copy()
        if record.sentence_starts is not None:
            for token, starts in zip(reference, record.sentence_starts, strict=True):
                token.is_sent_start = starts
        spans, positions = self._spans(reference, record, report)
        places = set_spans(reference, spans, self.span_setter, report)
        ner_labels, ner_negatives = self._label_sets(
            record, "ner", (span.label_ for span in spans), record.ner_labels, record.ner_negatives, report
        )
        relations = self._relations(record, [None if p is None else places[p] for p in positions], report)
        rel_labels, rel_negatives = self._label_sets(
            record,
            "rel",
            (item[2] for item in relations or []),
            record.rel_labels,
            record.rel_negatives,
            report,
        )
        set_supervision(
            reference,
            id=record.id,
            source=record.place.source,
            ner_labels=ner_labels,
            ner_negatives=ner_negatives,
            relations=relations,
            rel_labels=rel_labels,
            rel_negatives=rel_negatives,
        )
        return Example(predicted, reference)

    def _spans(self, doc: Doc, record: Record, report: Counter[str]) -> tuple[list[Span], list[int | None]]:
        """Return the entities without duplicates, and for each entity of the record its position among
        them.
        """
        spans: list[Span] = []
        known: dict[Entity, int] = {}
        positions: list[int | None] = []
        for start, end, label in record.entities:
            positions.append(None)
            new = self._relabelled(record.place, "label", label, self.label_map, self.labels, report)
            if new is None:
                continue
            span = (
                self._of_words(doc, start, end, new, report)
                if record.text is None
                else self._aligned(doc, record.text, start, end, new, report)
            )
            if span is None:
                continue
            key = (span.start, span.end, new)
            if key in known:
                report["entity stated twice (merged)"] += 1
            else:
                known[key] = len(spans)
                spans.append(span)
            positions[-1] = known[key]
        if self.flat_ner:
            _check_flat(record.place, spans)
        return spans, positions

    def _of_words(self, doc: Doc, start: int, end: int, label: str, report: Counter[str]) -> Span | None:
        """Return the span of the words from `start` to the one before `end`, without blanks at its ends."""
        span = trimmed(Span(doc, start, end, label=label))
        if span is None:
            report[BLANK] += 1
        elif len(span) < end - start:
            report[TRIMMED] += 1
        return span

    def _aligned(
        self, doc: Doc, text: str, start: int, end: int, label: str, report: Counter[str]
    ) -> Span | None:
        """Return the span of tokens for the characters from `start` to `end`; `text` is that of `doc`."""
        part = text[start:end]
        stripped = part.strip()
        if not stripped:
            report[BLANK] += 1
            return None
        if len(stripped) < len(part):
            report[TRIMMED] += 1
            start += len(part) - len(part.lstrip())
            end = start + len(stripped)
        span = doc.char_span(start, end, label=label)
        if span is None and self.alignment_mode != "strict":
            span = doc.char_span(start, end, label=label, alignment_mode=self.alignment_mode)
            if span is not None:
                done = "widened" if self.alignment_mode == "expand" else "narrowed"
                report[f"entity not on token borders ({done})"] += 1
                return trimmed(span)
        if span is None:
            report["entity not on token borders (dropped)"] += 1
        return span

    def _relations(
        self, record: Record, positions: Sequence[int | None], report: Counter[str]
    ) -> list[list[Any]] | None:
        if record.relations is None:
            return None
        kept: dict[tuple[int, int, str], None] = {}
        for head, tail, label in record.relations:
            new = self._relabelled(
                record.place, "relation label", label, self.rel_label_map, self.rel_labels, report
            )
            if new is None:
                continue
            first, second = positions[head], positions[tail]
            if first is None or second is None:
                report["relation without its entity (dropped)"] += 1
            elif (first, second, new) in kept:
                report["relation stated twice (merged)"] += 1
            else:
                kept[first, second, new] = None
        return [list(relation) for relation in kept]

    def _label_sets(
        self,
        record: Record,
        kind: str,
        present: Iterator[str],
        stated: list[str] | None,
        negatives: list[str] | None,
        report: Counter[str],
    ) -> tuple[list[str] | None, list[str] | None]:
        """Return the complete label set and the known negatives, checked against the labels that are
        present.
        """
        closed, label_map = (
            (self.labels, self.label_map) if kind == "ner" else (self.rel_labels, self.rel_label_map)
        )
        here = list(dict.fromkeys(present))
        named = self._relabelled_list(record, f"{kind}_labels", stated, label_map, closed, report)
        absent = self._relabelled_list(record, f"{kind}_negatives", negatives, label_map, None, report)
        both = [label for label in absent or [] if label in here]
        if both:
            raise record.place.error(
                f"{kind}_negatives",
                f"names {both[0]!r}, which stands in the example",
                "labels that the example does not have",
                "Remove it from the negatives",
            )
        if closed is not None:
            return list(closed), absent
        if named is not None:
            missing = [label for label in here if label not in named]
            if missing:
                report[f"label in use but not in {kind}_labels (added)"] += len(missing)
            named += missing
        return named, absent

    def _relabelled_list(
        self,
        record: Record,
        name: str,
        values: list[str] | None,
        label_map: dict[str, str | None],
        closed: list[str] | None,
        report: Counter[str],
    ) -> list[str] | None:
        if values is None:
            return None
        new = [
            self._relabelled(record.place, name, value, label_map, closed, report, False) for value in values
        ]
        return list(dict.fromkeys(label for label in new if label is not None))

    def _relabelled(
        self,
        place: Place,
        name: str,
        label: str,
        label_map: dict[str, str | None],
        closed: list[str] | None,
        report: Counter[str],
        count: bool = True,
    ) -> str | None:
        """Return the new name of `label`, or None if the label map drops it."""
        new = label_map.get(label, label)
        if new is None:
            if count:
                report[f"{name} {label!r} (dropped by the label map)"] += 1
        elif closed is not None and new not in closed:
            do = "Add it to labels, or map it with label_map (null drops it)"
            raise place.error(name, f"is {new!r}", ", ".join(map(repr, closed)), do)
        return new


def render_report(report: Counter[str]) -> str:
    """Return the counts of a report in one line."""
    return "; ".join(f"{number} x {reason}" for reason, number in report.most_common())


def _tokenized(nlp: Language, record: Record) -> Doc:
    if record.words is not None:
        return Doc(nlp.vocab, words=record.words)
    # The tokenizer itself: nlp.make_doc refuses texts longer than nlp.max_length, a limit meant for parsers.
    doc = nlp.tokenizer(record.text)
    if doc.text != record.text:
        found = "was changed by the tokenizer, so that character offsets no longer fit"
        raise record.place.error(
            "text", found, "a tokenizer that keeps the text", "Set another [nlp.tokenizer]"
        )
    return doc


def _check_flat(place: Place, spans: Sequence[Span]) -> None:
    last: Span | None = None
    for span in sorted(spans, key=lambda span: (span.start, span.end)):
        if last is not None and span.start < last.end:
            found = f"has {last.text!r} ({last.label_}) and {span.text!r} ({span.label_}), which overlap"
            raise place.error(
                "entities", found, "entities side by side (flat_ner = true)", "Set flat_ner = false"
            )
        last = span


def _label_map(name: str, value: LabelMap | None) -> dict[str, str | None]:
    pairs: list[Any] = list(value.items()) if isinstance(value, dict) else list(value or [])
    wrong = [pair for pair in pairs if len(pair) != 2 or not pair[0] or pair[1] == ""]
    if wrong:
        raise ConfigError(name, f"holds {wrong[0]!r}", "pairs [old label, new label or null]")
    return dict(pairs)


def _label_set(name: str, value: Sequence[str] | None) -> list[str] | None:
    if value is None:
        return None
    if (
        isinstance(value, str)
        or not value
        or not all(isinstance(label, str) and label.strip() for label in value)
    ):
        raise ConfigError(name, f"is {value!r}", 'a list of labels such as ["person", "date"]')
    return list(dict.fromkeys(value))
