"""Two processes on one machine learn what one process learns from the same examples."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import spacy
import torch

from tests.training.conftest import weights

pytestmark = pytest.mark.slow


def free_port() -> str:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return str(server.getsockname()[1])


def run(launcher: list[str], config_path: Path, out: Path, *arguments: str) -> list[dict]:
    """Train by command line and return the log of the steps."""
    command = [
        sys.executable, *launcher, "-m", "gliner_pipe.train", "--config", str(config_path), "--cpu", "true",
        "--output_path", str(out / "model-last"), "--train.loggers", '["jsonl"]', "--max_steps", "6",
        "--validation_interval", "3", *arguments,
    ]  # fmt: skip
    done = subprocess.run(
        command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (out / "train_log.jsonl").read_text("utf8").splitlines()]
    return [line for line in lines if line["type"] == "step"]


def torchrun() -> list[str]:
    return ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", free_port()]


def test_two_processes_learn_the_same_as_one(config_path, tmp_path):
    # one by accelerate's launcher, which starts several processes on several GPUs only
    launch = ["-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1", "--num_machines", "1"]
    one = run(
        [*launch, "--mixed_precision", "no", "--dynamo_backend", "no"],
        config_path, tmp_path / "one", "--gradient_accumulation_steps", "2",
    )  # fmt: skip
    two = run(torchrun(), config_path, tmp_path / "two")
    assert [step["docs"] for step in two] == [step["docs"] for step in one] == [16] * 6
    for mine, theirs in zip(two, one, strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
        assert mine["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=1e-4)
        assert mine["lr"] == theirs["lr"]
    left = weights(spacy.load(tmp_path / "one" / "model-last"))
    right = weights(spacy.load(tmp_path / "two" / "model-last"))
    for name, value in left.items():
        assert torch.allclose(value.float(), right[name].float(), atol=1e-4), name


def test_two_processes_resume_a_training_of_two(config_path, tmp_path):
    whole = run(torchrun(), config_path, tmp_path / "whole")
    folder = tmp_path / "broken"
    # the schedule is that of six steps in both runs
    run(torchrun(), config_path, folder, "--checkpoint_interval", "3", "--save_total_limit", "5")
    newest = folder / "checkpoints" / "step-000006"
    assert newest.is_dir()
    again = run(
        torchrun(),
        config_path,
        folder,
        "--resume_from_checkpoint",
        str(folder / "checkpoints" / "step-000003"),
    )
    assert [step["step"] for step in again] == [1, 2, 3, 4, 5, 6]
    for mine, theirs in zip(again, whole, strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-6)
