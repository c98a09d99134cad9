"""Atomic replacement of files and folders: a path holds the complete old or the complete new output, even after a kill.

New output is written to a hidden sibling (``.tmp-<token>-<name>``, on the same filesystem), flushed to the disk and
then swapped in. Linux swaps two folders in one step (``renameat2`` with ``RENAME_EXCHANGE``). If the system or the
filesystem cannot (macOS, Windows, NFS), the old folder is renamed to ``.old-<token>-<name>``, then the new one to the
path. Between the two renames, for some microseconds, the path does not exist; if the process dies then, `recover`
restores the old folder. A process locks its siblings, which distinguishes those in use from those of dead processes,
which the next call removes.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import re
import secrets
import shutil
import stat
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError
from spacy.language import Language

from gliner_pipe.errors import DataError
from gliner_pipe.util.redact_folder import redact_folder

if sys.platform != "win32":
    import fcntl

#: Seconds after which a sibling counts as that of a dead process, on filesystems without locks.
STALE_AFTER = 24 * 3600.0
#: Seconds for another process to complete its swap.
SWAP_GRACE = 0.5

#: Bytes written to see whether a folder can be written.
_PROBE = 4096
#: Seconds that a swap waits for processes that are reading the folder.
READING_GRACE = 10.0

#: Characters that are not allowed in names from outside: separators on Windows, and control characters.
_UNSAFE = {"\\", ":", "\x7f", *map(chr, range(32))}

#: How safetensors reports an error of the system.
_OS_ERROR = re.compile(r"os error (\d+)")

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def save_pipeline(
    nlp: Language,
    path: str | os.PathLike[str],
    files: Mapping[str, str] | None = None,
    write_more: Callable[[Path], object] | None = None,
) -> Path:
    """Save a pipeline atomically, in place of an earlier one.

    Parameters
    ----------
    nlp
        Any spaCy pipeline.
    path
        Folder of the pipeline; it and its parents are created. A symbolic link is followed.
    files
        Additional text files by name, e.g. ``{"train_config.cfg": "..."}``.
    write_more
        Called with the folder, to write additional binary files.

    Returns
    -------
    Path
        The folder, as given.

    Raises
    ------
    DataError
        If `path` exists and is no pipeline: it is not changed.
    """
    with replace_directory(path, marker="meta.json") as folder:
        nlp.to_disk(folder)
        for name, text in (files or {}).items():
            (folder / name).write_text(text, encoding="utf8")
        if write_more is not None:
            write_more(folder)
    return Path(path)


@contextmanager
def replace_directory(path: str | os.PathLike[str], *, marker: str) -> Iterator[Path]:
    """Yield an empty folder that replaces `path` when the block ends, and is removed if the block raises.

    Secrets in its text files are redacted. A reader that opens one file after another during the swap may read files of
    both folders.

    Parameters
    ----------
    path
        Folder to replace; it and its parents are created.
    marker
        Name of a file that identifies this kind of output. A folder with files but without this one is not replaced.

    Raises
    ------
    DataError
        If `path` is a file, a mount point, or a folder of another kind.
    """
    target = _resolved(path)
    recover(target)
    _check_replaceable(target, marker)
    with scratch_directory(target) as folder:
        yield folder
        redact_folder(folder)
        _apply_umask(folder)
        _flush_tree(folder)
        _swap(folder, target)
        _flush(target.parent)


@contextmanager
def replace_entries(path: str | os.PathLike[str], names: Collection[str]) -> Iterator[Path]:
    """Yield an empty folder that replaces what `path` has under these names, unless the block raises.

    If `path` has nothing else, it is replaced in one step; otherwise each entry is, and all others are kept.

    Parameters
    ----------
    path
        Folder to change; it and its parents are created.
    names
        Names of all files and folders that the block may write. Those that it does not write are removed.

    Raises
    ------
    DataError
        If `path` is a file.
    """
    target = _resolved(path)
    recover(target)
    if target.exists() and not target.is_dir():
        raise DataError(f"{target}:", "is a file", "a folder, or a new path", "Give another path")
    with scratch_directory(target) as folder:
        yield folder
        _flush_tree(folder)
        if not target.exists() or {item.name for item in target.iterdir()} <= set(names):
            _swap(folder, target)
        else:
            for name in names:
                if (folder / name).exists():
                    _swap(folder / name, target / name)
                else:
                    _remove(target / name)
        _flush(target.parent)


@contextmanager
def replace_file(path: str | os.PathLike[str], *, follow: bool = True) -> Iterator[Path]:
    """Yield an empty file with the same suffix that replaces `path` unless the block raises.

    Parameters
    ----------
    path
        File to replace; its parents are created.
    follow
        Whether to replace the target of a symbolic link instead of the link.

    Raises
    ------
    DataError
        If `path` is a folder.
    """
    if Path(path).is_dir():
        raise DataError(str(path), "is a folder", "the path of a file", "Give another path")
    target = _resolved(path) if follow else _resolved(Path(path).parent) / Path(path).name
    with _locked_sibling(target, lambda path: path.touch(exist_ok=False)) as sibling:
        mode = sibling.stat().st_mode
        try:
            yield sibling
            # some libraries replace it by a file that only its owner may read
            sibling.chmod(stat.S_IMODE(mode))
            _flush(sibling)
            sibling.replace(target)
            _flush(target.parent)
        except OSError as error:
            if error.filename is None:  # for example if the disk is full
                error.filename = str(target)
            raise


@contextmanager
def written_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a file to write to: as :func:`replace_file`, except that a device or a pipe is written to directly."""
    if Path(path).exists() and not Path(path).is_file() and not Path(path).is_dir():
        yield Path(path)
    else:
        with replace_file(path) as sibling:
            yield sibling


