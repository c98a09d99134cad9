"""Keeps a forked process from waiting for threads that did not come with it."""

from __future__ import annotations

import os

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
