"""Columns of CoNLL-U: numbered words, multiword tokens, empty nodes, and entities and blanks in the last column."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence

from gliner_pipe.data.fields import count
from gliner_pipe.data.files import Place
from gliner_pipe.data.tags import OUTSIDE, has_prefixes

#: Column of the words, and number of columns of a complete file.
FORM, COLUMNS = 1, 10
#: Keys of the last column that hold entities, in order of preference.
KEYS = ("NER", "ner", "Entity", "entity", "name", "Name", "NE", "ne")

_WORD, _EMPTY_NODE = re.compile("[0-9]{1,18}"), re.compile(r"[0-9]+\.[0-9]+")
_RANGE = re.compile("([0-9]{1,18})-([0-9]{1,18})")

#: The columns of one line.
Columns = Sequence[str]


def is_numbered(rows: Sequence[Columns]) -> bool:
    """Whether the first column of a sentence numbers its words from 1 on.

    A single word is not enough, unless there are as many columns as in a complete file.
    """
    ids = [row[0] for row in rows if _WORD.fullmatch(row[0])]
    others = [row[0] for row in rows if not _WORD.fullmatch(row[0])]
    return (
        (len(ids) > 1 or (len(ids) == 1 and len(rows[0]) == COLUMNS))
        and len(rows[0]) > FORM + 1
        and ids == [str(number + 1) for number in range(len(ids))]
        and all(_RANGE.fullmatch(one) or _EMPTY_NODE.fullmatch(one) for one in others)
    )


def begins(row: Columns) -> bool:
    """Whether the line is the first of a sentence: word 1, a multiword token or an empty node before it."""
    return re.fullmatch(r"1(-\d+)?|0\.\d+", row[0]) is not None


def words_of(
    rows: Sequence[Columns], at: Callable[[int], Place], report: Counter[str]
) -> tuple[list[int], list[bool]]:
    """Return the positions of the words of a sentence, and whether a blank follows each.

    Multiword tokens and empty nodes are left out and counted in `report`. There are no blanks between the words of a
    multiword token that together spell it (``do`` and ``n't``).

    Parameters
    ----------
    rows
        The columns of the lines of the sentence.
    at
        Returns the place of a line by its position.
    report
        Receives the counts.

    Raises
    ------
    DataError
        The first column of a line is not a number.
    """
    kept: list[int] = []
    inside: dict[int, bool] = {}  # whether a blank follows a word of a multiword token, by its number
    for position, row in enumerate(rows):
        if found := _RANGE.fullmatch(row[0]):
            numbers = range(int(found[1]), min(int(found[2]), int(found[1]) + len(rows)) + 1)
            words = [other[FORM] for other in rows[position + 1 : position + 1 + len(numbers)]]
            inside |= dict.fromkeys(numbers, "".join(words) != row[FORM])
            inside[numbers.stop - 1] = _blank_follows(row)
            count(report, "multiword token (its words are read)", at(position))
        elif _EMPTY_NODE.fullmatch(row[0]):
            count(report, "empty node (left out)", at(position))
        elif _WORD.fullmatch(row[0]):
            kept.append(position)
        else:
            allowed = "the number of a word, as in the first sentence"
            do = "Check token_column, tag_column and separator"
            raise at(position).error("column 0", f"is {row[0]!r}", allowed, do)
    return kept, [inside.get(int(rows[i][0]), True) and _blank_follows(rows[i]) for i in kept]


def _blank_follows(row: Columns) -> bool:
    return "SpaceAfter=No" not in row[-1].split("|")


def tags_of_words(rows: Sequence[Columns], place: Place) -> list[str]:
    """Return the tag of each word of a file: of the only column with tags, or of a key in the last column.

    Parameters
    ----------
    rows
        The columns of all words of the file.
    place
        The first word, for messages.

    Raises
    ------
    DataError
        Several columns have tags, or there are no tags.
    """
    columns = {i: {row[i].strip() for row in rows} for i in range(FORM + 1, len(rows[0]))}
    tagged = [i for i, known in columns.items() if has_prefixes(known)]
    tagged = tagged or [i for i, known in columns.items() if known == {OUTSIDE}]
    do = f"Set token_column = {FORM} and tag_column"
    if len(tagged) > 1:
        found = f"has tags in the columns {', '.join(map(str, tagged))}"
        raise place.error("columns", found, "one column of tags", do)
    if tagged:
        return [row[tagged[0]].strip() for row in rows]
    last = [dict(part.partition("=")[::2] for part in row[-1].split("|")) for row in rows]
    values = {
        key: [one.get(key) or OUTSIDE for one in last]
        for key in dict.fromkeys(k for one in last for k in one)
    }
    with_prefixes = [key for key, tags in values.items() if has_prefixes(set(tags))]
    chosen = [key for key in KEYS if key in (with_prefixes or values)] or with_prefixes
    if not chosen:
        found = f"has no column of tags, and no entities in the last column (keys: {', '.join(values)})"
        raise place.error("columns", found, f"tags in one column, or {KEYS[0]}=B-label in the last", do)
    return values[chosen[0]]
