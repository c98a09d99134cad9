"""Counts the annotations of data, where they are stored, and those that a model cannot learn."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from spacy.tokens import Doc, Span
from spacy.training import Example

from gliner_pipe.data.annotations import (
    DEFAULT_SPANS_KEY,
    SpanSetter,
    gold_spans,
    has_entities_annotated,
    supervision,
    unknown_tokens,
    word_places,
)
from gliner_pipe.data.classes import cat_key
from gliner_pipe.data.gold_classes import gold_classes, true_labels
from gliner_pipe.data.label_sets import counted
from gliner_pipe.data.records import RECORDS_KEY, get_records
from gliner_pipe.data.task_sets import has_tasks
from gliner_pipe.errors import DataError
from gliner_pipe.util.plurals import number_of

#: Maximum number of labels in :meth:`DataReport.render`.
SHOWN_LABELS = 20
#: Maximum number of span groups in a message.
SHOWN_PLACES = 10


@dataclass
class DataReport:
    """Counts over examples.

    ``entities`` counts all gold entities by label, ``widths`` by number of words. ``unknown`` counts words that nobody
    annotated, ``unannotated`` examples in which nobody looked for entities. ``classes`` counts the true labels of
    classifications (``task=label``), ``records`` the records by kind. ``dropped`` counts entities that cannot be
    learned, each under its first reason. ``elsewhere`` counts, by span group, the entities of examples that have none
    in the expected group.
    """

    examples: int = 0
    words: int = 0
    longest: int = 0
    unknown: int = 0
    without_entities: int = 0
    unannotated: int = 0
    relations: int = 0
    classes: Counter[str] = field(default_factory=Counter)
    records: Counter[str] = field(default_factory=Counter)
    entities: Counter[str] = field(default_factory=Counter)
    widths: Counter[int] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    elsewhere: Counter[str] = field(default_factory=Counter)

    def render(self) -> str:
        """Return a short text: totals, the most frequent labels, and entities that are not usable."""
        lines = [self.summary()]
        common = self.entities.most_common(SHOWN_LABELS)
        width = max((len(label) for label, _ in common), default=0)
        lines += [f"  {label:<{width}}  {number}" for label, number in common]
        if len(self.entities) > SHOWN_LABELS:
            lines.append(f"  and {number_of(len(self.entities) - SHOWN_LABELS, 'more label')}")
        lines += self.task_lines()
        if self.unknown:
            lines.append(
                f"not annotated (missing in doc.ents), so not learned: {number_of(self.unknown, 'word')}"
            )
        if self.dropped:
            lines.append(f"not usable: {number_of(sum(self.dropped.values()), 'entity')}")
            lines += [f"  {number} {reason}" for reason, number in self.dropped.most_common()]
        if self.elsewhere:
            places = ", ".join(
                f"{number} in {place_name(place)}" for place, number in self.elsewhere.most_common()
            )
            lines.append(f"in other span groups, so not read: {places}")
        return "\n".join(lines)

    def summary(self) -> str:
        """Return the first line of the text: the totals."""
        head = (
            f"{number_of(self.examples, 'example')} ({self.without_entities} without entities), "
            f"{number_of(self.words, 'word')} (the longest has {self.longest}), "
            f"{number_of(self.entities.total(), 'entity')} of {number_of(len(self.entities), 'label')}"
        )
        others = {
            "relation": self.relations,
            "class label": self.classes.total(),
            "record": self.records.total(),
        }
        head += "".join(f", {number_of(number, noun)}" for noun, number in others.items() if number)
        return head + (
            f"; entities of {number_of(self.unannotated, 'example')} unknown" if self.unannotated else ""
        )

    def task_lines(self) -> list[str]:
        """Return a line for the classes and one for the records, if there are any."""
        found = {"classes": self.classes, "records": self.records}
        return [f"{name}: {counted(counts)}" for name, counts in found.items() if counts]

    def add(
        self,
        example: Example,
        spans: Sequence[Span],
        spans_key: SpanSetter,
        *,
        max_width: int | None = None,
        wanted: set[str] | None = None,
        flat_ner: bool = False,
        max_length: int | None = None,
    ) -> None:
        """Count an example, with its gold entities `spans`; the other parameters are those of `check_examples`."""
        doc = example.reference
        words = word_places(doc)
        self.examples += 1
        self.words += words[-1]
        self.longest = max(self.longest, words[-1])
        annotated = has_entities_annotated(doc)
        self.without_entities += annotated and not spans
        self.unannotated += not annotated
        missing = unknown_tokens(doc, spans_key) if annotated else None
        self.unknown += 0 if missing is None else int(missing.sum())
        if not spans:
            self.elsewhere += places_of([doc])
        self.relations += len(relation_labels(doc))
        self.classes.update(_class_keys(doc))
        self.records.update([record.name for record in get_records(doc)])
        usable = []
        aligned = _aligned_ranges(example)
        for span in spans:
            self.entities[span.label_] += 1
            self.widths[words[span.end] - words[span.start]] += 1
            reason = _reason(span, words, aligned, wanted, max_width, max_length)
            if reason:
                self.dropped[reason] += 1
            else:
                usable.append(span)
        if flat_ner and (number := len(usable) - _flat_count(usable)):
            self.dropped["overlapping a longer entity (flat_ner)"] += number

    def merge(self, other: DataReport) -> None:
        """Add the counts of other examples."""
        for name, value in vars(other).items():
            mine = getattr(self, name)
            if isinstance(mine, Counter):
                mine.update(value)
            else:
                setattr(self, name, max(mine, value) if name == "longest" else mine + value)


class CountRules(NamedTuple):
    """What :class:`GoldCounts` counts.

    Attributes
    ----------
    spans_key
        Where gold entities are stored.
    max_width
        Maximum number of words of an entity; None for no limit.
    whole
        Maximum number of tokens of a document that is not split, the others are not in the report; None for no limit.
    """

    spans_key: SpanSetter
    max_width: int | None = None
    whole: int | None = None


@dataclass
class GoldCounts:
    """Counts of the gold annotations of documents, made in one pass; those of consecutive parts of the data add up.

    Attributes
    ----------
    rules
        What is counted.
    labels, relations, places
        What `count_labels`, `count_relations` and `places_of` return.
    report
        On the documents that are not split.
    documents, tokens, entities
        Their numbers.
    with_tasks
        Number of documents whose classes or records are annotated.
    checksum
        Of texts and annotations, as 64 hexadecimal digits; set by `merge`.
    """

    rules: CountRules
    labels: Counter[str] = field(default_factory=Counter)
    relations: Counter[str] = field(default_factory=Counter)
    places: Counter[str] = field(default_factory=Counter)
    report: DataReport = field(default_factory=DataReport)
    documents: int = 0
    tokens: int = 0
    entities: int = 0
    with_tasks: int = 0
    checksum: str = ""
    contents: list[bytes] = field(default_factory=list, repr=False)

    def add(self, example: Example, text: str | None = None) -> None:
        """Count an example; `text` is that of its document, if it is known."""
        rules, doc = self.rules, example.reference
        spans = gold_spans(doc, rules.spans_key)
        if adds_labels(doc):
            self.labels.update([span.label_ for span in spans if span.label])
        self.relations.update(relation_labels(doc))
        self.places.update(places_of([doc]))
        self.documents += 1
        self.tokens += len(doc)
        self.entities += len(spans)
        self.with_tasks += has_tasks(doc)
        if rules.whole is None or len(doc) <= rules.whole:
            self.report.add(example, spans, rules.spans_key, max_width=rules.max_width)
        self.contents.append(content_of(doc, spans, text))

    @classmethod
    def merge(cls, rules: CountRules, parts: Iterable[GoldCounts]) -> GoldCounts:
        """Return the counts of all parts, in the order of the data."""
        total, digest = cls(rules), hashlib.sha256()
        for part in parts:
            for name in ("labels", "relations", "places"):
                getattr(total, name).update(getattr(part, name))
            for name in ("documents", "tokens", "entities", "with_tasks"):
                setattr(total, name, getattr(total, name) + getattr(part, name))
            total.report.merge(part.report)
            digest.update(b"".join(part.contents))
        total.checksum = digest.hexdigest()
        return total

    def to_json(self) -> dict[str, Any]:
        """Return everything but the rules as JSON values."""
        values = {name: value for name, value in vars(self).items() if name not in ("rules", "contents")}
        return {**values, "report": vars(self.report)}

    @classmethod
    def from_json(cls, rules: CountRules, values: dict[str, Any]) -> GoldCounts:
        """Return the counts that ``to_json`` described."""

        def restored(found: dict[str, Any]) -> dict[str, Any]:
            return {key: Counter(one) if isinstance(one, dict) else one for key, one in found.items()}

        report = DataReport(**restored(values["report"]))
        report.widths = Counter({int(width): number for width, number in report.widths.items()})
        return cls(rules, **{**restored({**values, "report": None}), "report": report})


class CountedExamples(Sequence[Example]):
    """Examples that do not fit into memory; what is counted over all of them is counted in one pass, and kept."""

    @abstractmethod
    def gold_counts(self, spans_key: SpanSetter | None = None) -> GoldCounts:
        """Return the counts of gold entities in one place; None for any place."""


def content_of(doc: Doc, spans: Iterable[Span], text: str | None = None) -> bytes:
    """Return text and annotations of a document for a checksum."""
    found = sorted([(span.start, span.end, span.label_) for span in spans])
    stated = supervision(doc)
    facts: tuple[Any, ...] = (doc.text if text is None else text, found, stated.get("relations"))
    if doc.cats or not {"classes", "records", "links"}.isdisjoint(stated):
        facts += (doc.cats, doc.user_data.get(RECORDS_KEY), stated.get("links"))
    return repr(facts).encode()


def check_examples(
    examples: Iterable[Example],
    *,
    spans_key: SpanSetter = DEFAULT_SPANS_KEY,
    max_width: int | None = None,
    labels: Sequence[str] | None = None,
    flat_ner: bool = True,
    max_length: int | None = None,
) -> DataReport:
    """Count the annotations of examples, and those that cannot be learned.

    Parameters
    ----------
    examples
        Examples with gold entities.
    spans_key
        Span group of the gold entities, or ``"ents"``.
    max_width
        Maximum number of words of an entity; ``None`` for no limit.
    labels
        The labels to learn; ``None`` for all labels of the data.
    flat_ner
        Whether overlapping entities are not allowed. Of two of them, the longer one counts as usable.
    max_length
        Maximum number of words of a text that the model reads; ``None`` for no limit.

    Returns
    -------
    DataReport
        Counts, with :meth:`DataReport.render`.

    Raises
    ------
    DataError
        No example, no example with an entity, or no entity that can be learned.
    """
    report = DataReport()
    wanted = None if labels is None else set(labels)
    for example in examples:
        report.add(
            example,
            gold_spans(example.reference, spans_key),
            spans_key,
            max_width=max_width,
            wanted=wanted,
            flat_ner=flat_ner,
            max_length=max_length,
        )
    refuse_useless(report, spans_key)
    return report


def _reason(
    span: Span,
    words: list[int],
    aligned: set[tuple[int, int]] | None,
    wanted: set[str] | None,
    max_width: int | None,
    max_length: int | None,
) -> str:
    if wanted is not None and span.label_ not in wanted:
        return "with a label that is not in labels"
    if aligned is not None and (span.start_char, span.end_char) not in aligned:
        return "not aligned with token boundaries"
    if max_length is not None and words[span.end] > max_length:
        return f"beyond the first {number_of(max_length, 'word')}"
    if max_width is not None and words[span.end] - words[span.start] > max_width:
        return f"wider than {number_of(max_width, 'word')} (max_width)"
    return ""


def _aligned_ranges(example: Example) -> set[tuple[int, int]] | None:
    """Return the gold character ranges that align with the predicted tokens; None if the tokens are the same."""
    gold, predicted = example.reference, example.predicted
    if _same_tokens(gold, predicted):
        return None
    spans = [span for group in (*gold.spans.values(), gold.ents) for span in group]
    if gold.text == predicted.text:
        ranges = {(span.start_char, span.end_char) for span in spans}
        return {(start, end) for start, end in ranges if predicted.char_span(start, end) is not None}
    fitting = set()
    for span in spans:
        found = example.get_aligned_spans_y2x([span], allow_overlap=True)
        if found and "".join(found[0].text.split()) == "".join(span.text.split()):
            fitting.add((span.start_char, span.end_char))
    return fitting


def _same_tokens(gold: Doc, predicted: Doc) -> bool:
    return gold is predicted or (
        len(gold) == len(predicted) and np.array_equal(gold.to_array("ORTH"), predicted.to_array("ORTH"))
    )


def _flat_count(spans: Sequence[Span]) -> int:
    """Return the number of spans left if only the longest (then the first) of overlapping ones is kept."""
    taken: set[int] = set()
    count = 0
    for span in sorted(spans, key=lambda span: (span.start - span.end, span.start)):
        # Kept spans are at least as long, so an overlap covers one of the two ends.
        if span.start not in taken and span.end - 1 not in taken:
            taken.update(range(span.start, span.end))
            count += 1
    return count


def refuse_useless(report: DataReport, spans_key: SpanSetter) -> None:
    """Raise an error if a model can learn nothing from the examples of a report.

    Raises
    ------
    DataError
        No example, no example with an entity, a class or a record, or none that can be learned.
    """
    total = sum(report.entities.values())
    if not report.examples:
        raise DataError("data", "has no example", "at least one", "Check the reader's path")
    if not total and (report.classes or report.records or report.relations):
        return
    if not total:
        raise no_gold("data", spans_key, report.examples, report.elsewhere)
    if sum(report.dropped.values()) == total and not (report.classes or report.records):
        reasons = ", ".join(f"{number} {reason}" for reason, number in report.dropped.most_common())
        do = "Check labels and max_width"
        raise DataError(
            "data", f"has {number_of(total, 'entity')}, none of them usable: {reasons}", "usable entities", do
        )


def count_labels(examples: Iterable[Example], getter: SpanSetter) -> Counter[str]:
    """Count the gold entities of examples by label, except in documents whose labels are other names."""
    if isinstance(examples, CountedExamples):
        return Counter(examples.gold_counts(getter).labels)
    docs = (example.reference for example in examples)
    counts = Counter(span.label_ for doc in docs if adds_labels(doc) for span in gold_spans(doc, getter))
    counts.pop("", None)
    return counts


def adds_labels(doc: Doc) -> bool:
    """Return whether the labels of a document become labels of a component that takes them from the data."""
    return supervision(doc).get("adds_labels", True)


def count_relations(examples: Iterable[Example]) -> Counter[str]:
    """Count the gold relations of examples by label."""
    if isinstance(examples, CountedExamples):
        return Counter(examples.gold_counts().relations)
    return Counter(label for example in examples for label in relation_labels(example.reference))


def _class_keys(doc: Doc) -> list[str]:
    """Return ``task=label`` of each true label of a document."""
    return [
        cat_key(task, label, alone=False)
        for task, values in gold_classes(doc).items()
        for label in true_labels(values)
    ]


def relation_labels(doc: Doc) -> list[str]:
    """Return the label of each gold relation of a document."""
    stated = supervision(doc)
    return [relation[-1] for relation in stated.get("links", stated.get("relations", ()))]


def places_of(docs: Iterable[Doc]) -> Counter[str]:
    """Count entities by where they are stored: the key of a span group, or ``ents``."""
    counts: Counter[str] = Counter()
    for doc in docs:
        counts.update({key: len(group) for key, group in doc.spans.items()})
        counts["ents"] += len(doc.ents)
    return +counts


def count_places(examples: Iterable[Example]) -> Counter[str]:
    """Count the entities of examples by where they are stored, as `places_of` does."""
    if isinstance(examples, CountedExamples):
        return Counter(examples.gold_counts().places)
    return places_of(example.reference for example in examples)


def refuse_no_gold(where: str, getter: SpanSetter, examples: Iterable[Example]) -> None:
    """Raise an error if the examples have entities, but none in the expected span group.

    Examples without any entity are accepted: a pipeline may be initialized without data.

    Raises
    ------
    DataError
        With the span groups that have entities.
    """
    examples = examples if isinstance(examples, Sequence) else list(examples)
    elsewhere = count_places(examples)
    docs = [example.reference for example in examples] if elsewhere else []
    if docs and not any(gold_spans(doc, getter) or gold_classes(doc) or get_records(doc) for doc in docs):
        raise no_gold(where, getter, len(examples), elsewhere)


def no_gold(where: str, getter: SpanSetter, examples: int, elsewhere: Counter[str]) -> DataError:
    """Return the error about data without an entity in the expected span group.

    Parameters
    ----------
    where
        Location of the data, for the message.
    getter
        The expected span group.
    examples
        Number of documents.
    elsewhere
        Counts of :func:`places_of` for these documents.
    """
    found = f"has {number_of(examples, 'example')}, none with an entity in {place_name(getter)} or doc.ents"
    do = "Check the reader's span_setter and label_map"
    if elsewhere:
        best = elsewhere.most_common(1)[0][0]
        found += "; found " + ", ".join(
            f"{number} in {place_name(place)}" for place, number in elsewhere.most_common(SHOWN_PLACES)
        )
        do = (
            f'Set gold_spans_key = "{best}" of a gliner component, target_span_getter = "{best}" of a '
            "token_classifier, or the span_setter of the reader"
        )
    return DataError(where, found, "examples with entities", do)


def place_name(getter: SpanSetter) -> str:
    """Return the name of a span group in messages."""
    return "doc.ents" if getter == "ents" else f"doc.spans[{getter!r}]"
