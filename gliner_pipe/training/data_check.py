"""Checks the data of a training without training: what ``python -m gliner_pipe.check`` shows."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from spacy.language import Language
from spacy.training import Example

from gliner_pipe.data.annotations import DEFAULT_SPANS_KEY
from gliner_pipe.data.checks import CountRules, check_examples
from gliner_pipe.data.fields import Report
from gliner_pipe.data.inspection import Inspection, inspect_data
from gliner_pipe.data.label_sets import LabelSets
from gliner_pipe.data.lazy import joined
from gliner_pipe.data.on_disk import Storage
from gliner_pipe.data.word_report import compare_words
from gliner_pipe.errors import GlinerPipeError
from gliner_pipe.evaluation.evaluate import gold_span_getter
from gliner_pipe.pipeline.word_splitters import SpacyWords
from gliner_pipe.training.arguments import TrainOptions
from gliner_pipe.training.data_sections import Section
from gliner_pipe.training.datasets import Dataset, data_report, documents_of, read_data
from gliner_pipe.training.label_checks import check_labels
from gliner_pipe.training.protocol import trainable_components
from gliner_pipe.training.run_folder import RunFolder
from gliner_pipe.training.word_checks import advice, word_ranges

#: Width of the text in characters.
WIDTH = 80


@dataclass
class DataCheck:
    """The result of a check.

    Attributes
    ----------
    parts
        What each component learns from; of data without a component a single part named ``"data"``.
    summaries
        A sentence on the training data of each part.
    read
        What the readers counted, by section.
    warnings
        Sentences on what is probably a mistake, and on labels of component and data that differ.
    notes
        Other sentences.
    error
        Why a training could not start; None if it could.
    """

    parts: dict[str, Inspection] = field(default_factory=dict)
    summaries: dict[str, str] = field(default_factory=dict)
    read: dict[str, Counter[str]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    error: GlinerPipeError | None = None

    def every_warning(self) -> list[str]:
        """Return all warnings, those of the parts included, each once."""
        found = [line for part in self.parts.values() for line in part.warnings()]
        return list(dict.fromkeys([*found, *self.warnings]))

    def render(self) -> str:
        """Return a text of at most 80 columns, except for words that are longer."""
        lines = list(self.notes)
        for name, counts in self.read.items():
            if counts:
                lines.append(f"[{name}] skipped, repaired or ignored by the reader:")
                rows = counts.render() if isinstance(counts, Report) else map(_row, counts.most_common())
                lines += [f"  {row}" for row in rows]
        for name, part in self.parts.items():
            lines += ["", f"[{name}] {self.summaries.get(name, '')}".rstrip()]
            lines += [f"  {line}" for line in part.lines()]
        if found := self.every_warning():
            lines += ["", "warnings:", *(f"- {line}" for line in found)]
        lines += ["", "training can start" if self.error is None else f"training cannot start: {self.error}"]
        return "\n".join(_wrapped(line) for line in lines).strip("\n")

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {
            "ok": self.error is None,
            "error": None if self.error is None else str(self.error),
            "warnings": self.every_warning(),
            "notes": self.notes,
            "read": {
                name: {
                    "counts": dict(counts.most_common()),
                    "examples": counts.examples if isinstance(counts, Report) else {},
                }
                for name, counts in self.read.items()
            },
            "components": {name: part.to_dict() for name, part in self.parts.items()},
        }


def check_training(nlp: Language, options: TrainOptions) -> DataCheck:
    """Check the data of a training with its components.

    Parameters
    ----------
    nlp
        The pipeline.
    options
        Of the training.
    """
    found = DataCheck()
    with _collecting(found, options.train_data, options.val_data):
        components = trainable_components(nlp)
        folder = RunFolder.of(options.output_path, options.best_path).path
        datasets, validation = read_data(nlp, options, folder, found.notes.append)
        train = documents_of(datasets)
        for name, component in components.items():
            name = f"components.{name}"
            found.parts[name] = _inspected(nlp, component, train, validation.examples)
            _learn(found, name, datasets, component)
            words = found.parts[name].texts[0].words
            if words.matters:
                found.warnings.append(advice(nlp, component, train, words))
        check_labels(components, datasets, validation, options, found.warnings.append)
    return found


def check_data(
    nlp: Language,
    train: Sequence[Section],
    dev: Sequence[Section] | None = None,
    *,
    labels: Sequence[str] | None = None,
    max_width: int | None = None,
) -> DataCheck:
    """Check data without a component.

    Parameters
    ----------
    nlp
        Provides the tokenizer.
    train, dev
        The sections of training and validation data.
    labels
        The labels to learn; all labels of the data by default.
    max_width
        Maximum number of words of an entity.
    """
    found = DataCheck()
    with _collecting(found, train, dev), TemporaryDirectory() as folder:
        rules = CountRules(DEFAULT_SPANS_KEY, max_width)
        stored = [Storage(Path(folder), f"train_data-{number}", rules) for number in range(len(train))]
        opened = zip(train, stored, strict=True)
        examples = joined([section.open(nlp, "train.train_data", storage) for section, storage in opened])
        others = [example for section in dev or () for example in section.read(nlp, "train.val_data")]
        part = inspect_data(
            examples,
            others,
            spans_key=DEFAULT_SPANS_KEY,
            compare=lambda some: compare_words(nlp, some, DEFAULT_SPANS_KEY, word_ranges(SpacyWords())),
        )
        found.parts["data"] = part
        sets = LabelSets("labels", list(labels or ()), *part.labels, learns_others=False)
        sets.check()
        found.warnings += sets.warnings()
        part.learned = check_examples(examples, max_width=max_width, labels=labels, flat_ner=False)
        found.summaries["data"] = part.learned.summary()
    return found


@contextmanager
def _collecting(found: DataCheck, train: Sequence[Section], dev: Sequence[Section] | None) -> Iterator[None]:
    """Keep the error of the block, and what the readers counted."""
    try:
        yield
    except GlinerPipeError as error:
        found.error = error
    sections = {"train.train_data": train, "train.val_data": dev or ()}
    for where, parts in sections.items():
        for number, section in enumerate(parts):
            counts = getattr(section.reader, "report", None)
            if isinstance(counts, Counter):
                found.read[where if len(parts) == 1 else f"{where}.{number}"] = counts


def _inspected(nlp: Language, component: Any, train: Sequence[Example], dev: Sequence[Example]) -> Inspection:
    network = component.network
    backbone = getattr(getattr(network, "encoder", None), "backbone", None)
    ranges = word_ranges(component.word_splitter)
    key = getattr(component, "gold_spans_key", gold_span_getter(nlp))
    return inspect_data(
        train,
        dev,
        spans_key=key,
        compare=lambda examples: compare_words(nlp, examples, key, ranges),
        # Without weights there is no tokenizer: a text of so many words has at least as many subword tokens.
        lengths=component.count_pieces
        if network.is_built
        else lambda some: [len(ranges(e.reference)) for e in some],
        window=getattr(backbone, "window", None),
    )


def _learn(found: DataCheck, name: str, datasets: Sequence[Dataset], component: Any) -> None:
    report, lost = data_report(datasets, component)
    part = found.parts[name]
    part.lost = lost
    if isinstance(report, str):
        found.summaries[name] = report
    else:
        part.learned = report
        found.summaries[name] = report.summary()


def _row(item: tuple[str, int]) -> str:
    return f"{item[1]} x {item[0]}"


def _wrapped(line: str) -> str:
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    return textwrap.fill(
        line,
        WIDTH,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
        replace_whitespace=False,
        drop_whitespace=True,
    )
