"""The names of tags that other systems have, and the tags of our decoders."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from gliner_pipe.decoders.tags_base import Scheme, TagTables

OUTSIDE = "O"
GENERIC = re.compile(r"LABEL_\d+")
#: Where the prefix of a tag stands, and what parts it from the label.
_STYLES = tuple(
    re.compile(pattern)
    for pattern in (
        r"(?P<prefix>[BIELUSM])-(?P<label>.+)",
        r"(?P<prefix>[BIELUSM])_(?P<label>.+)",
        r"(?P<label>.+)-(?P<prefix>[BIELUSM])",
        r"(?P<label>.+)_(?P<prefix>[BIELUSM])",
    )
)
#: BIOES and BMES by the letters of BIOUL.
_SAME = {"E": "L", "S": "U", "M": "I"}


class TagNames(NamedTuple):
    """What the outputs of a model mean.

    Attributes
    ----------
    scheme
        That of the decoder which has such tags.
    labels
        In the order of the outputs.
    places
        Output of each tag, by our name of the tag.
    """

    scheme: Scheme
    labels: tuple[str, ...]
    places: dict[str, int]

    def rows(self, scheme: Scheme) -> list[int | None]:
        """Return the output of each tag of a decoder, in its order; None for a tag that the model does not have."""
        names = TagTables.make(scheme, self.labels, chain_a_label=False).names
        return [self.places.get(name) for name in names]


def read_tags(names: Sequence[str]) -> TagNames:
    """Find out how tags are written: ``B-person``, ``B_person`` or ``person-B`` with the letters of IO, BIO, BIOUL,
    BIOES or BMES, in any order, or labels without a prefix, with ``O`` (IO) or without (a label for each word).

    Parameters
    ----------
    names
        The name of each output.

    Raises
    ------
    ValueError
        If two outputs are the same tag, or none is any.
    """
    names = [name.strip() for name in names]
    outside = [place for place, name in enumerate(names) if name == OUTSIDE]
    others = {place: name for place, name in enumerate(names) if name != OUTSIDE}
    if not others or "" in names:
        raise ValueError(f"names no label ({', '.join(map(repr, names)) or 'nothing'})")
    parsed = _parsed(others, bool(outside))
    labels = tuple(dict.fromkeys(label for _, label in parsed.values()))
    prefixes = {prefix for prefix, _ in parsed.values()}
    scheme: Scheme = (
        "word" if "W" in prefixes else "bioul" if prefixes & set("LU") else "bio" if "B" in prefixes else "io"
    )
    named = [(OUTSIDE, place) for place in outside]
    named += [
        (label if scheme == "word" else f"{prefix}-{label}", place)
        for place, (prefix, label) in parsed.items()
    ]
    doubles = [name for name, count in Counter(name for name, _ in named).items() if count > 1]
    if doubles:
        raise ValueError(f"has the tag {doubles[0]!r} twice")
    return TagNames(scheme, labels, dict(named))


def _parsed(names: Mapping[int, str], has_outside: bool) -> dict[int, tuple[str, str]]:
    """Return prefix and label of each tag, in the letters of BIOUL; ``W`` where words have labels."""
    for style in _STYLES:
        matches = {place: style.fullmatch(name) for place, name in names.items()}
        found = [match for match in matches.values() if match is not None]
        if len(found) == len(names):
            return {
                place: (_SAME.get(match["prefix"], match["prefix"]), match["label"].strip())
                for place, match in zip(matches, found, strict=True)
            }
    if not has_outside:
        return {place: ("W", name) for place, name in names.items()}
    # as transformers reads it: what has no prefix is inside
    dashed = {place: re.fullmatch(r"([BI])-(.+)", name) for place, name in names.items()}
    return {
        place: (match[1], match[2].strip()) if (match := dashed[place]) else ("I", name)
        for place, name in names.items()
    }
