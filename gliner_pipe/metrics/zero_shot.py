"""How well labels are found that were not trained on, apart from those that were."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from spacy.training import Example

from gliner_pipe.data.annotations import SpanSetter
from gliner_pipe.errors import ConfigError
from gliner_pipe.metrics.alignment import SpanGetter, paired_mentions
from gliner_pipe.metrics.base import ExampleScorer, LabelScorer, score_mentions
from gliner_pipe.registry import registry


class ZeroShotScorer(LabelScorer):
    """Scores unseen labels and all others apart.

    Parameters
    ----------
    unseen
        Labels that were not trained on.
    span_getter, predicted_getter, labels
        See `LabelScorer`.
    micro_key, macro_key
        Keys of the averages.
    """

    def __init__(
        self,
        unseen: Sequence[str],
        span_getter: SpanGetter = "gliner",
        predicted_getter: SpanGetter | None = None,
        labels: Sequence[str] | None = None,
        micro_key: str = "micro",
        macro_key: str = "macro",
    ) -> None:
        super().__init__(span_getter, predicted_getter, labels)
        self.unseen = list(dict.fromkeys(unseen))
        self.micro_key, self.macro_key = micro_key, macro_key

    def __call__(self, examples: Iterable[Example], **_: Any) -> dict[str, Any]:
        """Score the examples."""
        pairs = [
            paired_mentions(example, self.span_getter, self.predicted_getter, "boundaries")
            for example in examples
        ]
        found = sorted({label for pair in pairs for side in pair for label, _, _ in side})
        labels = found if self.labels is None else self.labels
        groups = {"unseen": self.unseen, "seen": [label for label in labels if label not in self.unseen]}
        return {
            name: score_mentions(pairs, labels=group, micro_key=self.micro_key, macro_key=self.macro_key)
            for name, group in groups.items()
        }


@registry.scorers.register("gliner_pipe.zero_shot")
def make_zero_shot(
    unseen: list[str],
    span_getter: SpanSetter = "gliner",
    predicted_getter: SpanSetter | None = None,
    labels: list[str] | None = None,
    micro_key: str = "micro",
    macro_key: str = "macro",
) -> ExampleScorer:
    """Score labels that were not trained on apart from the others, by exact spans.

    Use it in training with ``best_metric = "zero_shot.unseen.micro.f"``, to keep the model that generalises best and
    not the one that knows its own labels best. The pipeline is asked for all labels at once, so that seen and unseen
    ones compete as in use: an unseen label given to a span of a seen one is wrong among the unseen, and the span is
    missed among the seen.

    Parameters
    ----------
    unseen
        Labels that were not trained on; a pipeline that is evaluated with this scorer is asked for them, too.
    span_getter
        Where the spans stand: the key of a span group, ``"ents"``, a list, or a mapping to labels.
    predicted_getter
        Where the predicted spans stand, if elsewhere.
    labels
        The fixed set of labels, `unseen` or not; None for all labels of the whole data set.
    micro_key
        Key of the scores over all spans together.
    macro_key
        Key of the mean over the labels that occur in the gold data.

    Returns
    -------
    ExampleScorer
        A scorer that gives ``unseen`` and ``seen``, each with a row for each label and the two averages.

    Raises
    ------
    ConfigError
        If no label is unseen.
    """
    if not unseen:
        raise ConfigError("gliner_pipe.zero_shot.unseen", "names no label", "at least one", "Leave it out")
    return ZeroShotScorer(unseen, span_getter, predicted_getter, labels, micro_key, macro_key)
