"""Computes the next item in a thread while the current one is processed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_Item = TypeVar("_Item")
_Made = TypeVar("_Made")


def ahead(make: Callable[[_Item], _Made], items: Iterable[_Item]) -> Iterator[_Made]:
    """Do what ``map(make, items)`` does, one item ahead of the caller, in a thread that ends with the iterator.

    That is faster if the caller waits for a device, or releases the interpreter lock otherwise.

    Parameters
    ----------
    make
        Called for one item at a time. An error it raises is raised when its item is due.
    items
        Read in the caller's thread, one item further than was yielded.
    """
    with ThreadPoolExecutor(max_workers=1) as thread:
        waiting: Future[_Made] | None = None
        try:
            for item in items:
                due, waiting = waiting, thread.submit(make, item)
                if due is not None:
                    yield due.result()
            if waiting is not None:
                due, waiting = waiting, None
                yield due.result()
        finally:
            if waiting is not None:
                waiting.cancel()
