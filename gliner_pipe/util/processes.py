"""Behaviour of processes that another process started: threads after a fork, and ending with the parent."""

from __future__ import annotations

import os
import threading
import time

import torch

_process = os.getpid()


def use_one_thread_after_fork() -> None:
    """Limit torch to one thread in a process forked from one that had imported torch.

    OpenMP's threads do not survive the fork, so the first parallel operation of the child would wait for them forever.
    The workers of ``nlp.pipe(n_process=...)`` are such processes, and should use one thread each anyway.
    """
    global _process
    if _process != os.getpid():
        _process = os.getpid()
        torch.set_num_threads(1)


def end_with_parent(parent: int, every: float = 1.0) -> None:
    """End this process once its parent has exited, even if the parent was killed.

    torch's data loader workers check their parent only between two batches: a worker that waits to hand over a batch
    would stay forever.

    Parameters
    ----------
    parent
        Process id of the parent.
    every
        Seconds between two checks.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(every)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
