"""Every counter: shapes, padding, instances one after the other, gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conftest import built_in

from gliner_pipe.modeling.counters.base import MOST_INSTANCES
from gliner_pipe.registry import registry

SIZE = 16


@pytest.fixture(params=sorted(built_in("counters")))
def counter(request: pytest.FixtureRequest) -> Any:
    block = registry.counters.get(request.param)()
    block.build(SIZE)
    return block.eval()


def test_shapes(counter: Any) -> None:
    fields = torch.randn(3, 4, SIZE)
    assert counter(fields, 5).shape == (3, 5, 4, SIZE)
    assert counter(fields, MOST_INSTANCES).shape == (3, MOST_INSTANCES, 4, SIZE)
    assert counter.count(fields).shape == (3, 4, MOST_INSTANCES)


def test_more_instances_do_not_change_the_first(counter: Any) -> None:
    fields = torch.randn(2, 3, SIZE)
    with torch.no_grad():
        assert torch.allclose(counter(fields, 6)[:, :2], counter(fields, 2), atol=1e-6)
        one, other = counter(fields, 2).unbind(1)
    assert not torch.allclose(one, other)


def test_padding_changes_nothing(counter: Any) -> None:
    fields = torch.randn(3, 5, SIZE)
    mask = torch.arange(5) < torch.tensor([2, 5, 0])[:, None]
    with torch.no_grad():
        together = counter(fields, 3, mask)
        assert torch.allclose(together[0, :, :2], counter(fields[:1, :2], 3)[0], atol=1e-6)
        assert torch.allclose(together[1], counter(fields[1:2], 3)[0], atol=1e-6)
    assert together.isfinite().all()


def test_gradients(counter: Any) -> None:
    fields = torch.randn(2, 3, SIZE, requires_grad=True)
    mask = torch.tensor([[True, True, False], [False] * 3])
    (counter.train()(fields, 2, mask)[0, :, :2].sum() + counter.count(fields).sum()).backward()
    assert fields.grad is not None and fields.grad.isfinite().all()
    for name, parameter in counter.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("name", ["count_lstm", "count_lstm_v2", "count_lstm_moe"])
def test_queries_are_those_of_the_package(name: str) -> None:
    layers = pytest.importorskip("gliner2.layers")
    from gliner_pipe.checkpoints.gliner2_names import rename

    kinds = {"count_lstm": "CountLSTM", "count_lstm_v2": "CountLSTMv2", "count_lstm_moe": "CountLSTMoE"}
    theirs = getattr(layers, kinds[name])(SIZE).eval()
    ours = registry.counters.get(name)()
    ours.build(SIZE)
    state = {f"count_embed.{key}": value for key, value in theirs.state_dict().items()}
    renamed = {key.removeprefix("counter."): value for key, value in rename(state, {}, "x").items()}
    missing, unexpected = ours.eval().load_state_dict(renamed, strict=False)
    assert not unexpected and {one.split(".")[0] for one in missing} == {"number"}
    fields = torch.randn(4, SIZE)
    with torch.no_grad():
        assert torch.allclose(ours(fields[None], 7)[0], theirs(fields, 7), atol=1e-5)
