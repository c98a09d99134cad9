import pytest
import torch
import torch.nn.functional as F

from gliner_pipe.modeling.losses.bce import BCELoss
from gliner_pipe.modeling.losses.dice import DiceLoss
from gliner_pipe.modeling.losses.focal import FocalLoss


def tables(seed=0):
    torch.manual_seed(seed)
    logits = torch.randn(2, 5, 3, 4) * 2
    targets = (torch.rand(2, 5, 3, 4) < 0.1).float()
    mask = torch.rand(2, 5, 3, 4) < 0.8
    return logits, targets, mask


@pytest.mark.parametrize("alpha", [-1.0, 0.25, 0.75])
@pytest.mark.parametrize("gamma", [0.0, 2.0])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("margin", [0.0, 0.1])
def test_focal_loss_is_the_formula(alpha, gamma, smoothing, margin):
    logits, targets, mask = tables()
    prob = torch.sigmoid(logits)
    y = targets * (1 - smoothing) + smoothing / 2
    lowered = (prob - margin).clamp(0, 1)
    loss = -y * prob.log() - (1 - y) * (1 - lowered).log()
    if gamma:
        loss = loss * (1 - (prob * y + (1 - lowered) * (1 - y))) ** gamma
    if alpha >= 0:
        loss = loss * (alpha * y + (1 - alpha) * (1 - y))
    ours = FocalLoss(alpha=alpha, gamma=gamma, prob_margin=margin, label_smoothing=smoothing)
    torch.testing.assert_close(ours(logits, targets, mask), loss[mask].sum(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("alpha", [-1.0, 0.75])
@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_focal_loss_equals_gliners(alpha, gamma):
    peer = pytest.importorskip("gliner.modeling.loss_functions")
    logits, targets, mask = tables()
    theirs = peer.focal_loss_with_logits(
        logits, targets, alpha=alpha, gamma=gamma, reduction="none", label_smoothing=0.0
    )
    ours = FocalLoss(alpha=alpha, gamma=gamma)(logits, targets, mask)
    torch.testing.assert_close(ours, theirs[mask].sum(), rtol=1e-5, atol=1e-6)


def test_focal_loss_of_a_hopeless_element_keeps_its_gradient():
    logits = torch.tensor([[[[-60.0]]]], requires_grad=True)
    loss = FocalLoss()(logits, torch.ones(1, 1, 1, 1), torch.ones(1, 1, 1, 1, dtype=torch.bool))
    loss.backward()
    assert torch.isfinite(loss)
    assert logits.grad.item() == pytest.approx(-0.75)


def test_focal_loss_without_focus_is_cross_entropy():
    logits, targets, mask = tables()
    focal = FocalLoss(alpha=-1.0, gamma=0.0)(logits, targets, mask)
    torch.testing.assert_close(focal, BCELoss()(logits, targets, mask))


def test_bce_is_a_sum_over_the_mask():
    logits, targets, mask = tables()
    expected = F.binary_cross_entropy_with_logits(logits[mask], targets[mask], reduction="sum")
    torch.testing.assert_close(BCELoss()(logits, targets, mask), expected)


def test_no_gradient_where_the_mask_is_false():
    logits, targets, mask = tables()
    logits.requires_grad_()
    FocalLoss()(logits, targets, mask).backward()
    assert not logits.grad[~mask].any()
    assert logits.grad[mask].all()


@pytest.mark.parametrize("masking", ["global", "label", "span"])
def test_masked_negatives_leave_positives_alone(masking):
    logits, targets, mask = tables()
    logits.requires_grad_()
    BCELoss(masking=masking, negatives=0.0)(logits, targets, mask).backward()
    kept = logits.grad != 0
    positive = targets > 0
    if masking == "global":
        expected = positive
    elif masking == "span":
        expected = positive.any(3, keepdim=True).expand_as(positive)
    else:
        expected = positive.flatten(1, 2).any(1)[:, None, None].expand_as(positive)
    assert torch.equal(kept, expected & mask)


def test_negatives_is_the_share_that_is_kept():
    torch.manual_seed(0)
    logits = torch.zeros(1, 100, 10, 10, requires_grad=True)
    loss = BCELoss(masking="global", negatives=0.3)
    loss(logits, torch.zeros_like(logits), torch.ones_like(logits, dtype=torch.bool)).backward()
    assert (logits.grad != 0).float().mean().item() == pytest.approx(0.3, abs=0.03)


def test_masking_none_keeps_all():
    logits, targets, mask = tables()
    a = BCELoss(masking="none", negatives=0.0)(logits, targets, mask)
    torch.testing.assert_close(a, BCELoss()(logits, targets, mask))


def test_denominators():
    assert FocalLoss(reduction="sum").denominator(50) == 1
    assert FocalLoss(reduction="mean").denominator(50) == 50
    assert FocalLoss(reduction="mean").denominator(0) == 1


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0])
def test_dice_loss_equals_gliners(gamma):
    peer = pytest.importorskip("gliner.modeling.loss_functions")
    logits, targets, mask = tables()
    theirs = peer.span_dice_loss(logits, targets, gamma=gamma, reduction="none")
    ours = DiceLoss(gamma=gamma)
    torch.testing.assert_close(ours(logits, targets, mask), theirs[mask].sum(), rtol=1e-5, atol=1e-5)


