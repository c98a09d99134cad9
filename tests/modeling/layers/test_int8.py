from __future__ import annotations

import pytest
import torch
from torch import nn

from gliner_pipe.modeling.layers import int8
from gliner_pipe.modeling.layers.int8 import Int8Linear


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(5, 64), (2, 3, 64), (0, 64)])
def test_close_to_the_layer(bias: bool, shape: tuple[int, ...]) -> None:
    linear = nn.Linear(64, 48, bias=bias)
    inputs = torch.randn(shape)
    with torch.no_grad():
        expected, found = linear(inputs), Int8Linear(linear)(inputs)
    assert found.shape == expected.shape and found.dtype == torch.float32
    assert torch.allclose(found, expected, atol=0.03)


def test_the_same_as_the_definition() -> None:
    """Numbers that 127 steps hold exactly."""
    linear = nn.Linear(2, 2)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[127.0, -1.0], [0.5, 63.5]]))
        linear.bias.copy_(torch.tensor([1.0, -1.0]))
        found = Int8Linear(linear)(torch.tensor([[127.0, 2.0], [0.0, 0.0], [-1.0, 127 / 127]]))
    expected = torch.tensor([[127.0 * 127 - 2 + 1, 63.5 + 127 - 1], [1.0, -1.0], [-127.0, 62.0]])
    assert torch.allclose(found, expected, rtol=1e-5)


def test_an_outlier_does_not_affect_other_rows() -> None:
    linear = nn.Linear(64, 64)
    inputs = torch.randn(4, 64)
    with torch.no_grad():
        layer = Int8Linear(linear)
        alone = layer(inputs[:3])
        inputs[3, 0] = 1e4
        assert torch.equal(layer(inputs)[:3], alone)


def test_the_dtype_of_the_input() -> None:
    linear = nn.Linear(64, 64)
    with torch.no_grad():
        assert Int8Linear(linear)(torch.randn(2, 64).bfloat16()).dtype == torch.bfloat16


def test_a_quarter_of_the_memory() -> None:
    layer = Int8Linear(nn.Linear(64, 64))
    assert layer.weight.element_size() == 1
    assert not list(layer.parameters())


def test_padded_rows_change_nothing() -> None:
    """OneDNN keeps a kernel for each number of rows: it gets few numbers, and the rows are those of each alone."""
    layer = Int8Linear(nn.Linear(16, 24))
    inputs = torch.randn(3, 37, 16)
    with torch.inference_mode():
        found = layer(inputs)
        assert found.equal(torch.stack([layer(row) for row in inputs]))
        assert found.equal(torch.cat([layer(part) for part in inputs.split(1, dim=1)], 1))
        assert layer(inputs[:0]).shape == (0, 37, 24)
        numbers = {len(layer._quantized(torch.zeros(n, 16))[0]) for n in range(1, 2049)}
    assert len(numbers) < 140


def test_many_rows_are_quantized_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, rows = Int8Linear(nn.Linear(16, 24)), torch.randn(50, 16)
    with torch.inference_mode():
        at_once = layer(rows)
        monkeypatch.setattr(int8, "_AT_ONCE", 16 * 7)
        assert layer(rows).equal(at_once)
        assert layer(rows.bfloat16()).equal(layer(rows.bfloat16().float()).bfloat16())
