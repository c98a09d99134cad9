import pytest
import torch

from gliner_pipe.errors import ConfigError
from gliner_pipe.modeling.relation_layers.graph import GAT, GCN
from gliner_pipe.modeling.relation_layers.pairwise import MLP, AllPairs, Attention, Biaffine, Bilinear, Dot
from gliner_pipe.registry import registry

LAYERS = {
    "dot": Dot,
    "mlp": MLP,
    "attention": Attention,
    "bilinear": Bilinear,
    "biaffine": Biaffine,
    "gcn": GCN,
    "gat": GAT,
    "none": AllPairs,
}
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 0, 0, 0, 0]]).bool()


def built(name, width=16):
    torch.manual_seed(0)
    layer = LAYERS[name]()
    layer.build(width)
    return layer.eval()


@pytest.mark.parametrize("name", LAYERS)
def test_layers_are_registered_by_name(name):
    assert registry.relation_layers.get(name) is LAYERS[name]


@pytest.mark.parametrize("name", ["dot", "mlp", "attention", "attn", "bilinear", "gcn", "gat"])
@pytest.mark.parametrize("width", [16, 96])
def test_same_results_as_gliner(name, width):
    theirs = pytest.importorskip("gliner.modeling.multitask.relations_layers")
    torch.manual_seed(1)
    layer = theirs.RelationsRepLayer(width, name).eval()
    ours = built({"attn": "attention"}.get(name, name), width)
    state = layer.state_dict()
    renamed = {key.removeprefix("relation_rep_layer."): value for key, value in state.items()}
    ours.load_state_dict(renamed, strict=True)
    entities = torch.randn(3, 5, width) * 0.3
    grads = []
    for block in (ours, layer):
        given = entities.clone().requires_grad_()
        out = block(given, MASK)
        out.square().sum().backward()
        grads.append((out.detach(), given.grad))
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", LAYERS)
def test_scores_are_between_0_and_1_and_0_for_padding(name):
    out = built(name)(torch.randn(3, 5, 16), MASK)
    valid = MASK[:, :, None] & MASK[:, None, :]
    assert out.shape == (3, 5, 5)
    assert out.min() >= 0 and out.max() <= 1
    assert (out[~valid] == 0).all()
    assert (out[valid] > 0).any()


@pytest.mark.parametrize("name", LAYERS)
def test_padding_and_other_groups_do_not_matter(name):
    layer, entities = built(name), torch.randn(3, 5, 16)
    out = layer(entities, MASK)
    for group, size in enumerate([5, 2, 1]):
        alone = layer(entities[group : group + 1, :size], MASK[group : group + 1, :size])
        torch.testing.assert_close(out[group : group + 1, :size, :size], alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("shape", [(2, 0), (0, 3), (0, 0), (2, 3)])
def test_without_entities_nothing_breaks(name, shape):
    layer = built(name).train()
    entities = torch.randn(*shape, 16, requires_grad=True)
    out = layer(entities, torch.zeros(shape, dtype=torch.bool))
    assert out.shape == (*shape, shape[1])
    assert (out == 0).all()
    if out.requires_grad:
        out.sum().backward()
        grads = [entities.grad, *(p.grad for p in layer.parameters())]
        assert all(torch.isfinite(grad).all() for grad in grads if grad is not None)


@pytest.mark.parametrize("name", sorted(set(LAYERS) - {"none"}))
def test_gradients_are_finite_with_an_empty_group_in_the_batch(name):
    layer, entities = built(name).train(), torch.randn(3, 5, 16, requires_grad=True)
    mask = MASK.clone()
    mask[2] = False
    layer(entities, mask).square().sum().backward()
    assert torch.isfinite(entities.grad).all()
    assert (entities.grad[2] == 0).all()
    assert entities.grad[0].abs().sum() > 0
    for key, weight in layer.named_parameters():
        if weight.requires_grad:
            assert torch.isfinite(weight.grad).all(), key


@pytest.mark.parametrize("name", ["dot", "bilinear", "gcn", "gat", "mlp", "attention", "biaffine"])
def test_which_layers_distinguish_head_and_tail(name):
    out = built(name)(torch.randn(3, 5, 16), MASK)
    same = torch.allclose(out, out.transpose(1, 2), atol=1e-6)
    assert same == (name in ("dot", "bilinear", "gcn", "gat"))


def test_biaffine_is_the_sum_of_its_terms():
    layer, entities = built("biaffine"), torch.randn(1, 3, 16)
    out = layer(entities, torch.ones(1, 3).bool())[0]
    for i in range(3):
        for j in range(3):
            head = torch.nn.functional.leaky_relu(layer.head(entities[0, i]), 0.1)
            tail = torch.nn.functional.leaky_relu(layer.tail(entities[0, j]), 0.1)
            logit = head @ layer.weight @ tail + layer.head_term(head) + layer.tail_term(tail)
            torch.testing.assert_close(out[i, j], logit.sigmoid()[0], rtol=1e-5, atol=1e-6)


def test_all_pairs_of_different_entities():
    out = built("none")(torch.randn(3, 5, 16), MASK)
    assert out.sum((1, 2)).tolist() == [20, 2, 0]
    assert (out.diagonal(dim1=1, dim2=2) == 0).all()
    assert [name for name, layer in LAYERS.items() if layer.proposes_all] == ["none"]


@pytest.mark.parametrize("name", ["attention", "gat"])
def test_heads_that_do_not_divide_the_width_are_rejected(name):
    with pytest.raises(ConfigError) as error:
        LAYERS[name]().build(12)
    assert error.value.where == "components.*.model.relation_layer.n_heads"
