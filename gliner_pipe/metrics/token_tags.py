"""Accuracy, precision, recall and F1 of token tags: parts of speech, or any other attribute of tokens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from spacy.tokens import Doc
from spacy.training import Example

from gliner_pipe.data.annotations import DEFAULT_SPANS_KEY, SpanSetter
from gliner_pipe.data.token_targets import check_target, read_values
from gliner_pipe.metrics.alignment import common_edges
from gliner_pipe.metrics.base import MentionScorer
from gliner_pipe.metrics.counts import Mention, Pair
from gliner_pipe.registry import registry

if TYPE_CHECKING:
    from typing_extensions import Self


@registry.scorers.register("gliner_pipe.token_tags")
class TokenTagScorer(MentionScorer):
    """Counts the tokens with the correct tag.

    Use it for taggers of parts of speech and the like; for chunks, which are spans, use ``gliner_pipe.ner_exact`` or
    ``gliner_pipe.seqeval``. A word with different token boundaries in the two documents is wrong.

    The result has ``accuracy`` (over tokens with a gold tag), and precision, recall and F1 of each tag, of all tags
    (``micro``) and their mean (``macro``).

    Parameters
    ----------
    target
        The attribute of tokens: ``"tag_"``, ``"pos_"``, ``"_.name"`` ...
    span_getter
        Where gold tags are read as spans, in documents without the attribute; by default where the pipeline reads them.

    Raises
    ------
    ConfigError
        If the attribute does not exist.
    """

    def __init__(self, target: str = "tag_", span_getter: SpanSetter | None = None) -> None:
        self.target = check_target(target, "target")
        self.span_getter = span_getter

    def reading(self, gold: SpanSetter, predicted: SpanSetter) -> Self:
        """Return the scorer with the places of a pipeline's gold spans, unless some are set."""
        return self if self.span_getter is not None else type(self)(self.target, gold)

    def __call__(self, examples: Iterable[Example], **_: Any) -> dict[str, Any]:
        """Score the examples."""
        scores = super().__call__(examples)
        return {"accuracy": scores["micro"]["r"], **scores}

    def pair(self, example: Example) -> Pair:
        """Return gold and predicted tags of one example; predictions for tokens without a gold tag are left out."""
        edges = common_edges(example.reference, example.predicted)
        gold, unknown = self._tags(
            example.reference, edges[0], DEFAULT_SPANS_KEY if self.span_getter is None else self.span_getter
        )
        predicted, _ = self._tags(example.predicted, edges[1], None)
        return gold, {tag for tag in predicted if tag[1:] not in unknown}

    def _tags(
        self, doc: Doc, edges: Sequence[int], getter: SpanSetter | None
    ) -> tuple[set[Mention], set[tuple[int, int]]]:
        """Return the tags of tokens, and the boundaries of tokens without a tag; white space tokens are left out."""
        tags, unknown = set(), set()
        for value, (start, end) in zip(read_values(doc, self.target, getter), pairwise(edges), strict=True):
            if end > start and value is None:
                unknown.add((start, end))
            elif end > start and value is not None:
                tags.add((value, start, end))
        return tags, unknown
