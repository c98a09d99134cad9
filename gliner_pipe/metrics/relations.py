"""Precision, recall and F1 of relations."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from spacy.tokens import Doc, Span
from spacy.training import Example

from gliner_pipe.data.annotations import DEFAULT_SPANS_KEY, gold_spans, primary_key, supervision
from gliner_pipe.data.relations import RELATIONS_KEY, get_relations, gold_links, has_relations
from gliner_pipe.errors import DataError
from gliner_pipe.metrics.alignment import SpanGetter, common_edges
from gliner_pipe.metrics.base import MentionScorer
from gliner_pipe.metrics.counts import Pair, score_mentions
from gliner_pipe.registry import registry

if TYPE_CHECKING:
    from typing_extensions import Self

#: A relation as plain data: head and tail, each as start, end (exclusive) and label, and the label of the relation. The
#: offsets are of any unit that gold and predictions share.
RelationMention = tuple[tuple[int, int, str], tuple[int, int, str], str]


def score_relations(documents: Iterable[Pair], *, strict: bool = True, **options: Any) -> dict[str, Any]:
    """Score documents given as pairs of gold and predicted sets of `RelationMention`.

    Parameters
    ----------
    documents
        A pair of gold and predicted relations for each document.
    strict
        Whether the labels of both entities must match, too, and not only their boundaries. Without it, relations that
        differ only in the labels of their entities count once.
    **options
        ``labels`` (of relations), ``micro_key`` and ``macro_key``; see `score_mentions`.

    Returns
    -------
    dict[str, Any]
        The result of `score_mentions`, with a row for each relation label.
    """

    def mentions(items: AbstractSet[RelationMention]) -> set[tuple[str, Any, Any]]:
        return {(label, head, tail) if strict else (label, head[:2], tail[:2]) for head, tail, label in items}

    return score_mentions(((mentions(gold), mentions(found)) for gold, found in documents), **options)


@registry.scorers.register("gliner_pipe.relations")
@dataclass(eq=False)
class RelationScorer(MentionScorer):
    """Counts a predicted relation as correct if a gold relation has the same label, direction and entities.

    The result has ``strict`` (boundaries and labels of both entities must match) and ``boundary`` (boundaries must
    match), each with a row for each label and the two averages; and the number of ``examples`` that were scored and
    ``skipped``. Examples without known gold relations are skipped, whatever was predicted on them; an empty list of
    gold relations is scored.

    Parameters
    ----------
    spans_key
        The span group that gold relations index, by default that of the scored pipeline; ``"ents"`` or a missing
        group means ``doc.ents``. Predictions are read from ``doc._.relations``.
    labels
        Fixed set of relation labels; None for all labels of the data.
    micro_key
        Key of the scores over all relations together.
    macro_key
        Key of the mean over the labels that occur in the gold data.
    """

    spans_key: str | None = None
    labels: list[str] | None = None
    micro_key: str = "micro"
    macro_key: str = "macro"

    def __call__(self, examples: Iterable[Example], **_: Any) -> dict[str, Any]:
        """Score the examples."""
        examples = list(examples)
        known = self.pairs(examples)
        scores: dict[str, Any] = {
            name: score_relations(known, strict=name == "strict", labels=self.labels, **self.keys)
            for name in ("strict", "boundary")
        }
        return {**scores, "examples": len(known), "skipped": len(examples) - len(known)}

    def reading(self, gold: SpanGetter, predicted: SpanGetter) -> Self:
        """Return the scorer with the group of a pipeline's gold spans, unless one is set."""
        return self if self.spans_key is not None else replace(self, spans_key=primary_key(gold))

    def pair(self, example: Example) -> Pair | None:
        """Return gold and predicted relations of one example; None if its gold relations are unknown.

        Raises
        ------
        DataError
            If a gold relation refers to a missing entity, or the texts of the two documents differ in more than white
            space.
        """
        reference, predicted = example.reference, example.predicted
        stated = supervision(reference).get("relations")
        key = DEFAULT_SPANS_KEY if self.spans_key is None else self.spans_key
        links = gold_links(reference, key)
        if stated is None and links is None:
            return None
        gold_edges, edges = common_edges(reference, predicted)
        guesses = {_mention(item.head, item.tail, item.label, edges) for item in get_relations(predicted)}
        if links is not None:
            return {_mention(link.head, link.tail, link.label, gold_edges) for link in links}, guesses
        spans = gold_spans(reference, key)
        gold = set()
        for head, tail, label in stated or ():
            if not (0 <= head < len(spans) and 0 <= tail < len(spans)):
                raise _missing_entity(reference, key, [head, tail, label], len(spans))
            gold.add(_mention(spans[head], spans[tail], label, gold_edges))
        return gold, guesses


def score_component_relations(examples: Sequence[Example], spans_key: str) -> dict[str, Any]:
    """Score relations under spaCy's names, for ``nlp.evaluate`` and ``spacy train``.

    Parameters
    ----------
    examples
        Gold and predicted documents.
    spans_key
        The span group that gold relations index.

    Returns
    -------
    dict[str, Any]
        ``relations_p``, ``_r``, ``_f`` and ``_per_type`` (strict scores), and ``relations_boundary_p`` and so on. Empty
        if no relations were predicted, or no gold relations are known.
    """
    predicted = any(RELATIONS_KEY in example.predicted.user_data for example in examples)
    known = any(has_relations(example.reference) for example in examples)
    if not predicted or not known:
        return {}
    scores = RelationScorer(spans_key, micro_key="", macro_key=" ")(examples)
    found: dict[str, Any] = {}
    for prefix, name in (("relations", "strict"), ("relations_boundary", "boundary")):
        rows = {label: {metric: row.get(metric) for metric in "prf"} for label, row in scores[name].items()}
        micro = rows.pop("")
        rows.pop(" ", None)
        found |= {f"{prefix}_{metric}": micro[metric] for metric in "prf"}
        found[f"{prefix}_per_type"] = rows
    return found


def _mention(head: Span, tail: Span, label: str, edges: Sequence[int]) -> RelationMention:
    one, other = ((edges[end.start], edges[end.end], end.label_) for end in (head, tail))
    return one, other, label


def _missing_entity(doc: Doc, key: str, relation: list[Any], n_spans: int) -> DataError:
    where = supervision(doc).get("source") or f"document starting with {doc.text[:40]!r}"
    return DataError(
        f"{where} (relations)",
        f"holds {relation} with {n_spans} entities in {key!r}",
        "positions of two entities, from 0 on",
        "Set spans_key to the span group that the relations index",
    )
