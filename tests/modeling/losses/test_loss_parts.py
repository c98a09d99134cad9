"""A loss that is summed in parts is the loss, and so is its gradient."""

from __future__ import annotations

import pytest
import torch

from gliner_pipe.modeling.losses import base
from gliner_pipe.modeling.losses.bce import BCELoss
from gliner_pipe.modeling.losses.dice import DiceLoss
from gliner_pipe.modeling.losses.focal import FocalLoss

LOSSES = [
    FocalLoss(),
    FocalLoss(alpha=-1.0, gamma=0.0, prob_margin=0.1),
    FocalLoss(label_smoothing=0.1, width_weight=True),
    BCELoss(width_weight=True),
    FocalLoss(wrong_label_weight=3.0),
    DiceLoss(label_smoothing=0.05),
    FocalLoss(choice_weight=0.5),
]


def tables(dtype=torch.double):
    torch.manual_seed(0)
    logits = (2 * torch.randn(5, 4, 3, 2, dtype=dtype)).requires_grad_()
    return logits, torch.rand(5, 4, 3, 2) < 0.2, torch.rand(5, 4, 3, 1) < 0.8


def plain(loss, logits, targets, mask):
    """The formula, on all elements at once, by autograd."""
    hard = targets.to(logits.dtype)
    y = hard * (1 - loss.label_smoothing) + loss.label_smoothing / 2
    losses = loss.elements(logits, y)
    if loss.width_weight:
        losses = losses * (1 + hard * torch.arange(1, 4, dtype=logits.dtype).log()[:, None])
    wrong = ~targets & targets.any(-1, keepdim=True)
    losses = losses * torch.where(wrong, loss.wrong_label_weight, 1.0)
    total = (losses * mask).sum()
    for place in (targets & mask).nonzero().tolist():
        span = tuple(place[:-1])
        wrong = logits[span][~targets[span] & mask[span]]  # no label is padding here
        row = torch.cat([logits[tuple(place)][None], wrong])
        total = total - loss.choice_weight * row.log_softmax(0)[0]
    return total


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
@pytest.mark.parametrize("at_once", [1, 50, 10**6])
def test_value_and_gradient_are_those_of_the_formula(monkeypatch, loss, at_once):
    monkeypatch.setattr(base, "ELEMENTS_AT_ONCE", at_once)
    logits, targets, mask = tables()
    (expected,) = torch.autograd.grad(3 * plain(loss, logits, targets, mask), logits)
    value = loss(logits, targets, mask, by_width=True)
    (found,) = torch.autograd.grad(3 * value, logits)
    torch.testing.assert_close(value, plain(loss, logits, targets, mask))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
def test_gradients_are_differences(loss):
    logits, targets, mask = tables()
    assert torch.autograd.gradcheck(lambda x: loss(x, targets, mask, by_width=True), (logits,))


@pytest.mark.parametrize("masking", ["global", "label", "span"])
def test_negatives_are_left_out_as_before(monkeypatch, masking):
    """Row by row and all at once, the same negatives may go; those that stay have the gradient of the formula."""
    logits, targets, mask = tables()
    loss = FocalLoss(masking=masking, negatives=0.0)
    (whole,) = torch.autograd.grad(loss(logits, targets, mask), logits)
    monkeypatch.setattr(base, "ELEMENTS_AT_ONCE", 1)
    (parts,) = torch.autograd.grad(loss(logits, targets, mask), logits)
    torch.testing.assert_close(parts, whole)
    (full,) = torch.autograd.grad(plain(FocalLoss(), logits, targets, mask), logits)
    assert torch.equal(parts[parts != 0], full[parts != 0]) and (parts != 0).any() and (parts == 0).any()


def test_without_gradients_the_value_is_the_same():
    logits, targets, mask = tables(torch.float)
    with torch.no_grad():
        value = FocalLoss()(logits, targets, mask)
    assert not value.requires_grad
    torch.testing.assert_close(value, FocalLoss()(logits, targets, mask).detach())


def test_half_precision_scores_have_a_gradient_of_their_dtype():
    logits, targets, mask = tables()
    half = logits.detach().bfloat16().requires_grad_()
    value = FocalLoss()(half, targets, mask)
    value.backward()
    assert value.dtype == torch.float32 and half.grad.dtype == torch.bfloat16
    torch.testing.assert_close(
        value.double(), plain(FocalLoss(), half.double(), targets, mask), rtol=1e-5, atol=1e-5
    )


def test_a_gradient_too_small_for_its_dtype_is_scaled_before_rounding():
    """As a scaler does that trains in fp16."""
    logits = torch.full((1, 1, 1, 1), -9.0, dtype=torch.half, requires_grad=True)
    targets, mask = torch.zeros(1, 1, 1, 1, dtype=torch.bool), torch.ones(1, 1, 1, 1, dtype=torch.bool)
    (2.0**40 * FocalLoss()(logits, targets, mask)).backward()
    exact = logits.detach().double().requires_grad_()
    (2.0**40 * FocalLoss()(exact, targets, mask)).backward()
    assert 0 < exact.grad.item() / 2.0**40 < torch.finfo(torch.half).smallest_normal / 2**10
    torch.testing.assert_close(logits.grad.double(), exact.grad, rtol=1e-2, atol=0)
