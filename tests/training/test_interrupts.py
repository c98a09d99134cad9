"""Ctrl-C during a training."""

from __future__ import annotations

import os
import shlex
import signal
from pathlib import Path

import confit
import pytest
import spacy
import torch

from gliner_pipe.cli.app import run
from gliner_pipe.registry import registry
from gliner_pipe.train import app, main, train
from tests.training.conftest import weights


def options(config_path, **changes):
    resolved = confit.Config.from_disk(config_path, resolve=True, registry=registry)
    return {**resolved["train"], "loggers": [], **changes}


def ctrl_c(_: object = None) -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_the_step_is_completed_and_the_training_can_be_resumed(config_path, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # a terminal, on which the command to copy is still one line
    monkeypatch.setenv("COLUMNS", "40")
    arguments = [
        "--config",
        str(config_path),
        "--max_steps",
        "4",
        "--validation_interval",
        "2",
        "--checkpoint_interval",
        "4",
    ]

    def interrupted() -> None:
        from gliner_pipe.training.trainer import Trainer

        whole = Trainer._after_step

        def after_step(self, step, record):
            if step == 3:
                ctrl_c()
            whole(self, step, record)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Trainer, "_after_step", after_step)
            app(arguments)

    with pytest.raises(SystemExit) as stopped:
        run(interrupted, arguments)
    assert stopped.value.code == 130
    out = tmp_path / "out"
    printed = capsys.readouterr()
    assert f"newest checkpoint: {out / 'checkpoints' / 'step-000003'}" in printed.out
    (line,) = [line for line in printed.out.splitlines() if line.startswith("resume with: ")]
    program, name, *command = shlex.split(line.removeprefix("resume with: "))
    assert (program, name) == ("gliner-pipe", "train")
    main(command)
    assert "Resuming from" in capsys.readouterr().out
    resumed = weights(spacy.load(out / "model-last"))
    app([*arguments, "--output_path", str(tmp_path / "again" / "model-last")])
    for key, value in weights(spacy.load(tmp_path / "again" / "model-last")).items():
        assert torch.equal(value, resumed[key]), key


def test_from_python_and_without_checkpoints(config_path, capsys):
    given = options(config_path, max_steps=4, validation_interval=1, on_validation_callback=ctrl_c)
    with pytest.raises(KeyboardInterrupt):
        train(**given)
    printed = capsys.readouterr().out
    assert "step-000001" in printed and "resume_from_checkpoint" in printed and "gliner-pipe" not in printed
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with pytest.raises(KeyboardInterrupt):
        train(
            **{
                **given,
                "save_total_limit": 0,
                "output_path": Path(given["output_path"]).parent / "other" / "last",
            }
        )
    assert "cannot be resumed" in capsys.readouterr().out


def test_a_second_one_ends_the_training_at_once(config_path, capsys):
    def twice(_: object) -> None:
        ctrl_c()
        ctrl_c()
        raise AssertionError("it was not stopped at once")

    with pytest.raises(KeyboardInterrupt):
        train(**options(config_path, max_steps=4, validation_interval=2, on_validation_callback=twice))
    assert "cannot be resumed" in capsys.readouterr().out
