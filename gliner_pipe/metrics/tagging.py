"""Entities as tags of words, and tags as entities: the view of data in columns, for scores that are made on it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from gliner_pipe.errors import DataError
from gliner_pipe.metrics.counts import Mention

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
