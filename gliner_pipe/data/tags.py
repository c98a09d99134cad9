"""Tag schemes of column files: which one a file uses, and from tags to entities."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal

Scheme = Literal["IO", "IOB1", "BIO", "BIOUL", "BIOES"]

#: The prefixes that each scheme has besides O.
PREFIXES: dict[str, frozenset[str]] = {
    "IO": frozenset("I"),
    "IOB1": frozenset("BI"),
    "BIO": frozenset("BI"),
    "BIOUL": frozenset("BIUL"),
    "BIOES": frozenset("BIES"),
}

_PREFIXED = re.compile(r"([BIULES])-(.+)", re.DOTALL)
_LOOKS_PREFIXED = re.compile(r"[A-Za-z]-")


def split_tag(tag: str) -> tuple[str, str] | None:
    """Return prefix and label of a tag such as ``B-person``; None when it has no prefix."""
    match = _PREFIXED.fullmatch(tag)
    return (match[1], match[2].strip()) if match and match[2].strip() else None


def is_tag(tag: str, scheme: str) -> bool:
    """Say whether `tag` may stand in a file of `scheme`; in ``IO`` a bare label may, too."""
    if tag == "O":
        return True
    parts = split_tag(tag)
    if parts is None:
        return scheme == "IO" and tag not in "BIULES" and not _LOOKS_PREFIXED.match(tag)
    return parts[0] in PREFIXES[scheme]


def detect_scheme(sentences: Iterable[Sequence[str]]) -> str:
    """Return the scheme that the tags of a file are written in.

    ``BIO`` and ``IOB1`` have the same prefixes: it is ``IOB1`` when ``B-`` stands only between two entities
    of one label, while entities begin with ``I-``. Where nothing decides, it is ``BIO``.
    """
    prefixes: set[str] = set()
    bare = 0
    opening_b = opening_i = 0
    for tags in sentences:
        before = None
        for tag in tags:
            parts = split_tag(tag)
            if parts is None:
                bare += tag != "O"
            else:
                prefixes.add(parts[0])
                follows = before == parts[1]
                opening_b += parts[0] == "B" and not follows
                opening_i += parts[0] == "I" and not follows
            before = parts[1] if parts else None
    if prefixes & set("UL"):
        return "BIOUL"
    if prefixes & set("ES"):
        return "BIOES"
    if "B" in prefixes:
        return "IOB1" if opening_i and not opening_b else "BIO"
    return "IO" if prefixes or bare else "BIO"


def decode_tags(tags: Sequence[str], scheme: str, report: Counter[str]) -> list[tuple[int, int, str]]:
    """Return the entities of one sentence.

    A sequence that the scheme does not allow is read in the most natural way and counted in `report`: ``I-``
    without its ``B-`` opens an entity, an entity that is never closed ends where the next one begins.

    Parameters
    ----------
    tags
        Tags that passed :func:`is_tag`.
    scheme
        One of :data:`PREFIXES`.
    report
        Takes the counts.

    Returns
    -------
    list of (int, int, str)
        First word, word behind the last, label.
    """
    entities: list[tuple[int, int, str]] = []
    start, label = 0, ""
    closes = scheme in ("BIOUL", "BIOES")

    def close(end: int, proper: bool) -> None:
        nonlocal label
        if label:
            entities.append((start, end, label))
            if closes and not proper:
                report["entity without its last tag L- or E- (closed)"] += 1
        label = ""

    for position, tag in enumerate(tags):
        if tag == "O":
            close(position, False)
            continue
        prefix, name = split_tag(tag) or ("I", tag)
        if prefix in "BUS" or name != label:
            close(position, False)
            if prefix in "ILE" and scheme not in ("IO", "IOB1"):
                report[f"{prefix}- without B- before it (read as the beginning)"] += 1
            start, label = position, name
        if prefix in "ULES":
            close(position + 1, True)
    close(len(tags), False)
    return entities
