"""Compares training and validation data, and both with the words of a pipeline: what a look before training shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from spacy.training import Example

from gliner_pipe.data.annotations import SpanSetter, gold_spans
from gliner_pipe.data.checks import DataReport, adds_labels, count_labels
from gliner_pipe.data.label_sets import counted, label_doubts, named
from gliner_pipe.data.word_report import WordReport
from gliner_pipe.util.plurals import number_of

#: Maximum number of labels and of widths in a text.
SHOWN_ROWS = 30
SHOWN_WIDTHS = 12
#: Number of texts whose length is measured at once.
MEASURED_AT_ONCE = 1000


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
    words
        The comparison of words and entities with those of running text.
    longer
        Texts longer than the window of a model.
    elsewhere
        Entities in span groups that are not read, by group.
    """

    texts: int = 0
    repeated: int = 0
    contradictory: int = 0
    words: WordReport = field(default_factory=WordReport)
    longer: int = 0
    elsewhere: Counter[str] = field(default_factory=Counter)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        words = self.words
        return {
            **vars(self),
            "elsewhere": dict(self.elsewhere),
            "words": words.words,
            "unaligned_words": words.other_words,
            "entities": words.entities.total(),
            "other_entities": dict(words.other_entities.most_common()),
            "unaligned_entities": words.lost.total(),
        }


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
        if train and dev and not train.keys() & dev.keys():
            found.append("training and validation data have no label in common: every score would be 0")
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
            lines.append(f"and {number_of(len(every) - SHOWN_ROWS, 'more label')}")
        if self.learned is not None:
            if self.learned.widths:
                lines.append(f"words in an entity (times): {_widths(self.learned.widths)}")
            lines += self.learned.task_lines()
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
            **{name: one.to_dict() for name, one in zip(("train", "dev"), self.texts, strict=True)},
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
    compare: Callable[[Sequence[Example]], WordReport],
    lengths: Callable[[Sequence[Example]], Sequence[int]] = lambda examples: [],
    window: int | None = None,
) -> Inspection:
    """Compare training and validation data, and both with the words of a pipeline.

    Parameters
    ----------
    train, dev
        The examples; `dev` may be empty.
    spans_key
        Where gold entities are stored.
    compare
        Compares the words of examples with those of running text.
    lengths
        Returns the length of texts in the unit of `window`.
    window
        Length of a text that a model reads at once.
    """
    labels, reports, known = [], [], []
    for examples in (train, dev):
        report, seen = _texts(examples, spans_key)
        report.words = compare(examples)
        for at in range(0, len(examples) if window is not None else 0, MEASURED_AT_ONCE):
            sizes = lengths(examples[at : at + MEASURED_AT_ONCE])
            report.longer += sum(size > (window or 0) for size in sizes)
        reports.append(report)
        known.append(seen)
        labels.append(count_labels(examples, spans_key))
    shared = sum(number for text, number in known[1].items() if text in known[0])
    return Inspection((labels[0], labels[1]), (reports[0], reports[1]), shared, window)


def _texts(examples: Iterable[Example], spans_key: SpanSetter) -> tuple[TextReport, Counter[int]]:
    """Return the report on some texts, and how often each occurs, by its hash: the texts may not fit into memory."""
    report = TextReport()
    seen: Counter[int] = Counter()
    annotations: dict[int, int] = {}
    for example in examples:
        doc = example.reference
        spans = gold_spans(doc, spans_key)
        text = hash(doc.text)
        found = hash(frozenset((span.start_char, span.end_char, span.label_) for span in spans))
        report.texts += 1
        if adds_labels(doc):  # otherwise it repeats a text on purpose, with other names of labels
            report.repeated += text in seen
            report.contradictory += annotations.setdefault(text, found) != found
        seen[text] += 1
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
    if sentence := texts.words.sentence(name):
        found.append(sentence)
    if texts.longer:
        found.append(
            f"{texts.longer} of {texts.texts} texts of the {name} are longer than a window ({window}), and are read "
            "in several"
        )
    if texts.elsewhere:
        places = ", ".join(f"{number} in doc.spans[{key!r}]" for key, number in texts.elsewhere.most_common())
        found.append(f"entities of the {name} that are not read: {places}")
    return found


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
