import pytest
import torch
from confit import Config
from conftest import built_in

from gliner_pipe.errors import ConfigError
from gliner_pipe.modeling.triples import base
from gliner_pipe.registry import registry

#: our name: GLiNER's
NAMES = {
    "um": "UM",
    "se": "SE",
    "transe": "TransE",
    "transh": "TransH",
    "transf": "TransF",
    "pairre": "PairRE",
    "triplere": "TripleRE",
    "distmult": "DistMult",
    "simple": "SimplE",
    "distma": "DistMA",
    "complex": "ComplEx",
    "quate": "QuatE",
    "hole": "HolE",
    "tucker": "TuckER",
    "ermlp": "ERMLP",
    "conve": "ConvE",
    "convkb": "ConvKB",
}
DISTANCES = ["um", "se", "transe", "transh", "transf", "pairre", "triplere"]
ALL = built_in("triples")
OPTIONS = {"conve": {"height": 4, "n_filters": 9}}


def built(name, width=16, **options):
    torch.manual_seed(0)
    block = registry.triples.get(name)(**{**OPTIONS.get(name, {}), **options})
    block.build(width)
    return block.eval()


def triples(width=16, groups=2, pairs=5, relations=3, scale=0.5):
    torch.manual_seed(2)
    sizes = (pairs, relations, pairs)
    return [(torch.randn(groups, n, width) * scale).requires_grad_() for n in sizes]


def randomised(module):
    """Normalisations start as the identity, which would hide a mistake."""
    for weight in module.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    for key, buffer in module.named_buffers():
        if "running" in key:
            torch.nn.init.uniform_(buffer, 0.5, 1.5)
    return module.eval()


def gliners(name, width):
    layers = pytest.importorskip("gliner.modeling.multitask.triples_layers")
    torch.manual_seed(3)
    options = {"emb_dim1": 4} if name == "conve" else {}
    return randomised(layers.TriplesScoreLayer(NAMES[name], dim=width, **options))


def flat(layer, head, relations, tail):
    """Score every triple on its own, as GLiNER's model does."""
    wide = (*head.shape[:2], relations.shape[1], head.shape[-1])
    every = [head[:, :, None], relations[:, None], tail[:, :, None]]
    return layer(*(part.expand(wide).reshape(-1, wide[-1]) for part in every)).view(wide[:3])


def gradients(score, parts, weights):
    out = score(*parts)
    return out.detach(), torch.autograd.grad(out.square().sum(), [*parts, *weights], allow_unused=True)


def assert_same(name, width, scale=0.5, **options):
    theirs, ours = gliners(name, width), built(name, width, **options)
    state = {key.removeprefix("interaction."): value for key, value in theirs.state_dict().items()}
    ours.load_state_dict(state, strict=True)
    parts = triples(width, scale=scale)
    expected, slopes = gradients(lambda *p: flat(theirs, *p), parts, theirs.parameters())
    out, our_slopes = gradients(ours, parts, ours.parameters())
    torch.testing.assert_close(out, expected, rtol=2e-5, atol=2e-5)
    for one, other in zip(our_slopes, slopes, strict=True):
        if other is None:
            assert one is None or not one.any()
        else:
            peak = other.abs().max().item()
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5 * max(1.0, peak))


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"tucker"}))
def test_results_and_gradients_equal_those_of_gliner(name):
    margin = {"margin": 0.0} if name in DISTANCES else {}
    assert_same(name, 16, scale=0.2, **margin)  # no distance is near GLiNER's limit


@pytest.mark.parametrize("name", [*DISTANCES, "tucker"])
def test_compatible_results_equal_those_of_gliner(name):
    assert_same(name, 16, compatible=True)


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"tucker", "conve", *DISTANCES}))
def test_numbers_at_the_only_width_that_gliner_builds(name):
    assert_same(name, 768)


@pytest.mark.parametrize("name", DISTANCES)
def test_distances_at_the_only_width_that_gliner_builds(name):
    assert_same(name, 768, compatible=True)


@pytest.mark.parametrize("name", ALL)
def test_blocks_are_registered_and_resolve(name):
    block = Config({"block": {"@triples": name}}).resolve(registry=registry)["block"]
    assert isinstance(block, base.Triple)
    assert type(block) is registry.triples.get(name)
    assert list(block.parameters()) == []


