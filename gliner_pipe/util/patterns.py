"""Regular expressions that users give: one that takes too long on a text is an error and no hang."""

from __future__ import annotations

import re

import regex

from gliner_pipe.errors import ConfigError

#: Seconds, about, that a match with one text may take; usual ones take microseconds.
SECONDS = 1.0


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
        If it is no regular expression.
    """

    def __init__(self, text: str) -> None:
        self.pattern = text
        re.compile(text)
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
