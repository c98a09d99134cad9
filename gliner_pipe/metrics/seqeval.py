"""Scores of tagged words as the package ``seqeval`` computes them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from spacy.training import Example

from gliner_pipe.data.annotations import SpanSetter
from gliner_pipe.errors import DataError
from gliner_pipe.metrics.alignment import SpanGetter, get_scores, paired_spans
from gliner_pipe.metrics.base import ExampleScorer, LabelScorer, score_row
from gliner_pipe.metrics.counts import Counts, Mention, count_exact
from gliner_pipe.registry import registry

#: How entities are written as tags.
TagScheme = Literal["IOB2", "IOE2", "IOBES", "BILOU"]

#: How tags are read: ``strict`` takes whole entities of the scheme only, ``lenient`` whatever can be meant.
TagMode = Literal["strict", "lenient"]


class _Prefixes(NamedTuple):
    """Of the first word of an entity, those after it, the last one, and the only one."""

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
    """Choose entities that do not overlap: the highest score first, then the longest, then the first in the text.

    Parameters
    ----------
    mentions
        Of one document; one that stands twice counts once.
    scores
        Of each; None where there is none. These come after those that have one.

    Returns
    -------
    tuple of list of Mention and int
        The entities kept, in the order of the text, and how many were not.
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
    """Write entities that do not overlap as one tag a word.

    Parameters
    ----------
    mentions
        Label, first word, word after the last.
    n_words
        Words of the document.
    scheme
        One of `SCHEMES`.
    """
    prefixes = SCHEMES[scheme]
    tags = ["O"] * n_words
    for label, start, end in mentions:
        for word in range(start, end):
            prefix = prefixes.inside
            if end - start == 1:
                prefix = prefixes.only
            elif word == start:
                prefix = prefixes.first
            elif word == end - 1:
                prefix = prefixes.last
            tags[word] = f"{prefix}-{label}"
    return tags


def from_tags(
    tags: Sequence[str], scheme: TagScheme = "IOB2", mode: TagMode = "strict"
) -> list[tuple[str, int, int]]:
    """Read the entities of one document.

    Parameters
    ----------
    tags
        ``O``, or a prefix, a hyphen and the label.
    scheme
        What the tags are written in; ``lenient`` reads all of them.
    mode
        ``strict``: an entity is what the scheme allows from its first to its last tag; anything else is none.
        ``lenient``: as ``conlleval`` does it, each stretch of words of one label is an entity, cut in two before a tag
        that begins one and behind a tag that ends one.

    Returns
    -------
    list of Mention
        In the order of the text.

    Raises
    ------
    DataError
        If a tag is none, or of another scheme (``strict``).
    """
    read = [_split(tag, scheme if mode == "strict" else None) for tag in tags]
    return _strict(read, SCHEMES[scheme]) if mode == "strict" else _lenient(read)


def _split(tag: str, scheme: str | None) -> tuple[str, str]:
    """Prefix and label of a tag."""
    if tag == "O":
        return _OUTSIDE
    allowed = sorted(
        set(SCHEMES[scheme]) if scheme else {prefix for row in SCHEMES.values() for prefix in row}
    )
    if tag[:1] not in allowed or tag[1:2] != "-":
        wanted = f"O, or {', '.join(allowed)} with a hyphen and a label"
        raise DataError("tags:", f"hold {tag!r}", wanted, f"Write e.g. {allowed[0]}-person")
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
            # where the last word of an entity has a tag of its own, it must have been there
            if prefixes.last == prefixes.inside or tags[at - 1][0] in (prefixes.last, prefixes.only):
                found.append((tags[start][1], start, at))
        previous = tags[at - 1]
    return found


def _opens(previous: tuple[str, str], tag: tuple[str, str], prefixes: _Prefixes) -> bool:
    if prefixes.first == prefixes.inside:  # nothing says where an entity begins but what stands before
        return tag != _OUTSIDE and previous != (prefixes.inside, tag[1])
    return tag[0] in (prefixes.first, prefixes.only)


def _continues(previous: tuple[str, str], tag: tuple[str, str], prefixes: _Prefixes) -> bool:
    begun = previous[0] in (prefixes.first, prefixes.inside)
    return begun and tag[0] in (prefixes.inside, prefixes.last) and tag[1] == previous[1]


def _lenient(tags: Sequence[tuple[str, str]]) -> list[Mention]:
    found = []
    start = 0
    for at, (prefix, label) in enumerate([*tags, _OUTSIDE]):
        before = tags[at - 1] if at else _OUTSIDE
        new = prefix in "BSU" or before[0] in "ESLU" or before[1] != label or before == _OUTSIDE
        if before != _OUTSIDE and (new or prefix == "O"):
            found.append((before[1], start, at))
        if new:
            start = at
    return found


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
