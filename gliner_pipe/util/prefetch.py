"""Makes the next thing in a thread while this one is used."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_Item = TypeVar("_Item")
_Made = TypeVar("_Made")


def ahead(
    items: Iterable[_Item], make: Callable[[_Item], _Made], *, in_thread: bool
) -> Iterator[tuple[_Item, _Made]]:
    """Pair each item with what `make` makes of it.

    Parameters
    ----------
    items
        Read in the caller's thread, one further than what was handed out when `in_thread`.
    make
        Is run for one item at a time. What it raises, it raises when its item is due.
    in_thread
        Run it in a thread of its own while the caller is busy with the item before. That pays where the caller waits
        for a device, or lets go of the interpreter in some other way; the thread ends with the iterator.

    Yields
    ------
    tuple
        The item, and what was made of it.
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
