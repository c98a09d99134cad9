"""Cheap chance is chance all the same."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gliner_pipe.modeling.layers.dropout import QuickDropout, draw_kept, drawn_rate, quicken


@pytest.mark.parametrize("rate", [0.1, 0.4, 0.9])
def test_the_share_that_is_kept(rate):
    torch.manual_seed(0)
    kept = draw_kept(torch.empty(301, 333), rate)
    assert kept.shape == (301, 333) and kept.dtype == torch.bool
    assert kept.float().mean().item() == pytest.approx(1 - rate, abs=0.005)
    values = kept.double().flatten() - kept.double().mean()
    for shift in (1, 2, 3, 4, 333):  # neighbours know nothing of each other
        assert abs((values[:-shift] * values[shift:]).mean().item()) < 0.005


def test_rates_of_0_and_1():
    assert draw_kept(torch.empty(1000), 0.0).all()
    assert not draw_kept(torch.empty(1000), 1.0).any()
    assert drawn_rate(0.1) == pytest.approx(0.1, abs=1e-5)


def test_the_layer_scales_as_that_of_torch():
    values = torch.randn(200, 300, requires_grad=True)
    layer = QuickDropout(0.25)
    out = layer(values)
    kept = out != 0
    torch.testing.assert_close(out[kept], values[kept] / 0.75)
    out.sum().backward()
    torch.testing.assert_close(values.grad, kept / 0.75)
    assert layer.eval()(values) is values or torch.equal(layer(values), values)
    assert not QuickDropout(1.0)(values).any()


def test_the_seed():
    values = torch.ones(100)
    layer = QuickDropout(0.5)
    torch.manual_seed(3)
    one = layer(values)
    torch.manual_seed(3)
    assert torch.equal(layer(values), one) and not torch.equal(layer(values), one)


def test_layers_are_replaced_and_names_stay():
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.3), nn.Sequential(nn.Dropout(0.1), nn.ReLU()))
    model[2].eval()
    names = list(model.state_dict())
    quicken([model])
    assert [type(module) for module in (model[1], model[2][0])] == [QuickDropout] * 2
    assert (model[1].p, model[1].training, model[2][0].training) == (0.3, True, False)
    assert list(model.state_dict()) == names
