"""How many words have the right tag: parts of speech, or any other attribute of tokens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any

from spacy.tokens import Doc
from spacy.training import Example

from gliner_pipe.data.annotations import SpanSetter
from gliner_pipe.data.token_targets import check_target, read_values
from gliner_pipe.metrics.alignment import common_edges
from gliner_pipe.metrics.base import ExampleScorer, score_mentions
from gliner_pipe.metrics.counts import Mention
from gliner_pipe.registry import registry


class TokenTagScorer:
    """Scores an attribute of tokens; picklable, so that it can stand in a component.

    Parameters
    ----------
    target
        The attribute.
    span_getter
        Where the gold tags stand as spans, in documents without the attribute.
    """

    def __init__(self, target: str, span_getter: SpanSetter) -> None:
        self.target = check_target(target, "target")
        self.span_getter = span_getter

    def __call__(self, examples: Iterable[Example], **_: Any) -> dict[str, Any]:
        """Score the examples; settings of a component, which spaCy passes, are ignored."""
        scores = score_mentions(map(self._pair, examples))
        return {"accuracy": scores["micro"]["r"], **scores}

    def _pair(self, example: Example) -> tuple[set[Mention], set[Mention]]:
        tokens = list(range(len(example.reference) + 1))
        edges, other_edges = common_edges(example.reference, example.predicted) or (tokens, tokens)
        gold = list(self._tags(example.reference, edges, self.span_getter))
        # a word whose tag is not known can be neither right nor wrong
        unknown = {(start, end) for value, start, end in gold if value is None}
        predicted = self._tags(example.predicted, other_edges, None)
        return _known(gold), {tag for tag in _known(predicted) if tag[1:] not in unknown}

    def _tags(
        self, doc: Doc, edges: list[int], getter: SpanSetter | None
    ) -> Iterator[tuple[str | None, int, int]]:
        values = read_values(doc, self.target, getter)
        for value, (start, end) in zip(values, pairwise(edges), strict=True):
            if end > start:
                yield value, start, end


def _known(tags: Iterable[tuple[str | None, int, int]]) -> set[Mention]:
    return {(value, start, end) for value, start, end in tags if value is not None}


@registry.scorers.register("gliner_pipe.token_tags")
def make_token_tags(target: str = "tag_", span_getter: SpanSetter = "gliner") -> ExampleScorer:
    """Count the tokens whose tag is right.

    Use it for taggers of parts of speech and the like; chunks are spans, for which ``gliner_pipe.ner_exact`` or
    ``gliner_pipe.seqeval`` is meant. A word that the two documents cut differently is wrong.

    Parameters
    ----------
    target
        The attribute of tokens: ``"tag_"``, ``"pos_"``, ``"_.name"`` ...
    span_getter
        Where the gold tags stand as spans, in documents without the attribute.

    Returns
    -------
    ExampleScorer
        A scorer with ``accuracy`` (over tokens with a gold tag), and precision, recall and F1 of each tag, of all
        (``micro``) and their mean (``macro``).

    Raises
    ------
    ConfigError
        If there is no such attribute.
    """
    return TokenTagScorer(target, span_getter)
