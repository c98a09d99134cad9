"""Attributes that spaCy's objects get from this project."""

from __future__ import annotations

from typing import Any

from gliner_pipe.util.thread_lock import Lock

_lock = Lock()


def install(kind: Any, name: str, **options: Any) -> None:
    """Register ``._.name``, unless it is there.

    Parameters
    ----------
    kind
        ``Doc``, ``Span`` or ``Token``.
    name
        Of the attribute.
    **options
        For ``set_extension``.
    """
    if not kind.has_extension(name):
        with _lock:
            if not kind.has_extension(name):
                kind.set_extension(name, **options)
