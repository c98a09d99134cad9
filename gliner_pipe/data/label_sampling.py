"""Which labels a training example is asked for: its own, and sampled ones that it does not have."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from gliner_pipe.data.annotations import Supervision
from gliner_pipe.errors import ConfigError

#: Asked for when an example has no label of its own and no other label is known.
LAST_RESORT = "entity"

SOURCES = ("batch", "labels", "both", "none")


@dataclass(frozen=True, eq=False)
class LabelSampling:
    """How the labels of a training example are chosen.

    Use the defaults for zero-shot models, which must learn to read labels; ``all_labels`` for a closed label
    set that is always asked as a whole.

    Parameters
    ----------
    max_types
        Labels that an example is asked for at most; ``None`` for no limit. Labels that the example has come
        first.
    negative_ratio
        Sampled negatives by positive label: a number from 1 to ``negative_ratio * positives`` (rounded up, at
        least 1) is drawn evenly. An example without entities counts as one with as many labels as the batch
        has on average. 0 samples none.
    negatives_from
        Where negatives come from: ``"batch"`` (labels of the other examples), ``"labels"`` (the component's
        label set), ``"both"`` or ``"none"``.
    all_labels
        Ask every example for the whole label set, whatever the other settings are.
    shuffle
        Put the labels in random order, so that the model does not learn their places. Without it they stand
        in the order of the label set.

    Notes
    -----
    An example that states its ``ner_labels`` is asked for all of them and for nothing else: what others in
    the batch are about may stand in it unannotated. Labels in ``ner_negatives`` are known to be absent; they
    are asked for, and nothing is sampled. Both yield to `max_types`.
    """

    max_types: int | None = 25
    negative_ratio: float = 1.0
    negatives_from: Literal["batch", "labels", "both", "none"] = "batch"
    all_labels: bool = False
    shuffle: bool = True

    def __post_init__(self) -> None:
        where = "label_sampling"
        if self.max_types is not None and self.max_types < 1:
            raise ConfigError(f"{where}.max_types", f"is {self.max_types}", "a number from 1 on, or null")
        if not 0 <= self.negative_ratio < math.inf:
            raise ConfigError(f"{where}.negative_ratio", f"is {self.negative_ratio}", "a number from 0 on")
        if self.negatives_from not in SOURCES:
            raise ConfigError(f"{where}.negatives_from", f"is {self.negatives_from!r}", ", ".join(SOURCES))


def sample_labels(
    gold: Sequence[Sequence[str]],
    supervision: Sequence[Supervision],
    label_set: Sequence[str],
    sampling: LabelSampling,
    rng: random.Random,
    report: Counter[str] | None = None,
) -> list[list[str]]:
    """Choose the labels that each example of a batch is asked for.

    Parameters
    ----------
    gold
        Labels of the entities of each example; a label may stand there several times.
    supervision
        What else is known about each example.
    label_set
        The component's labels; may be empty.
    sampling
        Settings.
    rng
        The only source of chance: the same state gives the same labels.
    report
        Takes the number of labels that an example has and is not asked for, as it has more than
        ``max_types``.

    Returns
    -------
    list of list of str
        For each example at least one label, none twice. Entities of a label that is not among them are not
        negatives: they are to be left out of the targets.
    """
    positives = [list(dict.fromkeys(labels)) for labels in gold]
    known = list(dict.fromkeys(label_set))
    in_batch = list(dict.fromkeys(label for labels in positives for label in labels))
    counts = [len(labels) for labels in positives if labels]
    typical = max(1, round(sum(counts) / len(counts))) if counts else 1
    pool = _pool(in_batch, known, sampling)
    chosen = []
    for labels, stated in zip(positives, supervision, strict=True):
        if sampling.all_labels:
            chosen.append(_ordered(labels + known or [LAST_RESORT], known, sampling, rng))
            continue
        negatives = _negatives(labels, stated, pool, typical, sampling, rng)
        if not labels and not negatives:
            negatives = _one_of([*pool, *known, *in_batch], rng)
        chosen.append(_ordered(_cut(labels, negatives, sampling, rng, report), known, sampling, rng))
    return chosen


def _pool(in_batch: list[str], known: list[str], sampling: LabelSampling) -> list[str]:
    sources = {"batch": in_batch, "labels": known, "both": in_batch + known, "none": []}
    return list(dict.fromkeys(sources[sampling.negatives_from]))


def _negatives(
    labels: list[str],
    stated: Supervision,
    pool: list[str],
    typical: int,
    sampling: LabelSampling,
    rng: random.Random,
) -> list[str]:
    """Return negatives in random order: those that are stated, else sampled ones."""
    given = [*stated.get("ner_labels", []), *stated.get("ner_negatives", [])]
    if given:
        candidates = [label for label in dict.fromkeys(given) if label not in labels]
        return rng.sample(candidates, len(candidates))
    if sampling.negative_ratio == 0:
        return []
    candidates = [label for label in pool if label not in labels]
    most = max(1, math.ceil(sampling.negative_ratio * (len(labels) or typical)))
    return rng.sample(candidates, min(rng.randint(1, most), len(candidates)))


def _one_of(candidates: list[str], rng: random.Random) -> list[str]:
    return [rng.choice(candidates)] if candidates else [LAST_RESORT]


def _cut(
    labels: list[str],
    negatives: list[str],
    sampling: LabelSampling,
    rng: random.Random,
    report: Counter[str] | None,
) -> list[str]:
    limit = sampling.max_types
    if limit is None:
        return labels + negatives
    if len(labels) > limit:
        if report is not None:
            report["label beyond max_types (not asked for)"] += len(labels) - limit
        return rng.sample(labels, limit)
    return labels + negatives[: limit - len(labels)]


def _ordered(labels: list[str], known: list[str], sampling: LabelSampling, rng: random.Random) -> list[str]:
    unique = list(dict.fromkeys(labels))
    if sampling.shuffle:
        rng.shuffle(unique)
        return unique
    places = {label: place for place, label in enumerate(known)}
    return sorted(unique, key=lambda label: places.get(label, len(places)))
