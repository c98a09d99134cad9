"""Keeps a forked process from waiting for threads that did not come with it, and from outliving its parent."""

from __future__ import annotations

import os
import threading
import time

import torch

_PROCESS = [os.getpid()]


def use_one_thread_after_fork() -> None:
    """Compute on one thread in a process that was forked from one where torch was imported.

    OpenMP's threads stay behind in the parent, so the first parallel operation of the child waits for them without
    end. The workers of ``nlp.pipe(n_process=...)`` are such processes, and one thread each is what they want.
    """
    if _PROCESS[0] != os.getpid():
        _PROCESS[0] = os.getpid()
        torch.set_num_threads(1)


def end_with_parent(parent: int, every: float = 1.0) -> None:
    """End this process once its parent is gone, also where the parent was killed.

    Workers of torch look after their parent between two batches only: one whose batch nobody takes would stay.

    Parameters
    ----------
    parent
        Number of the process that started this one.
    every
        Seconds between two looks.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(every)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
