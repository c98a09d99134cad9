from __future__ import annotations

import math

import pytest
import torch
from safetensors.torch import load_file, save_model
from torch import nn

from gliner_pipe.modeling import weights as files
from gliner_pipe.modeling.weights import fill, read_parts, shapes


class Tied(nn.Module):
    """Two layers, the first of which has two names."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(4, 6)
        self.other = self.one
        self.last = nn.Linear(6, 20)


@pytest.fixture
def saved(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "NUMBERS_AT_ONCE", 40)
    model = Tied()
    save_model(model, str(tmp_path / "model.safetensors"))
    return model, tmp_path / "model.safetensors"


def test_parts_are_small_and_together_the_file(saved):
    model, path = saved
    parts, stored = list(read_parts(path)), load_file(path)
    assert len(parts) == 3
    found = {name: tensor for part in parts for name, tensor in part.items()}
    assert found.keys() == model.state_dict().keys() == shapes(path).keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(found[name], tensor) and shapes(path)[name].shape == tensor.shape
    for part in parts:
        size = sum(math.prod(tensor.shape) for name, tensor in part.items() if name in stored)
        assert size <= 40 or len(part) == 1


def test_filled_and_not_filled(saved):
    model, path = saved
    other = Tied()
    assert fill(other, read_parts(path)) == ([], [])
    for name, weight in other.state_dict().items():
        assert torch.equal(weight, model.state_dict()[name])
    shared = [{name: weight for name, weight in model.state_dict().items() if name[:5] != "other"}]
    assert fill(other, shared) == ([], [])  # shared weights are not missing
    less = [{"last.bias": model.last.bias.detach(), "strange": torch.ones(1)}]
    missing = ["one.weight", "one.bias", "other.weight", "other.bias", "last.weight"]
    assert fill(other, less) == (missing, ["strange"])
    with pytest.raises(RuntimeError, match=r"size mismatch for last\.bias"):
        fill(other, [{"last.bias": torch.ones(3)}])
