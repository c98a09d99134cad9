"""Scores as the package ``seqeval`` makes them of tagged words, with code of our own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from spacy.training import Example

from gliner_pipe.data.annotations import SpanSetter
from gliner_pipe.errors import DataError
from gliner_pipe.metrics.base import ExampleScorer, LabelScorer, score_row
from gliner_pipe.metrics.counts import Counts, count_exact
from gliner_pipe.metrics.getters import SpanGetter, get_scores, paired_spans
from gliner_pipe.metrics.tagging import TagMode, TagScheme, from_tags, resolve, to_tags
from gliner_pipe.registry import registry


def score_tags(
    gold: Iterable[Sequence[str]],
    predicted: Iterable[Sequence[str]],
    *,
    scheme: TagScheme = "IOB2",
    mode: TagMode = "strict",
    labels: Sequence[str] = (),
) -> dict[str, Any]:
    """Score tagged documents by the entities that their tags stand for.

    Use it on the output of a tagger, to compare with figures that were published for one.

    Parameters
    ----------
    gold, predicted
        One sequence of tags a document, as many tags on both sides.
    scheme
        What the tags are written in.
    mode
        ``strict`` or ``lenient``; see `from_tags`. Tags that follow their scheme give the same entities in both.
    labels
        Labels that get a row even where no entity has them.

    Returns
    -------
    dict[str, Any]
        ``micro`` (all entities together), ``macro`` (mean over the labels that occur in gold or predictions),
        ``weighted`` (their mean, weighted by gold entities), ``accuracy`` (share of words with the right tag) and
        ``per_class`` with a row for each label. Rows are those of `score_row`; a mean has ``p``, ``r``, ``f`` and
        ``labels``, how many labels it is over. None where there is nothing to measure.

    Raises
    ------
    DataError
        If the two sides differ in their number of tags, or a tag is none.
    """
    totals: dict[str, Counts] = {label: Counts() for label in labels}
    words = right = 0
    for number, (truth, guess) in enumerate(zip(gold, predicted, strict=True)):
        if len(truth) != len(guess):
            raise DataError(
                f"document {number}:", f"has {len(truth)} gold and {len(guess)} predicted tags", "as many"
            )
        words += len(truth)
        right += sum(one == other for one, other in zip(truth, guess, strict=True))
        sides = (set(from_tags(tags, scheme, mode)) for tags in (truth, guess))
        for label, counts in count_exact(*sides).items():
            totals[label] = totals.get(label, Counts()).plus(counts)
    return {**average(totals), "accuracy": right / words if words else None}


def average(totals: Mapping[str, Counts]) -> dict[str, Any]:
    """Rows of all labels and their averages, as ``seqeval`` takes them."""
    order = sorted(totals)
    rows = {label: score_row(totals[label]) for label in order}
    micro = Counts()
    for label in order:
        micro = micro.plus(totals[label])
    present = [row for row in rows.values() if row["f"] is not None]
    return {
        "micro": score_row(micro),
        "macro": _mean(present, [1] * len(present)),
        "weighted": _mean(present, [row["support"] for row in present]),
        "per_class": rows,
    }


def _mean(rows: Sequence[Mapping[str, Any]], weights: Sequence[int]) -> dict[str, Any]:
    total = sum(weights)
    mean: dict[str, Any] = {}
    for key in "prf":
        products = (weight * row[key] for row, weight in zip(rows, weights, strict=True))
        mean[key] = sum(products) / total if total else (0.0 if rows else None)
    return {**mean, "labels": len(rows)}


class SeqevalScorer(LabelScorer):
    """Writes gold and predicted spans as tags of words and scores these.

    Parameters
    ----------
    span_getter, predicted_getter, labels
        See `LabelScorer`.
    mode
        How tags are read.
    scheme
        How tags are written.
    """

    def __init__(
        self,
        span_getter: SpanGetter = "gliner",
        predicted_getter: SpanGetter | None = None,
        labels: Sequence[str] | None = None,
        mode: TagMode = "strict",
        scheme: TagScheme = "IOB2",
    ) -> None:
        super().__init__(span_getter, predicted_getter, labels)
        self.mode, self.scheme = mode, scheme

    def __call__(self, examples: Iterable[Example], **_: Any) -> dict[str, Any]:
        """Score the examples."""
        left_out = Counter(gold=0, predicted=0)
        tagged = [self._tags(example, left_out) for example in examples]
        scores = score_tags(
            [gold for gold, _ in tagged],
            [predicted for _, predicted in tagged],
            scheme=self.scheme,
            mode=self.mode,
            labels=self.labels or (),
        )
        return {**scores, "overlapping": dict(left_out)}

    def _tags(self, example: Example, left_out: Counter[str]) -> list[list[str]]:
        """Gold and predicted tags of the words of the reference."""
        gold, predicted = paired_spans(example, self.span_getter, self.predicted_getter, "tokens")
        scores = get_scores(example.predicted, self.predicted_getter)
        n_words = sum(not token.is_space for token in example.reference)
        tags = []
        for side, mentions, ranks in (("gold", gold, [None] * len(gold)), ("predicted", predicted, scores)):
            pairs = [
                (mention, score)
                for mention, score in zip(mentions, ranks, strict=True)
                if mention is not None and (self.labels is None or mention[0] in self.labels)
            ]
            kept, dropped = resolve([mention for mention, _ in pairs], [score for _, score in pairs])
            left_out[side] += dropped
            tags.append(to_tags(kept, n_words, self.scheme))
        return tags


@registry.scorers.register("gliner_pipe.seqeval")
def make_seqeval(
    span_getter: SpanSetter = "gliner",
    predicted_getter: SpanSetter | None = None,
    labels: list[str] | None = None,
    mode: TagMode = "strict",
    scheme: TagScheme = "IOB2",
) -> ExampleScorer:
    """Score entities as the package ``seqeval`` does, over the words of whole documents.

    Use it to compare with token classifiers, whose figures are made this way. Words are those of the gold document,
    never pieces of a tokenizer, and nothing is cut off at a window. A word bears one tag: of spans that overlap, the
    one with the highest score stands, then the longest, and ``overlapping`` says how many gold and predicted spans were
    left out. Use `make_ner_exact` where spans overlap by design.

    Parameters
    ----------
    span_getter
        Where the spans stand: the key of a span group, ``"ents"``, a list, or a mapping to labels.
    predicted_getter
        Where the predicted spans stand, if elsewhere.
    labels
        The fixed set of labels; None for all labels of the whole data set.
    mode
        ``strict`` or ``lenient``. Tags made of spans follow their scheme, and both give the same; see `score_tags` for
        tags that do not.
    scheme
        ``IOB2``, ``IOE2``, ``IOBES`` or ``BILOU``. Entities are the same in all; ``accuracy`` counts whole tags, so
        that a scheme with more prefixes asks for more.

    Returns
    -------
    ExampleScorer
        A scorer with the result of `score_tags` and ``overlapping``.
    """
    return SeqevalScorer(span_getter, predicted_getter, labels, mode, scheme)
