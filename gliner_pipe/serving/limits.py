"""Limits on requests, so that no client can fill the memory or occupy the model."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Any

from gliner_pipe.errors import ConfigError, DataError


@dataclass(frozen=True)
class Limits:
    """Largest request, and how many may wait.

    Attributes
    ----------
    body_bytes
        Bytes of the body of a request, or of a line of a stream.
    texts
        Texts of a request.
    characters
        Characters of all texts of a request.
    labels
        Labels, relations, classes and fields of a text, and all of them together in a request of several texts.
    label_characters
        Characters of all labels and descriptions of a text.
    queue
        Texts that wait for the model. A request that finds no room is answered with 503.
    seconds
        Time in which a request must be answered; then it is given up.
    """

    body_bytes: int = 4_000_000
    texts: int = 1_000
    characters: int = 1_000_000
    labels: int = 1_000
    label_characters: int = 100_000
    queue: int = 4_000
    seconds: float = 60.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 < value < inf:
                raise ConfigError(f"serve.max_{name}", f"found {value!r}", "a number above 0")


def encodable(text: str) -> str:
    """Return a text as it is.

    Raises
    ------
    ValueError
        If it has an unpaired surrogate, which JSON can write and UTF-8 cannot.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("has an unpaired surrogate; allowed: characters that UTF-8 can encode") from None
    return text


class TooLargeError(ValueError):
    """A request that exceeds a limit."""


def check_size(texts: list[str], asked: list[Any], limits: Limits) -> None:
    """Refuse a request that exceeds the limits.

    Parameters
    ----------
    texts
        Its texts.
    asked
        Labels, relations, classes and records of each distinct setting; several texts may share one.

    Raises
    ------
    TooLargeError
        With the limit.
    DataError
        If a label has an unpaired surrogate.
    """
    if len(texts) > limits.texts:
        raise TooLargeError(f"[texts] found {len(texts)} texts; allowed: at most {limits.texts} in a request")
    characters = sum(map(len, texts))
    if characters > limits.characters:
        raise TooLargeError(
            f"[texts] found {characters} characters; allowed: at most {limits.characters} in a request"
        )
    total = 0
    for one in asked:
        try:
            number, length = _size(one)
        except ValueError as error:
            raise DataError("labels", str(error)) from None
        total += number
        if total > limits.labels:
            raise TooLargeError(f"[labels] found more than {limits.labels} labels; allowed: {limits.labels}")
        if length > limits.label_characters:
            raise TooLargeError(
                f"[labels] found {length} characters; allowed: at most {limits.label_characters} for a text"
            )


def _size(value: Any) -> tuple[int, int]:
    """Return the numbers of entries and of characters of a nested value; a mapping with a label is one entry."""
    todo, number, length = [value], 0, 0
    while todo:
        one = todo.pop()
        if isinstance(one, str):
            number, length = number + 1, length + len(encodable(one))
        elif isinstance(one, dict):
            length += sum(len(encodable(key)) for key in one)
            todo += one.values()
        elif isinstance(one, (list, tuple)):
            todo += one
    return number, length
