"""From examples to the batches of each step, cut into what fits the memory."""

from __future__ import annotations

import math
import os
import random
import sys
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
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

#: What a part of a batch costs beyond its pieces, as a number of pieces. On a CPU, gradients are added up and those of
#: the embeddings laid out once more, which was measured; a GPU is busy only with parts of some thousand pieces.
OVERHEAD = {"cpu": 64, "cuda": 4096}
#: The batches of all components for the same examples.
SubBatch = dict[str, TrainingBatch]


@dataclass
class StepBatches:
    """What a process learns from in one step.

    Parameters
    ----------
    sub_batches
        The batch as it is cut; each is run forward and backward on its own.
    n_words, n_docs
        Size of the whole.
    sources
        File and line of the examples, as far as known.
    sizes
        Documents of each sub-batch.
    dropped
        Gold annotations that cannot be learned from, by component and reason.
    """

    sub_batches: list[SubBatch]
    n_words: int
    n_docs: int
    sources: list[str]
    sizes: list[int]
    dropped: dict[str, Counter[str]] = field(default_factory=dict)


class StepStream(IterableDataset[StepBatches]):
    """An endless stream of collated steps that depends on nothing but its arguments.

    Parameters
    ----------
    datasets
        A step draws one batch of each.
    components
        The components that learn.
    seed
        Decides order and label sampling.
    max_tokens
        Most pieces of a sub-batch; None runs each batch as a whole.
    rank, n_processes
        Number of this training process and of all of them; each learns from other batches.
    accumulation
        Batches that a process learns from in one step.
    overhead
        What a part costs beyond its pieces, see ``cut_by_length``; infinite for no more parts than `max_tokens` asks
        for.
    start
        Steps to leave out, done by an earlier run: the others are the same as without it.

    Notes
    -----
    Chance depends on the number of a batch alone: two processes learn from the same as one that accumulates two.
    """

    def __init__(
        self,
        datasets: Sequence[Dataset],
        components: Mapping[str, TrainableByLoop],
        *,
        seed: int,
        max_tokens: int | None,
        rank: int = 0,
        n_processes: int = 1,
        accumulation: int = 1,
        overhead: float = math.inf,
        start: int = 0,
    ) -> None:
        self.datasets = list(datasets)
        self.components = dict(components)
        self.seed = seed
        self.max_tokens = max_tokens
        self.rank, self.n_processes = rank, n_processes
        self.accumulation = accumulation
        self.overhead = overhead
        self.start = start

    def __iter__(self) -> Iterator[StepBatches]:
        worker = get_worker_info()
        index, workers = (worker.id, worker.num_workers) if worker is not None else (0, 1)
        own: list[tuple[int, list[Example]]] = []
        for number, examples in enumerate(draws(self.datasets, self.seed)):
            step, slot = divmod(number, self.n_processes * self.accumulation)
            if step < self.start or (step - self.start) % workers != index:
                continue
            if slot % self.n_processes == self.rank:
                own.append((number, examples))
            if len(own) == self.accumulation:
                yield self.collate(own)
                own = []

    def collate(self, drawn: Sequence[tuple[int, Sequence[Example]]]) -> StepBatches:
        """Turn the batches of a step, with their numbers, into parts of like length of at most `max_tokens` pieces."""
        dropped: defaultdict[str, Counter[str]] = defaultdict(Counter)
        sub_batches: list[SubBatch] = []
        sizes: list[int] = []
        for number, examples in drawn:
            rng = random.Random(f"{self.seed}-{number}")
            by_name = {name: component.draw(examples, rng) for name, component in self.components.items()}
            for texts in self._cut(by_name):
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

    def _cut(self, drawn: Mapping[str, Drawn]) -> list[list[int]]:
        """Which texts go together; those of several components are cut by the larger of their sizes."""
        all_sizes = [one.sizes() for one in drawn.values()]
        sizes = [
            (max(rows for rows, _ in of_text), max(pieces for _, pieces in of_text))
            for of_text in zip(*all_sizes, strict=True)
        ]
        return cut_by_length(sizes, self.max_tokens, self.overhead)


def prefetched(stream: StepStream, num_workers: int) -> Iterator[StepBatches]:
    """Iterate over `stream`, collating in `num_workers` processes if asked to; the batches are the same.

    Parameters
    ----------
    stream
        The steps.
    num_workers
        Number of processes; 0 collates in this one, as do systems that cannot fork.
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
        generator=torch.Generator(),  # else it would draw from the one that dropout draws from
    )
    with warnings.catch_warnings():
        # The workers run nothing but tokenizers; no thread of this process is needed in them.
        warnings.filterwarnings("ignore", message=".*fork", category=DeprecationWarning)
        iterator = iter(loader)
    yield from iterator
