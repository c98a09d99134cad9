"""The scores of a training: its scorers, the metric that selects the best model, and a validation."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import torch
from spacy.language import Language
from spacy.training import Example

from gliner_pipe.errors import ConfigError
from gliner_pipe.evaluation.evaluate import FACTS, default_scorers_for, evaluate_pipeline, gold_span_getter
from gliner_pipe.metrics.alignment import prediction_getter
from gliner_pipe.metrics.base import with_places
from gliner_pipe.metrics.spans import METRICS, ZeroShotScorer
from gliner_pipe.pipeline.overrides import gliner_components
from gliner_pipe.training.loggers.base import flatten
from gliner_pipe.training.protocol import trainable_components

#: Metric: the loss on the validation data, of which the lowest is the best.
VAL_LOSS = "val_loss"
#: Documents in a batch of the validation loss.
LOSS_BATCH = 16
#: Name endings of the scores that can become the best metric by default, in this order.
MAIN_SCORES = ("micro.f", "micro", "f")

Scorer = Callable[..., dict[str, Any]]


@dataclass
class Validation:
    """The validation data of a training and its scorers.

    Parameters
    ----------
    examples
        Gold documents; empty for a training without validation.
    scorers
        Scorers by name.
    metric
        Name of the score that selects the best model, e.g. ``"ner.micro.f"``.
    labels
        Labels to predict and to score; the component's own when None.
    """

    examples: Sequence[Example]
    scorers: Mapping[str, Scorer]
    metric: str = ""
    labels: Sequence[Any] | None = None

    def __call__(self, nlp: Language) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the scores of `nlp`, and the size and speed of the validation."""
        result = evaluate_pipeline(nlp, self.examples, scorers=self.scorers, labels=self.labels)
        facts = {name: value for name, value in result.items() if name in FACTS}
        scores = {name: value for name, value in result.items() if name not in FACTS}
        if self.metric == VAL_LOSS:
            scores[VAL_LOSS] = validation_loss(nlp, self.examples)
        return scores, facts

    def main_score(self, scores: Mapping[str, Any]) -> float:
        """Return the value of the best metric, negative for a loss; minus infinity if it is undefined.

        Raises
        ------
        ConfigError
            If the scores do not contain it.
        """
        flat = dict(flatten(scores))
        if self.metric not in flat:
            raise _no_such_metric(self.metric, flat)
        value = flat[self.metric]
        if value is None:
            return float("-inf")
        return -float(value) if self.metric == VAL_LOSS else float(value)

    def shown(self, score: float | None) -> float | None:
        """Return a value of `main_score` as it is shown and saved; None if it is undefined."""
        if score is None or score == float("-inf"):
            return None
        return -score if self.metric == VAL_LOSS else score

    def predict_unseen(self, nlp: Language, unseen: Sequence[str]) -> None:
        """Predict the labels that are held out of the training, too; `nlp` must know its own labels by now."""
        if unseen and self.labels is None:
            known = [item for pipe in gliner_components(nlp) for item in pipe.label_data]
            self.labels = [*known, *unseen]


def make_scorers(
    scorer: Any, nlp: Language, examples: Sequence[Example], unseen: Sequence[str] = ()
) -> dict[str, Scorer]:
    """Return the scorers for the option `scorer` of a training.

    Parameters
    ----------
    scorer
        Scorers by name, one scorer, or None for exact spans (and relations, if the data have some); a scorer is a
        function or one of the names ``exact``, ``overlap``, ``token`` and ``seqeval``.
    nlp
        The pipeline, which determines where gold and predicted spans are read.
    examples
        Validation data.
    unseen
        Labels held out of the training, scored apart if `scorer` is None.
    """
    getters: dict[str, Any] = {
        "span_getter": gold_span_getter(nlp),
        "predicted_getter": prediction_getter(nlp),
    }
    if scorer is None:
        made = dict(default_scorers_for(nlp, examples))
        return {**made, "zero_shot": ZeroShotScorer(unseen=list(unseen), **getters)} if unseen else made
    scorers: dict[str, Scorer] = {}
    for name, item in (scorer if isinstance(scorer, Mapping) else {"ner": scorer}).items():
        if isinstance(item, str) and item in METRICS:
            item = METRICS[item](**getters)
        if not callable(item):
            allowed = f'a block, e.g. @scorers = "gliner_pipe.ner_exact", or one of {", ".join(METRICS)}'
            raise ConfigError(f"train.scorer.{name}", f"is {item!r}", allowed)
        scorers[name] = with_places(item, getters["span_getter"], getters["predicted_getter"])
    return scorers


def choose_metric(metric: str | None, scorers: Mapping[str, Scorer], examples: Sequence[Example]) -> str:
    """Return the name of the best metric, checked against the scorers before the training starts.

    Parameters
    ----------
    metric
        The name, or None for the first micro F1.
    scorers
        Scorers by name.
    examples
        Gold documents; the scorers are called with them as if they were predictions.

    Raises
    ------
    ConfigError
        If no scorer returns `metric`, or it is None and there is no default.
    """
    perfect = [Example(example.reference, example.reference) for example in examples]
    known = dict(flatten({name: scorer(perfect) for name, scorer in scorers.items()}))
    if metric == VAL_LOSS:
        return metric
    if metric is not None:
        if metric not in known:
            raise _no_such_metric(metric, known)
        return metric
    # a score of what the data does not have is undefined even for perfect predictions
    for names in ([name for name, value in known.items() if value is not None], known):
        for end in MAIN_SCORES:
            for name in names:
                if name.endswith(f".{end}"):
                    return name
    raise ConfigError(
        "train.best_metric",
        "is not set, and there is no default",
        ", ".join(known),
        "Set one of these scores",
    )


@torch.no_grad()
def validation_loss(nlp: Language, examples: Sequence[Example]) -> float:
    """Return the mean loss of batches of examples, summed over the components; the labels drawn are always the same."""
    total = 0.0
    for component in trainable_components(nlp).values():
        rng, losses = random.Random(0), []
        device = next(component.model.parameters()).device
        for at in range(0, len(examples), LOSS_BATCH):
            some = examples[at : at + LOSS_BATCH]
            batch = component.draw(some, rng).lay_out(range(len(some))).to(device)
            losses.append(float(component.model(batch).total) / (component.denominator(batch.count) or 1.0))
        total += sum(losses) / len(losses)
    return total


def _no_such_metric(metric: str, scores: Mapping[str, Any]) -> ConfigError:
    numbers = [name for name, value in scores.items() if value is None or isinstance(value, (int, float))]
    averages = [name for name in numbers if re.search(r"(micro|macro)(\.[prf])?$", name)]
    more = " and those of single labels" if averages and len(averages) < len(numbers) else ""
    close = get_close_matches(metric, [*numbers, VAL_LOSS], 1)
    return ConfigError(
        "train.best_metric",
        f"is {metric!r}, which no scorer returns",
        ", ".join([*(averages or numbers), VAL_LOSS]) + more,
        f"Did you mean {close[0]}?" if close else "",
    )
