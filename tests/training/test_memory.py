"""A memory that is full: told clearly, or got around with the same result."""

from __future__ import annotations

import confit
import pytest
import torch

from gliner_pipe.errors import TrainingError
from gliner_pipe.modeling.gliner import GLiNER
from gliner_pipe.registry import registry
from gliner_pipe.train import train
from tests.training.conftest import weights


def options(config_path, **changes):
    resolved = confit.Config.from_disk(config_path, resolve=True, registry=registry)
    return {**resolved["train"], "loggers": [], **changes}


@pytest.fixture
def small_memory(monkeypatch):
    """A device that holds so many pieces: larger batches raise what torch raises on a GPU."""
    limit = {"pieces": 10**9, "failures": 0}
    forward = GLiNER.forward

    def bounded(self, batch):
        if batch.n_pieces > limit["pieces"]:
            limit["failures"] += 1
            raise torch.OutOfMemoryError(f"{batch.n_pieces} pieces")
        return forward(self, batch)

    monkeypatch.setattr(GLiNER, "forward", bounded)
    return limit


def test_a_full_memory_is_explained(config_path, small_memory):
    small_memory["pieces"] = 40
    with pytest.raises(
        TrainingError, match=r"in step 1: 8 documents.*auto_find_batch_size, or grad_accumulation"
    ):
        train(**options(config_path))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_steps_are_cut_smaller_until_they_fit(config_path, small_memory, capsys, num_workers):
    sgd = {"optimizer": "sgd", "max_grad_norm": 0.1, "task_lr": 0.1, "transformer_lr": 0.1}
    plain = weights(train(**options(config_path, **sgd)))
    small_memory["pieces"] = 60
    cut = weights(train(**options(config_path, auto_find_batch_size=True, num_workers=num_workers, **sgd)))
    assert small_memory["failures"] >= 1
    assert "steps are cut into parts of at most" in capsys.readouterr().out
    for name, value in plain.items():
        assert torch.allclose(cut[name], value, atol=1e-6), name


def test_one_document_that_does_not_fit_ends_the_training(config_path, small_memory):
    small_memory["pieces"] = 1
    with pytest.raises(TrainingError, match="the memory of the device is full"):
        train(**options(config_path, auto_find_batch_size=True))


def test_a_part_of_one_document_that_does_not_fit_ends_it_too(config_path):
    """However the other parts are cut: there is an end to cutting."""
    from gliner_pipe.training.loop import DeviceFullError, _make_smaller

    class Stream:
        max_tokens = None

    tried = []
    with pytest.raises(DeviceFullError):
        while True:
            documents = 3 if Stream.max_tokens is None or Stream.max_tokens > 7 else 1
            _make_smaller(Stream, DeviceFullError("full", 10_000, documents), tried.append)
    assert tried == sorted(tried, reverse=True) and tried[0] == 5000 and tried[-1] <= 7
