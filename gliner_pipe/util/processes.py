"""Processes that end with the process that started them, and calls of a function in several processes."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sys
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import track

from gliner_pipe.errors import WorkerError

#: Seconds between two lines about the progress, if the output is no terminal.
EVERY = 10.0
#: Number of items below which one process is as fast.
FEW = 4

Item = TypeVar("Item")
Result = TypeVar("Result")

#: In a process of :func:`in_order`: the function that it calls.
_called: list[Callable[[Any], Any]] = []


def end_with_parent(parent: int, every: float = 1.0) -> None:
    """End this process once its parent has exited, even if the parent was killed.

    torch's data loader workers check their parent only between two batches: a worker that waits to hand over a batch
    would stay forever. The process id of the parent is checked every `every` seconds.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(every)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def in_order(
    function: Callable[[Item], Result], items: Iterable[Item], title: str, total: int
) -> Iterator[Result]:
    """Yield what a function returns for each item, in the order of the items; several processes call it.

    The processes are forked, one for each CPU that this process may use: the function need not be pickled, and what it
    returns must be. On systems that cannot fork, this process calls it.

    Parameters
    ----------
    function
        Called with each item.
    items
        Small values.
    title
        What the function does, for the display of the progress.
    total
        Number of items.

    Raises
    ------
    WorkerError
        A process died.
    """
    n_processes = len(os.sched_getaffinity(0)) if sys.platform == "linux" and total >= FEW else 1
    results = map(function, items) if n_processes == 1 else _forked(function, items, n_processes)
    yield from with_progress(results, title, total)


def with_progress(
    items: Iterable[Item], title: str, total: int | None = None, each: int = 1
) -> Iterator[Item]:
    """Yield items, and show on standard error how many have been: a bar on a terminal, otherwise a line now and then.

    Only the first process of a distributed training shows it.

    Parameters
    ----------
    items
        The items.
    title
        What is done with them.
    total
        Number of items; None if it is not known.
    each
        What an item counts as, without a total.
    """
    console = Console(stderr=True, highlight=False)
    bar, quiet = console.is_terminal, os.environ.get("RANK", "0") != "0"
    told = time.monotonic()
    shown = track(items, title, total, console=console, transient=True, disable=quiet or not bar)
    for number, item in enumerate(shown, start=1):
        yield item
        if not quiet and not bar and time.monotonic() - told > EVERY:
            done = f"{number * each:,}" if total is None else f"{number / total:.0%}"
            console.print(f"{title}: {done}", soft_wrap=True, markup=False)
            told = time.monotonic()


def _forked(function: Callable[[Item], Result], items: Iterable[Item], n_processes: int) -> Iterator[Result]:
    waiting = iter(items)
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(n_processes, context, _start, (function, os.getpid())) as pool:
        running: deque[Future[Result]] = deque()
        try:
            while True:
                with warnings.catch_warnings():
                    # the processes need no thread of this one
                    warnings.filterwarnings("ignore", message=".*fork", category=DeprecationWarning)
                    running += (
                        pool.submit(_call, item) for item in islice(waiting, 3 * n_processes - len(running))
                    )
                if not running:
                    return
                yield running.popleft().result()
        except BrokenProcessPool:
            raise WorkerError(
                "A process that reads data died, probably because memory is full. Free memory, or use fewer CPUs "
                "(taskset -c 0)"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


def _start(function: Callable[[Any], Any], parent: int) -> None:
    """Prepare a new process."""
    gc.freeze()  # what it shares with its parent is not copied
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # its parent ends it
    end_with_parent(parent)
    _called[:] = [function]


def _call(item: Any) -> Any:
    return _called[0](item)
