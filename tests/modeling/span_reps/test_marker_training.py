"""Markers in training give the scores and gradients of their plain form."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from gliner_pipe.modeling.span_reps.marker import MarkerV0, MarkerV2, train_scores

ROWS, WORDS, INNER, LABELS = 2, 5, 6, 3


def parts():
    torch.manual_seed(0)
    shapes = [(ROWS, WORDS, INNER), (ROWS, WORDS, INNER), (ROWS, INNER, LABELS), (ROWS, 1, LABELS)]
    return [torch.randn(shape, dtype=torch.double, requires_grad=True) for shape in shapes]


def inside(width):
    """Spans that end in the row."""
    words = torch.arange(WORDS)[:, None] + torch.arange(width)
    return (words < WORDS)[None, :, :, None]


@pytest.mark.parametrize("width", [1, 3, 7])
def test_scores_and_gradients_are_those_of_autograd(width):
    given = parts()
    first, last, weight, bias = given
    padded = F.pad(last, (0, 0, 0, width - 1))
    plain = torch.stack(
        [torch.baddbmm(bias, (first + padded[:, k : k + WORDS]).relu(), weight) for k in range(width)], 2
    )
    plain = plain * inside(width)
    scores = train_scores(*given, width, 0.0)
    torch.testing.assert_close(scores, plain)
    outer = torch.randn_like(scores)
    expected = torch.autograd.grad(plain, given, outer)
    for found, other in zip(torch.autograd.grad(scores, given, outer), expected, strict=True):
        torch.testing.assert_close(found, other)
    assert torch.autograd.gradcheck(lambda *some: train_scores(*some, width, 0.0), given)


def test_dropout_keeps_the_mean_and_masks_the_gradient():
    given = parts()
    first, last, weight, bias = given
    plain = train_scores(*given, 3, 0.0)
    drawn = torch.stack([train_scores(*given, 3, 0.4).detach() for _ in range(4000)])
    torch.testing.assert_close(drawn.mean(0), plain.detach(), atol=0.2, rtol=0.05)
    assert drawn.std(0)[:, :3].min() > 0
    torch.manual_seed(1)
    scores = train_scores(*given, 3, 0.4)
    moved = (first + 1e-6).detach().requires_grad_()
    torch.manual_seed(1)
    after = train_scores(moved, last, weight, bias, 3, 0.4)
    (grad,) = torch.autograd.grad(scores.sum(), first)
    assert (after - scores).sum().item() / 1e-6 == pytest.approx(grad.sum().item(), rel=1e-4)


def test_all_dropped():
    scores = train_scores(*parts(), 3, 1.0)
    torch.testing.assert_close(scores, parts()[3][:, :, None].expand_as(scores) * inside(3))
    scores.sum().backward()


@pytest.mark.parametrize("kind", [MarkerV0, MarkerV2])
def test_scores_are_the_same_with_and_without_gradients(kind):
    torch.manual_seed(0)
    block = kind(max_width=4, dropout=0.5)
    block.build(8)
    words, labels = torch.randn(2, 6, 8), torch.randn(2, 3, 8)
    mask = torch.ones(2, 6, dtype=torch.bool)
    block.eval()
    with_gradients = block.score(words, labels, mask)
    with torch.no_grad():
        without = block.score(words, labels, mask)
    ends = torch.arange(6)[:, None] + torch.arange(4) < 6
    torch.testing.assert_close(with_gradients[:, ends], without[:, ends])
    with_gradients.sum().backward()
    assert all(p.grad is not None for name, p in block.named_parameters() if p.requires_grad)
    block.train()
    assert not torch.equal(block.score(words, labels, mask), block.score(words, labels, mask))


def test_autocast():
    torch.manual_seed(0)
    block = MarkerV0(max_width=4, dropout=0.0)
    block.build(8)
    words, labels = torch.randn(2, 6, 8), torch.randn(2, 3, 8)
    mask = torch.ones(2, 6, dtype=torch.bool)
    with torch.autocast("cpu", torch.bfloat16):
        scores = block.score(words, labels, mask)
    scores.float().sum().backward()
    torch.testing.assert_close(scores.float(), block.score(words, labels, mask), atol=0.05, rtol=0.1)
