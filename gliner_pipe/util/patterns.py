"""Regular expressions that users give: one that takes too long on a text is an error and no hang."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from importlib import import_module
from typing import Any

import regex

from gliner_pipe.errors import ConfigError

#: Seconds, about, that a match with one text may take; usual ones take microseconds.
SECONDS = 1.0
#: Most parts of an expression, a part for each time that it must be repeated: ``regex`` writes them out.
MOST_PARTS = 100_000
_REPEATS = ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT")
_parser: Any = import_module("re._parser" if sys.version_info >= (3, 11) else "sre_parse")


class Pattern:
    """A regular expression of Python's ``re``, for the whole of a text, with a time limit.

    It is matched by the package ``regex``, which can stop.

    Parameters
    ----------
    text
        The expression.

    Raises
    ------
    re.error
        If it is no regular expression, or one with so many repetitions that it fills the memory.
    """

    def __init__(self, text: str) -> None:
        self.pattern = text
        re.compile(text)
        if _size(_parser.parse(text)) > max(MOST_PARTS, len(text)):
            raise re.error(f"it repeats more than {MOST_PARTS:,} parts", text)
        try:
            self._compiled = regex.compile(text, regex.VERSION0)
        except regex.error as error:
            raise re.error(error.msg, text, error.pos) from None

    def __repr__(self) -> str:
        return f"Pattern({self.pattern!r})"

    def fullmatch(self, text: str) -> bool:
        """Return whether the whole text matches.

        Raises
        ------
        ConfigError
            If this takes longer than `SECONDS`.
        """
        try:
            return self._compiled.fullmatch(text, timeout=SECONDS) is not None
        except TimeoutError:
            raise ConfigError(
                "pattern",
                f"{self.pattern!r} takes more than {SECONDS:g} seconds on the text {text[:200]!r}",
                "a regular expression that is matched in microseconds",
                "Replace repetitions inside repetitions, such as (a+)+",
            ) from None


def _size(part: Any) -> int:
    """Return the number of parts of a parsed expression, with repetitions written out."""
    if isinstance(part, tuple) and str(part[0]) in _REPEATS:
        least, _, repeated = part[1]
        return max(int(least), 1) * _size(repeated)
    if isinstance(part, (list, tuple, _parser.SubPattern)):
        inner: Iterable[Any] = part
        return max(1, sum(map(_size, inner)))
    return 0
