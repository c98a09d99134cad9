"""Samples the candidate labels of training examples: their own labels, and labels that they do not have."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from typing import Literal

from pydantic.dataclasses import dataclass

from gliner_pipe.data.annotations import Supervision
from gliner_pipe.util.ranges import Count, NonNegative

#: Candidate label of an example without labels if no other label is known.
LAST_RESORT = "entity"


@dataclass(frozen=True, eq=False)
class LabelSampling:
    """How the candidate labels of a training example are chosen.

    Use the defaults for zero-shot models, which must learn to read labels; ``all_labels`` for a closed label set whose
    labels are always candidates.

    Parameters
    ----------
    max_types
        Maximum number of candidate labels of an example; ``None`` for no limit. The labels of its entities come first.
    negative_ratio
        Sampled negatives for each positive label: a number between 1 and ``negative_ratio * positives`` (rounded up, at
        least 1) is drawn uniformly. An example without entities counts as having the average number of labels of the
        batch. 0 samples none.
    negatives_from
        Source of negatives: ``"batch"`` (labels of the other examples), ``"labels"`` (label set of the component),
        ``"both"`` or ``"none"``.
    all_labels
        Use the whole label set as candidates of every example, regardless of the other settings; of an example with
        ``ner_labels`` only the labels that are among them.
    shuffle
        Put the candidates in random order, so that the model does not learn positions. Otherwise they have the order of
        the label set.

    Notes
    -----
    The candidates of an example with ``ner_labels`` are exactly these: labels of other examples may occur in it
    unannotated. ``ner_negatives`` are known to be absent: they are candidates, and no other negatives are sampled. Both
    are limited by `max_types`.
    """

    max_types: Count | None = 25
    negative_ratio: NonNegative = 1.0
    negatives_from: Literal["batch", "labels", "both", "none"] = "batch"
    all_labels: bool = False
    shuffle: bool = True


def sample_labels(
    gold: Sequence[Sequence[str]],
    supervision: Sequence[Supervision],
    label_set: Sequence[str],
    sampling: LabelSampling,
    rng: random.Random,
    report: Counter[str] | None = None,
) -> list[list[str]]:
    """Sample the candidate labels of each example of a batch.

    Parameters
    ----------
    gold
        Labels of the entities of each example; may contain duplicates.
    supervision
        Other annotations of each example.
    label_set
        Labels of the component; may be empty.
    sampling
        Settings.
    rng
        Source of randomness: the same state gives the same labels.
    report
        Receives the number of labels left out of examples with more than ``max_types``.

    Returns
    -------
    list of list of str
        At least one label for each example, without duplicates. Entities whose label is no candidate are not negatives:
        leave them out of the targets.
    """
    positives = [list(dict.fromkeys(labels)) for labels in gold]
    known = list(dict.fromkeys(label_set))
    in_batch = list(dict.fromkeys(label for labels in positives for label in labels))
    counts = [len(labels) for labels in positives if labels]
    typical = max(1, round(sum(counts) / len(counts))) if counts else 1
    sources = {"batch": in_batch, "labels": known, "both": in_batch + known, "none": []}
    pool = list(dict.fromkeys(sources[sampling.negatives_from]))
    chosen = []
    for labels, stated in zip(positives, supervision, strict=True):
        if sampling.all_labels:
            complete = stated.get("ner_labels", [])
            asked = {*(complete or known), *stated.get("ner_negatives", [])}
            some = labels + [label for label in known if label in asked]
            chosen.append(_ordered(some or complete or [LAST_RESORT], known, sampling, rng))
            continue
        negatives = _negatives(labels, stated, pool, typical, sampling, rng)
        if not labels and not negatives:
            candidates = [*pool, *known, *in_batch]
            negatives = [rng.choice(candidates)] if candidates else [LAST_RESORT]
        chosen.append(_ordered(_limited(labels, negatives, sampling, rng, report), known, sampling, rng))
    return chosen


def _negatives(
    labels: list[str],
    stated: Supervision,
    pool: list[str],
    typical: int,
    sampling: LabelSampling,
    rng: random.Random,
) -> list[str]:
    """Return negatives in random order: the annotated ones, else sampled ones."""
    given = [*stated.get("ner_labels", []), *stated.get("ner_negatives", [])]
    if given:
        candidates = [label for label in dict.fromkeys(given) if label not in labels]
        return rng.sample(candidates, len(candidates))
    if sampling.negative_ratio == 0:
        return []
    candidates = [label for label in pool if label not in labels]
    most = max(1, math.ceil(sampling.negative_ratio * (len(labels) or typical)))
    return rng.sample(candidates, min(rng.randint(1, most), len(candidates)))


def _limited(
    labels: list[str],
    negatives: list[str],
    sampling: LabelSampling,
    rng: random.Random,
    report: Counter[str] | None,
) -> list[str]:
    """Return at most ``max_types`` labels, positives first."""
    limit = sampling.max_types
    if limit is None:
        return labels + negatives
    if len(labels) > limit:
        if report is not None:
            report["label beyond max_types (not a candidate)"] += len(labels) - limit
        return rng.sample(labels, limit)
    return labels + negatives[: limit - len(labels)]


def _ordered(labels: list[str], known: list[str], sampling: LabelSampling, rng: random.Random) -> list[str]:
    unique = list(dict.fromkeys(labels))
    if sampling.shuffle:
        rng.shuffle(unique)
        return unique
    places = {label: place for place, label in enumerate(known)}
    return sorted(unique, key=lambda label: places.get(label, len(places)))
