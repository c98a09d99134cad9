"""Out of memory: one clear error, or smaller sub-batches with the same result."""

from __future__ import annotations

import confit
import pytest
import torch

from gliner_pipe.errors import ConfigError, TrainingError
from gliner_pipe.modeling.gliner import GLiNER
from gliner_pipe.registry import registry
from gliner_pipe.train import train
from gliner_pipe.training.data_loader import StepStream
from gliner_pipe.training.step import DeviceFullError, check_scaler
from tests.training.conftest import weights


def options(config_path, **changes):
    resolved = confit.Config.from_disk(config_path, resolve=True, registry=registry)
    return {**resolved["train"], "loggers": [], **changes}


@pytest.fixture
def small_memory(monkeypatch):
    """A device with room for some subword tokens: larger batches raise the error of torch on a GPU."""
    limit = {"pieces": 10**9, "failures": 0, "error": torch.OutOfMemoryError}
    forward = GLiNER.forward

    def bounded(self, batch):
        if batch.n_pieces > limit["pieces"]:
            limit["failures"] += 1
            raise limit["error"](f"CUBLAS_STATUS_ALLOC_FAILED: {batch.n_pieces} pieces")
        return forward(self, batch)

    monkeypatch.setattr(GLiNER, "forward", bounded)
    return limit


def test_out_of_memory_is_explained(config_path, small_memory):
    small_memory["pieces"] = 40
    with pytest.raises(
        DeviceFullError, match=r"step 1: 8 documents.*auto_find_batch_size, or grad_accumulation_max_tokens"
    ):
        train(**options(config_path))


@pytest.mark.parametrize(("num_workers", "error"), [(0, torch.OutOfMemoryError), (1, RuntimeError)])
def test_sub_batches_are_halved_until_they_fit(config_path, small_memory, capsys, num_workers, error):
    small_memory["error"] = error
    sgd = {"optimizer": "sgd", "max_grad_norm": 0.1, "task_lr": 0.1, "transformer_lr": 0.1}
    plain = weights(train(**options(config_path, **sgd)))
    small_memory["pieces"] = 60
    cut = weights(train(**options(config_path, auto_find_batch_size=True, num_workers=num_workers, **sgd)))
    assert small_memory["failures"] >= 1
    assert "Out of memory: splitting batches" in capsys.readouterr().out
    for name, value in plain.items():
        assert torch.allclose(cut[name], value, atol=1e-6), name


def test_a_document_that_does_not_fit_ends_the_training(config_path, small_memory):
    small_memory["pieces"] = 1
    with pytest.raises(DeviceFullError):
        train(**options(config_path, auto_find_batch_size=True))


def test_halving_ends_at_one_subword_token():
    stream = StepStream([], {}, seed=0, max_tokens=None)
    assert [stream.halve(10_000), stream.halve(10_000), stream.halve(1_200)] == [5000, 2500, 600]
    assert [stream.halve(1), stream.halve(1)] == [1, 1]


def test_an_optimizer_that_does_not_fit_ends_the_training(config_path, monkeypatch):
    """Smaller batches would not help it, and its step cannot be run again."""
    calls = []

    def full(self, closure=None):
        calls.append(self)
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(torch.optim.AdamW, "step", full)
    with pytest.raises(TrainingError) as error:
        train(**options(config_path, auto_find_batch_size=True))
    assert len(calls) == 1 and not isinstance(error.value, DeviceFullError)
    assert "step 1" in str(error.value) and "freeze_components" in str(error.value)


def test_a_scaler_needs_weights_in_32_bits():
    scaler = torch.amp.GradScaler("cpu")
    half = torch.nn.Parameter(torch.ones(2, dtype=torch.float16))
    half.grad = torch.ones_like(half)
    scaler.scale(torch.ones(1))
    with pytest.raises(ValueError, match="FP16"):  # what torch says in the first step
        scaler.unscale_(torch.optim.SGD([half], lr=0.1))
    with pytest.raises(ConfigError) as error:
        check_scaler(scaler, [half])
    assert error.value.where == "train.mixed_precision"
    check_scaler(None, [half])
    check_scaler(scaler, [torch.nn.Parameter(torch.ones(2))])
