"""Every way in which a prediction ends: soon, with its message and exit code, and without leaving a process behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import command_server  # noqa: F401 (registers the component)
import pytest
import spacy

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc"),
    pytest.mark.timeout(120),
]

#: Seconds within which a command and its processes end.
SOON = 30.0
#: Longer than the buffer of a pipe, so that a process without a reader would wait.
LONG = "Ann saw Bo. " * 300


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a pipeline that predicts Ann, and fails on some texts."""
    nlp = spacy.blank("en")
    nlp.add_pipe("span_ruler", config={"spans_key": "found"}).add_patterns(
        [{"label": "person", "pattern": "Ann"}]
    )
    nlp.add_pipe("fragile")
    folder = tmp_path_factory.mktemp("pipeline")
    nlp.to_disk(folder)
    return folder


class Command:
    """A running command, in its own session."""

    def __init__(self, server: subprocess.Popen[str], folder: Path) -> None:
        assert server.stdout is not None
        self._answers = server.stdout
        self._folder = folder
        self.pid = int(self._answers.readline())

    def ends(self) -> tuple[int, str]:
        """Wait for the end; return exit status and standard error."""
        timer = threading.Timer(SOON, lambda: [os.kill(pid, signal.SIGKILL) for pid in self.processes()])
        timer.start()
        status = int(self._answers.readline())
        assert timer.is_alive(), "the command did not end"
        timer.cancel()
        deadline = time.monotonic() + SOON
        while self.processes():
            if time.monotonic() > deadline:
                left = self.processes()
                for pid in left:
                    os.kill(pid, signal.SIGKILL)
                pytest.fail(f"{len(left)} processes outlive the command")
            time.sleep(0.05)
        return status, (self._folder / "stderr").read_text()

    def processes(self) -> list[int]:
        """The living processes of the session."""
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                state, _, _, session = stat.read_text().rpartition(")")[2].split()[:4]
            except OSError:
                continue
            if int(session) == self.pid and state != "Z":
                found.append(int(stat.parent.name))
        return found

    def workers(self) -> list[int]:
        return [pid for pid in self.processes() if pid != self.pid]


Run = Callable[..., Command]


