"""What is learned from and measured on: the examples of each section, and endless batches of them."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from spacy.language import Language
from spacy.training import Example

from gliner_pipe.data.annotations import SpanSetter
from gliner_pipe.data.batching import BatchSize, PieceCounter, batches, parse_size
from gliner_pipe.data.checks import check_examples
from gliner_pipe.data.holdout import drop_labels, hold_out
from gliner_pipe.data.splitting import chunk_examples, split_examples
from gliner_pipe.errors import ConfigError
from gliner_pipe.evaluation.evaluate import gold_span_getter
from gliner_pipe.training.data_sections import Section
from gliner_pipe.training.protocol import TrainableByLoop

__all__ = [
    "Dataset",
    "counting_pieces",
    "describe",
    "draws",
    "draws_per_epoch",
    "drop_labels",
    "hold_out",
    "read_training",
    "read_validation",
]


@dataclass(frozen=True)
class Dataset:
    """The documents of one section of training data.

    Parameters
    ----------
    section
        Its options.
    documents
        Its examples, not yet split.
    batch_size
        What a step draws from it.
    spans_key
        Where gold entities stand.
    count_pieces
        Counts the pieces of examples, where batches are measured in these; see :func:`counting_pieces`.
    """

    section: Section
    documents: Sequence[Example]
    batch_size: BatchSize
    spans_key: SpanSetter
    count_pieces: PieceCounter | None = None

    def batches(self, rng: random.Random) -> Iterator[list[Example]]:
        """Yield batches without end; each pass over the data has its own order and its own cuts.

        Parameters
        ----------
        rng
            Decides both.
        """
        while True:
            yield from self.one_pass(rng)

    def one_pass(self, rng: random.Random) -> Iterator[list[Example]]:
        """Yield the batches of one pass over the data."""
        yield from batches(
            self.parts(rng),
            self.batch_size,
            shuffle=self.randomize,
            rng=rng,
            spans_key=self.spans_key,
            count_pieces=self.count_pieces,
        )

    def parts(self, rng: random.Random | None = None, report: Counter[str] | None = None) -> list[Example]:
        """Return the documents, cut as the section asks for; `report` counts what that costs."""
        section = self.section
        options: dict[str, Any] = {} if section.punct_chars is None else {"punct_chars": section.punct_chars}
        documents: Iterable[Example] = self.documents
        if section.chunk is not None:
            documents = chunk_examples(documents, section.chunk, spans_key=self.spans_key, report=report)
        return list(
            split_examples(
                documents,
                max_length=section.max_length or 0,
                multi_sentence=section.multi_sentence,
                randomize=self.randomize,
                rng=rng,
                spans_key=self.spans_key,
                check_capitalized=section.check_capitalized,
                min_newline_count=section.min_newline_count,
                report=report,
                **options,
            )
        )

    @property
    def randomize(self) -> bool:
        """Whether chance decides on order and cuts: so it does unless the section says otherwise."""
        return self.section.randomize is not False

    @property
    def weight(self) -> float:
        """How often it is drawn from, where datasets have weights."""
        return 1.0 if self.section.weight is None else self.section.weight


def read_training(nlp: Language, sections: Sequence[Section], batch_size: int | str) -> list[Dataset]:
    """Read the sections of the training data.

    Raises
    ------
    DataError
        If there is nothing to read.
    ConfigError
        If a batch size is none.
    """
    datasets = []
    for number, section in enumerate(sections):
        where = "train.train_data" if len(sections) == 1 else f"train.train_data.{number}"
        size = parse_size(section.batch_size or batch_size)
        if section.labels is not None:
            raise ConfigError(
                f"{where}.labels", "is for val_data only", do="Set labels in the reader, or on the component"
            )
        datasets.append(Dataset(section, section.read(nlp, where), size, gold_span_getter(nlp)))
    return datasets


def read_validation(
    nlp: Language, sections: Sequence[Section]
) -> tuple[list[Example], Sequence[object] | None]:
    """Read the sections of the validation data.

    Returns
    -------
    tuple
        All examples, and the labels to ask for if a section names them.
    """
    for name in ("chunk", "weight"):
        if any(getattr(section, name) is not None for section in sections):
            found = "is for train_data only: documents are validated as a whole, each once"
            raise ConfigError(f"train.val_data.{name}", found, do="Remove it")
    given = [section.labels for section in sections if section.labels is not None]
    if any(list(other) != list(given[0]) for other in given[1:]):
        raise ConfigError(
            "train.val_data.labels", "differ between sections", "the same labels in all of them"
        )
    labels = given[0] if given else None
    return [example for section in sections for example in section.read(nlp, "train.val_data")], labels


def counting_pieces(datasets: Sequence[Dataset], components: Mapping[str, TrainableByLoop]) -> list[Dataset]:
    """Let the components, which must have their tokenizers, count pieces for the datasets.

    A text that several components learn from counts as many pieces as the one has that cuts it finest.
    """
    counters = [
        component.count_pieces for component in components.values() if hasattr(component, "count_pieces")
    ]
    if not counters:
        return list(datasets)

    def most(examples: Sequence[Example]) -> list[int]:
        return [max(counts) for counts in zip(*(count(examples) for count in counters), strict=True)]

    return [replace(dataset, count_pieces=most) for dataset in datasets]


def draws(datasets: Sequence[Dataset], seed: int) -> Iterator[list[Example]]:
    """Yield what is learned from, one draw after the other, without end.

    Without weights a draw is one batch of each dataset. As soon as one section has a weight, a draw is one batch
    of one dataset, chosen with a probability proportional to its weight (1 where there is none).

    Parameters
    ----------
    datasets
        What to draw from.
    seed
        The only source of chance: the same seed gives the same draws.
    """
    streams = [dataset.batches(random.Random(f"{seed}-{number}")) for number, dataset in enumerate(datasets)]
    if not _weighted(datasets):
        for parts in zip(*streams, strict=True):
            yield [example for part in parts for example in part]
        return
    weights = [dataset.weight for dataset in datasets]
    rng = random.Random(f"{seed}-mix")
    while True:
        yield next(rng.choices(streams, weights)[0])


def draws_per_epoch(datasets: Sequence[Dataset], seed: int) -> int:
    """Return the number of draws of an epoch.

    Without weights it is that after which all of the largest dataset was drawn once, with weights the number of
    batches of all datasets together. Passes that cut documents elsewhere may have a few batches more or less;
    those of the first pass count.

    Parameters
    ----------
    datasets, seed
        As for :func:`draws`.
    """
    numbers = [
        sum(1 for _ in dataset.one_pass(random.Random(f"{seed}-{number}")))
        for number, dataset in enumerate(datasets)
    ]
    return sum(numbers) if _weighted(datasets) else max(numbers)


def _weighted(datasets: Sequence[Dataset]) -> bool:
    return any(dataset.section.weight is not None for dataset in datasets)


def describe(datasets: Sequence[Dataset], component: TrainableByLoop) -> str:
    """Return a text on what is in the data, and what of it cannot be learned.

    Raises
    ------
    DataError
        If nothing can be learned.
    """
    cut: Counter[str] = Counter()
    examples = [example for dataset in datasets for example in dataset.parts(report=cut)]
    own = component.describe_data(examples) if hasattr(component, "describe_data") else None
    if own is not None:
        return f"[components.{component.name}] training data: {own}"
    report = check_examples(
        examples,
        spans_key=getattr(component, "gold_spans_key", datasets[0].spans_key),
        max_width=getattr(component, "max_width", None),
        flat_ner=False,
    )
    lines = [f"[components.{component.name}] training data: {report.render()}"]
    lines += [f"  {number} {reason}" for reason, number in (+cut).items()]
    return "\n".join(lines)
