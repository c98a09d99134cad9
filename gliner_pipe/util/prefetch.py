"""Prepares the next item in a thread while the current one is processed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_Item = TypeVar("_Item")
_Made = TypeVar("_Made")


def ahead(
    items: Iterable[_Item], make: Callable[[_Item], _Made], *, in_thread: bool
) -> Iterator[tuple[_Item, _Made]]:
    """Pair each item with the result of `make`.

    Parameters
    ----------
    items
        Read in the caller's thread; with `in_thread`, one item further than was yielded.
    make
        Called for one item at a time. An error it raises is raised when its item is due.
    in_thread
        Whether to call it in a thread while the caller processes the previous item. That is faster if the caller waits
        for a device or releases the interpreter lock otherwise; the thread ends with the iterator.

    Yields
    ------
    tuple
        The item and its result.
    """
    if not in_thread:
        for item in items:
            yield item, make(item)
        return
    with ThreadPoolExecutor(max_workers=1) as thread:
        waiting: tuple[_Item, Future[_Made]] | None = None
        try:
            for item in items:
                following = item, thread.submit(make, item)
                if waiting is not None:
                    due, waiting = waiting, following
                    yield due[0], due[1].result()
                else:
                    waiting = following
            if waiting is not None:
                due, waiting = waiting, None
                yield due[0], due[1].result()
        finally:
            if waiting is not None:
                waiting[1].cancel()
