"""Attention over distances, against sums written out."""

import math

import pytest
import torch

from gliner_pipe.modeling.layers import disentangled_attention as _disentangled
from gliner_pipe.modeling.layers.disentangled_attention import disentangled_attention, skew


@pytest.mark.parametrize(("n", "m"), [(1, 1), (2, 2), (5, 5), (3, 7), (1, 4)])
def test_skew_moves_each_row(n, m):
    scores = torch.arange(2 * n * (n + m - 1)).view(2, n, n + m - 1)
    expected = [[[scores[b, i, n - 1 - i + j] for j in range(m)] for i in range(n)] for b in range(2)]
    found = skew(scores)
    assert found.tolist() == torch.tensor(expected).tolist()
    assert found.data_ptr() == scores.data_ptr() + (n - 1) * scores.element_size()


def written_out(query, key, value, position_key, position_query, allowed, scale):
    rows, n, heads, width = query.shape
    result = torch.zeros(rows, n, heads, width, dtype=query.dtype)
    for b in range(rows):
        for h in range(heads):
            for i in range(n):
                scores = []
                for j in range(n):
                    score = scale * query[b, i, h] @ key[b, j, h]
                    if position_key is not None:
                        score = score + query[b, i, h] @ position_key[h, n - 1 - (i - j)]
                    if position_query is not None:
                        score = score + key[b, j, h] @ position_query[h, n - 1 + (i - j)]
                    if allowed is not None and not allowed[b, 0, i, j]:
                        score = score * 0 + torch.finfo(query.dtype).min
                    scores.append(score)
                result[b, i, h] = torch.stack(scores).softmax(0) @ value[b, :, h]
    return result.flatten(2)


def inputs(rows, n, heads=2, width=3, dtype=torch.float64):
    content = [torch.randn(rows, n, heads, width, dtype=dtype, requires_grad=True) for _ in range(3)]
    tables = [torch.randn(heads, 2 * n - 1, width, dtype=dtype, requires_grad=True) for _ in range(2)]
    return content, tables


@pytest.mark.parametrize("parts", ["both", "keys", "queries", "none"])
@pytest.mark.parametrize(("n", "block"), [(1, 64), (2, 1), (5, 64), (5, 2), (9, 4)])
@pytest.mark.parametrize("masked", [False, True])
def test_the_same_as_the_definition(parts, n, block, masked, monkeypatch):
    monkeypatch.setattr(_disentangled, "BLOCK", block)
    content, tables = inputs(2, n)
    tables = [
        table if parts in ("both", name) else None
        for table, name in zip(tables, ("keys", "queries"), strict=True)
    ]
    allowed = torch.rand(2, 1, n, n) > 0.4 if masked else None
    if masked:
        allowed[1, 0, 0] = False  # sees nothing
    scale = 1 / math.sqrt(7)
    found = disentangled_attention(*content, *tables, allowed, scale)
    torch.testing.assert_close(found, written_out(*content, *tables, allowed, scale))


@pytest.mark.parametrize("n", [1, 3, 6])
def test_gradients(n, monkeypatch):
    monkeypatch.setattr(_disentangled, "BLOCK", 4)
    content, tables = inputs(1, n, width=2)
    allowed = torch.ones(1, 1, n, n, dtype=torch.bool)
    allowed[..., -1:] = n == 1
    assert torch.autograd.gradcheck(
        lambda *parts: disentangled_attention(*parts, allowed, 0.5), (*content, *tables)
    )


def test_dropout_keeps_the_mean():
    content, tables = inputs(1, 4)
    with torch.no_grad():
        exact = disentangled_attention(*content, *tables, None, 0.5)
        drawn = [disentangled_attention(*content, *tables, None, 0.5, dropout=0.3) for _ in range(2000)]
    assert not torch.equal(drawn[0], drawn[1])
    torch.testing.assert_close(torch.stack(drawn).mean(0), exact, rtol=0, atol=0.15)


@pytest.mark.parametrize("masked", [False, True])
def test_fused_and_unfused(masked):
    """What runs on a GPU, here on the CPU."""
    content, tables = inputs(2, 6)
    query, key, value = (x.permute(2, 0, 1, 3) for x in content)
    forbidden = torch.rand(1, 2, 6, 6) > 0.6 if masked else None
    if masked:
        forbidden[..., 0] = False
        forbidden[0, 1, 2] = True  # sees nothing
    found, expected = (
        attend(query, key, value, _disentangled._bias(query, key, *tables), forbidden, 0.4, 0.0)
        for attend in (_disentangled._fused, _disentangled._unfused)
    )
    torch.testing.assert_close(found, expected)
    weight = torch.ones(1, 2, 6, 1)
    weight[0, 1, 2] = 0  # padding has no gradient
    grads = [torch.autograd.grad((weight * y).square().sum(), (*content, *tables)) for y in (found, expected)]
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other)
