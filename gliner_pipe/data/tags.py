"""The codec of tags: schemes (IO, IOB1, BIO, BIOUL, BIOES), prefix dialects, ids, and tags decoded to entities."""

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

#: Scheme of a table of tags; ``"plain"`` takes each tag as a label, ``"auto"`` infers the scheme from the data.
TagScheme = Literal["auto", "plain"] | Scheme

#: Tags in the order of their ids, or tags by id (config files have strings as ids).
TagNames = list[str] | dict[str, str] | dict[int, str]

#: The prefixes of each scheme, besides O.
PREFIXES: dict[str, frozenset[str]] = {
    "IO": frozenset("I"),
    "IOB1": frozenset("BI"),
    "BIO": frozenset("BI"),
    "BIOUL": frozenset("BIUL"),
    "BIOES": frozenset("BIES"),
}

OUTSIDE = "O"

_PREFIXED = re.compile(r"([BIULES])-(.+)", re.DOTALL)
_LOOKS_PREFIXED = re.compile(r"[A-Za-z]-")

#: Dialects of the tag names of models: prefix or suffix, separated by a hyphen or an underscore.
_DIALECTS = tuple(
    re.compile(pattern)
    for pattern in (
        r"(?P<prefix>[BIELUSM])-(?P<label>.+)",
        r"(?P<prefix>[BIELUSM])_(?P<label>.+)",
        r"(?P<label>.+)-(?P<prefix>[BIELUSM])",
        r"(?P<label>.+)_(?P<prefix>[BIELUSM])",
    )
)
#: Prefixes of BIOES and BMES as prefixes of BIOUL.
_AS_BIOUL = {"E": "L", "S": "U", "M": "I"}


def split_tag(tag: str) -> tuple[str, str] | None:
    """Return prefix and label of a tag such as ``B-person``; None if it has no prefix."""
    match = _PREFIXED.fullmatch(tag)
    return (match[1], match[2].strip()) if match and match[2].strip() else None


def split_tag_names(names: Sequence[str]) -> list[tuple[str, str] | None]:
    """Return prefix and label of each tag name of a model, with the prefixes of BIOUL; None for ``O``.

    All names must share one dialect: ``B-person``, ``B_person``, ``person-B`` or ``person_B``. Without a shared
    dialect, a name that has no ``B-`` or ``I-`` is a label and counts as inside, as transformers reads it; without an
    ``O`` as well, each word has a label and the prefix is ``W``.
    """
    others = [name for name in names if name != OUTSIDE]
    parts: list[tuple[str, str]] | None = None
    for dialect in _DIALECTS:
        matches = [match for match in map(dialect.fullmatch, others) if match is not None]
        if len(matches) == len(others):
            parts = [(_AS_BIOUL.get(m["prefix"], m["prefix"]), m["label"].strip()) for m in matches]
            break
    if parts is None and len(others) == len(names):
        parts = [("W", name) for name in others]
    if parts is None:
        dashed = [(re.fullmatch(r"([BI])-(.+)", name), name) for name in others]
        parts = [(match[1], match[2].strip()) if match else ("I", name) for match, name in dashed]
    rest = iter(parts)
    return [None if name == OUTSIDE else next(rest) for name in names]


def is_tag(tag: str, scheme: str) -> bool:
    """Whether `tag` is valid in `scheme`; ``IO`` also accepts a label without prefix."""
    if tag == OUTSIDE:
        return True
    parts = split_tag(tag)
    if parts is None:
        return scheme == "IO" and tag not in "BIULES" and not _LOOKS_PREFIXED.match(tag)
    return parts[0] in PREFIXES[scheme]


def tags_of(scheme: str) -> str:
    """Return the valid tags of `scheme`, for error messages."""
    prefixes = ", ".join(f"{prefix}-label" for prefix in "BIULES" if prefix in PREFIXES[scheme])
    return f"{OUTSIDE}, {prefixes} (scheme {scheme})"


def detect_scheme(sentences: Iterable[Sequence[str]]) -> str:
    """Infer the scheme of all tags of a file.

    ``BIO`` and ``IOB1`` have the same prefixes: the scheme is ``IOB1`` if ``B-`` occurs only between two entities of
    one label while entities begin with ``I-``. Where nothing decides, it is ``BIO``.
    """
    prefixes: set[str] = set()
    bare = 0
    opening_b = opening_i = 0
    for tags in sentences:
        before = None
        for tag in tags:
            parts = split_tag(tag)
            if parts is None:
                bare += tag != OUTSIDE
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


