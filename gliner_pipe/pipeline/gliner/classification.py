"""Scores and chosen labels of classifications."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from gliner_pipe.data.classes import Chosen, Classified
from gliner_pipe.modeling.inference import SpanPredictions
from gliner_pipe.pipeline.gliner.class_choice import THRESHOLD, VIOLATED
from gliner_pipe.pipeline.gliner.requests import Request
from gliner_pipe.pipeline.gliner.task_settings import ClassesItem


def all_classified(request: Request, found: SpanPredictions, report: Counter[str]) -> list[Classified]:
    """Return the classifications of a document, whose labels obey the rules; none if it has no words."""
    if found.class_logits is None:
        return []
    logits = found.class_logits[len(request.query.tasks) - len(request.classes) :]
    results = [classified(*pair) for pair in zip(request.classes, logits, strict=False)]
    if request.choice is None:
        return results
    if request.choice.violated:
        report[VIOLATED] += 1
    return [one._replace(chosen=some) for one, some in zip(results, request.choice(logits), strict=True)]


def classified(item: ClassesItem, logits: npt.NDArray[np.float64]) -> Classified:
    """Return scores and chosen labels of a classification.

    Parameters
    ----------
    item
        The classification.
    logits
        Of its labels, and perhaps of others after them.
    """
    logits = logits[: len(item.labels)] / item.temperature
    if item.multi_label:
        scores = 1 / (1 + np.exp(-logits.clip(-500)))
    else:
        powers = np.exp(logits - logits.max())
        scores = powers / powers.sum()
    by_label = dict(zip((label.label for label in item.labels), scores.tolist(), strict=True))
    return Classified(item.name, by_label, chosen(item, by_label))


def chosen(item: ClassesItem, scores: Mapping[str, float]) -> Chosen:
    """Return the label with the best score, or all labels from the threshold on where a text may have several.

    A task with one label to a text has no threshold unless one is set: below it the default is chosen, or no label. If
    a text may have several labels and none reaches the threshold, the best alone is chosen, as in GLiNER2.
    """
    best = max(scores, key=scores.__getitem__)
    if item.multi_label:
        least = THRESHOLD if item.threshold is None else item.threshold
        return [label for label, score in scores.items() if score >= least] or [best]
    return item.default if item.threshold is not None and scores[best] < item.threshold else best
