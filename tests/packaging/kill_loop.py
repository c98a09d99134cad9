"""Runs work in a process, kills it with SIGKILL at a random moment and checks what it left; many times over.

``python kill_loop.py MODULE ROUNDS SECONDS ARGUMENTS...``: the file MODULE has ``prepare(*arguments)``, which
returns two functions: the work to kill within SECONDS, and a check that raises unless what stands on the disk
is whole. Heavy imports are done once, each round is a fork. Prints in how many rounds the kill came in time.
"""

from __future__ import annotations

import os
import random
import runpy
import signal
import sys
import time
import traceback
from collections.abc import Callable


def run_and_kill(work: Callable[[], None], seconds: float) -> bool:
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) != 0:
        raise SystemExit("the work failed by itself")
    return os.WIFSIGNALED(status)


def main(module: str, rounds: str, seconds: str, *arguments: str) -> None:
    work, check = runpy.run_path(module)["prepare"](*arguments)
    rng = random.Random(0)
    killed = 0
    for _ in range(int(rounds)):
        killed += run_and_kill(work, rng.uniform(0, float(seconds)))
        check()
    print(killed)


if __name__ == "__main__":
    main(*sys.argv[1:])
