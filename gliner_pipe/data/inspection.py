"""Compares training and validation data, and both with the words of a pipeline: what a look before training shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from spacy.tokens import Doc
from spacy.training import Example

from gliner_pipe.data.annotations import SpanSetter, gold_spans
from gliner_pipe.data.checks import DataReport
from gliner_pipe.data.label_sets import counted, label_doubts, named

#: Maximum number of labels and of widths in a text.
SHOWN_ROWS = 30
SHOWN_WIDTHS = 12

#: Returns start and end character of the words of a document.
WordRanges = Callable[[Doc], Sequence[tuple[int, int]]]


@dataclass
class TextReport:
    """Counts over texts: repetitions, length, and how their words agree with those of running text.

    Attributes
    ----------
    texts
        Number of texts.
    repeated
        Texts that are exactly an earlier one of the same data.
    contradictory
        Those of them whose entities are others.
    words, unaligned_words
        All words, and those that the pipeline does not find in running text.
    entities, unaligned_entities
        All entities, and those that do not begin and end with words of running text.
    longer
        Texts longer than the window of a model.
    elsewhere
        Entities in span groups that are not read, by group.
    """

    texts: int = 0
    repeated: int = 0
    contradictory: int = 0
    words: int = 0
    unaligned_words: int = 0
    entities: int = 0
    unaligned_entities: int = 0
    longer: int = 0
    elsewhere: Counter[str] = field(default_factory=Counter)


@dataclass
class Inspection:
    """What :func:`inspect_data` found.

    Attributes
    ----------
    labels
        Counts of the labels in training and in validation data.
    texts
        Reports on the texts of both.
    shared
        Texts of the validation data that are exactly in the training data.
    window
        Length of the window that ``longer`` counts.
    learned
        The report on what can be learned; None if it could not be made.
    lost
        What happens where documents are split: entities and relations that are left out, and the number of documents.
    """

    labels: tuple[Counter[str], Counter[str]]
    texts: tuple[TextReport, TextReport]
    shared: int
    window: int | None = None
    learned: DataReport | None = None
    lost: Counter[str] = field(default_factory=Counter)

    def warnings(self) -> list[str]:
        """Return a sentence for each thing that is probably a mistake."""
        train, dev = self.labels
        found = []
        if dev:
            only = {label: number for label, number in train.items() if label not in dev}
            if only:
                found.append(f"labels that only the training data has: {counted(only)}")
            only = {label: number for label, number in dev.items() if label not in train}
            if only:
                found.append(f"labels that only the validation data has: {counted(only)}")
        if self.shared:
            found.append(
                f"{self.shared} of {self.texts[1].texts} texts of the validation data are in the training data, too"
            )
        for name, texts in zip(("training", "validation"), self.texts, strict=True):
            found += _text_warnings(f"{name} data", texts, self.window)
        return found + list(label_doubts(train + dev))

    def lines(self) -> list[str]:
        """Return the lines of the report: labels, widths, and what cannot be learned."""
        lines = []
        train, dev = self.labels
        every = [label for label, _ in (train + dev).most_common()]
        width = min(max((len(label) for label in every), default=5), 50)
        lines.append(f"{'label':<{width}}  {'train':>8}" + (f"  {'dev':>8}" if self.texts[1].texts else ""))
        for label in every[:SHOWN_ROWS]:
            row = f"{_short(label, width):<{width}}  {train[label]:>8}"
            lines.append(row + (f"  {dev[label]:>8}" if self.texts[1].texts else ""))
        if len(every) > SHOWN_ROWS:
            lines.append(f"and {len(every) - SHOWN_ROWS} more labels")
        if self.learned is not None:
            if self.learned.widths:
                lines.append(f"words in an entity (times): {_widths(self.learned.widths)}")
            lines += [
                f"not usable: {number} {reason}" for reason, number in self.learned.dropped.most_common()
            ]
        return lines + [f"splitting: {number} {reason}" for reason, number in self.lost.items()]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {
            "labels": {
                name: dict(one.most_common()) for name, one in zip(("train", "dev"), self.labels, strict=True)
            },
            **{
                name: {**vars(one), "elsewhere": dict(one.elsewhere)}
                for name, one in zip(("train", "dev"), self.texts, strict=True)
            },
            "shared_texts": self.shared,
            "window": self.window,
            "lost": dict(self.lost),
            "learned": None if self.learned is None else _plain(self.learned),
            "warnings": self.warnings(),
        }


def inspect_data(
    train: Sequence[Example],
    dev: Sequence[Example],
    *,
    spans_key: SpanSetter,
    ranges: tuple[WordRanges, WordRanges],
    lengths: Callable[[Sequence[Example]], Sequence[int]] | None = None,
    window: int | None = None,
) -> Inspection:
    """Compare training and validation data, and both with the words of a pipeline.

    Parameters
    ----------
    train, dev
        The examples; `dev` may be empty.
    spans_key
        Where gold entities are stored.
    ranges
        Functions that return the words of a document, as trained, and those of its text, as predicted on.
    lengths
        Returns the length of texts in the unit of `window`; the number of words by default.
    window
        Length of a text that a model reads at once.
    """
    labels, reports, known = [], [], []
    for examples in (train, dev):
        report, seen = _texts(examples, spans_key, ranges)
        if window is not None and examples:
            sizes = (
                lengths(examples) if lengths is not None else [len(ranges[0](e.reference)) for e in examples]
            )
            report.longer = sum(size > window for size in sizes)
        reports.append(report)
        known.append(seen)
        labels.append(Counter(span.label_ for e in examples for span in gold_spans(e.reference, spans_key)))
    shared = sum(number for text, number in known[1].items() if text in known[0])
    return Inspection((labels[0], labels[1]), (reports[0], reports[1]), shared, window)


def _texts(
    examples: Iterable[Example], spans_key: SpanSetter, ranges: tuple[WordRanges, WordRanges]
) -> tuple[TextReport, Counter[str]]:
    """Return the report on some texts, and how often each occurs."""
    report = TextReport()
    seen: Counter[str] = Counter()
    annotations: dict[str, set[tuple[int, int, str]]] = {}
    for example in examples:
        doc = example.reference
        spans = gold_spans(doc, spans_key)
        text = doc.text
        found = {(span.start_char, span.end_char, span.label_) for span in spans}
        report.texts += 1
        report.repeated += text in seen
        report.contradictory += annotations.setdefault(text, found) != found
        seen[text] += 1
        own, running = ranges[0](doc), set(ranges[1](doc))
        starts, ends = {start for start, _ in running}, {end for _, end in running}
        report.words += len(own)
        report.unaligned_words += sum(word not in running for word in own)
        report.entities += len(spans)
        report.unaligned_entities += sum(
            span.start_char not in starts or span.end_char not in ends for span in spans
        )
        read = {(span.start, span.end, span.label) for span in spans}
        for key, group in doc.spans.items():
            others = sum((span.start, span.end, span.label) not in read for span in group)
            if others:
                report.elsewhere[key] += others
    return report, seen


def _text_warnings(name: str, texts: TextReport, window: int | None) -> list[str]:
    found = []
    if texts.repeated:
        more = f", {texts.contradictory} of them with other entities" if texts.contradictory else ""
        found.append(f"{texts.repeated} of {texts.texts} texts of the {name} occur before{more}")
    if texts.unaligned_words:
        found.append(
            f"{_share(texts.unaligned_words, texts.words)} words of the {name} are not tokens of the pipeline in "
            "running text: it predicts on other words than it is trained on"
        )
    if texts.unaligned_entities:
        found.append(
            f"{_share(texts.unaligned_entities, texts.entities)} entities of the {name} do not begin and end with "
            "tokens of the pipeline in running text, so it cannot predict them there"
        )
    if texts.longer:
        found.append(
            f"{texts.longer} of {texts.texts} texts of the {name} are longer than a window ({window}), and are read "
            "in several"
        )
    if texts.elsewhere:
        places = ", ".join(f"{number} in doc.spans[{key!r}]" for key, number in texts.elsewhere.most_common())
        found.append(f"entities of the {name} that are not read: {places}")
    return found


def _share(part: int, total: int) -> str:
    return f"{part} of {total} ({100 * part / max(1, total):.1f}%)"


def _short(label: str, width: int) -> str:
    return label if len(label) <= width else f"{label[: width - 3]}..."


def _widths(widths: Counter[int]) -> str:
    return named(f"{width} ({widths[width]})" for width in sorted(widths)[:SHOWN_WIDTHS]) + (
        f", up to {max(widths)}" if len(widths) > SHOWN_WIDTHS else ""
    )


def _plain(report: DataReport) -> dict[str, Any]:
    """Return a report with mappings in place of counters."""
    return {
        name: {str(key): number for key, number in value.items()} if isinstance(value, Counter) else value
        for name, value in vars(report).items()
    }
