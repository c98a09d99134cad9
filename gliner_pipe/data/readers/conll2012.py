"""Columns of CoNLL-2012 (OntoNotes): numbered words, and names in brackets such as ``(GPE*`` and ``*)``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from gliner_pipe.data.files import Place
from gliner_pipe.data.tags import OUTSIDE

#: Columns of the number of the word, the word and its names, and minimum number of columns.
NUMBER, WORD, NAMES, COLUMNS = 2, 3, 10, 12

_BRACKETS = re.compile(r"(?:\((?P<label>[^()*\s]+))?(?P<star>\*?)(?P<close>\)?)")


def is_layout(rows: Sequence[Sequence[str]]) -> bool:
    """Whether the lines of a sentence have the columns of CoNLL-2012."""
    return all(
        len(row) >= COLUMNS and row[NUMBER] == str(number) and _BRACKETS.fullmatch(row[NAMES]) is not None
        for number, row in enumerate(rows)
    )


def has_brackets(sentences: Iterable[Sequence[str]]) -> bool:
    """Whether the tags of all sentences are names in brackets."""
    tags = {tag for sentence in sentences for tag in sentence}
    return any(tag.startswith("(") for tag in tags) and all(tag and _BRACKETS.fullmatch(tag) for tag in tags)


def tags_of_brackets(brackets: Sequence[str], at: Callable[[int], Place]) -> list[str]:
    """Return the tags ``B-label``, ``I-label`` and ``O`` of names in brackets.

    Parameters
    ----------
    brackets
        The cells of a sentence.
    at
        Returns the place of a cell by its position.

    Raises
    ------
    DataError
        A bracket is not closed, or not opened.
    """
    tags: list[str] = []
    label = ""
    for position, cell in enumerate(brackets):
        match = _BRACKETS.fullmatch(cell)
        opened = match["label"] if match is not None else None
        if match is None or (opened and label) or (match["close"] and not (opened or label)):
            allowed = "(label* at the first word, *) at the last, (label) at a single one, * elsewhere"
            raise at(position).error("tag", f"is {cell!r}", allowed)
        label = opened or label
        tags.append(f"{'B' if opened else 'I'}-{label}" if label else OUTSIDE)
        label = "" if match["close"] else label
    if label:
        raise at(len(brackets) - 1).error("tag", f"ends with an open bracket ({label}", "*) at the last word")
    return tags
