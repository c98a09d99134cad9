"""Processes that prepare batches end with the training."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from forked import Forked
from torch.utils.data import IterableDataset

from gliner_pipe.training.data_loader import prefetched


class Steps(IterableDataset):
    """Endless steps, each more than a pipe holds."""

    def __iter__(self) -> Iterator[str]:
        while True:
            yield "x" * 500_000


def train() -> None:
    steps = prefetched(Steps(), 2)
    next(steps)
    print(Path(f"/proc/self/task/{os.getpid()}/children").read_text(), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux prepares batches in processes")
def test_processes_do_not_outlive_a_training_that_is_killed(tmp_path: Path) -> None:
    training = Forked(train, [], tmp_path)
    training.process.join(60)
    assert training.process.exitcode == -signal.SIGKILL
    workers = [int(pid) for pid in (tmp_path / "stdout").read_text("utf8").split()]
    assert len(workers) == 2
    deadline = time.monotonic() + 15
    while left := [pid for pid in workers if Path(f"/proc/{pid}").exists()]:
        if time.monotonic() > deadline:
            for pid in left:
                os.kill(pid, signal.SIGKILL)
            pytest.fail(f"{len(left)} processes are left")
        time.sleep(0.1)