def test_concat_is_gliners_pair_projection():
    layers = pytest.importorskip("gliner.modeling.layers")
    theirs = layers.create_projection_layer(32, 0.4, 16).eval()
    ours = built("concat")
    ours.load_state_dict({f"pair_rep.{key}": value for key, value in theirs.state_dict().items()})
    head, relations, tail = triples()
    expected = torch.einsum("gnd,grd->gnr", theirs(torch.cat([head, tail], -1)), relations)
    torch.testing.assert_close(ours(head, relations, tail), expected)


@pytest.mark.parametrize("name", [*ALL, "compatible tucker"])
@pytest.mark.parametrize("sizes", [(2, 0, 3), (2, 4, 0), (0, 4, 3), (2, 0, 0), (1, 1, 1)])
def test_empty_inputs(name, sizes):
    compatible = {"compatible": True} if "compatible" in name else {}
    block = built(name.split()[-1], **compatible).train()
    parts = triples(16, *sizes)
    out = block(*parts)
    assert out.shape == sizes
    out.sum().backward()
    grads = [part.grad for part in parts] + [weight.grad for weight in block.parameters()]
    assert all(torch.isfinite(grad).all() for grad in grads if grad is not None)


@pytest.mark.parametrize("name", ALL)
def test_gradients_are_finite_where_head_and_tail_are_the_same(name):
    block = built(name).train()
    head, relations, tail = triples()
    with torch.no_grad():
        tail[0] = head[0]
        relations[1] = 0
        head[1, 0] = tail[1, 0] = 0
    block(head, relations, tail).sum().backward()
    weights = list(block.parameters())
    for part in (head, relations, tail, *weights):
        assert part.grad is None or torch.isfinite(part.grad).all()
    assert all(weight.grad is not None for weight in weights)


@pytest.mark.parametrize("name", ALL)
def test_a_score_depends_on_its_own_triple_alone(name):
    block = built(name)
    head, relations, tail = triples()
    out = block(head, relations, tail)
    alone = block(head[1:, 2:3], relations[1:, 1:2], tail[1:, 2:3])
    torch.testing.assert_close(out[1:, 2:3, 1:2], alone, rtol=1e-5, atol=1e-5)


CHUNKED = ["transh", "transf", "pairre", "triplere", "ermlp", "convkb", "conve", "tucker"]


@pytest.mark.parametrize("name", CHUNKED)
def test_a_few_relations_at_a_time_give_the_same(name, monkeypatch):
    block, parts = built(name), triples()
    weights = list(block.parameters())
    whole = gradients(block, parts, weights)
    calls = []
    monkeypatch.setattr(base, "AT_ONCE", 1)
    monkeypatch.setattr(base, "checkpoint", lambda *a, **k: calls.append(1) or CHECKPOINT(*a, **k))
    torch.testing.assert_close(gradients(block, parts, weights), whole, rtol=1e-4, atol=1e-5)
    assert len(calls) == 3
    with torch.no_grad():
        torch.testing.assert_close(block(*parts), whole[0])
    assert len(calls) == 3


CHECKPOINT = base.checkpoint


@pytest.mark.parametrize(
    "name", ["distmult", "complex", "simple", "distma", "quate", "hole", "um", "se", "transe"]
)
def test_factored_scores_hold_no_tensor_of_all_triples(name):
    block, parts = built(name), triples(16, 2, 8, 8)
    sizes = []

    def note(tensor):
        sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        block(*parts)
    assert max(sizes, default=0) < 2 * 8 * 8 * 16


def test_tucker_is_the_sum_of_its_formula():
    block = randomised(built("tucker", 6))
    parts = [part.detach() for part in triples(6)]
    head = torch.stack([block.bn0(group) for group in parts[0]])
    tail = torch.stack([block.bn1(group) for group in parts[2]])
    out = block(*parts)
    for g, n, r in torch.cartesian_prod(torch.arange(2), torch.arange(5), torch.arange(3)).tolist():
        total = 0.0
        for k in range(6):
            total += parts[1][g, r, k] * (head[g, n] @ block.W[k] @ tail[g, n])
        torch.testing.assert_close(out[g, n, r], total, rtol=1e-4, atol=1e-5)


