"""Tag schemes (IOB1, IOB2, BIOES, BILOU, BMES): detection, and conversion between tags and entities."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal

from gliner_pipe.data.fields import Entity, check_characters, shown
from gliner_pipe.data.files import Place
from gliner_pipe.errors import ConfigError

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


#: How tags may be written: a scheme of column files, labels as they are, or whatever the data shows.
TagScheme = Literal["auto", "plain", "IO", "IOB1", "BIO", "BIOUL", "BIOES"]

#: The tags in the order of their ids, or tags by id (in config files an id is a text).
TagNames = list[str] | dict[str, str] | dict[int, str]

SCHEMES = ("auto", "plain", *PREFIXES)


def check_scheme(scheme: str) -> str:
    """Return `scheme` if it is one."""
    if scheme not in SCHEMES:
        raise ConfigError("scheme", f"is {scheme!r}", ", ".join(SCHEMES))
    return scheme


def tags_by_id(tag_names: TagNames | None) -> dict[int, str] | None:
    """Return the tag of each id; None when `tag_names` is None.

    Raises
    ------
    ConfigError
        If an id is no whole number, or a tag no text.
    """
    if tag_names is None:
        return None
    allowed = 'a list of tags such as ["O", "B-person", "I-person"], or a mapping from ids to tags'
    if not isinstance(tag_names, (list, tuple, Mapping)) or not tag_names:
        raise ConfigError("tag_names", f"is {tag_names!r}", allowed)
    pairs = tag_names.items() if isinstance(tag_names, Mapping) else enumerate(tag_names)
    named: dict[int, str] = {}
    for number, tag in pairs:
        if isinstance(number, bool) or not isinstance(tag, str) or not tag.strip():
            raise ConfigError("tag_names", f"holds {number!r}: {tag!r}", allowed)
        try:
            named[int(number)] = tag.strip()
        except ValueError:
            raise ConfigError("tag_names", f"has the id {number!r}", allowed) from None
    return named


def is_tag_list(value: Any) -> bool:
    """Say whether `value` is a list of tags or of their ids, and not one of entities; an empty list is neither."""
    return isinstance(value, list) and bool(value) and all(isinstance(item, (str, int)) for item in value)


def tag_list(
    place: Place, field: str, value: Any, words: int, words_field: str, names: Mapping[int, str] | None
) -> list[str]:
    """Return the tags of one text, ids turned into tags.

    Parameters
    ----------
    place, field
        Where `value` stands.
    value
        Texts, or whole numbers.
    words
        Number of words.
    words_field
        Name of the field that they stand in.
    names
        Tags by id.

    Raises
    ------
    DataError
        No list, not a tag for each word, or an id without name.
    """
    if not isinstance(value, list):
        raise place.error(field, f"is {shown(value)}", "a list of tags, one a word")
    if len(value) != words:
        found = f"has {len(value)} tags, {words_field} has {words} words"
        raise place.error(field, found, "one tag a word", "Mend or remove the row")
    return [_tag(place, f"{field}[{i}]", item, names) for i, item in enumerate(value)]


def _tag(place: Place, field: str, value: Any, names: Mapping[int, str] | None) -> str:
    is_id = isinstance(value, int) and not isinstance(value, bool)
    if isinstance(value, str):
        tag = value.strip()
        if not tag:
            raise place.error(field, f"is the empty tag {value!r}", 'a tag such as "B-person", "O" for none')
        if not tag.removeprefix("-").isdecimal():
            check_characters(place, field, tag)
            return tag
        value, is_id = int(tag), True
    if not is_id:
        raise place.error(field, f"is {shown(value)}", "a tag, or the id of one")
    if names is None:
        do = 'Name the tags by their ids: tag_names = ["O", "B-person", "I-person", ...]'
        raise place.error(
            field, f"is {value}, an id whose tag is not known", "tags, or ids with tag_names", do
        )
    if value not in names:
        known = ", ".join(f"{number} ({tag})" for number, tag in list(names.items())[:20])
        raise place.error(field, f"is {value}, an id without a tag", known, "Complete tag_names")
    return names[value]


def find_scheme(scheme: str, tag_lists: Sequence[Sequence[str]], report: Counter[str]) -> str:
    """Return the scheme of `tag_lists`, which is `scheme` unless that is ``"auto"``.

    Where all tags of a data set begin with ``B-`` although entities of several words are to be expected, it
    was probably meant otherwise; such tags are counted in `report`.
    """
    if scheme == "auto":
        scheme = detect_scheme(tag_lists)
    if scheme == "BIO" and not any(tag.startswith("I-") for tags in tag_lists for tag in tags):
        repeated = sum(
            one == other and one.startswith("B-") for tags in tag_lists for one, other in pairwise(tags)
        )
        if repeated:
            report["B- behind the same B-, in data without any I- (read as separate entities)"] += repeated
    return scheme


def tag_entities(
    place: Place, field: str, tags: Sequence[str], scheme: str, report: Counter[str]
) -> list[Entity]:
    """Return the entities of one text; what `scheme` forbids is read as :func:`decode_tags` does.

    Raises
    ------
    DataError
        A tag that cannot stand in data of `scheme`.
    """
    if scheme == "plain":
        return decode_tags([tag if tag == "O" else f"I-{tag}" for tag in tags], "IO", report)
    for position, tag in enumerate(tags):
        if not is_tag(tag, scheme):
            prefixes = ", ".join(f"{prefix}-label" for prefix in "BIULES" if prefix in PREFIXES[scheme])
            do = 'Check tags and tag_names; scheme = "plain" takes tags as labels'
            raise place.error(f"{field}[{position}]", f"is {tag!r}", f"O, {prefixes} (scheme {scheme})", do)
    return decode_tags(tags, scheme, report)
