"""Computes the expressions ``${...}`` of config files: paths, numbers and texts with + - * / // %, and nothing else."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from confit.utils.xjson import Reference

from gliner_pipe.errors import ConfigError

ALLOWED = "paths, numbers and texts in quotes, with + - * / // % and parentheses"

#: Longest expression, deepest parentheses, most bits of a whole number and most characters of a text.
_MOST_CHARACTERS, _MOST_DEPTH, _MOST_BITS, _LONGEST_TEXT = 1000, 20, 256, 100_000
_PATH = r"""[^\W\d]\w*(?:\.(?:\w+|'[^']*'|"[^"]*"))*"""
_TOKEN = re.compile(
    rf"""\s*(?:(?P<number>\d+(?:\.\d*)?(?:[eE][+-]?\d+)?)|(?P<text>"[^"\\]*"|'[^'\\]*')|(?P<path>{_PATH})"""
    r"|(?P<sign>//|[-+*/%()]))"
)
_PART = re.compile(r"""'([^']*)'|"([^"]*)"|([^.'"]+)""")
_SIGNS: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "//": operator.floordiv,
    "%": operator.mod,
}


class WrongExpression(ValueError):
    """An expression that is not allowed, or cannot be computed."""


def paths_in(reference: Reference) -> Iterator[tuple[str, ...]]:
    """Yield the paths, such as ``("train", "max_steps")``, that an expression names; none if it is not allowed."""
    try:
        tokens = _tokens(reference.value)
    except WrongExpression:
        return
    for kind, token in tokens:
        if kind == "path":
            yield _parts(token)


def is_path(reference: Reference) -> bool:
    """Return whether a reference is a path only: what it refers to may be a section."""
    return re.fullmatch(_PATH, reference.value.strip()) is not None


def computed(value: Any, root: Mapping[str, Any], where: str) -> Any:
    """Return a config value with the results of its expressions; references that are paths only stay.

    Parameters
    ----------
    value
        A value of a config as read from a file: a section, a list, a reference ...
    root
        The whole config, which the paths count from.
    where
        Path of the value.

    Raises
    ------
    ConfigError
        If an expression is not allowed or cannot be computed.
    """
    kind: Any = type(value)
    if isinstance(value, Mapping):
        return kind(
            {key: computed(one, root, f"{where}.{key}" if where else str(key)) for key, one in value.items()}
        )
    if isinstance(value, (list, tuple)):
        return kind(computed(one, root, f"{where}[{place}]") for place, one in enumerate(value))
    if not isinstance(value, Reference):
        return value
    try:
        return _Expression(value, root, ()).result()
    except WrongExpression as error:
        raise ConfigError(where, f"{value} cannot be computed ({error})", ALLOWED) from None


class _Expression:
    """One expression, parsed and computed from left to right.

    Parameters
    ----------
    reference
        The expression.
    root
        The whole config.
    above
        Expressions that need this one.
    """

    def __init__(self, reference: Reference, root: Mapping[str, Any], above: tuple[str, ...]) -> None:
        self.reference, self.root, self.above = reference, root, above
        self.tokens = [] if is_path(reference) else _tokens(reference.value)
        self.place = self.depth = 0

    def result(self) -> Any:
        """Return the result; the reference itself if it is a path only."""
        if is_path(self.reference):
            return self.reference
        value = self._sum()
        if self.place < len(self.tokens):
            raise WrongExpression(f"{self.tokens[self.place][1]!r} is not expected there")
        return value

    def _sum(self) -> Any:
        value = self._product()
        while (sign := self._next("+", "-")) is not None:
            value = _combined(sign, value, self._product())
        return value

    def _product(self) -> Any:
        value = self._factor()
        while (sign := self._next("*", "/", "//", "%")) is not None:
            value = _combined(sign, value, self._factor())
        return value

    def _factor(self) -> Any:
        if (sign := self._next("-", "+", "(")) is None:
            return self._value()
        self.depth += 1
        if self.depth > _MOST_DEPTH:
            raise WrongExpression(f"it has more than {_MOST_DEPTH} parentheses or signs inside each other")
        value = self._sum() if sign == "(" else _combined(sign, 0, self._factor())
        if sign == "(" and self._next(")") is None:
            raise WrongExpression("a parenthesis is not closed")
        self.depth -= 1
        return value

    def _value(self) -> Any:
        kind, token = self.tokens[self.place] if self.place < len(self.tokens) else ("end", "")
        self.place += 1
        if kind == "number":
            return _number(token)
        if kind == "text":
            return token[1:-1]
        if kind == "path":
            return self._at(token)
        raise WrongExpression(f"{token!r} is not expected there" if token else "it ends too early")

    def _at(self, path: str) -> Any:
        if path in self.above:
            raise WrongExpression(f"{path} needs its own value")
        found: Any = self.root
        for part in _parts(path):
            if isinstance(found, Mapping) and part in found:
                found = found[part]
            elif isinstance(found, (list, tuple)) and part.isdecimal() and int(part) < len(found):
                found = found[int(part)]
            else:
                raise WrongExpression(f"{path} does not exist")
        while isinstance(found, Reference):
            above = (*self.above, path)
            if is_path(found):
                return _Expression(found, self.root, above)._at(found.value.strip())
            found = _Expression(found, self.root, above).result()
        return found

    def _next(self, *signs: str) -> str | None:
        if self.place < len(self.tokens) and self.tokens[self.place] in [("sign", sign) for sign in signs]:
            self.place += 1
            return self.tokens[self.place - 1][1]
        return None


def _tokens(text: str) -> list[tuple[str, str]]:
    if len(text) > _MOST_CHARACTERS:
        raise WrongExpression(f"it has more than {_MOST_CHARACTERS} characters")
    tokens, place, end = [], 0, len(text.rstrip())
    while place < end:
        match = _TOKEN.match(text, place)
        if match is None:
            raise WrongExpression(f"{text[place:].strip()[:20]!r} is not allowed in it")
        tokens.append((str(match.lastgroup), match[str(match.lastgroup)]))
        place = match.end()
    return tokens


def _parts(path: str) -> tuple[str, ...]:
    return tuple(next(part for part in parts if part) for parts in _PART.findall(path) if any(parts))


def _number(token: str) -> int | float:
    if token.isdecimal() and len(token) < 50:
        return int(token)
    value = float(token)
    if not math.isfinite(value):
        raise WrongExpression(f"{token[:20]} is too large")
    return value


def _combined(sign: str, left: Any, right: Any) -> Any:
    if isinstance(left, str) and isinstance(right, str) and sign == "+":
        if len(left) + len(right) > _LONGEST_TEXT:
            raise WrongExpression(f"the text has more than {_LONGEST_TEXT} characters")
        return left + right
    for one in (left, right):
        if isinstance(one, bool) or not isinstance(one, (int, float)):
            raise WrongExpression(f"{_short(one)} is no number")
    whole = isinstance(left, int) and isinstance(right, int)
    if whole and left.bit_length() + right.bit_length() > _MOST_BITS:
        raise WrongExpression("a number in it is too large")
    try:
        value = _SIGNS[sign](left, right)
    except (ArithmeticError, ValueError) as error:
        raise WrongExpression(str(error)) from None
    if not math.isfinite(value):
        raise WrongExpression("the result is too large")
    return value


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        return "a section"
    return "a list" if isinstance(value, (list, tuple)) else repr(value)[:50]
