"""Trackers, each writing to this machine, read back from what it wrote."""

from __future__ import annotations

import json
import os
import sqlite3
import struct
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker
from forked import Forked
from logger_records import step, validation

from gliner_pipe.errors import ConfigError
from gliner_pipe.registry import registry
from gliner_pipe.training.loggers import RunInfo, TensorBoardLogger, make_loggers
from gliner_pipe.training.loggers.trackers import hyperparameters

CONFIG = """
[vars]
lr = 1e-4

[train]
batch_size = "8 samples"
max_grad_norm = null
transformer_lr = ${vars.lr}
grad_accumulation_max_tokens = 512
labels = ["person", {"label": "date: full", "auth_token": "abc"}]

[train.train_data.reader]
@readers = "shop"
token = "very secret"
url = "https://me:pass@example.org/x"
"""


class Kept(GeneralTracker):
    """A tracker that keeps what it is told."""

    name = "kept"
    requires_logging_directory = True
    runs: list[Kept] = []  # noqa: RUF012
    fails_at = -1

    def __init__(self, run_name: str, logging_dir: Any, **options: Any) -> None:
        super().__init__()
        self.made = (run_name, Path(logging_dir), options)
        self.config: dict[str, Any] = {}
        self.values: list[tuple[int | None, dict[str, Any]]] = []
        self.finished = False

    @property
    def tracker(self) -> Any:
        return self

    def start(self) -> None:
        if self.made[2].get("refuses"):
            raise OSError("no such\nserver")
        self.runs.append(self)

    def store_init_configuration(self, values: dict) -> None:
        self.config = values

    def log(self, values: dict, step: int | None = None, **kwargs: Any) -> None:
        if step == self.fails_at:
            raise ConnectionError("gone")
        self.values.append((step, values))

    def finish(self) -> None:
        self.finished = True


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> list[Kept]:
    monkeypatch.setitem(LOGGER_TYPE_TO_CLASS, "kept", Kept)
    monkeypatch.setattr(Kept, "runs", [])
    return Kept.runs


def train(logger: Any, run: RunInfo, steps: range, f: float = 0.5) -> None:
    """Hand a short training to a logger; there is a validation after its last step."""
    logger.start(run)
    try:
        for number in steps:
            logger.step(step(number))
        logger.validation(validation(steps[-1], f, other=None, name="x"))
    finally:
        logger.finish()


def test_secrets_are_redacted(tmp_path: Path) -> None:
    values = hyperparameters(RunInfo(4, tmp_path, CONFIG, {"torch": "2.0"}))
    assert values["max_steps"] == 4 and values["versions.torch"] == "2.0"
    assert values["train.batch_size"] == "8 samples" and values["vars.lr"] == 1e-4
    assert values["train.max_grad_norm"] == "null"
    assert values["train.transformer_lr"] == "${vars.lr}"
    assert values["train.grad_accumulation_max_tokens"] == 512
    assert values["train.train_data.reader.@readers"] == "shop"
    assert values["train.train_data.reader.token"] == values["train.train_data.reader.url"] == "***"
    assert values["train.labels"] == '["person", {"label": "date: full", "auth_token": "***"}]'


def test_any_tracker_of_accelerate(tmp_path: Path, kept: list[Kept]) -> None:
    logger = registry.loggers.get("tracker")(name="kept", project="p", options={"colour": "red"})
    assert make_loggers([logger]) == [logger]
    train(logger, RunInfo(2, tmp_path, CONFIG), range(1, 3))
    assert [run.made for run in kept] == [("p", tmp_path, {"colour": "red"})]
    assert kept[0].finished and kept[0].config["train.batch_size"] == "8 samples"
    first = {
        "train/loss": 1.0,
        "train/grad_norm": 2.0,
        "train/words_per_second": 1234.5,
        "train/parts/gliner.span": 1.0,
        "train/lr/transformer": 5e-5,
        "train/lr/task": 1e-4,
    }
    scores = {
        "val/ner.work of art.f": 0.0,
        "val/ner.micro.p": 0.25,
        "val/ner.micro.r": 0.5,
        "val/ner.micro.f": 0.5,
    }
    assert kept[0].values == [(1, first), (2, {**first, "train/loss": 0.5}), (2, scores)]


def test_a_tracker_that_cannot_start_is_one_line(tmp_path: Path, kept: list[Kept]) -> None:
    logger = registry.loggers.get("tracker")(name="kept", options={"refuses": True})
    with pytest.raises(ConfigError, match=r"^\[train.loggers.kept\] cannot start: no such server\.$"):
        logger.start(RunInfo(2, tmp_path))
    logger.finish()
    assert logger.tracker is None