@pytest.fixture(scope="module")
def server() -> Iterator[subprocess.Popen[str]]:
    script = str(Path(__file__).parent.with_name("command_server.py"))
    with subprocess.Popen(
        [sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


@pytest.fixture
def run(server: subprocess.Popen[str], pipeline: Path, tmp_path: Path) -> Run:
    """Start a command."""

    def run(*arguments: Any, command: str = "predict", largest_file: int = 0, **streams: Any) -> Command:
        (tmp_path / "stderr").unlink(missing_ok=True)
        request = {
            "command": command,
            "arguments": ["--pipeline", str(pipeline), *map(str, arguments)],
            "stdin": "/dev/null",
            "stdout": str(tmp_path / "stdout"),
            "stderr": str(tmp_path / "stderr"),
            "largest_file": largest_file,
            **{name: str(path) for name, path in streams.items()},
        }
        assert server.stdin is not None
        server.stdin.write(json.dumps(request) + "\n")
        server.stdin.flush()
        return Command(server, tmp_path)

    return run


def write(path: Path, rows: list[Any]) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    return path


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def one_error(messages: str) -> str:
    lines = [line for line in messages.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and "Traceback" not in messages, messages
    return lines[0]


BAD = {"null": None, "unpaired surrogate": "Ann \ud83d", "no text": {"a": 1}, "model": "fail Ann"}


@pytest.mark.parametrize("place", [0, 20, 59], ids=["first", "middle", "last"])
@pytest.mark.parametrize("shards", [True, False], ids=["shards", "texts"])
def test_a_bad_row_ends_the_command(run: Run, tmp_path: Path, place: int, shards: bool) -> None:
    bad = list(BAD.values())[(place + shards) % len(BAD)]
    texts = [LONG] * 60
    texts[place] = bad  # type: ignore[call-overload]
    source = write(tmp_path / "in" / "a.jsonl", texts)
    output = tmp_path / "out" if shards else tmp_path / "out.jsonl"
    options = ["--input", source, "--output", output, "--n-process", "2", "--batch-size", "10"]
    status, messages = run(*options, *([] if shards else ["--format", "jsonl"])).ends()
    assert status == 1
    assert f"a.jsonl:{place + 1}" in one_error(messages)
    assert not output.is_file() and not list(tmp_path.rglob(".tmp*"))
    if not shards:
        return
    assert "--on-error skip" in messages
    status, messages = run(*options, "--on-error", "skip").ends()
    assert status == 0, messages
    found = rows_of(output / "a.jsonl")
    assert len(found) == 60
    assert [number for number, row in enumerate(found) if row["entities"] is None] == [place]
    assert found[place]["error"] and not any(
        "error" in row for number, row in enumerate(found) if number != place
    )
    assert "1 row without prediction" in messages


def feed(path: Path, ready: Callable[[], bool]) -> int:
    """Write texts to a pipe that a command reads, until it is ready; return the descriptor, still open."""
    end = os.open(path, os.O_WRONLY)
    deadline = time.monotonic() + SOON
    while not ready():
        assert time.monotonic() < deadline
        os.write(end, b"Ann\n")
        time.sleep(0.01)
    return end


def started(run: Run, tmp_path: Path, *options: Any, n_process: int = 2) -> tuple[Command, int]:
    """Start a command over an endless stream, and wait for its first predictions."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "stdout").touch()
    options = ("--input", "-", "--format", "jsonl", "--batch-size", 1, "--n-process", n_process, *options)
    command = run(*options, stdin=tmp_path / "pipe")
    end = feed(tmp_path / "pipe", lambda: bool((tmp_path / "stdout").stat().st_size))
    assert len(command.workers()) == (n_process if n_process > 1 else 0)
    return command, end


@pytest.mark.parametrize(
    ("name", "n_process"),
    [("SIGTERM", 2), ("SIGINT", 2), ("SIGHUP", 2), ("SIGKILL", 2), ("SIGTERM", 1), ("SIGINT", 1)],
)
def test_signals(run: Run, tmp_path: Path, name: str, n_process: int) -> None:
    command, end = started(run, tmp_path, n_process=n_process)
    number = getattr(signal, name)
    os.kill(command.pid, number)
    status, messages = command.ends()
    os.close(end)
    if name == "SIGKILL":
        assert status == -number
        return
    assert status == 128 + number
    assert one_error(messages) == messages.strip()
    assert all(row["text"] == "Ann" for row in rows_of(tmp_path / "stdout"))


@pytest.mark.parametrize("to_all", [True, False])
def test_ctrl_c_reaches_all_processes(run: Run, tmp_path: Path, to_all: bool) -> None:
    source = write(tmp_path / "in" / "a.jsonl", [LONG] * 1500)
    options = ["--input", source, "--output", tmp_path / "out", "--n-process", 2, "--save-every", 0]
    command = run(*options)
    deadline = time.monotonic() + SOON
    while not list(tmp_path.glob("out/_predict/parts/*/[0-9]*.jsonl")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    if to_all:
        os.killpg(command.pid, signal.SIGINT)
    else:
        os.kill(command.pid, signal.SIGKILL)
    status, messages = command.ends()
    assert status == (130 if to_all else -signal.SIGKILL)
    assert "Traceback" not in messages
    done = sum(len(rows_of(path)) for path in tmp_path.glob("out/_predict/parts/*/[0-9]*.jsonl"))
    assert 0 < done < 1500


@pytest.mark.parametrize("shards", [True, False], ids=["shards", "texts"])
def test_a_process_that_dies(run: Run, tmp_path: Path, shards: bool) -> None:
    if shards:
        texts = [LONG] * 60
        texts[45] = "die"
        source = write(tmp_path / "in" / "a.jsonl", texts)
        command = run("--input", source, "--output", tmp_path / "out", "--n-process", 2, "--batch-size", 10)
    else:
        command, end = started(run, tmp_path)
        os.kill(command.workers()[0], signal.SIGKILL)
        feed_until_it_ends = os.fdopen(end, "wb", buffering=0)
        try:
            for _ in range(1000):
                feed_until_it_ends.write(b"Ann\n")
                time.sleep(0.005)
        except BrokenPipeError:
            pass
        feed_until_it_ends.close()
    status, messages = command.ends()
    assert status == 1
    assert ("exit code 7" if shards else "SIGKILL") in one_error(messages) and "--n-process" in messages


def test_a_pipe_that_is_closed(run: Run, tmp_path: Path) -> None:
    source = write(tmp_path / "in" / "a.jsonl", [LONG] * 60)
    os.mkfifo(tmp_path / "head")
    options = ["--format", "jsonl", "--n-process", 2, "--batch-size", 10]
    command = run("--input", source, *options, stdout=tmp_path / "head")
    with (tmp_path / "head").open() as reader:
        assert json.loads(reader.readline())["text"] == LONG
    status, messages = command.ends()
    assert (status, messages) == (0, "")


@pytest.mark.parametrize("where", ["stdout", "file", "shards"])
def test_a_disk_that_is_full(run: Run, tmp_path: Path, where: str) -> None:
    source = write(tmp_path / "in" / "a.jsonl", [LONG] * 60)
    options = ["--input", source, "--n-process", 2, "--batch-size", 10]
    if where == "stdout":
        command = run(*options, "--format", "jsonl", stdout="/dev/full")
    elif where == "file":
        output = ["--format", "jsonl", "--output", tmp_path / "out.jsonl"]
        command = run(*options, *output, largest_file=100_000)
    else:
        command = run(*options, "--output", tmp_path / "out", largest_file=100_000)
    status, messages = command.ends()
    assert status == 1
    assert {"stdout": "No space left", "file": "out.jsonl", "shards": "a.jsonl"}[where] in one_error(messages)
    assert not (tmp_path / "out.jsonl").exists() and not list(tmp_path.rglob(".tmp*"))
    if where == "shards":
        assert run(*options, "--output", tmp_path / "out").ends()[0] == 0
        assert len(rows_of(tmp_path / "out" / "a.jsonl")) == 60


def test_a_missing_column(run: Run, tmp_path: Path) -> None:
    source = write(tmp_path / "in" / "a.jsonl", [LONG] * 60)
    options = ["--input", source, "--text-column", "body", "--n-process", 2]
    status, messages = run(*options, "--output", tmp_path / "out").ends()
    assert status == 1 and "a.jsonl:1" in one_error(messages) and "'body'" in messages


def test_evaluate_ends_when_the_pipeline_fails(run: Run, tmp_path: Path) -> None:
    records = [{"text": text, "entities": []} for text in [*[LONG] * 25, "fail", *[LONG] * 25]]
    (tmp_path / "gold.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    options = ["--data", tmp_path / "gold.jsonl", "--n-process", 2, "--batch-size", 10]
    status, messages = run(*options, command="evaluate").ends()
    assert status == 1 and "document 26" in one_error(messages) and "too much" in messages
