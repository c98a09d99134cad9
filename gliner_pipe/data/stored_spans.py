"""Attributes of a Doc that hold spans, stored in ``doc.user_data`` as plain data that is saved with the Doc."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from spacy.tokens import Doc, Span

from gliner_pipe.data.annotations import install
from gliner_pipe.errors import DataError
from gliner_pipe.util.plurals import number_of


def install_attribute(name: str, getter: Callable[[Doc], Any], setter: Callable[[Doc, Any], None]) -> bool:
    """Register ``doc._.name`` unless the name is taken; return whether `getter` reads it."""
    install(Doc, name, getter=getter, setter=setter)
    found: tuple[Any, ...] = Doc.get_extension(name)
    return found[2] is getter


def stored_span(doc: Doc, start: int, end: int, label: str, noun: str) -> Span:
    """Return the span of the tokens `start` to `end` (exclusive) of `doc`.

    Raises
    ------
    DataError
        `doc` has fewer tokens: it is a part of the document on which the span was set, or its tokens have changed. The
        message calls what holds the span `noun`.
    """
    if end > len(doc):
        raise DataError(
            f"document starting with {doc.text[:40]!r}",
            f"has {number_of(len(doc), 'token')} and a {noun} up to token {end}",
            f"{noun}s within the document",
            "Set them again after cutting the document or merging tokens",
        )
    return Span(doc, start, end, label=label)


def check_document(doc: Doc, spans: list[Span], what: str) -> None:
    """Raise ValueError, which begins with `what`, unless all `spans` are spans of `doc`."""
    if any(span.doc is not doc for span in spans):
        texts = " and ".join(repr(span.text) for span in spans)
        raise ValueError(
            f"{what} of {texts}, which are spans of another document; allowed: spans of this document. Create them "
            "with Span(doc, start, end, label=...)."
        )