def test_a_tracker_that_fails_does_not_end_the_training(
    tmp_path: Path, kept: list[Kept], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Kept, "fails_at", 2)
    train(registry.loggers.get("tracker")(name="kept"), RunInfo(4, tmp_path), range(1, 5))
    assert [number for number, _ in kept[0].values] == [1] and kept[0].finished
    told = capsys.readouterr().out
    assert (
        told.count("warning") == 1
        and "train.loggers.kept] stopped logging at step 2: ConnectionError: gone" in told
    )


def test_a_tracker_that_cannot_be_closed_warns(
    tmp_path: Path, kept: list[Kept], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def finish(self: Kept) -> None:
        raise TimeoutError("no\nanswer")

    monkeypatch.setattr(Kept, "finish", finish)
    train(registry.loggers.get("tracker")(name="kept"), RunInfo(1, tmp_path), range(1, 2))
    assert capsys.readouterr().out == (
        "warning: [train.loggers.kept] could not be closed: TimeoutError: no answer\n"
    )


def read_events(folder: Path) -> dict[str, dict[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {
        tag: {event.step: event.value for event in events.Scalars(tag)} for tag in events.Tags()["scalars"]
    }


def test_tensorboard(tmp_path: Path) -> None:
    train(TensorBoardLogger(), RunInfo(4, tmp_path, CONFIG, name="one"), range(1, 5))
    found = read_events(tmp_path / "runs" / "one")
    assert found["train/loss"] == pytest.approx({1: 1.0, 2: 0.5, 3: 1 / 3, 4: 0.25})
    assert found["train/lr/transformer"][4] == pytest.approx(5e-5)
    assert found["val/ner.micro.f"] == {4: 0.5}
    assert found["val/ner.work of art.f"] == {4: 0.0}
    config = next((tmp_path / "runs" / "one").rglob("hparams.yml")).read_text("utf8")
    assert "train.batch_size: 8 samples" in config and "secret" not in config

    train(TensorBoardLogger(), RunInfo(4, tmp_path, CONFIG, name="one", resumed_step=2), range(3, 5), f=0.75)
    found = read_events(tmp_path / "runs" / "one")
    assert sorted(found["train/loss"]) == [1, 2, 3, 4]
    assert found["val/ner.micro.f"] == {4: 0.75}  # that of the run that was given up is gone


def test_a_resumed_run_without_a_name_keeps_its_own(tmp_path: Path) -> None:
    train(TensorBoardLogger(), RunInfo(2, tmp_path), range(1, 2))
    train(TensorBoardLogger(), RunInfo(2, tmp_path, resumed_step=1), range(2, 3))
    (folder,) = (tmp_path / "runs").iterdir()
    assert read_events(folder)["train/loss"] == {1: 1.0, 2: 0.5}
    train(TensorBoardLogger("other", folder=tmp_path / "logs"), RunInfo(2, tmp_path, name="b"), range(1, 2))
    assert (tmp_path / "logs" / "other" / "b").is_dir()


TRAIN = """
import json, sys
from pathlib import Path
from logger_records import step, validation
from gliner_pipe.registry import registry
from gliner_pipe.training.loggers import RunInfo

name, folder, ends, fails = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3]), int(sys.argv[4])
config = '[train]\\nbatch_size = "8 samples"\\nhub_token = "very secret"\\n'
for resumed, last in zip([0, *ends], ends):
    logger = registry.loggers.get(name)()
    try:
        logger.start(RunInfo(last, folder, config, name="one", resumed_step=resumed))
        for number in range(resumed + 1, last + 1):
            logger.step(step(number))
        logger.validation(validation(last, 0.5))
        if fails and last == ends[-1]:
            raise RuntimeError("the training failed")
    finally:
        logger.finish()
"""


def train_apart(name: str, folder: Path, ends: list[int], fails: bool = False, **env: str) -> None:
    """Train to each of the steps and resume, in a process of its own: these trackers start threads and services."""
    tests = Path(__file__).parents[2]
    done = subprocess.run(
        [
            *(sys.executable, "-c", TRAIN, name, str(folder), json.dumps(ends), str(int(fails))),
            *("--train.reader.api_key", "very secret", "--url", "https://me:very-secret@host/"),
        ],
        env=os.environ | {"PYTHONPATH": str(tests), "OMP_NUM_THREADS": "1"} | env,
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == int(fails), done.stderr
    assert ("the training failed" in done.stderr) is fails


def test_mlflow(tmp_path: Path) -> None:
    train_apart("mlflow", tmp_path, [2, 4], fails=True)
    (run,) = [path.parent for path in (tmp_path / "mlruns").glob("*/*/meta.yaml")]
    lines: dict[str, dict[int, float]] = defaultdict(dict)
    for path in (run / "metrics").rglob("*"):
        if path.is_file():
            for line in path.read_text("utf8").splitlines():
                _, value, number = line.split()
                lines[path.relative_to(run / "metrics").as_posix()][int(number)] = float(value)
    assert lines["train/loss"] == pytest.approx({1: 1.0, 2: 0.5, 3: 1 / 3, 4: 0.25})
    assert lines["val/ner.micro.f"] == {2: 0.5, 4: 0.5}
    assert (run / "params" / "train.batch_size").read_text("utf8") == "8 samples"
    assert (run / "params" / "train.hub_token").read_text("utf8") == "***"
    assert "status: 4" in (run / "meta.yaml").read_text("utf8")  # failed
    assert "very secret" not in "".join(
        path.read_text("utf8") for path in tmp_path.rglob("*") if path.is_file()
    )


def test_mlflow_takes_any_name() -> None:
    logger = registry.loggers.get("mlflow")()
    values = {"val/date: full": 1, "val/date; full": 2, "val/Größe.f": 3, "@x": 4, "val/ok a-b_c.f": 5}
    assert logger.clean(values) == {
        "val/date_ full": 1,
        "val/date_ full_2": 2,
        "val/Gr__e.f": 3,
        "_x": 4,
        "val/ok a-b_c.f": 5,
    }


def test_wandb(tmp_path: Path) -> None:
    env = {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "HOME": str(tmp_path)}
    train_apart("wandb", tmp_path, [2, 3], fails=True, **env)
    runs = sorted((tmp_path / "wandb").glob("offline-run-*"))
    ids = {path.name.split("-")[3] for path in runs}  # a second run within a second has "-1" behind its id
    assert ids == {json.loads((tmp_path / "train_runs.json").read_text("utf8"))["wandb"]["id"]}
    rows, ends = [], []
    for file in sorted(
        (tmp_path / "wandb").glob("offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime
    ):
        found, end, config = read_wandb(file)
        rows += found
        ends.append(end)
        assert b"very secret" not in file.read_bytes() and b"very-secret" not in file.read_bytes()
        assert "very secret" not in config
    assert [(row["_step"], row["train/loss"]) for row in rows] == [
        (1, 1.0),
        (2, 0.5),
        (3, pytest.approx(1 / 3)),
    ]
    assert [row.get("val/ner.micro.f") for row in rows] == [None, 0.5, 0.5]
    assert ends == [0, 1]


def leveldb_records(data: bytes) -> Iterator[bytes]:
    """The records of a log as LevelDB writes it: pieces with a checksum, a size and a kind, in blocks."""
    block, place, record = 32768, 7, b""
    while place + 7 <= len(data):
        if block - place % block < 7:  # no room for a piece: the block is filled up
            place += block - place % block
            continue
        size, kind = struct.unpack_from("<HB", data, place + 4)
        record += data[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or the last piece
            yield record
            record = b""


def read_wandb(path: Path) -> tuple[list[dict[str, Any]], int, str]:
    """Steps, exit code and config of a file that wandb wrote while it was offline."""
    from wandb.proto import wandb_internal_pb2

    rows: list[dict[str, Any]] = []
    exit_code, config = -1, ""
    for data in leveldb_records(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        kind = record.WhichOneof("record_type")
        if kind == "history":
            items = record.history.item
            row = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}
            rows.append({"_step": record.history.step.num, **row})
        elif kind == "exit":
            exit_code = record.exit.exit_code
        elif kind in ("config", "run"):
            config += str(record)
    return rows, exit_code, config


@pytest.mark.skipif(sys.platform == "win32", reason="nothing is forked")
def test_wandb_without_a_login_fails_before_the_training(tmp_path: Path) -> None:
    def work() -> None:
        for name in [name for name in os.environ if name.startswith("WANDB")]:
            del os.environ[name]
        try:
            registry.loggers.get("wandb")().start(RunInfo(1, tmp_path))
        except ConfigError as error:
            print(error.where, "|", error.do)

    where, _, do = Forked(work, [], tmp_path, {"HOME": str(tmp_path)}).output().rpartition(" | ")
    assert where.endswith("train.loggers.wandb") and "WANDB_MODE=offline" in do


def test_trackio(tmp_path: Path) -> None:
    env = {"TRACKIO_DIR": str(tmp_path / "db"), "HF_HUB_OFFLINE": "1", "HOME": str(tmp_path)}
    train_apart("trackio", tmp_path, [2, 3], **env)
    (path,) = (tmp_path / "db").glob("*.db")
    with sqlite3.connect(path) as database:
        rows = database.execute("select run_name, step, metrics from metrics order by step, id").fetchall()
        (config,) = database.execute("select group_concat(config) from configs").fetchone()
    database.close()
    assert {row[0] for row in rows} == {"one"}
    values = [(number, json.loads(text)) for _, number, text in rows]
    assert [(number, row["train/loss"]) for number, row in values if "train/loss" in row] == [
        (1, 1.0),
        (2, 0.5),
        (3, pytest.approx(1 / 3)),
    ]
    assert [number for number, row in values if "val/ner.micro.f" in row] == [2, 3]
    assert "8 samples" in config and "very secret" not in config