def write_json(path: str | os.PathLike[str], value: object) -> None:
    """Write a value as a JSON file, in place of an earlier one; its folder is created."""
    with replace_file(path) as sibling:
        sibling.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def inside(folder: Path, name: object, where: object) -> Path:
    """Return the path of a file or folder with a name from outside: data, a message, an archive, a checkpoint.

    Parameters
    ----------
    folder
        Folder that must contain it.
    name
        Path relative to the folder, with ``/`` as the separator.
    where
        Origin of the name, for the error.

    Raises
    ------
    DataError
        If it is not a relative path, leads out of the folder, also by a symbolic link, or is invalid on some system.
    """
    if not is_plain(name) or not _resolved(folder / str(name)).is_relative_to(_resolved(folder)):
        allowed = "a path inside its folder, without '..', ':', backslashes and control characters"
        raise DataError(
            f"{where}:", f"names the file {name!r:.200}", allowed, "Do not use it: download it again"
        )
    return folder / str(name)


def is_plain(name: object) -> bool:
    """Return whether a name is a path inside any folder, on all systems."""
    return isinstance(name, str) and not any(
        part in ("", ".", "..") or set(part) & _UNSAFE for part in name.split("/")
    )


@contextmanager
def scratch_directory(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield an empty hidden folder beside `path`, and remove it in the end.

    The next call for the same `path` removes the folders of killed processes.

    Parameters
    ----------
    path
        The output; its parents are created.
    """
    with _locked_sibling(_resolved(path), Path.mkdir) as folder:
        yield folder


@contextmanager
def shared(path: Path) -> Iterator[None]:
    """Lock a folder for reading inside the block: a process that replaces it waits, up to ``READING_GRACE`` seconds.

    Without effect on systems and filesystems without locks, and on a folder that is being written.
    """
    lock, end = None, time.monotonic() + SWAP_GRACE
    while lock is None and path.is_dir() and time.monotonic() < end:
        try:
            lock = _lock(path, exclusive=False)
            if lock is None:
                break
            if not os.path.samestat(os.fstat(lock), path.stat()):  # replaced before it was locked
                _unlock(lock)
                lock = None
        except FileNotFoundError:
            continue
        except BlockingIOError:
            time.sleep(0.01)
    try:
        yield
    finally:
        _unlock(lock)


def check_writable(path: str | os.PathLike[str], needed: int = 0) -> None:
    """Check that a file or folder could be written, before the work whose result it is to hold.

    Parameters
    ----------
    path
        The output. Nothing is left there.
    needed
        Least number of bytes that must be free.

    Raises
    ------
    DataError
        If there is a file in place of a folder, the folder cannot be written, or its disk is too full.
    """
    target = _resolved(path)
    place = next(
        folder for folder in (target.parent, *target.parent.parents) if folder.exists() or folder.is_symlink()
    )
    allowed = "a path in a folder that can be written"
    if not place.is_dir():
        raise DataError(
            f"{target}:", f"cannot be written, since {place} is no folder", allowed, "Give another path"
        )
    probe = place / f".tmp-{secrets.token_hex(8)}-probe"
    try:
        probe.write_bytes(b"0" * _PROBE)
    except OSError as error:
        raise DataError(
            f"{target}:",
            f"cannot be written ({error.strerror})",
            allowed,
            "Give another path, or free the disk",
        ) from None
    finally:
        with suppress(OSError):
            probe.unlink(missing_ok=True)
    if (free := shutil.disk_usage(place).free) < needed:
        found = f"needs {needed / 1e6:.1f} MB or more, and the disk has {free / 1e6:.1f} MB free"
        raise DataError(f"{target}:", found, "a disk with more space", "Free space, or give another path")


def recover(path: str | os.PathLike[str]) -> bool:
    """Restore the folder that was renamed by a process killed during a swap; remove leftovers of dead processes.

    There is only something to restore on systems that cannot swap folders in one step.

    Parameters
    ----------
    path
        Folder that `save_pipeline` or `replace_directory` writes.

    Returns
    -------
    bool
        Whether the folder was missing and has been restored.
    """
    target = _resolved(path)
    restored = False
    for old in sorted(_siblings(target, "old"), key=lambda item: item.stat().st_mtime, reverse=True):
        if target.exists():
            break
        held = _held(old)
        if held is None:
            time.sleep(SWAP_GRACE)
        if not held and not target.exists():
            old.rename(target)
            restored = True
    _remove_dead(target)
    return restored


def _resolved(path: str | os.PathLike[str]) -> Path:
    return Path(os.path.realpath(path))


def _check_replaceable(target: Path, marker: str) -> None:
    if not target.exists():
        return
    allowed = f"a new path, or an earlier output of the same kind (a folder with {marker})"
    if not target.is_dir():
        raise DataError(f"{target}:", "is a file", allowed, "Give another path")
    if target.is_mount():
        raise DataError(f"{target}:", "is a mount point", "a folder inside it", f"Give {target / 'model'}")
    names = sorted(item.name for item in target.iterdir())
    if names and (marker not in names or ".git" in names):
        shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
        raise DataError(
            f"{target}:",
            f"contains files that would be lost ({shown})",
            f"{allowed} and no .git",
            "Give another path or move these files",
        )


def _swap(new: Path, target: Path) -> None:
    if target.exists():
        lock = _lock_unread(target)
        try:
            if not _exchange(new, target):
                _replace_in_two_steps(new, target)
        finally:
            _unlock(lock)
        return
    try:
        new.rename(target)
    except OSError:
        if not target.exists():
            raise
        _swap(new, target)  # another process has created it in the meantime


def _exchange(one: Path, other: Path) -> bool:
    """Swap two paths in one step; return False if the system cannot."""
    if sys.platform != "linux":
        return False
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:
        return False
    if renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTTY):
        return False
    raise OSError(code, os.strerror(code), str(one), None, str(other))


def _replace_in_two_steps(new: Path, target: Path) -> None:
    old = _sibling(target, "old")
    lock = None
    with suppress(BlockingIOError):  # the process that has just written it still holds the lock
        lock = _lock(target)
    try:
        target.rename(old)
        try:
            new.rename(target)
        except OSError:
            old.rename(target)
            raise
        _remove(old)
    finally:
        _unlock(lock)


def _sibling(target: Path, kind: str) -> Path:
    return target.with_name(f".{kind}-{secrets.token_hex(8)}-{target.name}")


def _siblings(target: Path, kind: str) -> list[Path]:
    pattern = re.compile(rf"\.{kind}-[0-9a-f]{{16}}-{re.escape(target.name)}")
    if not target.parent.is_dir():
        return []
    return [item for item in target.parent.iterdir() if pattern.fullmatch(item.name)]


def _remove_dead(target: Path) -> None:
    leftovers = _siblings(target, "tmp") + (_siblings(target, "old") if target.exists() else [])
    for item in leftovers:
        if _is_dead(item):
            _remove(item)


def _remove(path: Path) -> None:
    """Remove a file or folder that another process may be removing too."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def _locked_sibling(target: Path, make: Callable[[Path], None]) -> Iterator[Path]:
    """Yield a new, locked sibling and remove it in the end; remove those of dead processes first."""
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_dead(target)
    while True:  # another process may remove it before it is locked
        sibling = _sibling(target, "tmp")
        make(sibling)
        try:
            lock = _lock(sibling)
        except (FileNotFoundError, BlockingIOError):
            continue
        if sibling.exists():
            break
        _unlock(lock)
    try:
        yield sibling
    except (SafetensorError, RuntimeError) as error:
        if "inline_container" in str(error):  # of torch.save, which does not say why
            raise OSError(errno.ENOSPC, "Not written whole; is the disk full?", str(target)) from error
        if (code := _OS_ERROR.search(str(error))) is None:
            raise
        raise OSError(int(code[1]), os.strerror(int(code[1])), str(target)) from error
    finally:
        _remove(sibling)
        _unlock(lock)


def _lock_unread(path: Path) -> int | None:
    """Lock a file or folder as soon as nobody reads it; return None if that takes too long."""
    end = time.monotonic() + READING_GRACE
    while time.monotonic() < end:
        try:
            return _lock(path)
        except FileNotFoundError:
            return None
        except BlockingIOError:
            time.sleep(0.01)
    return None


def _lock(path: Path, exclusive: bool = True) -> int | None:
    """Lock a file or folder until it is unlocked or the process dies; return None if the filesystem has no locks.

    Raises
    ------
    BlockingIOError
        If a living process holds the lock; two locks that are not exclusive are possible.
    """
    if sys.platform == "win32":
        return None
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_NB | (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH))
    except BlockingIOError:
        os.close(descriptor)
        raise
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _unlock(lock: int | None) -> None:
    if lock is not None:
        os.close(lock)