def test_dice_loss_keeps_its_gradient_in_the_saturated_range():
    logits = torch.tensor([[[[-30.0, 30.0]]]], requires_grad=True)
    DiceLoss()(logits, torch.tensor([[[[1.0, 0.0]]]]), torch.ones(1, 1, 1, 2, dtype=torch.bool)).backward()
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("gamma", [0.0, 1e-3, 0.5, 0.99, 1.0, 1.5])
@pytest.mark.parametrize(
    "loss",
    [
        FocalLoss,
        DiceLoss,
        lambda gamma: FocalLoss(gamma=gamma, prob_margin=0.2),
        lambda gamma: FocalLoss(gamma=gamma, label_smoothing=0.2),
    ],
)
def test_gradients_are_finite_for_any_gamma_where_probabilities_are_exactly_zero_or_one(loss, gamma):
    values = [-1e4, -104.0, -90.0, -30.0, -1.0, 0.0, 1.0, 30.0, 90.0, 104.0, 1e4]
    logits = torch.tensor(values)[None, :, None, None].expand(1, -1, 1, 2).clone().requires_grad_()
    targets = torch.tensor([0.0, 1.0]).expand(logits.shape)
    loss(gamma=gamma)(logits, targets, torch.ones(logits.shape, dtype=torch.bool)).backward()
    assert torch.isfinite(logits.grad).all()
    assert logits.grad[0, 4].ne(0).all()


@pytest.mark.parametrize("gamma", [0.25, 0.75])
def test_gamma_below_one_is_the_formula(gamma):
    logits, targets, mask = tables()
    prob = torch.sigmoid(logits)
    missed = torch.where(targets > 0, 1 - prob, prob)
    focal = FocalLoss(alpha=-1.0, gamma=gamma)(logits, targets, mask)
    torch.testing.assert_close(
        focal, (BCELoss().elements(logits, targets.float()) * missed**gamma)[mask].sum()
    )
    weighed = prob * (1 - prob) ** gamma
    dice = 1 - (2 * weighed * targets + 1e-6) / (weighed + targets + 1e-6)
    torch.testing.assert_close(DiceLoss(gamma=gamma)(logits, targets, mask), dice[mask].sum())


@pytest.mark.parametrize("loss", [BCELoss, FocalLoss, DiceLoss])
def test_wide_entities_weigh_more_and_negatives_do_not(loss):
    logits, targets, mask = tables()
    plain = loss().elements(logits, targets)
    weights = 1 + targets * torch.arange(1, 4).log()[:, None]
    weighed = loss(width_weight=True)(logits, targets, mask, by_width=True)
    torch.testing.assert_close(weighed, (plain * weights)[mask].sum(), rtol=1e-5, atol=1e-5)
    assert weighed > loss()(logits, targets, mask, by_width=True)
    # a head whose third axis is no width is left alone
    torch.testing.assert_close(loss(width_weight=True)(logits, targets, mask), loss()(logits, targets, mask))


@pytest.mark.parametrize("loss", [BCELoss, FocalLoss, DiceLoss])
def test_wrong_labels_of_an_entity_weigh_more(loss):
    logits = torch.zeros(1, 1, 2, 3)
    targets = torch.tensor(
        [[[[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]]]
    )  # an entity with the first of three labels; none
    mask = torch.tensor([[[[True, True, False], [True, True, True]]]])
    right, negative = loss().elements(torch.zeros(2), torch.tensor([1.0, 0.0]))
    weighed = loss(wrong_label_weight=5.0)(logits, targets, mask)
    torch.testing.assert_close(weighed, right + 5 * negative + 3 * negative)


def test_balanced_wrong_labels_count_together_as_much_as_the_right_one():
    for n_labels, expected in (
        (3, 9.0),
        (6, 9.0),
        (21, 0.1 / 0.1 * 20),
    ):  # each at least as much as any negative
        logits, targets = torch.zeros(1, 1, 1, n_labels + 1), torch.zeros(1, 1, 1, n_labels + 1)
        targets[..., 1] = 1.0
        mask = torch.arange(n_labels + 1) < n_labels  # the last one is padding
        loss = FocalLoss(alpha=0.9, gamma=0.0, wrong_label_weight="balanced")(logits, targets, mask)
        torch.testing.assert_close(loss, (0.9 + 0.1 * expected) * torch.tensor(2.0).log())


@pytest.mark.parametrize("loss", [BCELoss, FocalLoss, DiceLoss])
def test_each_right_label_is_chosen_among_the_wrong_ones(loss):
    torch.manual_seed(0)
    logits = torch.randn(1, 1, 4, 4)
    targets = torch.zeros(1, 1, 4, 4)
    targets[0, 0, 0, 1] = targets[0, 0, 1, 0] = targets[0, 0, 1, 2] = targets[0, 0, 3, :] = 1.0
    mask = torch.tensor([True, True, True, False]).expand(1, 1, 4, 4)  # the last label is padding
    one, two = logits[0, 0, :2]
    expected = -one[:3].log_softmax(0)[1]  # the third span has no right label, the fourth no wrong one
    expected = expected - two[:2].log_softmax(0)[0] - two[1:3].log_softmax(0)[1]
    plain, found = (loss(choice_weight=weight)(logits, targets, mask) for weight in (0.0, 2.0))
    torch.testing.assert_close(found - plain, 2 * expected)


def test_width_weights_equal_gliners():
    """GLiNER weighs positives by 1 + ln(k): its loss over all spans, ours over the same."""
    peer = pytest.importorskip("gliner.modeling.base")
    logits, targets, _ = tables()

    model = peer.UniEncoderSpanModel.__new__(peer.UniEncoderSpanModel)  # its loss needs no weights
    torch.nn.Module.__init__(model)
    whole = torch.ones(2, 5, 3, dtype=torch.bool)
    theirs = model.loss(
        logits,
        targets,
        torch.ones(2, 4, dtype=torch.bool),
        whole,
        alpha=0.75,
        gamma=2.0,
        use_span_width_weight=True,
    )
    ours = FocalLoss(width_weight=True)(logits, targets, whole[..., None].expand_as(logits), by_width=True)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
