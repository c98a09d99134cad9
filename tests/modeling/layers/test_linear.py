import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from conftest import kept_in
from torch import nn

from gliner_pipe.modeling.layers import linear
from gliner_pipe.modeling.layers.linear import Linear, rows_of_kernel, take_linears, without_padding

packs = pytest.mark.skipif(torch.float32 not in linear._KERNELS, reason="no packed weights on this machine")


@pytest.fixture
def layer():
    torch.manual_seed(0)
    return Linear(24, 40).eval()


def plain(layer, inputs):
    return F.linear(inputs, layer.weight, layer.bias)


@packs
@pytest.mark.parametrize("shape", [(24,), (1, 24), (7, 24), (2, 3, 24), (0, 24)])
def test_a_packed_weight_gives_the_same(layer, shape):
    inputs = torch.randn(shape)
    with torch.no_grad():
        torch.testing.assert_close(layer(inputs), plain(layer, inputs))
        torch.testing.assert_close(layer(inputs.expand(2, *shape)), plain(layer, inputs.expand(2, *shape)))
    assert bool(layer._cache) == (0 not in shape)


@packs
def test_inputs_may_be_strided(layer):
    inputs = torch.randn(24, 5, 3).transpose(0, 2)
    with torch.no_grad():
        torch.testing.assert_close(layer(inputs), plain(layer, inputs))


@packs
def test_columns(layer):
    inputs, bias = torch.randn(3, 10), torch.randn(40)
    expected = F.linear(inputs, layer.weight[:, 4:14], bias)
    torch.testing.assert_close(layer.columns(inputs, 4, 14, bias), expected)  # with gradients
    with torch.no_grad():
        torch.testing.assert_close(layer.columns(inputs, 4, 14, bias), expected)
        torch.testing.assert_close(layer.columns(inputs, 14, 24), F.linear(inputs, layer.weight[:, 14:24]))


@packs
@pytest.mark.parametrize(
    "change",
    [
        lambda layer: layer.weight.mul_(2),
        lambda layer: layer.load_state_dict({"weight": torch.ones(40, 24), "bias": torch.ones(40)}),
        lambda layer: setattr(layer, "weight", nn.Parameter(torch.ones(40, 24))),
        lambda layer: setattr(layer.weight, "data", torch.ones(40, 24)),
        lambda layer: layer.bias.add_(1),
        # changes that do not raise the version, followed by what clears the cache
        lambda layer: (layer.weight.data.zero_(), layer.train()),
        lambda layer: (layer.weight.data.zero_(), torch.enable_grad()(layer)(torch.ones(24))),
    ],
)
def test_a_changed_weight_is_packed_again(layer, change):
    inputs = torch.randn(3, 24)
    with torch.no_grad():
        before = layer(inputs)
        change(layer)
        torch.testing.assert_close(layer(inputs), plain(layer, inputs))
        assert not torch.allclose(layer(inputs), before)


@packs
def test_a_weight_is_packed_once(layer):
    with torch.no_grad():
        layer(torch.randn(3, 24))
        packed = kept_in(layer._cache)
        layer(torch.randn(5, 24))
    assert kept_in(layer._cache)[0] is packed[0]


def test_gradients_use_the_layer_of_torch(layer):
    inputs = torch.randn(3, 24, requires_grad=True)
    layer(inputs).sum().backward()
    torch.testing.assert_close(inputs.grad, layer.weight.sum(0).expand(3, -1))
    assert not layer._cache


@packs
def test_packed_weights_are_neither_copied_nor_pickled(layer):
    with torch.no_grad():
        layer(torch.randn(3, 24))
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert not twin._cache
        assert torch.equal(twin.weight, layer.weight)


def test_autocast_decides_the_dtype(layer):
    inputs = torch.randn(3, 24)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert layer(inputs).dtype == torch.bfloat16


def test_a_wrong_dtype_is_refused(layer):
    with torch.no_grad(), pytest.raises(RuntimeError, match="dtype"):
        layer(torch.randn(3, 24, dtype=torch.float64))


def test_linear_layers_are_replaced_and_weights_stay():
    shared = nn.Linear(4, 4)
    hooked = nn.Linear(4, 4)
    calls = []
    hooked.register_forward_hook(lambda *_: calls.append(1))

    class Own(nn.Linear):
        pass

    model = nn.Sequential(shared, nn.Sequential(shared, hooked), Own(4, 4), nn.LayerNorm(4))
    before = dict(model.named_parameters())
    take_linears(model)
    assert {name: id(one) for name, one in model.named_parameters()} == {k: id(v) for k, v in before.items()}
    assert [type(part) for part in model] == [Linear, nn.Sequential, Own, nn.LayerNorm]
    assert model[0] is model[1][0]
    model(torch.randn(2, 4))
    assert calls == [1]


def test_rows_are_padded_to_few_sizes():
    filled = [(rows, linear.rows_of_kernel(rows)) for rows in range(1, 4097)]
    assert all(rows <= more < max(rows + 1, 1.1 * rows) for rows, more in filled)
    assert len({more for _, more in filled}) < 160


@pytest.mark.parametrize("shape", [(1, 5), (3, 7), (1, 67), (5, 103)])
def test_padded_rows_change_nothing(shape):
    layer = linear.Linear(16, 24)
    inputs = torch.randn(*shape, 16)
    with torch.inference_mode():
        found, expected = layer(inputs), F.linear(inputs, layer.weight, layer.bias)
    assert found.is_contiguous()
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("n", [1, 7, 40])
def test_then_gelu(n):
    layer, inputs = Linear(8, 6), torch.randn(2, n, 8)
    expected = torch.nn.functional.gelu(layer(inputs))
    with torch.inference_mode():
        torch.testing.assert_close(layer.then_gelu(inputs), expected.detach())
    torch.testing.assert_close(layer.then_gelu(inputs), expected)


@pytest.mark.parametrize("lengths", [[3, 3], [5, 2, 0], [40, 33], [0, 0]], ids=str)
def test_layers_without_padding(lengths):
    mask = torch.arange(max(*lengths, 1)) < torch.tensor(lengths)[:, None]
    layer, inputs, seen = Linear(4, 5), torch.randn(*mask.shape, 4), []

    def counted(vectors):
        seen.append(vectors.numel() // 4)
        return layer(vectors)

    with torch.inference_mode():
        first, second = without_padding([counted, torch.tanh], inputs, mask)
        expected = layer(inputs)
    torch.testing.assert_close(first[mask], expected[mask])
    assert torch.equal(second[mask], inputs.tanh()[mask])
    assert first.shape == expected.shape and seen == [rows_of_kernel(sum(lengths)) or mask.numel()]
    without_padding([counted], inputs, mask)
    assert seen[1] == mask.numel(), "with gradients shapes do not follow the data"