def _held(path: Path) -> bool | None:
    """Return whether a living process holds the lock of `path`; None if the filesystem has no locks."""
    try:
        lock = _lock(path)
    except BlockingIOError:
        return True
    _unlock(lock)
    return None if lock is None else False


def _is_dead(path: Path) -> bool:
    try:
        held = _held(path)
        return _is_stale(path) if held is None else not held
    except FileNotFoundError:
        return False  # another process has removed it


def _is_stale(path: Path) -> bool:
    newest = max(item.stat().st_mtime for item in (path, *path.rglob("*")))
    return time.time() - newest > STALE_AFTER


def _apply_umask(folder: Path) -> None:
    """Give everything inside a new folder the mode that the umask gave the folder; temporary files are private.

    Files with other hard links are not changed.
    """
    mode = stat.S_IMODE(folder.stat().st_mode)
    for path in folder.rglob("*"):
        found = path.lstat()
        if stat.S_ISDIR(found.st_mode):
            path.chmod(mode)
        elif stat.S_ISREG(found.st_mode) and found.st_nlink == 1:
            path.chmod(mode & (0o666 | found.st_mode & 0o111))


def _flush(path: Path) -> None:
    """Flush a file, or the list of names of a folder, to the disk."""
    with suppress(PermissionError):  # Windows cannot open folders
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _flush_tree(folder: Path) -> None:
    for parent, _, names in os.walk(folder):
        for name in names:
            _flush(Path(parent, name))
        _flush(Path(parent))
