"""Locks between processes: a file beside the output that names the process which writes it.

The lock is a lock of the system (``fcntl.lockf``): it is released when the process dies, and forked processes do not
hold it. (The package `filelock` uses ``flock``, which the forked workers of a killed training would keep.) The content
of the file names the holder: for the error message, and for machines and filesystems without locks.
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

#: Name of the lock file of a folder whose files are written together.
LOCK = ".gliner_pipe.lock"
#: Tolerance for the start time of a process, in seconds.
_SAME_START = 2.0

#: Locks of this process, with the ids of the process (a fork inherits them) and of the thread that holds each: the
#: system grants a process its own lock twice.
_held: dict[Path, tuple[int, int]] = {}
_guard = threading.Lock()


@contextmanager
def only_writer(path: str | os.PathLike[str]) -> Iterator[None]:
    """Lock an output against other processes, and against other threads of this process, until the block ends.

    The thread that holds the lock may acquire it again. The file is removed in the end. The lock of a dead process is
    taken over, with a warning. If the file cannot be written, nothing is locked: writing the output will fail anyway.

    Parameters
    ----------
    path
        Lock file; it and its parents are created.

    Raises
    ------
    DataError
        If a living process holds the lock, or a process on another machine, which may be alive.
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
    """Open and lock the file, and write the holder into it; return None if the file cannot be written."""
    while True:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            handle = target.open("a+", encoding="utf-8")
        except OSError:
            return None
        try:
            granted = _system_lock(handle)
            if granted and not _is_at(handle, target):  # removed by its last holder after it was opened
                handle.close()
                continue
            other = _read(handle)
            if granted is False or (other and _is_alive(other, granted)):
                raise _busy(target, other)
            if other:
                logger.warning("note: took over %s from %s, which has ended", target, _name(other))
            handle.seek(0)
            handle.truncate()
            with contextlib.suppress(OSError):  # the disk is full: the lock is still valid
                handle.write(json.dumps(_myself()))
                handle.flush()
        except BaseException:
            handle.close()
            raise
        return handle


def _system_lock(handle: IO[str]) -> bool | None:
    """Lock a file; return False if another process holds the lock, None if the system has no locks."""
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
    """Return whether a path is that of an open file; to open and close the path would release the lock."""
    try:
        return os.path.samestat(os.fstat(handle.fileno()), path.stat())
    except OSError:
        return False


def _read(handle: IO[str]) -> dict[str, Any]:
    """Return the holder that the file names; an empty dictionary if it names none."""
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
    """Return an id of this boot of the machine, the same inside containers; empty if unknown."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""


def _is_alive(other: dict[str, Any], granted: bool | None) -> bool:
    """Return whether the process that the file names is alive, or may be alive."""
    same_machine = bool(other["machine"]) and other["machine"] == _machine()
    if same_machine and granted:
        return False  # a living process would hold the lock
    if not same_machine and other["host"] != socket.gethostname():
        return True  # unknown from here
    if not same_machine and other["machine"]:
        return False  # this machine has been restarted
    try:
        return bool(
            abs(psutil.Process(int(other["pid"])).create_time() - float(other["began"])) < _SAME_START
        )
    except (psutil.NoSuchProcess, ValueError, TypeError):
        return False
    except psutil.AccessDenied:
        return True


def _name(other: dict[str, Any]) -> str:
    started = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(float(other["began"])))
    return f"process {other['pid']} on {other['host']}, started {started}"


def _busy(target: Path, other: dict[str, Any]) -> DataError:
    found = "is in use by another process" + (f": {_name(other)}" if other else "")
    do = "Wait until it ends, stop it, or give another folder"
    if other and other["host"] != socket.gethostname():
        do += f"; if it has ended, remove {target}"
    return DataError(f"{target.parent}:", found, do=do)
