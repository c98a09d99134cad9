"""Target of a tagger: spans of a document, or an attribute of its tokens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from spacy.tokens import Doc, Token
from spacy.training import Example

from gliner_pipe.data.annotations import SpanSetter, install, primary_key, spans_by_place
from gliner_pipe.errors import ConfigError, DataError
from gliner_pipe.util.plurals import number_of

#: Token attributes that can be set, besides extensions (``"_.name"``).
ATTRIBUTES = ("tag_", "pos_", "lemma_")
SPANS = "spans"


def check_target(target: Any, where: str) -> str:
    """Return `target` if it is ``"spans"`` or a token attribute that can be set.

    Raises
    ------
    ConfigError
        Any other target.
    """
    custom = isinstance(target, str) and target.startswith("_.") and target[2:].isidentifier()
    if target == SPANS or target in ATTRIBUTES or custom:
        return str(target)
    do = f'Write target = "{target}_"' if f"{target}_" in ATTRIBUTES else ""
    raise ConfigError(where, f"found {target!r}", f'{SPANS}, {", ".join(ATTRIBUTES)}, "_.name"', do)


def install_extension(target: str) -> None:
    """Register the token extension of `target`, if it is one and does not exist."""
    if target.startswith("_."):
        install(Token, target[2:], default=None)


def read_values(doc: Doc, target: str, getter: SpanSetter | None) -> list[str | None]:
    """Return the value of each token; None if it is unknown, and for whitespace tokens.

    A document without any value of the attribute gives the labels of its gold spans, because some readers produce spans
    only. None as `getter` turns this off.
    """
    values: list[str | None] = [_value(token, target) for token in doc]
    if getter is not None and not any(values):
        for _, _, span in spans_by_place(doc, getter):
            values[span.start : span.end] = [
                None if token.is_space else span.label_ or None for token in span
            ]
    return values


def _value(token: Token, target: str) -> str | None:
    if token.is_space:
        return None
    found = getattr(token._, target[2:]) if target.startswith("_.") else getattr(token, target)
    return None if found in (None, "") else str(found)


def write_value(token: Token, target: str, value: str) -> None:
    """Set the attribute of a token."""
    if target.startswith("_."):
        setattr(token._, target[2:], value)
    else:
        setattr(token, target, value)


def gold_labels(
    examples: Iterable[Example], target: str, getter: SpanSetter
) -> tuple[list[str], dict[str, list[str]]]:
    """Return the labels of examples in alphabetical order, and the labels of each span group."""
    if target != SPANS:
        values = {value for one in examples for value in read_values(one.reference, target, getter)}
        return sorted(value for value in values if value is not None), {}
    groups: dict[str, set[str]] = {}
    for example in examples:
        for key, _, span in spans_by_place(example.reference, getter):
            if span.label_:
                groups.setdefault(key, set()).add(span.label_)
    return sorted(set().union(*groups.values())), {key: sorted(some) for key, some in groups.items()}


def describe(examples: Sequence[Example], target: str, getter: SpanSetter) -> str:
    """Return a sentence on how many tokens of the examples have a value.

    Raises
    ------
    DataError
        No token has a value.
    """
    known: Counter[str] = Counter()
    n_words = 0
    for one in examples:
        known.update(value for value in read_values(one.reference, target, getter) if value is not None)
        n_words += sum(not token.is_space for token in one.reference)
    if not known:
        raise DataError(
            "data",
            f"has {number_of(len(examples), 'example')}, none with token.{target} or spans in {primary_key(getter)!r}",
            "examples with tags",
            "Check target and target_span_getter",
        )
    return (
        f"{number_of(len(examples), 'example')}, {number_of(n_words, 'word')}, {known.total()} with token.{target} "
        f"({len(known)} different)"
    )
