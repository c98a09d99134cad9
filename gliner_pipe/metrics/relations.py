"""Precision, recall and F1 of relations."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, NamedTuple

from spacy.tokens import Doc, Span
from spacy.training import Example

from gliner_pipe.data.annotations import DEFAULT_SPANS_KEY, gold_spans, supervision, word_places
from gliner_pipe.data.relations import RELATIONS_KEY, get_relations
from gliner_pipe.errors import DataError
from gliner_pipe.metrics.alignment import common_edges
from gliner_pipe.metrics.base import ExampleScorer, score_mentions
from gliner_pipe.metrics.counts import Mention, count_exact
from gliner_pipe.registry import registry


class RelationMention(NamedTuple):
    """A relation as plain data, in any unit of offsets that gold and predictions share; ends are exclusive."""

    head_start: int
    head_end: int
    head_label: str
    tail_start: int
    tail_end: int
    tail_label: str
    label: str


#: Gold and predicted relations of one document.
RelationPair = tuple[AbstractSet[RelationMention], AbstractSet[RelationMention]]


def score_relations(
    documents: Iterable[RelationPair],
    *,
    strict: bool = True,
    labels: Sequence[str] | None = None,
    micro_key: str = "micro",
    macro_key: str = "macro",
) -> dict[str, Any]:
    """Score documents given as pairs of gold and predicted relations.

    Parameters
    ----------
    documents
        One pair of gold and predicted relations a document.
    strict
        Whether the labels of both entities must be right too, and not only their boundaries. Without it, relations
        that differ in the labels of entities alone count once.
    labels
        The fixed set of relation labels: anything else is left out, in gold and predictions alike. None takes all
        labels of the whole data set; a predicted label without gold then counts as wrong.
    micro_key
        Key of the scores over all relations together.
    macro_key
        Key of the mean over the labels that occur in the gold data.

    Returns
    -------
    dict[str, Any]
        A row (``p``, ``r``, ``f``, ``tp``, ``support``, ``positives``) for each relation label and `micro_key`;
        under `macro_key` the means, as `gliner_pipe.metrics.base.score_mentions` gives them.

    Raises
    ------
    ConfigError
        If a label has the name of a summary key.
    """
    pairs = (_numbered(gold, predicted, strict) for gold, predicted in documents)
    return score_mentions(pairs, count_exact, labels=labels, micro_key=micro_key, macro_key=macro_key)


def paired_relations(example: Example, spans_key: str = DEFAULT_SPANS_KEY) -> RelationPair | None:
    """Gold and predicted relations of one example, in the same offsets.

    With equal tokens these are token offsets; where the tokens differ, characters other than white space.

    Parameters
    ----------
    example
        Its ``reference`` holds gold relations, between the spans of a group; its ``predicted`` the others.
    spans_key
        The span group that gold relations count in; ``"ents"``, or a group that is not there, means ``doc.ents``.

    Returns
    -------
    tuple or None
        Gold and predicted relations; None where nothing is known about gold relations.

    Raises
    ------
    DataError
        If a gold relation names an entity that is not there, or the two documents do not have the same text, white
        space apart.
    """
    reference, predicted = example.reference, example.predicted
    stated = supervision(reference).get("relations")
    if stated is None:
        return None
    words = word_places(reference)
    gold_places, places = common_edges(reference, predicted) or (words, words)
    spans = gold_spans(reference, spans_key)
    gold = set()
    for head, tail, label in stated:
        if not (0 <= head < len(spans) and 0 <= tail < len(spans)):
            raise _no_such_entity(reference, spans_key, head, tail, label, len(spans))
        gold.add(_mention(spans[head], spans[tail], label, gold_places))
    found = {_mention(item.head, item.tail, item.label, places) for item in get_relations(predicted)}
    return gold, found


class RelationScorer:
    """Scores the relations of examples; picklable, so that it can stand in a component.

    Parameters
    ----------
    spans_key
        The span group that gold relations count in.
    labels
        The fixed set of relation labels.
    micro_key
        Key of the micro average.
    macro_key
        Key of the macro average.
    """

    def __init__(
        self,
        spans_key: str = DEFAULT_SPANS_KEY,
        labels: Sequence[str] | None = None,
        micro_key: str = "micro",
        macro_key: str = "macro",
    ) -> None:
        self.spans_key = spans_key
        self.labels = None if labels is None else list(labels)
        self.micro_key, self.macro_key = micro_key, macro_key

    def __call__(self, examples: Iterable[Example], **_: Any) -> dict[str, Any]:
        """Score the examples; settings of a component (labels, threshold), which spaCy passes, are ignored."""
        pairs = [paired_relations(example, self.spans_key) for example in examples]
        known = [pair for pair in pairs if pair is not None]
        scores: dict[str, Any] = {
            name: score_relations(
                known,
                strict=name == "strict",
                labels=self.labels,
                micro_key=self.micro_key,
                macro_key=self.macro_key,
            )
            for name in ("strict", "boundary")
        }
        return {**scores, "examples": len(known), "skipped": len(pairs) - len(known)}


@registry.scorers.register("gliner_pipe.relations")
def make_relations(
    spans_key: str = DEFAULT_SPANS_KEY,
    labels: list[str] | None = None,
    micro_key: str = "micro",
    macro_key: str = "macro",
) -> ExampleScorer:
    """Count a predicted relation as right when a gold relation has its label, direction and entities.

    Two scores are given: ``strict``, for which boundaries and labels of both entities must be right, and ``boundary``,
    for which their boundaries must. Examples about whose relations nothing is known are left out, however many
    relations were predicted on them; an empty list of gold relations is knowledge.

    Parameters
    ----------
    spans_key
        The span group that gold relations count in; ``"ents"``, or a group that is not there, means ``doc.ents``.
        Predictions are read from ``doc._.relations``.
    labels
        The fixed set of relation labels; None for all labels of the whole data set.
    micro_key
        Key of the scores over all relations together.
    macro_key
        Key of the mean over the labels that occur in the gold data.

    Returns
    -------
    ExampleScorer
        A scorer that gives ``strict`` and ``boundary``, each with a row for each label, the micro and the macro
        average, and the numbers of ``examples`` that were scored and ``skipped``.
    """
    return RelationScorer(spans_key, labels, micro_key, macro_key)


def score_component_relations(examples: Sequence[Example], spans_key: str) -> dict[str, Any]:
    """Scores of relations under spaCy's names, for ``nlp.evaluate`` and ``spacy train``.

    Parameters
    ----------
    examples
        Gold and predicted documents.
    spans_key
        The span group that gold relations count in.

    Returns
    -------
    dict[str, Any]
        ``relations_p``, ``_r``, ``_f`` and ``_per_type`` (boundaries and labels of both entities must be right), and
        ``relations_boundary_p`` and so on (their boundaries must). Empty where nothing was looked for, or nothing is
        known.
    """
    looked_for = any(RELATIONS_KEY in example.predicted.user_data for example in examples)
    known = any("relations" in supervision(example.reference) for example in examples)
    if not looked_for or not known:
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


def _numbered(
    gold: AbstractSet[RelationMention], predicted: AbstractSet[RelationMention], strict: bool
) -> tuple[set[Mention], set[Mention]]:
    """Relations as label, number of the head and number of the tail: what the counts of spans are made of."""
    numbers: dict[tuple[int, int, str], int] = {}

    def number(start: int, end: int, label: str) -> int:
        return numbers.setdefault((start, end, label if strict else ""), len(numbers))

    def mentions(items: AbstractSet[RelationMention]) -> set[Mention]:
        return {(item.label, number(*item[:3]), number(*item[3:6])) for item in items}

    return mentions(gold), mentions(predicted)


def _mention(head: Span, tail: Span, label: str, places: Sequence[int]) -> RelationMention:
    return RelationMention(
        places[head.start],
        places[head.end],
        head.label_,
        places[tail.start],
        places[tail.end],
        tail.label_,
        label,
    )


def _no_such_entity(doc: Doc, key: str, head: int, tail: int, label: str, n_spans: int) -> DataError:
    source = supervision(doc).get("source")
    where = source or f"document starting with {doc.text[:40]!r}"
    return DataError(
        f"{where} (relations)",
        f"holds {[head, tail, label]} with {n_spans} entities in {key!r}",
        "positions of two entities, from 0 on",
        "Name the span group that relations count in: spans_key",
    )
