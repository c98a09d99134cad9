"""Ends a process with the process that started it."""

from __future__ import annotations

import os
import threading
import time


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