def find_scheme(scheme: str, tag_lists: Sequence[Sequence[str]], report: Counter[str]) -> str:
    """Return `scheme`, or the inferred scheme of `tag_lists` if it is ``"auto"``.

    Data in which every tag begins with ``B-`` and equal tags are adjacent probably repeat one tag over an entity of
    several words. BIO reads these as separate entities; `report` counts them.
    """
    if scheme == "auto":
        scheme = detect_scheme(tag_lists)
    if scheme == "BIO" and not any(tag.startswith("I-") for tags in tag_lists for tag in tags):
        pairs = (pair for tags in tag_lists for pair in pairwise(tags))
        repeated = sum(one == other and one.startswith("B-") for one, other in pairs)
        if repeated:
            report["B- after the same B-, in data without any I- (read as separate entities)"] += repeated
    return scheme


def decode_tags(tags: Sequence[str], scheme: str, report: Counter[str]) -> list[Entity]:
    """Return the entities of one sentence.

    Sequences that the scheme does not allow are repaired and counted in `report`: ``I-`` without ``B-`` opens an
    entity, and an entity that is never closed ends where the next one begins.

    Parameters
    ----------
    tags
        Tags that passed :func:`is_tag`.
    scheme
        One of :data:`PREFIXES`.
    report
        Receives the counts.

    Returns
    -------
    list of (int, int, str)
        First word, end (exclusive) and label of each entity.
    """
    entities: list[Entity] = []
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
        if tag == OUTSIDE:
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


def tag_entities(
    place: Place, field: str, tags: Sequence[str], scheme: str, report: Counter[str]
) -> list[Entity]:
    """Return the entities of one text; invalid sequences are repaired as in :func:`decode_tags`.

    Raises
    ------
    DataError
        A tag that is not valid in `scheme`.
    """
    if scheme == "plain":
        return decode_tags([tag if tag == OUTSIDE else f"I-{tag}" for tag in tags], "IO", report)
    for position, tag in enumerate(tags):
        if not is_tag(tag, scheme):
            do = 'Check tags and tag_names; scheme = "plain" takes tags as labels'
            raise place.error(f"{field}[{position}]", f"is {tag!r}", tags_of(scheme), do)
    return decode_tags(tags, scheme, report)


def tags_by_id(tag_names: TagNames | None) -> dict[int, str] | None:
    """Return the tag of each id; None if `tag_names` is None.

    Raises
    ------
    ConfigError
        An id is not a whole number, or a tag is not a string.
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
            raise ConfigError("tag_names", f"contains {number!r}: {tag!r}", allowed)
        try:
            named[int(number)] = tag.strip()
        except ValueError:
            raise ConfigError("tag_names", f"has the id {number!r}", allowed) from None
    return named


def is_tag_list(value: Any) -> bool:
    """Whether `value` is a list of tags or ids of tags rather than of entities; False for an empty list."""
    return isinstance(value, list) and bool(value) and all(isinstance(item, (str, int)) for item in value)


def tag_list(
    place: Place, field: str, value: Any, words: int, words_field: str, names: Mapping[int, str] | None
) -> list[str]:
    """Return the tags of one text, with ids replaced by tags.

    Parameters
    ----------
    place, field
        Record and field of `value`.
    value
        List of strings or whole numbers.
    words
        Number of words.
    words_field
        Field of the words.
    names
        Tags by id.

    Raises
    ------
    DataError
        Not a list, another number of tags than words, or an id without a tag.
    """
    if not isinstance(value, list):
        raise place.error(field, f"is {shown(value)}", "a list with one tag for each word")
    if len(value) != words:
        found = f"has {len(value)} tags, {words_field} has {words} words"
        raise place.error(field, found, "one tag for each word", "Correct or remove the row")
    return [_tag(place, f"{field}[{i}]", item, names) for i, item in enumerate(value)]


def _tag(place: Place, field: str, value: Any, names: Mapping[int, str] | None) -> str:
    is_id = isinstance(value, int) and not isinstance(value, bool)
    if isinstance(value, str):
        tag = value.strip()
        if not tag:
            raise place.error(field, f"is the empty tag {value!r}", 'a tag such as "B-person", or "O"')
        if not tag.removeprefix("-").isdecimal():
            check_characters(place, field, tag)
            return tag
        value, is_id = int(tag), True
    if not is_id:
        raise place.error(field, f"is {shown(value)}", "a tag, or the id of a tag")
    if names is None:
        do = 'Name the tags in the order of their ids: tag_names = ["O", "B-person", "I-person", ...]'
        raise place.error(field, f"is {value}, an id without a known tag", "tags, or ids with tag_names", do)
    if value not in names:
        known = ", ".join(f"{number} ({tag})" for number, tag in list(names.items())[:20])
        raise place.error(field, f"is {value}, an id without a tag", known, "Complete tag_names")
    return names[value]
