"""One writer at a time: the error names it, and the lock of a dead process is taken over."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from forked import Forked

from gliner_pipe.data.writers import write_standoff
from gliner_pipe.errors import DataError
from gliner_pipe.util.file_lock import LOCK, only_writer

HOLD = """
import sys, time
from gliner_pipe.util.file_lock import only_writer

with only_writer(sys.argv[1]):
    print("held", flush=True)
    time.sleep(120)
"""


@pytest.fixture
def other(tmp_path: Path) -> Any:
    """Starts a process that holds a lock."""
    started = []

    def hold(path: Path) -> subprocess.Popen[str]:
        process = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        return process

    yield hold
    for process in started:
        process.kill()
        process.communicate()


def test_the_error_names_the_process_that_holds_the_lock(other, tmp_path):
    path = tmp_path / "out" / LOCK
    first = other(path)
    with pytest.raises(DataError) as caught, only_writer(path):
        pass
    assert str(tmp_path / "out") in caught.value.where
    assert f"process {first.pid} on {socket.gethostname()}" in caught.value.found
    assert path.is_file()  # still that of the first


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_process_that_ends_releases_the_lock(other, tmp_path, caplog, how):
    path = tmp_path / LOCK
    first = other(path)
    first.send_signal(how)
    first.wait()
    with only_writer(path):
        pass
    assert not path.exists()
    # Python only cleans up after Ctrl-C
    assert (f"process {first.pid} on" in caplog.text) == (how != signal.SIGINT)


def test_the_block_leaves_nothing_behind(tmp_path):
    for error in (None, ValueError, KeyboardInterrupt):
        try:
            with only_writer(tmp_path / "a" / "b" / LOCK):
                if error is not None:
                    raise error
        except (ValueError, KeyboardInterrupt):
            pass
        assert list(tmp_path.iterdir()) == []
    with only_writer(tmp_path / "a" / LOCK):
        (tmp_path / "a" / "kept").touch()
    assert [item.name for item in (tmp_path / "a").iterdir()] == ["kept"]


def test_a_thread_may_enter_again_and_another_may_not(tmp_path):
    path = tmp_path / LOCK
    caught = []

    def enter() -> None:
        with pytest.raises(DataError) as error, only_writer(path):
            pass
        caught.append(str(os.getpid()) in error.value.found)

    with only_writer(path):
        with only_writer(path):
            pass
        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        assert path.is_file()
    assert caught == [True]


def left_by(path: Path, **changes: Any) -> None:
    """A lock of another process, which holds none of the system's."""
    with only_writer(path):
        stated = json.loads(path.read_text("utf8"))
    path.write_text(json.dumps({**stated, **changes}), encoding="utf8")


@pytest.mark.skipif(sys.platform == "win32", reason="needs a fork")
def test_a_forked_process_does_not_inherit_the_lock(tmp_path):
    """It may lock once its parent has ended its own block."""
    waits, wakes = os.pipe()

    def lock():
        os.read(waits, 1)
        with only_writer(tmp_path / LOCK):
            print("locked")

    with only_writer(tmp_path / LOCK):
        child = Forked(lock, [], tmp_path / "child")
    os.write(wakes, b"!")
    assert child.output() == "locked\n"
    os.close(waits)
    os.close(wakes)


def test_a_process_of_another_machine_may_be_alive(tmp_path):
    path = tmp_path / LOCK
    left_by(path, host="elsewhere", machine="another boot", pid=1)
    with pytest.raises(DataError) as caught, only_writer(path):
        pass
    assert "process 1 on elsewhere" in caught.value.found and str(path) in caught.value.do
    path.unlink()  # as the error says
    with only_writer(path):
        pass


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}'])
def test_a_lock_file_without_a_holder(tmp_path, text):
    (tmp_path / LOCK).write_text(text, encoding="utf8")
    with only_writer(tmp_path / LOCK):
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such locks")
def test_without_locks_of_the_filesystem_the_process_is_looked_up(tmp_path, monkeypatch):
    def no_locks(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr("fcntl.lockf", no_locks)
    path = tmp_path / LOCK
    left_by(path)  # of this very process
    with pytest.raises(DataError, match=f"process {os.getpid()} on"), only_writer(path):
        pass
    for changes in (
        {"began": 1.0},
        {"pid": 2**22 + 1},
    ):  # the number was given to another process; there is none
        path.unlink(missing_ok=True)
        left_by(path, **changes)
        with only_writer(path):
            pass


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder in which nobody can write")
def test_a_folder_that_cannot_be_written_is_not_locked():
    with only_writer(Path("/proc/self/out") / LOCK):
        pass


def test_two_writers_of_standoff_files(other, tmp_path):
    other(tmp_path / LOCK)
    with pytest.raises(DataError) as error:
        write_standoff([], tmp_path)
    assert str(tmp_path) in error.value.where


def test_two_packagings_of_the_same_version(other, tmp_path):
    import spacy

    from gliner_pipe.package import package

    other(tmp_path / "dist" / ".my_model-1.0.0.lock")
    with pytest.raises(DataError) as error:
        package(pipeline=spacy.blank("en"), name="my_model", version="1.0.0", root_dir=tmp_path)
    assert str(tmp_path / "dist") in error.value.where
