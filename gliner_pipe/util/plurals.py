"""Numbers of things in messages."""

from __future__ import annotations


def number_of(number: int, noun: str) -> str:
    """Return a number with its noun, which gets its plural if need be.

    Examples
    --------
    >>> number_of(1, "entity"), number_of(2, "gold entity"), number_of(0, "text")
    ('1 entity', '2 gold entities', '0 texts')
    """
    if number == 1:
        return f"1 {noun}"
    return f"{number:,} {noun[:-1]}ies" if noun.endswith("y") else f"{number:,} {noun}s"
