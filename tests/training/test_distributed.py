"""Two processes on one machine learn what one process learns from the same examples."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import spacy
import torch
from accelerate.commands.launch import main as accelerate_launch
from forked import Forked
from torch.distributed.run import main as torchrun

from gliner_pipe.train import main
from tests.training.conftest import weights

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="nothing is forked")


def free_port() -> str:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return str(server.getsockname()[1])


def arguments(config_path: Path, out: Path, *more: Any) -> list[str]:
    options = ["--config", config_path, "--cpu", "true", "--output_path", out / "model-last", *more]
    options += ["--train.loggers", '["jsonl"]', "--max_steps", 6, "--validation_interval", 3]
    return [str(option) for option in options]


def steps_of(out: Path) -> list[dict]:
    """Return the log of the steps."""
    lines = [json.loads(line) for line in (out / "train_log.jsonl").read_text("utf8").splitlines()]
    return [line for line in lines if line["type"] == "step"]


def test_two_processes_learn_the_same_as_one_and_resume(config_path, tmp_path):
    # one by accelerate's launcher, which starts several processes on several GPUs only
    options = ["--cpu", "--num_processes", 1, "--num_machines", 1, "--mixed_precision", "no"]
    options += ["--dynamo_backend", "no", "-m", "gliner_pipe.train"]
    options += arguments(config_path, tmp_path / "one", "--gradient_accumulation_steps", 2)
    Forked(accelerate_launch, options, tmp_path / "launcher").output()
    one, folder = steps_of(tmp_path / "one"), tmp_path / "two"
    options = ["--nproc-per-node", 2, "--master-port", free_port(), "-m", "gliner_pipe.train"]
    options += arguments(config_path, folder, "--checkpoint_interval", 3, "--save_total_limit", 5)
    options += ["--train.train_data.keep_in_memory", "false"]  # one process reads the data, both use them
    printed = Forked(torchrun, options, tmp_path / "launcher").output()
    assert "2 processes" in printed and printed.count("last model:") == 1
    assert len(list((folder / "data-cache").iterdir())) == 1 == printed.count("training data on disk")
    two = steps_of(folder)
    assert [step["docs"] for step in two] == [step["docs"] for step in one] == [16] * 6
    for mine, theirs in zip(two, one, strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
        assert mine["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=1e-4)
        assert mine["lr"] == theirs["lr"]
    left = weights(spacy.load(tmp_path / "one" / "model-last"))
    right = weights(spacy.load(folder / "model-last"))
    for name, value in left.items():
        assert torch.allclose(value.float(), right[name].float(), atol=1e-4), name
    assert spacy.load(folder / "model-best")

    first = folder / "checkpoints" / "step-000003"
    assert (folder / "checkpoints" / "step-000006").is_dir()
    options = arguments(config_path, folder, "--resume_from_checkpoint", first)
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "WORLD_SIZE": "2"}
    ranks = [
        Forked(main, options, tmp_path / rank, {**shared, "RANK": rank, "LOCAL_RANK": rank}) for rank in "01"
    ]
    for rank in ranks:
        rank.output()
    again = steps_of(folder)
    assert [step["step"] for step in again] == [1, 2, 3, 4, 5, 6]
    for mine, theirs in zip(again, two, strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-6)


def test_all_processes_stop_after_the_same_step(config_path, tmp_path):
    """Ctrl-C reaches one of them; each completes the step, and there is a checkpoint of it."""
    options = arguments(config_path, tmp_path / "out", "--checkpoint_interval", 5000)
    options += ["--max_steps", "5000", "--validation_interval", "5000", "--logging_interval", "1"]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "WORLD_SIZE": "2"}
    ranks = [
        Forked(main, options, tmp_path / rank, {**shared, "RANK": rank, "LOCAL_RANK": rank}) for rank in "01"
    ]
    log = tmp_path / "out" / "train_log.jsonl"
    while not (log.is_file() and '"step"' in log.read_text("utf8")):
        assert all(rank.process.is_alive() for rank in ranks)
        time.sleep(0.05)
    os.kill(ranks[1].process.pid, signal.SIGINT)
    for rank in ranks:
        rank.process.join(120)
    assert [rank.process.exitcode for rank in ranks] == [130, 130]
    (saved,) = (tmp_path / "out" / "checkpoints").iterdir()
    assert saved.name == f"step-{steps_of(tmp_path / 'out')[-1]['step']:06d}"
    printed = (tmp_path / "0" / "stdout").read_text("utf8")
    assert f"newest checkpoint: {saved}" in printed and "resume with:" in printed
