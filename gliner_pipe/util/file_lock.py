"""One writer at a time: a file beside the output that names the process which writes it.

The lock is one of the system (``fcntl.lockf``): a process that dies lets go of it, and its forks hold nothing. (The
package `filelock` takes a ``flock``, which the forked workers of a killed training would hold on to.) The file says who
holds the lock: for the message, and for machines and filesystems that have no locks.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import psutil

from gliner_pipe.errors import DataError

if sys.platform != "win32":
    import fcntl

logger = logging.getLogger("gliner_pipe")

#: Name of the lock of a folder in which several files or folders are written that belong together.
LOCK = ".gliner_pipe.lock"
#: How far two readings of the moment at which a process began may be apart, in seconds.
_SAME_MOMENT = 2.0

#: Locks of this process, with the number of the process (a fork inherits them) and of the thread that holds each: the
#: system grants a process its own lock twice.
_held: dict[Path, tuple[int, int]] = {}
_guard = threading.Lock()


@contextmanager
def only_writer(path: str | os.PathLike[str]) -> Iterator[None]:
    """Keep other processes, and other threads of this one, from entering the same block.

    A thread may enter a block again that it is in. The file vanishes in the end. The lock of a process that died is
    taken over, with a line in the log. Where the file cannot be written, nothing is locked: writing the output fails.

    Parameters
    ----------
    path
        File that stands for what is written; it and its parents are made if missing.

    Raises
    ------
    DataError
        If a living process is in the block, or one of another machine that may be alive.
    """
    target = Path(os.path.realpath(path))
    me = os.getpid(), threading.get_ident()
    with _guard:
        holder = _held.get(target)
        if holder is None or holder[0] != me[0]:
            holder, _held[target] = None, me
    if holder == me:
        yield
        return
    if holder is not None:
        raise _busy(target, _myself())
    missing = [folder for folder in target.parents if not folder.exists()]
    handle = None
    try:
        handle = _locked(target)
        yield
    finally:
        del _held[target]
        if handle is not None and os.getpid() == me[0]:
            with contextlib.suppress(OSError):  # a folder that was removed, or became read-only
                target.unlink(missing_ok=True)
            handle.close()
        with contextlib.suppress(OSError):  # folders that hold something now
            for folder in missing:
                folder.rmdir()


def _locked(target: Path) -> IO[str] | None:
    """Open the file, lock it and write into it who this is; None where no file can be written there."""
    while True:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            handle = target.open("a+", encoding="utf-8")
        except OSError:
            return None
        try:
            granted = _system_lock(handle)
            if granted and not _is_at(handle, target):  # its last holder removed it meanwhile
                handle.close()
                continue
            other = _read(handle)
            if granted is False or (other and _is_alive(other, granted)):
                raise _busy(target, other)
            if other:
                logger.warning("note: %s was left by %s, which has ended: going on", target, _named(other))
            handle.seek(0)
            handle.truncate()
            with contextlib.suppress(OSError):  # a full disk: the lock holds all the same
                handle.write(json.dumps(_myself()))
                handle.flush()
        except BaseException:
            handle.close()
            raise
        return handle


def _system_lock(handle: IO[str]) -> bool | None:
    """Lock a file; False where another process holds it, None where there are no locks."""
    if sys.platform == "win32":
        return None
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return None
    return True


def _is_at(handle: IO[str], path: Path) -> bool:
    """Whether a path leads to a file that is open; to open and close it once more would give the lock away."""
    try:
        return os.path.samestat(os.fstat(handle.fileno()), path.stat())
    except OSError:
        return False


def _read(handle: IO[str]) -> dict[str, Any]:
    """Return what the file says about its holder; nothing where it says nothing that can be read."""
    handle.seek(0)
    try:
        found = json.loads(handle.read())
    except ValueError:
        return {}
    complete = isinstance(found, dict) and {"pid", "host", "machine", "began"} <= found.keys()
    return found if complete else {}


def _myself() -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "machine": _machine(),
        "began": psutil.Process().create_time(),
    }


def _machine() -> str:
    """What tells this machine since it was started, also from inside a container; empty where that is not known."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""


def _is_alive(other: dict[str, Any], granted: bool | None) -> bool:
    """Whether the process that the file names is alive, or may be."""
    same_machine = bool(other["machine"]) and other["machine"] == _machine()
    if same_machine and granted:
        return False  # it would hold the lock
    if not same_machine and other["host"] != socket.gethostname():
        return True  # cannot be told from here
    if not same_machine and other["machine"]:
        return False  # this machine was started anew
    try:
        return bool(
            abs(psutil.Process(int(other["pid"])).create_time() - float(other["began"])) < _SAME_MOMENT
        )
    except (psutil.NoSuchProcess, ValueError, TypeError):
        return False
    except psutil.AccessDenied:
        return True


def _named(other: dict[str, Any]) -> str:
    began = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(float(other["began"])))
    return f"process {other['pid']} on {other['host']}, begun {began}"


def _busy(target: Path, other: dict[str, Any]) -> DataError:
    found = "is written to by another process" + (f": {_named(other)}" if other else "")
    do = "Wait for it to end, end it, or give another folder"
    if other and other["host"] != socket.gethostname():
        do += f"; if it has ended, remove {target}"
    return DataError(f"{target.parent}:", found, do=do)
