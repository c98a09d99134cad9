import pytest
import torch

from gliner_pipe.modeling.backbones.base import _pool_by_mask, pool_words


@pytest.mark.parametrize("how", ["first", "last", "mean", "max"])
def test_pooling_against_a_loop(how):
    hidden = torch.randn(2, 9, 4)
    start = torch.tensor([[1, 3, 3, 4], [2, 4, 5, 0]])
    count = torch.tensor([[2, 0, 1, 4], [2, 1, 3, 0]])
    pooled = pool_words(hidden, start, count, how)
    for row in range(2):
        for word in range(4):
            first, number = int(start[row, word]), int(count[row, word])
            pieces = hidden[row, first : first + number]
            if not number:
                expected = torch.zeros(4)
            elif how in ("first", "last"):
                expected = pieces[0 if how == "first" else -1]
            else:
                expected = pieces.mean(0) if how == "mean" else pieces.max(0).values
            torch.testing.assert_close(pooled[row, word], expected)


@pytest.mark.parametrize("how", ["first", "last", "mean", "max"])
def test_pooling_is_differentiable(how):
    hidden = torch.randn(1, 5, 3, dtype=torch.double, requires_grad=True)
    start, count = torch.tensor([[0, 2]]), torch.tensor([[2, 3]])
    assert torch.autograd.gradcheck(lambda h: pool_words(h, start, count, how), hidden)


@pytest.mark.parametrize("how", ["mean", "max"])
def test_pooling_for_onnx_gives_the_same(how: str) -> None:
    hidden = torch.randn(3, 12, 8)
    start = torch.tensor([[1, 3, 3, 4], [2, 4, 0, 0], [1, 2, 3, 4]])
    count = torch.tensor([[2, 0, 1, 3], [2, 4, 0, 0], [1, 1, 1, 8]])
    expected = pool_words(hidden, start, count, how)
    assert torch.allclose(_pool_by_mask(hidden, start, count, how), expected, atol=1e-6)
