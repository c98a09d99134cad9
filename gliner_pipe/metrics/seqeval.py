"""Scores of token tags as the package ``seqeval`` computes them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from spacy.training import Example

from gliner_pipe.data.annotations import has_entities_annotated
from gliner_pipe.data.tags import decode_tags
from gliner_pipe.errors import DataError
from gliner_pipe.metrics.alignment import get_scores, paired_spans
from gliner_pipe.metrics.base import SpanScorer
from gliner_pipe.metrics.counts import (
    Counts,
    LabelCounts,
    Mention,
    add_counts,
    count_exact,
    score_row,
    sum_counts,
)
from gliner_pipe.registry import registry

#: How entities are written as tags.
TagScheme = Literal["IOB2", "IOE2", "IOBES", "BILOU"]

#: How tags are read: ``strict`` accepts only entities that follow the scheme, ``lenient`` repairs invalid tags.
TagMode = Literal["strict", "lenient"]


class _Prefixes(NamedTuple):
    """Prefixes of the first word of an entity, of words inside it, of its last word, and of its only word."""

    first: str
    inside: str
    last: str
    only: str


SCHEMES: dict[str, _Prefixes] = {
    "IOB2": _Prefixes("B", "I", "I", "B"),
    "IOE2": _Prefixes("I", "I", "E", "E"),
    "IOBES": _Prefixes("B", "I", "E", "S"),
    "BILOU": _Prefixes("B", "I", "L", "U"),
}
_OUTSIDE = ("O", "")


def resolve(mentions: Sequence[Mention], scores: Sequence[float | None]) -> tuple[list[Mention], int]:
    """Select entities that do not overlap: highest score first, then the longest, then the first in the text.

    Parameters
    ----------
    mentions
        Entities of one document; duplicates count once.
    scores
        Score of each entity, or None; entities without a score rank last.

    Returns
    -------
    tuple of list of Mention and int
        The selected entities in the order of the text, and the number of dropped entities.
    """
    best: dict[Mention, tuple[bool, float]] = {}
    for mention, score in zip(mentions, scores, strict=True):
        rank = (score is None, -(score or 0.0))
        best[mention] = min(rank, best.get(mention, rank))
    order = sorted(best, key=lambda item: (best[item], item[1] - item[2], item[1], item[0]))
    taken: set[int] = set()
    kept = []
    for mention in order:
        words = range(mention[1], mention[2])
        if taken.isdisjoint(words):
            taken.update(words)
            kept.append(mention)
    return sorted(kept, key=lambda item: item[1]), len(best) - len(kept)


def to_tags(mentions: Iterable[Mention], n_words: int, scheme: TagScheme = "IOB2") -> list[str]:
    """Convert entities that do not overlap to one tag for each word.

    Parameters
    ----------
    mentions
        Label, first word, one past the last word.
    n_words
        Number of words of the document.
    scheme
        One of `SCHEMES`.
    """
    prefixes = SCHEMES[scheme]
    tags = ["O"] * n_words
    for label, start, end in mentions:
        length = end - start
        row = [prefixes.only] * length
        if length > 1:
            row = [prefixes.first, *[prefixes.inside] * (length - 2), prefixes.last]
        tags[start:end] = [f"{prefix}-{label}" for prefix in row]
    return tags


def from_tags(
    tags: Sequence[str], scheme: TagScheme = "IOB2", mode: TagMode = "strict"
) -> list[tuple[str, int, int]]:
    """Convert the tags of one document to entities, in the order of the text.

    Parameters
    ----------
    tags
        ``O``, or a prefix, a hyphen and the label.
    scheme
        Scheme of the tags; ``lenient`` accepts the prefixes of all schemes.
    mode
        ``strict``: an entity follows the scheme from its first to its last tag; anything else is ignored.
        ``lenient``: as in ``conlleval``, each run of words of one label is an entity, split before a tag that begins an
        entity and after a tag that ends one.

    Raises
    ------
    DataError
        If a tag is invalid, or of another scheme (``strict``).
    """
    read = [_split(tag, scheme if mode == "strict" else None) for tag in tags]
    if mode == "strict":
        return _strict(read, SCHEMES[scheme])
    return [(label, start, end) for start, end, label in decode_tags(tags, "BIOES", Counter())]


def _split(tag: str, scheme: str | None) -> tuple[str, str]:
    """Return the prefix and the label of a tag."""
    if tag == "O":
        return _OUTSIDE
    allowed = sorted(
        {prefix for row in ([SCHEMES[scheme]] if scheme else SCHEMES.values()) for prefix in row}
    )
    if tag[:1] not in allowed or tag[1:2] != "-" or not tag[2:].strip():
        wanted = f"O, or {', '.join(allowed)} with a hyphen and a label"
        raise DataError("tags:", f"hold {tag!r}", wanted, f"Use e.g. {allowed[0]}-person")
    return tag[0], tag[2:]


def _strict(tags: Sequence[tuple[str, str]], prefixes: _Prefixes) -> list[Mention]:
    found = []
    previous, at = _OUTSIDE, 0
    while at < len(tags):
        start = at
        at += 1
        if _opens(previous, tags[start], prefixes):
            while at < len(tags) and _continues(tags[at - 1], tags[at], prefixes):
                at += 1
            # in a scheme with a prefix for the last word, the entity must end with it
            if prefixes.last == prefixes.inside or tags[at - 1][0] in (prefixes.last, prefixes.only):
                found.append((tags[start][1], start, at))
        previous = tags[at - 1]
    return found


def _opens(previous: tuple[str, str], tag: tuple[str, str], prefixes: _Prefixes) -> bool:
    if prefixes.first == prefixes.inside:  # the scheme has no prefix for the first word
        return tag != _OUTSIDE and previous != (prefixes.inside, tag[1])
    return tag[0] in (prefixes.first, prefixes.only)


def _continues(previous: tuple[str, str], tag: tuple[str, str], prefixes: _Prefixes) -> bool:
    begun = previous[0] in (prefixes.first, prefixes.inside)
    return begun and tag[0] in (prefixes.inside, prefixes.last) and tag[1] == previous[1]


def score_tags(
    gold: Iterable[Sequence[str]],
    predicted: Iterable[Sequence[str]],
    *,
    scheme: TagScheme = "IOB2",
    mode: TagMode = "strict",
    labels: Sequence[str] = (),
) -> dict[str, Any]:
    """Score tagged documents by their entities.

    Use it on the output of a tagger, to compare with published scores.

    Parameters
    ----------
    gold, predicted
        A sequence of tags for each document, of the same length on both sides.
    scheme
        Scheme of the tags.
    mode
        ``strict`` or ``lenient``; see `from_tags`. Both give the same entities for tags that follow their scheme.
    labels
        Labels that get a row even without any entity.

    Returns
    -------
    dict[str, Any]
        ``micro`` (all entities together), ``macro`` (mean over the labels that occur in gold or predictions),
        ``weighted`` (the same mean, weighted by gold entities), ``accuracy`` (share of words with the correct tag) and
        ``per_class`` with a row of `score_row` for each label. A mean has ``p``, ``r``, ``f`` and ``labels``, the
        number of labels averaged. Values are None if there is nothing to measure.

    Raises
    ------
    DataError
        If the two sides differ in their number of tags, or a tag is invalid.
    """
    totals: LabelCounts = {label: Counts() for label in labels}
    words = right = 0
    for number, (truth, guess) in enumerate(zip(gold, predicted, strict=True)):
        if len(truth) != len(guess):
            raise DataError(
                f"document {number}:", f"has {len(truth)} gold and {len(guess)} predicted tags", "as many"
            )
        words += len(truth)
        right += sum(one == other for one, other in zip(truth, guess, strict=True))
        sides = (set(from_tags(tags, scheme, mode)) for tags in (truth, guess))
        add_counts(totals, count_exact(*sides))
    rows = {label: score_row(totals[label]) for label in sorted(totals)}
    present = [row for row in rows.values() if row["f"] is not None]
    return {
        "micro": score_row(sum_counts(totals.values())),
        "macro": _mean(present, [1] * len(present)),
        "weighted": _mean(present, [row["support"] for row in present]),
        "per_class": rows,
        "accuracy": right / words if words else None,
    }


def _mean(rows: Sequence[Mapping[str, Any]], weights: Sequence[int]) -> dict[str, Any]:
    total = sum(weights)
    mean: dict[str, Any] = {}
    for key in "prf":
        products = (weight * row[key] for row, weight in zip(rows, weights, strict=True))
        mean[key] = sum(products) / total if total else (0.0 if rows else None)
    return {**mean, "labels": len(rows)}


@registry.scorers.register("gliner_pipe.seqeval")
@dataclass(eq=False)
class SeqevalScorer(SpanScorer):
    """Scores entities as the package ``seqeval`` does, over the words of whole documents.

    Use it to compare with token classifiers, which are usually scored this way. Words are those of the gold document,
    never subword tokens, and documents are not truncated. A word has one tag: of overlapping spans the one with the
    highest score is kept, then the longest. Use `gliner_pipe.metrics.spans.ExactScorer` for nested entities.

    The result is that of `score_tags`, and ``overlapping``, the number of gold and predicted spans that were dropped.

    Parameters
    ----------
    span_getter, predicted_getter, labels
        See `SpanScorer`.
    mode
        ``strict`` or ``lenient``. Tags made from spans follow their scheme, so both give the same result; see
        `score_tags` for tags that do not.
    scheme
        ``IOB2``, ``IOE2``, ``IOBES`` or ``BILOU``. The entities are the same in all; ``accuracy`` compares whole tags,
        so a scheme with more prefixes is harder.
    """

    mode: TagMode = "strict"
    scheme: TagScheme = "IOB2"

    def __call__(self, examples: Iterable[Example], **_: Any) -> dict[str, Any]:
        """Score the examples."""
        dropped = Counter(gold=0, predicted=0)
        known = (example for example in examples if has_entities_annotated(example.reference))
        tagged = [self._tags(example, dropped) for example in known]
        scores = score_tags(
            [gold for gold, _ in tagged],
            [predicted for _, predicted in tagged],
            scheme=self.scheme,
            mode=self.mode,
            labels=self.labels or (),
        )
        return {**scores, "overlapping": dict(dropped)}

    def _tags(self, example: Example, dropped: Counter[str]) -> list[list[str]]:
        """Return gold and predicted tags of the words of the reference."""
        gold, predicted = paired_spans(example, *self.getters, "tokens")
        scores = get_scores(example.predicted, self.getters[1])
        n_words = sum(not token.is_space for token in example.reference)
        tags = []
        for side, mentions, ranks in (("gold", gold, [None] * len(gold)), ("predicted", predicted, scores)):
            pairs = [
                (mention, score)
                for mention, score in zip(mentions, ranks, strict=True)
                if mention is not None and (self.labels is None or mention[0] in self.labels)
            ]
            kept, n_dropped = resolve([mention for mention, _ in pairs], [score for _, score in pairs])
            dropped[side] += n_dropped
            tags.append(to_tags(kept, n_words, self.scheme))
        return tags
