"""Cells and columns of tables: lists of words in cells, fields of objects, and the usual names of columns."""

from __future__ import annotations

import ast
import io
import json
import re
import tokenize
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Any

from gliner_pipe.data.fields import shown
from gliner_pipe.data.files import Place

#: Usual names of the columns of words and of tags, and of the number of the sentence (without blanks and signs).
TOKENS_NAMES = ("tokens", "words", "tokenized_text", "token", "word")
TAGS_NAMES = (
    "tags", "ner_tags", "ner", "labels", "entity_tags", "bio_tags", "iob_tags", "tag", "label", "ner_tag",
)  # fmt: skip
SENTENCE_NAMES = ("sentenceid", "sentenceidx", "sentid", "sentidx", "sentencenumber", "sentencenum", "sentenceno",
                  "sentence", "sent")  # fmt: skip

#: A column that a row lacks.
MISSING = object()

_NUMPY_ITEM = r"""(?:'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*"|[-+]?\d+)"""
_NUMPY = re.compile(rf"\[\s*({_NUMPY_ITEM}(?:\s+{_NUMPY_ITEM})*)\s*\]")
_ARRAY = re.compile(r"array\((\[.*\])(?:,\s*dtype=[\w<>'.]+)?\)", re.DOTALL)
_NEIGHBOURS = re.compile(r"""['"]\s*['"]""")  # two adjacent quotes, perhaps two strings without a comma


def inner_names(column: str, cell: Any) -> list[str]:
    """Return the names of the fields of a cell with an object or objects, as ``"column.field"``."""
    cell = cell[0] if isinstance(cell, list) and cell else cell
    return [f"{column}.{name}" for name in cell] if isinstance(cell, Mapping) else []


def cell_of(row: Mapping[str, Any], column: str) -> Any:
    """Return the cell of a column, ``"column.field"`` for a field of objects; :data:`MISSING` if there is none."""
    if column in row:
        return row[column]
    outer, _, inner = column.partition(".")
    value = row.get(outer) if inner else None
    if isinstance(value, list) and all(isinstance(item, Mapping) for item in value):
        cells = [cell_of(item, inner) for item in value]
        return MISSING if MISSING in cells else cells
    return cell_of(value, inner) if isinstance(value, Mapping) else MISSING


def list_cell(place: Place, column: str, value: Any) -> Any:
    """Parse the list in a cell: JSON, a Python literal, or an array as numpy prints it; an empty cell is an empty list.

    Values other than strings are returned unchanged, arrays as lists.

    Raises
    ------
    DataError
        Not a list.
    """
    if type(value) is list:
        return value
    if not isinstance(value, str):
        return plain_value(value)
    if not value.strip():
        return []
    found: Any = None
    if not value.startswith("['"):
        with suppress(ValueError, RecursionError):
            found = json.loads(value)
    if found is None:
        found = _literal(value)
    if isinstance(found, tuple):
        found = list(found)
    if not isinstance(found, list):
        allowed = "a list, e.g. \"['John', 'Smith']\""
        do = 'Write lists as JSON, with commas: ["John", "Smith"]'
        if " ..." in value or "\n..." in value:
            do = "numpy left out its middle. Write lists, not arrays"
        raise place.error(column, f"is {shown(value)}", allowed, do)
    return found


def plain_value(value: Any) -> Any:
    """Return an array, tuple or series as a list, its scalars as Python's, and not-a-number as None."""
    if isinstance(value, tuple):
        return list(value)
    for method in ("tolist", "to_list"):
        if hasattr(value, method):
            return getattr(value, method)()
    return None if isinstance(value, float) and value != value else value


def is_one_word(value: Any) -> bool:
    """Whether a cell of a column of words has one word, rather than a list."""
    return isinstance(value, str) and not value.strip().startswith(("[", "(", "array("))


def _literal(text: str) -> Any:
    """Return the value of a Python literal; None if `text` is none."""
    text = text.strip()
    if array := _ARRAY.fullmatch(text):
        text = array[1]
    try:
        if _NEIGHBOURS.search(text):
            tokens = tokenize.generate_tokens(io.StringIO(text).readline)
            kinds = [token.type for token in tokens if token.type not in (tokenize.NL, tokenize.NEWLINE)]
            if any(one == other == tokenize.STRING for one, other in pairwise(kinds)):
                return _numpy_list(text)  # Python would concatenate the two words
        return _evaluated(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError, tokenize.TokenError):
        return _numpy_list(text)


def _evaluated(text: str) -> Any:
    """Return the value of a Python literal; what Python warns about is a matter of programs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.literal_eval(text)


def _numpy_list(text: str) -> list[Any] | None:
    """Return the items of an array of strings or whole numbers as numpy prints it, without commas."""
    match = _NUMPY.fullmatch(text)
    try:
        return None if match is None else [_evaluated(item) for item in re.findall(_NUMPY_ITEM, match[1])]
    except (ValueError, SyntaxError):  # a number of thousands of digits
        return None


def guess_columns(columns: Iterable[str]) -> tuple[str, str] | None:
    """Return the columns of words and of tags, if exactly one of each has a usual name, in any case.

    If there are none, they may be fields of one column of objects (``"data.tokens"``, ``"data.tags"``). A record as
    `columns` tells the fields of its objects.
    """
    there = list(columns)
    if isinstance(columns, Mapping):
        there = [str(name) for column in columns for name in (column, *inner_names(column, columns[column]))]
    found = _one_of_each(there, "")
    outer = dict.fromkeys(name.partition(".")[0] for name in there if "." in name)
    if found is None and not {"text", "tokenized_text"} & set(there):
        inner = [pair for prefix in outer if (pair := _one_of_each(there, f"{prefix}."))]
        found = inner[0] if len(inner) == 1 else None
    return found


def _one_of_each(columns: Sequence[str], prefix: str) -> tuple[str, str] | None:
    tokens, tags = (
        [name for name in columns if name.lower() in {prefix.lower() + known for known in names}]
        for names in (TOKENS_NAMES, TAGS_NAMES)
    )
    return (tokens[0], tags[0]) if len(tokens) == len(tags) == 1 else None


def sentence_column(columns: Iterable[str]) -> str | None:
    """Return the column that numbers the sentences; None if no column has a usual name."""
    known = {re.sub(r"[\W_]", "", name.lower()): name for name in columns}
    return next((known[name] for name in SENTENCE_NAMES if name in known), None)
