"""From spaCy examples to a training batch."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from spacy.training import Example

from gliner_pipe.backbones.windows import Window
from gliner_pipe.data.annotations import gold_spans, supervision
from gliner_pipe.data.sampling import LabelSampling, sample_labels
from gliner_pipe.encoders.base import Query
from gliner_pipe.model.batch import TrainingBatch
from gliner_pipe.model.gliner import GLiNER
from gliner_pipe.word_splitters.base import WordSplitter

TOO_WIDE = "entity wider than max_width"
UNALIGNED = "entity not on word borders"
ACROSS = "entity across a window border"
NO_PIECES = "entity that starts or ends at a word without pieces"


class Mention(NamedTuple):
    """A gold entity: words `start` to `end` (inclusive)."""

    start: int
    end: int
    label: str


def mentions(example: Example, key: str, splitter: WordSplitter, dropped: Counter[str]) -> list[Mention]:
    """Gold entities of an example in words; those not on word borders are counted in `dropped`."""
    spans = gold_spans(example.reference, key)
    found = []
    for span, place in zip(spans, splitter.split(example.reference).locate(spans), strict=True):
        if place is None:
            dropped[UNALIGNED] += 1
        else:
            found.append(Mention(*place, span.label_))
    return found


def make_batch(
    model: GLiNER,
    examples: Sequence[Example],
    *,
    spans_key: str,
    splitter: WordSplitter,
    labels: Sequence[str],
    definitions: Mapping[str, str],
    sampling: LabelSampling,
    rng: random.Random,
) -> TrainingBatch:
    """Sample labels for each example and lay its words and gold spans out as tensors, on the CPU.

    Parameters
    ----------
    model
        Cuts the windows.
    examples
        With gold entities in ``reference.spans[spans_key]``, or else ``reference.ents``.
    spans_key, splitter
        Where gold entities stand, and what the words are.
    labels
        The component's label set.
    definitions
        What the model reads for a label, where that is not its name.
    sampling
        How labels are drawn.
    rng
        All chance comes from here.
    """
    dropped: Counter[str] = Counter()
    gold = [mentions(example, spans_key, splitter, dropped) for example in examples]
    chosen = sample_labels(
        [[mention.label for mention in found] for found in gold],
        [supervision(example.reference) for example in examples],
        labels,
        sampling,
        rng,
        dropped,
    )
    texts = [splitter.split(example.reference).texts for example in examples]
    queries = [Query(tuple(definitions.get(label, label) for label in names)) for names in chosen]
    windows = model.encoder.prepare(texts, queries, model.min_overlap, dropped)
    inputs = model.encoder.collate(windows)
    rows = _gold_rows(windows, gold, chosen, model.max_width, dropped)
    targets = torch.tensor(rows, dtype=torch.long).view(-1, 4)
    row, first, width, _ = targets.unbind(1)
    scorable = inputs.windows.scorable
    reachable = scorable[row, first] & scorable[row, first + width]
    dropped[NO_PIECES] += int((~reachable).sum())
    return TrainingBatch(
        inputs=inputs,
        gold=targets[reachable],
        n_words=sum(map(len, texts)),
        n_pieces=int(inputs.windows.input_ids.numel()),
        count=model.span_rep.count(inputs),
        dropped=+dropped,
    )


def _gold_rows(
    windows: Sequence[Window],
    gold: Sequence[Sequence[Mention]],
    chosen: Sequence[Sequence[str]],
    max_width: int | None,
    dropped: Counter[str],
) -> list[tuple[int, int, int, int]]:
    """Row, first word, width - 1 and label of each gold span that a window can hold."""
    places = [{label: index for index, label in enumerate(names)} for names in chosen]
    rows = []
    for row, window in enumerate(windows):
        for start, end, label in gold[window.text]:
            if not window.own_start <= start < window.own_stop or label not in places[window.text]:
                continue
            if max_width is not None and end - start >= max_width:
                dropped[TOO_WIDE] += 1
            elif end >= window.stop:
                dropped[ACROSS] += 1
            else:
                rows.append((row, start - window.start, end - start, places[window.text][label]))
    return rows