def test_tucker_normalises_over_all_pairs_in_training():
    block = built("tucker", 6, dropout=0.0).train()
    head, relations, tail = triples(6)
    out = block(head, relations, tail)

    def scaled(vectors):
        rows = vectors.reshape(-1, 6)
        return (vectors - rows.mean(0)) / (rows.var(0, unbiased=False) + 1e-5).sqrt()

    expected = torch.einsum("grk,kij,gni,gnj->gnr", relations, block.W, scaled(head), scaled(tail))
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("width", [12, 16, 24])
def test_conve_is_the_convolution_of_stacked_images(width):
    block = built("conve", width, height=None)
    height, columns = block.shape
    assert height * columns == width and height <= columns
    head, relations, tail = triples(width)
    out = block(head, relations, tail)
    for g, n, r in torch.cartesian_prod(torch.arange(2), torch.arange(5), torch.arange(3)).tolist():
        image = torch.cat([head[g, n].view(height, columns), relations[g, r].view(height, columns)])
        filtered = []
        for kernel, bias in zip(block.conv1.weight[:, 0], block.conv1.bias, strict=True):
            for i in range(2 * height - 2):
                for j in range(columns - 2):
                    filtered.append((image[i : i + 3, j : j + 3] * kernel).sum() + bias)
        hidden = block.fc(torch.stack(filtered).relu()).relu()
        torch.testing.assert_close(out[g, n, r], hidden @ tail[g, n], rtol=1e-4, atol=1e-5)


def test_conve_drops_whole_filters_in_training():
    block = built("conve", 16, input_dropout=0.0, filter_dropout=0.5, dropout=0.0).train()
    seen = []
    block.fc.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    head, relations, tail = triples()
    with torch.no_grad():
        block.conv1.bias.fill_(9.0)  # nothing is 0 but what is dropped
        block(head, relations, tail)
    dropped = seen[0].unflatten(3, (9, -1)) == 0
    assert (dropped.all(-1) == dropped.any(-1)).all()
    assert 0 < dropped.float().mean() < 1


@pytest.mark.parametrize("width", [8, 768])
def test_transe_is_the_sum_of_absolute_values(width):
    block = built("transe", width, margin=0.0)
    head, relations, tail = triples(width, scale=1.0)
    out = block(head, relations, tail)
    for g, n, r in torch.cartesian_prod(torch.arange(2), torch.arange(5), torch.arange(3)).tolist():
        distance = (head[g, n] + relations[g, r] - tail[g, n]).abs().sum()
        torch.testing.assert_close(out[g, n, r], -distance, rtol=1e-5, atol=1e-5)


def test_transe_learns_at_768_unless_it_is_compatible():
    parts = triples(768, scale=1.0)
    cut = built("transe", 768, compatible=True)(*parts)
    assert (cut == -10).all()
    cut.sum().backward()
    assert not any(part.grad.any() for part in parts)
    out = built("transe", 768)(*parts)
    assert len(out.unique()) == out.numel()
    out.sum().backward()
    assert all(part.grad.any() for part in parts)


@pytest.mark.parametrize("name", DISTANCES)
def test_a_margin_is_added(name):
    parts = triples()
    plain = built(name, margin=0.0)(*parts)
    torch.testing.assert_close(built(name, margin=3.0)(*parts), plain + 3)
    chosen = 4.0 if name == "transe" else 2.0  # a quarter of the width, half its root
    torch.testing.assert_close(built(name)(*parts), plain + chosen)
    cut = built(name, compatible=True)
    assert cut.offset == 0


@pytest.mark.parametrize(
    "name", ["concat", "transe", "complex", "quate", "simple", "hole", "transh", "tucker", "ermlp"]
)
def test_head_and_tail_are_not_the_same(name):
    head, relations, tail = triples()
    block = built(name)
    assert not torch.allclose(block(head, relations, tail), block(tail, relations, head), atol=1e-4)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_scores_have_the_type_of_the_vectors(name, dtype):
    block = built(name).to(dtype)
    parts = [part.detach().to(dtype) for part in triples()]
    out = block(*parts)
    assert out.dtype == dtype
    assert torch.isfinite(out).all()


@pytest.mark.parametrize(("name", "parts"), [("complex", 2), ("simple", 2), ("quate", 4)])
def test_widths_that_cannot_be_split_are_rejected(name, parts):
    with pytest.raises(ConfigError) as error:
        built(name, 9)
    assert error.value.where == "components.*.model.triple"
    assert name in error.value.found and str(parts) in error.value.allowed


@pytest.mark.parametrize(("width", "height"), [(16, 5), (13, None)])
def test_an_image_that_does_not_fit_is_rejected(width, height):
    with pytest.raises(ConfigError) as error:
        built("conve", width, height=height)
    assert error.value.where == "components.*.model.triple.height"
