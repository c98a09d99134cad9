"""Extension attributes of spaCy objects."""

from __future__ import annotations

from typing import Any

from gliner_pipe.util.thread_lock import Lock

_lock = Lock()


def install(kind: Any, name: str, **options: Any) -> None:
    """Register the extension ``._.name`` unless it exists; safe to call from several threads.

    Parameters
    ----------
    kind
        ``Doc``, ``Span`` or ``Token``.
    name
        Name of the attribute.
    **options
        Options of ``set_extension``.
    """
    if not kind.has_extension(name):
        with _lock:
            if not kind.has_extension(name):
                kind.set_extension(name, **options)
