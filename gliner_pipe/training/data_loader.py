"""The batches of each step: drawn from the datasets, split into sub-batches that fit the memory, and collated."""

from __future__ import annotations

import math
import os
import random
import sys
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

import torch
from spacy.training import Example
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from gliner_pipe.data.annotations import supervision
from gliner_pipe.data.batching import cut_by_length
from gliner_pipe.modeling.batch import Drawn, TrainingBatch
from gliner_pipe.training.datasets import Dataset, draws
from gliner_pipe.training.protocol import TrainableByLoop
from gliner_pipe.util.processes import end_with_parent

#: The batches of all components for the same examples.
SubBatch = dict[str, TrainingBatch]


@dataclass
class StepBatches:
    """The batch of one process in one step.

    Parameters
    ----------
    sub_batches
        Parts of the batch; each has its own forward and backward pass.
    n_words, n_docs
        Size of the batch.
    sources
        File and line of the examples, where known.
    sizes
        Documents of each sub-batch.
    dropped
        Gold annotations that cannot be learned, by component and reason.
    """

    sub_batches: list[SubBatch]
    n_words: int
    n_docs: int
    sources: list[str]
    sizes: list[int]
    dropped: dict[str, Counter[str]] = field(default_factory=dict)


@dataclass(eq=False)
class StepStream(IterableDataset[StepBatches]):
    """An endless stream of the batches of each step, fully determined by its arguments.

    Parameters
    ----------
    datasets
        A step draws one batch of each.
    components
        The trained components.
    seed
        Decides order and label sampling.
    max_tokens
        Maximum subword tokens of a sub-batch; None does not split batches for memory.
    rank, n_processes
        Index of this training process and number of processes; each draws other batches.
    accumulation
        Batches of a process in one step.
    overhead
        Fixed cost of a sub-batch in subword tokens, see ``cut_by_length``; infinite splits only for `max_tokens`.
    start
        Steps to skip, completed by an earlier run; the others do not change.

    Notes
    -----
    Sampling depends only on the number of a batch: two processes draw the same as one that accumulates two batches.
    """

    datasets: Sequence[Dataset]
    components: Mapping[str, TrainableByLoop]
    _: KW_ONLY
    seed: int
    max_tokens: int | None
    rank: int = 0
    n_processes: int = 1
    accumulation: int = 1
    overhead: float = math.inf
    start: int = 0

    def __iter__(self) -> Iterator[StepBatches]:
        worker = get_worker_info()
        index, workers = (worker.id, worker.num_workers) if worker is not None else (0, 1)
        own: list[tuple[int, Sequence[Example]]] = []
        for number, examples in enumerate(draws(self.datasets, self.seed)):
            step, slot = divmod(number, self.n_processes * self.accumulation)
            if step < self.start or (step - self.start) % workers != index:
                continue
            if slot % self.n_processes == self.rank:
                own.append((number, examples))
            if len(own) == self.accumulation:
                yield self.collate(own)
                own = []

    def halve(self, tokens: int) -> int:
        """Halve the maximum size of further sub-batches, as one of so many subword tokens ran out of memory.

        Returns
        -------
        int
            The new maximum.
        """
        largest = tokens if self.max_tokens is None else min(tokens, self.max_tokens)
        self.max_tokens = max(1, largest // 2)
        return self.max_tokens

    def collate(self, drawn: Sequence[tuple[int, Sequence[Example]]]) -> StepBatches:
        """Return the numbered batches of a step, split into sub-batches of similar length."""
        dropped: defaultdict[str, Counter[str]] = defaultdict(Counter)
        sub_batches: list[SubBatch] = []
        sizes: list[int] = []
        drawn = [(number, list(examples)) for number, examples in drawn]
        for number, examples in drawn:
            rng = random.Random(f"{self.seed}-{number}")
            by_name = {name: component.draw(examples, rng) for name, component in self.components.items()}
            for texts in self._split(by_name):
                sub_batches.append({name: one.lay_out(texts) for name, one in by_name.items()})
                sizes.append(len(texts))
            for name, one in by_name.items():
                dropped[name].update(one.dropped)
        for sub_batch in sub_batches:
            for name, batch in sub_batch.items():
                dropped[name].update(batch.dropped)
        examples = [example for _, some in drawn for example in some]
        return StepBatches(
            sub_batches,
            n_words=sum(len(example.reference) for example in examples),
            n_docs=len(examples),
            sources=[
                source for example in examples if (source := supervision(example.reference).get("source"))
            ],
            sizes=sizes,
            dropped=dict(dropped),
        )

    def _split(self, drawn: Mapping[str, Drawn]) -> list[list[int]]:
        """Return the texts of each sub-batch; of several components the largest size counts."""
        all_sizes = [one.sizes() for one in drawn.values()]
        sizes = [
            (max(rows for rows, _ in of_text), max(pieces for _, pieces in of_text))
            for of_text in zip(*all_sizes, strict=True)
        ]
        return cut_by_length(sizes, self.max_tokens, self.overhead)


def prefetched(stream: StepStream, num_workers: int) -> Iterator[StepBatches]:
    """Iterate over `stream`; `num_workers` processes prefetch the batches, which are the same as without.

    Parameters
    ----------
    stream
        The batches of each step.
    num_workers
        Number of processes; with 0, and on systems that cannot fork, this process collates.
    """
    if num_workers < 1 or sys.platform != "linux":
        yield from stream
        return
    parent = os.getpid()
    loader: DataLoader[Any] = DataLoader(
        stream,
        batch_size=None,
        num_workers=num_workers,
        multiprocessing_context="fork",
        prefetch_factor=2,
        worker_init_fn=lambda _: end_with_parent(parent),
        generator=torch.Generator(),  # the global generator is for dropout
    )
    with warnings.catch_warnings():
        # The workers only run tokenizers, and need no thread of this process.
        warnings.filterwarnings("ignore", message=".*fork", category=DeprecationWarning)
        iterator = iter(loader)
    yield from iterator
