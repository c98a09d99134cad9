"""Training and validation data: the documents of each section, and endless batches of them."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from spacy.language import Language
from spacy.training import Example

from gliner_pipe.data.annotations import SpanSetter, gold_spans
from gliner_pipe.data.batching import BatchSize, PieceCounter, batches, parse_size
from gliner_pipe.data.checks import CountRules, DataReport, count_labels, refuse_useless
from gliner_pipe.data.holdout import hold_out, without_labels
from gliner_pipe.data.lazy import LazyExamples, Parts, Subset, joined
from gliner_pipe.data.on_disk import DiskExamples, Storage
from gliner_pipe.data.splitting import chunk_examples, split_examples
from gliner_pipe.errors import ConfigError, DataError
from gliner_pipe.evaluation.evaluate import gold_span_getter
from gliner_pipe.pipeline.config_errors import did_you_mean
from gliner_pipe.pipeline.overrides import gliner_components
from gliner_pipe.training.arguments import TrainOptions
from gliner_pipe.training.data_sections import Section
from gliner_pipe.training.protocol import TrainableByLoop
from gliner_pipe.training.validation import Validation, choose_metric, make_scorers

#: Folder of training data on disk, in the folder of a training.
CACHE = "data-cache"


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
        Size of the batches drawn from it.
    spans_key
        Where gold entities are read.
    count_pieces
        Counts the subword tokens of examples, if `batch_size` is in subword tokens; see :func:`counting_pieces`.
    """

    section: Section
    documents: Sequence[Example]
    batch_size: BatchSize
    spans_key: SpanSetter
    count_pieces: PieceCounter | None = None

    def batches(self, rng: random.Random) -> Iterator[Sequence[Example]]:
        """Yield batches without end; `rng` decides the order and the split points of each pass."""
        while True:
            yield from self.one_pass(rng)

    def one_pass(self, rng: random.Random) -> Iterator[Sequence[Example]]:
        """Yield the batches of one pass over the data."""
        yield from batches(
            self._drawn(self.parts(rng), rng),
            self.batch_size,
            shuffle=self.randomize,
            rng=rng,
            spans_key=self.spans_key,
            count_pieces=self.count_pieces,
        )

    def parts(
        self, rng: random.Random | None = None, report: Counter[str] | None = None
    ) -> Sequence[Example]:
        """Return the documents, split as the section says; `report` counts what the splits lose."""
        rng = rng or random.Random(0)
        report = Counter() if report is None else report
        if isinstance(self.documents, LazyExamples):
            return Parts(self.documents, self._split, rng, report)
        return list(self._split(self.documents, rng, report))

    def _drawn(self, parts: Sequence[Example], rng: random.Random) -> Sequence[Example]:
        """Return the texts of a pass: all, or with ``empty_texts`` a share of those without entities."""
        share = self.section.empty_texts
        if share is None:
            return parts
        kept = [
            place
            for place, example in enumerate(parts)
            if gold_spans(example.reference, self.spans_key) or rng.random() < share
        ]
        if not kept:
            raise DataError("[train.train_data]", "has no text with entities", do="Remove empty_texts")
        return Subset(parts, kept) if isinstance(parts, LazyExamples) else [parts[place] for place in kept]

    def _split(
        self, documents: Iterable[Example], rng: random.Random, report: Counter[str]
    ) -> Iterator[Example]:
        section = self.section
        options: dict[str, Any] = {} if section.punct_chars is None else {"punct_chars": section.punct_chars}
        if section.chunk is not None:
            documents = chunk_examples(documents, section.chunk, spans_key=self.spans_key, report=report)
        return split_examples(
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

    @property
    def randomize(self) -> bool:
        """Whether order and split points are random: true unless the section says otherwise."""
        return self.section.randomize is not False

    @property
    def weight(self) -> float:
        """Relative frequency of draws, if any dataset has a weight."""
        return 1.0 if self.section.weight is None else self.section.weight


# -- reading -----------------------------------------------------------------------------------------------------------


def read_data(
    nlp: Language,
    options: TrainOptions,
    folder: Path,
    note: Callable[[str], None],
    turn: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> tuple[list[Dataset], Validation]:
    """Read all data of a training.

    Parameters
    ----------
    nlp
        The pipeline.
    options
        Of the training.
    folder
        Of the training; data larger than memory are kept in it.
    note
        Prints a line for the user.
    turn
        Entered while data are written to disk: of several processes of a training, one goes first.

    Returns
    -------
    tuple
        The training data, without the labels in ``unseen_labels``, and the validation.
    """
    storage = Storage(folder / CACHE, "train_data", _count_rules(nlp), turn)
    datasets = read_training(nlp, options.train_data, options.batch_size, storage)
    for dataset in datasets:
        if isinstance(dataset.documents, DiskExamples):
            size = f"{dataset.documents.starts[-1] / 1e9:.1f} GB"
            note(f"training data on disk: {len(dataset.documents):,} documents, {size} in {storage.folder}")
    labels: Sequence[object] | None = None
    examples: list[Example] = []
    validation = Validation([], {})
    if options.validation_split is not None:
        datasets, examples = _split_off(datasets, options.validation_split, options.order_seed)
    elif options.val_data is not None:
        examples, labels = read_validation(nlp, options.val_data)
    if options.validation_split is not None or options.val_data is not None:
        scorers = make_scorers(options.scorer, nlp, examples, options.unseen_labels)
        metric = choose_metric(options.best_metric, scorers, examples)
        validation = Validation(examples, scorers, metric, labels)
    return _without_labels(nlp, datasets, examples, options.unseen_labels, note), validation


def _count_rules(nlp: Language) -> CountRules:
    """Return what the first component to train has to know about the training data."""
    for component in (pipe for _, pipe in nlp.pipeline if isinstance(pipe, TrainableByLoop)):
        place = getattr(component, "gold_spans_key", None)
        return CountRules(place or gold_span_getter(nlp), getattr(component, "max_width", None))
    return CountRules(gold_span_getter(nlp))


def read_training(
    nlp: Language, sections: Sequence[Section], batch_size: int | str, storage: Storage | None = None
) -> list[Dataset]:
    """Read the sections of the training data.

    Parameters
    ----------
    nlp
        The pipeline.
    sections
        The sections.
    batch_size
        Size of the batches of sections without a size of their own.
    storage
        Where large data are kept on disk; None to hold all examples in memory.

    Raises
    ------
    DataError
        If a section has no document with words.
    ConfigError
        If an option of a section is invalid.
    """
    datasets = []
    for number, section in enumerate(sections):
        where = "train.train_data" if len(sections) == 1 else f"train.train_data.{number}"
        size = parse_size(section.batch_size or batch_size)
        if section.labels is not None:
            raise ConfigError(
                f"{where}.labels", "is for val_data only", do="Set labels in the reader, or on the component"
            )
        documents = (
            section.read(nlp, where)
            if storage is None
            else section.open(nlp, where, replace(storage, name=f"{storage.name}-{number}"))
        )
        datasets.append(Dataset(section, documents, size, gold_span_getter(nlp)))
    return datasets


def read_validation(
    nlp: Language, sections: Sequence[Section]
) -> tuple[list[Example], Sequence[object] | None]:
    """Read the sections of the validation data.

    Returns
    -------
    tuple
        All examples, and the labels to predict, if a section names them.

    Raises
    ------
    DataError
        If a section has no document with words.
    ConfigError
        If an option of a section is invalid.
    """
    for name in ("chunk", "weight", "keep_in_memory", "empty_texts"):
        if any(getattr(section, name) is not None for section in sections):
            found = (
                "is for train_data only: documents are held in memory, and each is validated once as a whole"
            )
            raise ConfigError(f"train.val_data.{name}", found, do="Remove it")
    given = [section.labels for section in sections if section.labels is not None]
    if any(list(other) != list(given[0]) for other in given[1:]):
        raise ConfigError(
            "train.val_data.labels", "differ between sections", "the same labels in all of them"
        )
    labels = given[0] if given else None
    return [example for section in sections for example in section.read(nlp, "train.val_data")], labels


def _split_off(datasets: Sequence[Dataset], share: float, seed: int) -> tuple[list[Dataset], list[Example]]:
    """Hold out a share of the documents of each dataset; a dataset of a single document stays whole."""
    kept: list[Dataset] = []
    held: list[Example] = []
    for dataset in datasets:
        if len(dataset.documents) < 2 <= max(len(other.documents) for other in datasets):
            kept.append(dataset)
            continue
        rest, out = hold_out(dataset.documents, share, seed)
        kept.append(replace(dataset, documents=rest))
        held += out
    return kept, held


def _without_labels(
    nlp: Language,
    datasets: list[Dataset],
    validation: Sequence[Example],
    unseen: Sequence[str],
    note: Callable[[str], None],
) -> list[Dataset]:
    """Remove the annotations of the unseen labels from the training data; a label of no data at all is an error."""
    if not unseen:
        return datasets
    for component in gliner_components(nlp):
        name = component.name
        known = [label for label in unseen if label in component.labels]
        if known:
            raise ConfigError(
                "train.unseen_labels",
                f"contains {known[0]!r}, which is a label of {name!r}",
                "labels that the component does not have",
                f"Remove it from [components.{name}] labels",
            )
    dropped: Counter[str] = Counter()
    kept = []
    for dataset in datasets:
        documents, found = without_labels(dataset.documents, unseen, dataset.spans_key)
        dropped += found
        kept.append(replace(dataset, documents=documents))
    missing = [label for label in unseen if not dropped[label]]
    if missing:
        getter = gold_span_getter(nlp)
        scored = {span.label_ for example in validation for span in gold_spans(example.reference, getter)}
        for label in missing:
            if label not in scored:
                labels = [count_labels(one.documents, one.spans_key) for one in datasets]
                known = sorted(scored.union(*labels))
                do = did_you_mean(label, known) or "Remove it"
                where = "train.unseen_labels"
                raise ConfigError(where, f"contains {label!r}, which is in no data", ", ".join(known), do)
        note(f"note: [train.unseen_labels] are not in the training data: {', '.join(missing)}")
    note(f"held out of the training: {', '.join(f'{n} x {label}' for label, n in dropped.items())}")
    return kept


def counting_pieces(datasets: Sequence[Dataset], components: Mapping[str, TrainableByLoop]) -> list[Dataset]:
    """Return the datasets with a subword token counter; the components must have their tokenizers.

    A text for several components counts as many subword tokens as the largest of their counts.
    """
    counters = [
        component.count_pieces for component in components.values() if hasattr(component, "count_pieces")
    ]
    if not counters:
        return list(datasets)

    def most(examples: Sequence[Example]) -> list[int]:
        return [max(counts) for counts in zip(*(count(examples) for count in counters), strict=True)]

    return [replace(dataset, count_pieces=most) for dataset in datasets]


def describe(datasets: Sequence[Dataset], component: TrainableByLoop) -> str:
    """Return a report on the training data, and on the annotations that a component cannot learn.

    Raises
    ------
    DataError
        If it can learn none.
    """
    report, lost = data_report(datasets, component)
    text = report if isinstance(report, str) else report.render()
    lines = [f"[components.{component.name}] training data: {text}"]
    return "\n".join([*lines, *(f"  {number} {reason}" for reason, number in lost.items())])


def data_report(
    datasets: Sequence[Dataset], component: TrainableByLoop
) -> tuple[DataReport | str, Counter[str]]:
    """Return what a component can learn from the training data, and what is lost where documents are split.

    Returns
    -------
    tuple
        The report, or the component's own text if it does not learn entities; and counts of the losses.

    Raises
    ------
    DataError
        If it can learn nothing.
    """
    lost: Counter[str] = Counter()
    parts = [dataset.parts(report=lost) for dataset in datasets]
    examples = joined(parts)
    own = component.describe_data(examples) if hasattr(component, "describe_data") else None
    if own is not None:
        return own, Counter()
    spans_key = getattr(component, "gold_spans_key", datasets[0].spans_key)
    max_width = getattr(component, "max_width", None)
    report = DataReport()
    for part in parts:
        if isinstance(part, Parts):
            report.merge(part.documents.gold_counts(spans_key, max_width).report)
            long = part.parts_of_long()
        for example in long if isinstance(part, Parts) else part:
            report.add(example, gold_spans(example.reference, spans_key), spans_key, max_width=max_width)
    refuse_useless(report, spans_key)
    return report, +lost


def documents_of(datasets: Sequence[Dataset]) -> Sequence[Example]:
    """Return the documents of all datasets."""
    return joined([dataset.documents for dataset in datasets])


def describe_lost(
    datasets: Sequence[Dataset], component: TrainableByLoop, warn: Callable[[str], None]
) -> dict[str, int]:
    """Warn of the gold annotations that a component with weights cannot learn; return their number by reason."""
    if not hasattr(component, "describe_lost"):
        return {}
    lost, text = component.describe_lost(documents_of(datasets))
    if text:
        warn(f"[components.{component.name}] {text}")
    return dict(lost)


# -- drawing -----------------------------------------------------------------------------------------------------------


def draws(datasets: Sequence[Dataset], seed: int) -> Iterator[Sequence[Example]]:
    """Yield draws, each the examples of one batch of a step, without end; those on disk are made when they are read.

    Without weights a draw is one batch of each dataset. If any section has a weight, a draw is one batch of one
    dataset, chosen with a probability proportional to its weight (1 where there is none).

    Parameters
    ----------
    datasets
        The training data.
    seed
        The only source of chance: the same seed gives the same draws.
    """
    streams = [dataset.batches(random.Random(f"{seed}-{number}")) for number, dataset in enumerate(datasets)]
    if not _weighted(datasets):
        for parts in zip(*streams, strict=True):
            yield joined(parts)
        return
    weights = [dataset.weight for dataset in datasets]
    rng = random.Random(f"{seed}-mix")
    while True:
        yield next(rng.choices(streams, weights)[0])


def draws_per_epoch(datasets: Sequence[Dataset], seed: int) -> int:
    """Return the number of draws of an epoch.

    Without weights an epoch is one pass over the largest dataset, with weights the number of batches of all
    datasets together. Passes with other split points may have a few batches more or less; the first pass counts.

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
