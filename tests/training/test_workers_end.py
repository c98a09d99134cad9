"""Processes that prepare batches end with the training."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

TRAINING = """
import os, signal
from torch.utils.data import IterableDataset
from gliner_pipe.training.data_loader import prefetched

class Steps(IterableDataset):
    def __iter__(self):
        while True:
            yield "x" * 500_000  # more than a pipe holds

steps = prefetched(Steps(), 2)
next(steps)
children = open(f"/proc/self/task/{os.getpid()}/children").read()
print(children, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux prepares batches in processes")
def test_processes_do_not_outlive_a_training_that_is_killed() -> None:
    done = subprocess.run(
        [sys.executable, "-c", TRAINING], stdout=subprocess.PIPE, text=True, check=False, timeout=60
    )
    assert done.returncode == -signal.SIGKILL
    workers = [int(pid) for pid in done.stdout.split()]
    assert len(workers) == 2
    deadline = time.monotonic() + 15
    while left := [pid for pid in workers if Path(f"/proc/{pid}").exists()]:
        if time.monotonic() > deadline:
            for pid in left:
                os.kill(pid, signal.SIGKILL)
            pytest.fail(f"{len(left)} processes are left")
        time.sleep(0.1)
