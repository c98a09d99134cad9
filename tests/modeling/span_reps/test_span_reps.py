"""Every span representation over words and widths: GLiNER's numbers, and no number from a neighbour in the batch."""

from types import SimpleNamespace

import pytest
import torch
from confit import Config
from confit.errors import ConfitValidationError
from conftest import built_in

from gliner_pipe.modeling.span_reps import base
from gliner_pipe.modeling.span_reps.base import Representations, keep_scores
from gliner_pipe.modeling.span_reps.first_word import Query
from gliner_pipe.modeling.span_reps.marker import MarkerV1
from gliner_pipe.modeling.span_reps.token_level import TokenLevel
from gliner_pipe.registry import registry

MARKERS = ["marker", "markerV0", "markerV1", "markerV2"]
OTHERS = ["query", "mlp", "cat", "conv_conv", "conv_max", "conv_mean", "conv_sum", "conv_share"]
NAMES = [*MARKERS, *OTHERS]
#: Every span representation over words and widths, further ones included: what the contract promises is tested of all.
ALL = [name for name in built_in("span_reps") if name not in ("token_level", "boundary", "boundary_pool")]
SIZES = [(8, 1), (16, 4), (24, 12)]


def built(name, hidden_size=16, max_width=4):
    torch.manual_seed(0)
    block = registry.span_reps.get(name)(max_width=max_width)
    block.build(hidden_size)
    return block.eval()


def token_level():
    torch.manual_seed(0)
    block = TokenLevel()
    block.build(16)
    return block.eval()


def pair(name, hidden_size, max_width):
    """Return a block and GLiNER's module with the same weights."""
    theirs = pytest.importorskip("gliner.modeling.span_rep")
    block = built(name, hidden_size, max_width)
    layer = theirs.SpanRepLayer(hidden_size, max_width, name, dropout=0.4).eval()
    layer.span_rep_layer.load_state_dict(block.state_dict())
    return block, layer


def valid(n_words, max_width):
    return torch.arange(n_words)[:, None] + torch.arange(max_width) < n_words


def peer_vectors(layer, words, max_width):
    """GLiNER's vectors of all spans, ``(rows, words, widths, hidden)``, of words without padding."""
    first = torch.arange(words.shape[1])[:, None].expand(-1, max_width)
    spans = torch.stack([first, first + torch.arange(max_width)], -1)
    spans = spans * valid(words.shape[1], max_width)[..., None]
    return layer(words, spans.reshape(1, -1, 2).expand(words.shape[0], -1, -1))


def full(words):
    return torch.ones(words.shape[:2], dtype=torch.bool)


def ragged(hidden_size):
    torch.manual_seed(1)
    lengths = [9, 3, 6, 1]
    mask = torch.arange(9) < torch.tensor(lengths)[:, None]
    return torch.randn(4, 9, hidden_size), torch.randn(4, 5, hidden_size), mask, lengths


@pytest.mark.parametrize("hidden_size,max_width", SIZES)
@pytest.mark.parametrize("name", NAMES)
def test_scores_and_vectors_equal_those_of_gliner(name, hidden_size, max_width):
    block, layer = pair(name, hidden_size, max_width)
    words, labels = torch.randn(2, 7, hidden_size), torch.randn(2, 3, hidden_size)
    vectors = peer_vectors(layer, words, max_width)
    inside = valid(7, max_width)
    expected = torch.einsum("blkd,bcd->blkc", vectors, labels)
    scores = block.score(words, labels, full(words))
    torch.testing.assert_close(scores[:, inside], expected[:, inside], rtol=1e-5, atol=1e-5)
    starts, widths = inside.nonzero().flip(0).unbind(1)
    spans = torch.stack([starts, starts + widths], 1).expand(2, -1, -1)
    chosen = block.represent(words, spans, full(words))
    torch.testing.assert_close(chosen, vectors[:, starts, widths], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_equal_those_of_gliner(name):
    block, layer = pair(name, 16, 4)
    words, labels, inside = torch.randn(2, 6, 16), torch.randn(2, 3, 16), valid(6, 4)
    ours, theirs = words.clone().requires_grad_(), words.clone().requires_grad_()
    block.score(ours, labels, full(words))[:, inside].square().sum().backward()
    vectors = peer_vectors(layer, theirs, 4)
    torch.einsum("blkd,bcd->blkc", vectors, labels)[:, inside].square().sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-4)
    peers = dict(layer.span_rep_layer.named_parameters())
    for parameter, tensor in block.named_parameters():
        if (theirs := peers[parameter].grad) is None:
            assert tensor.grad is None
        else:
            torch.testing.assert_close(tensor.grad, theirs, rtol=1e-4, atol=1e-4, msg=parameter)


