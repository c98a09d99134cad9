"""Counts the annotations of data, where they are stored, and those that a model cannot learn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from spacy.tokens import Doc, Span
from spacy.training import Example

from gliner_pipe.data.annotations import (
    DEFAULT_SPANS_KEY,
    SpanSetter,
    gold_spans,
    supervision,
    unknown_tokens,
    word_places,
)
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
    annotated. ``dropped`` counts entities that cannot be learned, each under its first reason. ``elsewhere`` counts, by
    span group, the entities of examples that have none in the expected group.
    """

    examples: int = 0
    words: int = 0
    longest: int = 0
    unknown: int = 0
    without_entities: int = 0
    relations: int = 0
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
        return head + (f", {number_of(self.relations, 'relation')}" if self.relations else "")


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
        spans = gold_spans(example.reference, spans_key)
        words = word_places(example.reference)
        report.examples += 1
        report.words += words[-1]
        report.longest = max(report.longest, words[-1])
        report.without_entities += not spans
        missing = unknown_tokens(example.reference, spans_key)
        report.unknown += 0 if missing is None else int(missing.sum())
        if not spans:
            report.elsewhere += places_of([example.reference])
        report.relations += count_relations([example]).total()
        report.entities.update(span.label_ for span in spans)
        report.widths.update(words[span.end] - words[span.start] for span in spans)
        usable = []
        aligned = _aligned_ranges(example)
        for span in spans:
            reason = _reason(span, words, aligned, wanted, max_width, max_length)
            if reason:
                report.dropped[reason] += 1
            else:
                usable.append(span)
        if flat_ner:
            report.dropped["overlapping a longer entity (flat_ner)"] += len(usable) - _flat_count(usable)
    report.dropped = +report.dropped
    _refuse_useless(report, spans_key)
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
    return len(gold) == len(predicted) and all(
        one.orth == other.orth for one, other in zip(gold, predicted, strict=True)
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


def _refuse_useless(report: DataReport, spans_key: SpanSetter) -> None:
    total = sum(report.entities.values())
    if not report.examples:
        raise DataError("data", "has no example", "at least one", "Check the reader's path")
    if not total:
        raise no_gold("data", spans_key, report.examples, report.elsewhere)
    if sum(report.dropped.values()) == total:
        reasons = ", ".join(f"{number} {reason}" for reason, number in report.dropped.most_common())
        do = "Check labels and max_width"
        raise DataError(
            "data", f"has {number_of(total, 'entity')}, none of them usable: {reasons}", "usable entities", do
        )


def count_labels(examples: Iterable[Example], getter: SpanSetter) -> Counter[str]:
    """Count the gold entities of examples by label."""
    counts = Counter(span.label_ for example in examples for span in gold_spans(example.reference, getter))
    counts.pop("", None)
    return counts


def count_relations(examples: Iterable[Example]) -> Counter[str]:
    """Count the gold relations of examples by label."""
    stated = (supervision(example.reference).get("relations", []) for example in examples)
    return Counter(label for relations in stated for _, _, label in relations)


def places_of(docs: Iterable[Doc]) -> Counter[str]:
    """Count entities by where they are stored: the key of a span group, or ``ents``."""
    counts: Counter[str] = Counter()
    for doc in docs:
        counts.update({key: len(group) for key, group in doc.spans.items()})
        counts["ents"] += len(doc.ents)
    return +counts


def refuse_no_gold(where: str, getter: SpanSetter, examples: Iterable[Example]) -> None:
    """Raise an error if the examples have entities, but none in the expected span group.

    Examples without any entity are accepted: a pipeline may be initialized without data.

    Raises
    ------
    DataError
        With the span groups that have entities.
    """
    docs = [example.reference for example in examples]
    elsewhere = places_of(docs)
    if elsewhere and not any(gold_spans(doc, getter) for doc in docs):
        raise no_gold(where, getter, len(docs), elsewhere)


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
