"""Lists of tags or of ids of tags, as data sets store them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gliner_pipe.data.fields import check_characters, shown
from gliner_pipe.data.files import Place
from gliner_pipe.data.tags import OUTSIDE
from gliner_pipe.errors import ConfigError, DataError
from gliner_pipe.util.plurals import number_of

#: Tags in the order of their ids; tags by id, or ids by tag; new tags by the tags of the data.
TagNames = list[str] | dict[str, str] | dict[int, str] | dict[str, int]


def tags_by_id(tag_names: TagNames | None) -> dict[int | str, str] | None:
    """Return the tag of each id; None if `tag_names` is None.

    A mapping may have ids as keys or, as ``label2id`` does, tags as keys. A mapping from tags to tags renames them.

    Raises
    ------
    ConfigError
        An id is not a whole number, two tags have one id, or a tag is not a string.
    """
    if tag_names is None:
        return None
    allowed = (
        'a list of tags such as ["O", "B-person", "I-person"], a mapping between ids and tags, '
        "or from the tags of the data to tags"
    )
    if not isinstance(tag_names, (list, tuple, Mapping)) or not tag_names:
        raise ConfigError("tag_names", f"is {tag_names!r}", allowed)
    pairs = list(tag_names.items() if isinstance(tag_names, Mapping) else enumerate(tag_names))
    if all(_id_of(tag) is not None and _id_of(key) is None for key, tag in pairs):
        pairs = [(tag, key) for key, tag in pairs]  # label2id
    named: dict[int | str, str] = {}
    renames = all(isinstance(key, str) and _id_of(key) is None for key, _ in pairs) and any(
        tag != OUTSIDE for _, tag in pairs
    )
    for key, tag in pairs:
        place = str(key) if renames else _id_of(key)
        if place is None:
            raise ConfigError("tag_names", f"has the id {key!r}", allowed)
        if not isinstance(tag, str) or not tag.strip():
            raise ConfigError("tag_names", f"contains {key!r}: {tag!r}", allowed)
        if place in named:
            raise ConfigError("tag_names", f"has the id {place} twice ({named[place]}, {tag})", allowed)
        named[place] = tag.strip()
    return named


def _id_of(value: Any) -> int | None:
    """Return the id that `value` is or writes; None if it is none."""
    if isinstance(value, str) and value.strip().removeprefix("-").isdecimal():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def is_tag_list(value: Any) -> bool:
    """Whether `value` is a list of tags or ids of tags rather than of entities; False for an empty list."""
    return isinstance(value, list) and bool(value) and all(isinstance(item, (str, int)) for item in value)


def tag_list(
    place: Place, field: str, value: Any, words: int, words_field: str, names: Mapping[int | str, str] | None
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
        Tags by id, or by the tags of the data.

    Raises
    ------
    DataError
        Not a list, another number of tags than words, or an id without a tag.
    """
    if not isinstance(value, list):
        raise place.error(field, f"is {shown(value)}", "a list with one tag for each word")
    if len(value) != words:
        found = f"has {number_of(len(value), 'tag')}, {words_field} has {number_of(words, 'word')}"
        raise place.error(field, found, "one tag for each word", "Correct or remove the row")
    if names is None:
        tags = [tag_of(item, None) for item in value]
    else:
        tags = [names.get(item) if type(item) is int else tag_of(item, names) for item in value]
    if None in tags:
        raise _no_tag(place, field, value, tags.index(None), names)
    check_characters(place, field, "".join(filter(None, tags)))
    return [tag for tag in tags if tag is not None]


def tag_of(value: Any, names: Mapping[int | str, str] | None) -> str | None:
    """Return the tag that `value` is, or that is its id; None if there is none."""
    if isinstance(value, str):
        tag = value.strip()
        if names is not None and tag in names:
            return names[tag]
        if not tag.removeprefix("-").isdecimal():
            return tag or None
    number = _id_of(value)
    return None if number is None or names is None else names.get(number)


def _no_tag(
    place: Place, field: str, value: list[Any], position: int, names: Mapping[int | str, str] | None
) -> DataError:
    """Return the error about an item of a list of tags that is no tag."""
    item = value[position]
    where = f"{field}[{position}]"
    if isinstance(item, str) and not item.strip():
        return place.error(where, f"is the empty tag {item!r}", 'a tag such as "B-person", or "O"')
    if _id_of(item) is None:
        return place.error(where, f"is {shown(item)}", "a tag, or the id of a tag")
    if names is None:
        do = 'Name the tags in the order of their ids: tag_names = ["O", "B-person", "I-person", ...]'
        others = list(dict.fromkeys(other for other in value[position + 1 :] if other != item))[:2]
        more = "".join(f", {field}[{value.index(other)}] is {shown(other)}" for other in others)
        found = f"is {item}, an id without a known tag{more}"
        return place.error(where, found, "tags, or ids with tag_names", do)
    known = ", ".join(f"{number} ({tag})" for number, tag in list(names.items())[:20])
    return place.error(where, f"is {item}, an id without a tag", known, "Complete tag_names")