@pytest.mark.parametrize("name", ALL)
def test_gradients_of_selected_spans_equal_those_of_all_spans(name):
    block, words, labels = built(name), torch.randn(2, 6, 16), torch.randn(2, 3, 16)
    spans = torch.tensor([[[0, 0], [1, 3], [5, 5]], [[2, 5], [4, 4], [0, 1]]])
    grads = []
    for represented in (True, False):
        block.zero_grad()
        if represented:
            scores = torch.einsum("rsd,rcd->rsc", block.represent(words, spans, full(words)), labels)
        else:
            table = block.score(words, labels, full(words))
            scores = table[torch.arange(2)[:, None], spans[..., 0], spans[..., 1] - spans[..., 0]]
        scores.square().sum().backward()
        grads.append({n: p.grad for n, p in block.named_parameters() if p.grad is not None})
    assert grads[0]
    for parameter, tensor in grads[0].items():
        torch.testing.assert_close(tensor, grads[1].get(parameter), rtol=1e-4, atol=1e-4, msg=parameter)


@pytest.mark.parametrize("name", ALL)
def test_padding_and_other_rows_have_no_effect(name):
    block, (words, labels, mask, lengths) = built(name), ragged(16)
    spans = torch.zeros(4, 2, 2, dtype=torch.long)
    spans[:, 1, 1] = torch.tensor(lengths).clamp(max=4) - 1
    table, vectors = block.score(words, labels, mask), block.represent(words, spans, mask)
    for row, n in enumerate(lengths):
        one = words[row : row + 1, :n]
        alone = block.score(one, labels[row : row + 1], full(one))[0]
        inside = valid(n, 4)
        torch.testing.assert_close(table[row, :n][inside], alone[inside], rtol=1e-5, atol=1e-5)
        alone = block.represent(one, spans[row : row + 1], full(one))[0]
        torch.testing.assert_close(vectors[row], alone, rtol=1e-5, atol=1e-5)
    words[~mask] = float("nan")  # whatever stands in the padding
    inside = mask[:, :, None] & torch.nn.functional.pad(mask, (0, 3)).unfold(1, 4, 1)
    again = block.score(words, labels, mask)[inside]
    torch.testing.assert_close(again, table[inside], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", MARKERS)
@pytest.mark.parametrize("at_once", [1, 300, 1 << 18])
def test_scores_are_the_same_with_and_without_gradients(name, at_once, monkeypatch):
    """However many numbers are held at once, for rows with labels of their own and with shared ones."""
    monkeypatch.setattr("gliner_pipe.modeling.span_reps.marker.NUMBERS_AT_ONCE", at_once)
    block = built(name)
    words, labels, mask, lengths = ragged(16)
    for some in (labels, labels[:1].expand(4, -1, -1)):
        expected = block.score(words, some, mask)
        with torch.no_grad():
            scores = block.score(words, some, mask)
        assert scores.isfinite().all()
        for row, length in enumerate(lengths):
            inside = valid(length, 4)
            ours, theirs = scores[row, :length][inside], expected[row, :length][inside]
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("at_once", [1, 60, 1 << 25])
def test_many_labels_find_the_same_as_few(name, at_once, monkeypatch):
    """With vectors of all spans, in parts of any size: the same spans with the same scores."""
    block = built(name)
    words, labels, mask, _ = ragged(16)
    labels = labels[:1].expand(4, -1, -1)
    own = torch.tensor([[0, 6], [1, 3], [0, 6], [0, 1]])
    counts = mask.long()
    counts[2, 4] = 0  # a word without pieces
    windows = SimpleNamespace(word_mask=mask, own=own, scorable=counts > 0, annotated=counts > 0)
    read = Representations(words, words, labels, labels[:, :0])
    limits = torch.tensor([0.5, 0.0, 1.0, 0.7, 0.3])

    def found(many, limits):
        monkeypatch.setattr(base, "MANY_LABELS", many)
        monkeypatch.setattr(base, "SCORES_AT_ONCE", at_once)
        with torch.no_grad():
            columns = block.find(read, windows, limits)
        spans = zip(*(column.tolist() for column in columns[:4]), strict=True)
        return dict(zip(spans, columns.scores.tolist(), strict=True))

    for given in (limits.expand(4, -1), limits.repeat(4, 1) * torch.tensor([[1.0], [0.9], [1.0], [0.5]])):
        few, many = found(10**9, given), found(1, given)
        assert len(few) > 40
        assert few.keys() == many.keys()
        assert all(abs(few[span] - many[span]) < 1e-5 for span in few)


@pytest.mark.parametrize("name", [*ALL, "token_level"])
@torch.no_grad()
def test_scores_of_all_labels_are_those_that_were_compared_with_thresholds(name, monkeypatch):
    """If asked for in time, nothing is scored twice; they are the same otherwise, and for many labels."""
    block = built(name) if name in ALL else token_level()
    words, labels, mask, _ = ragged(16)
    labels = labels[:1].expand(4, -1, -1)
    own = torch.tensor([[0, 9], [0, 3], [0, 6], [0, 1]])
    windows = SimpleNamespace(word_mask=mask, own=own, scorable=mask, annotated=mask)
    read = Representations(words, words, labels, labels[:, :0], shared={})
    spans = torch.tensor([[0, 2, 4], [0, 2, 2], [2, 0, 3], [3, 0, 0]])
    expected = block.class_scores(read, windows, spans)
    keep_scores(read)
    found = block.find(read, windows, torch.full((4, 5), 0.5))
    assert len(found.rows)
    nothing = torch.zeros_like(words)
    again = block.class_scores(read._replace(words=nothing, span_words=nothing), windows, spans)
    torch.testing.assert_close(again, expected, rtol=1e-6, atol=1e-6)
    monkeypatch.setattr(base, "MANY_LABELS", 1)
    many = block.class_scores(read._replace(shared=None), windows, spans)
    torch.testing.assert_close(many, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", OTHERS)
def test_spans_beyond_the_row_see_zeros(name):
    """GLiNER pads with zeros on the right; the scores of spans that reach there are its own too."""
    block, layer = pair(name, 16, 4)
    words, labels, mask, lengths = ragged(16)
    scores = block.score(words, labels, mask)
    for row, n in enumerate(lengths):
        vectors = peer_vectors(layer, words[row : row + 1, :n], 4)
        expected = torch.einsum("blkd,bcd->blkc", vectors, labels[row : row + 1])[0]
        torch.testing.assert_close(scores[row, :n], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["markerV2", "markerV0", "marker"])
def test_padded_batches_score_as_in_gliner(name):
    block, layer = pair(name, 16, 4)
    words, labels, mask, _ = ragged(16)
    words = words * mask[..., None]
    inside = mask[:, :, None] & torch.nn.functional.pad(mask, (0, 3)).unfold(1, 4, 1)
    first = torch.arange(9)[:, None].expand(-1, 4)
    spans = torch.stack([first, first + torch.arange(4)], -1) * inside[..., None]
    vectors = layer(words, spans.flatten(1, 2), mask)
    expected = torch.einsum("blkd,bcd->blkc", vectors, labels)
    scores = block.score(words, labels, mask)
    torch.testing.assert_close(scores[inside], expected[inside], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ALL)
def test_edges(name):
    block, words, labels = built(name, max_width=9), torch.randn(2, 2, 16), torch.randn(2, 1, 16)
    mask = torch.tensor([[True, True], [False, False]])
    scores = block.score(words, labels, mask)
    assert scores.shape == (2, 2, 9, 1)
    assert scores.isfinite().all()
    none = block.represent(words, torch.zeros(2, 0, 2, dtype=torch.long), mask)
    assert none.shape == (2, 0, 16)


@pytest.mark.parametrize("name", ALL)
def test_reduced_precision(name):
    block, words, labels = built(name), torch.randn(1, 5, 16), torch.randn(1, 2, 16)
    spans, inside = torch.tensor([[[0, 2], [1, 1]]]), valid(5, 4)
    expected = block.score(words, labels, full(words))[:, inside]
    with torch.autocast("cpu", torch.bfloat16):
        scores = block.score(words, labels, full(words)).float()[:, inside]
        assert block.represent(words, spans, full(words)).shape == (1, 2, 16)
    torch.testing.assert_close(scores, expected, rtol=0.05, atol=0.05 * expected.abs().max().item())


@pytest.mark.parametrize("name", NAMES)
def test_created_from_a_config_section(name):
    block = Config({"x": {"@span_reps": name, "max_width": 3}}).resolve(registry=registry)["x"]
    assert block.max_width == 3
    assert not list(block.parameters())
    assert registry.span_reps.get(name)().max_width == 12


def test_a_selected_span_that_is_too_wide_is_truncated():
    block, words = built("conv_sum"), torch.randn(1, 8, 16)
    wide, cut = block.represent(words, torch.tensor([[[1, 7], [1, 4]]]), full(words))[0]
    torch.testing.assert_close(wide, cut)


def test_unused_weights_are_not_trained():
    block = MarkerV1()
    block.build(8)
    assert {n.split(".")[0] for n, p in block.named_parameters() if not p.requires_grad} == {"project_first"}


def test_scores_of_all_widths_hold_no_vectors_of_all_widths():
    block, seen = Query(6), []
    block.build(16)
    block.from_first = lambda words, k, inner=block.from_first: seen.append(words.shape) or inner(words, k)
    block.score(torch.randn(2, 5, 16), torch.randn(2, 3, 16), torch.ones(2, 5, dtype=torch.bool))
    assert seen == [(2, 5, 16)] * 6


@pytest.mark.parametrize("name", ALL)
def test_a_width_of_zero_is_rejected(name):
    with pytest.raises(ConfitValidationError, match="max_width"):
        Config({"x": {"@span_reps": name, "max_width": 0}}).resolve(registry=registry)
