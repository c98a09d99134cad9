from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from gliner_pipe.errors import ConfigError
from gliner_pipe.modeling.decoders.crf import CRFTags
from gliner_pipe.modeling.decoders.softmax import SoftmaxTags
from gliner_pipe.modeling.decoders.tags import UNKNOWN, TagDecoder
from gliner_pipe.modeling.losses.bce import BCELoss
from gliner_pipe.modeling.losses.focal import FocalLoss

SCHEMES = ["io", "bio", "bioul", "biolu", "word"]


def made(**settings: Any) -> SoftmaxTags:
    decoder = SoftmaxTags(**settings)
    decoder.build(8, ["a", "b", "c"])
    return decoder.eval()


def is_legal(decoder: TagDecoder, tags: torch.Tensor) -> bool:
    tables = decoder.tables
    steps = tables.allowed[tags[:-1], tags[1:]].all()
    return bool(steps and tables.opening[tags[0]].all() and tables.closing[tags[-1]].all())


@pytest.mark.parametrize("mode", ["joint", "independent"])
@pytest.mark.parametrize("scheme", ["bio", "bioul"])
def test_constrained_sequences_are_legal_and_the_most_probable(scheme: Any, mode: Any) -> None:
    decoder, free = made(scheme=scheme, mode=mode), made(scheme=scheme, mode=mode, constrained=False)
    documents = [
        torch.randn(length, decoder.n_chains, len(decoder.tags)) * 3 for length in (1, 2, 30, 17, 3, 9, 12)
    ]
    found, unbound = decoder.decode_words(documents), free.decode_words(documents)
    n_broken = 0
    for document, (tags, probs), (greedy, _) in zip(documents, found, unbound, strict=True):
        assert is_legal(decoder, tags)
        assert torch.equal(greedy, document.argmax(-1))
        assert torch.allclose(probs, document.softmax(-1).gather(-1, tags[..., None])[..., 0])
        for chain in range(decoder.n_chains):
            broken = not is_legal(decoder, greedy[:, chain, None])
            n_broken += broken
            if not broken:
                assert torch.equal(tags[:, chain], greedy[:, chain])
    assert n_broken > 3


@pytest.mark.parametrize("decoder", [SoftmaxTags("bioul"), CRFTags("bioul", chains="one")])
def test_no_score_is_high_enough_to_break_the_scheme(decoder: Any) -> None:
    decoder.build(8, ["a", "b"])
    for tags, probs in decoder.decode_words([torch.randn(12, 1, 9) * 1e7 for _ in range(20)]):
        assert is_legal(decoder, tags)
        assert ((probs >= 0) & (probs <= 1)).all()


def test_best_of_all_legal_sequences() -> None:
    decoder = made(scheme="bioul")
    n_tags = len(decoder.tags)
    every = torch.cartesian_prod(*[torch.arange(n_tags)] * 3)
    every = every[torch.tensor([is_legal(decoder, path[:, None]) for path in every])]
    for _ in range(5):
        document = torch.randn(3, 1, n_tags)
        sums = document[torch.arange(3), 0, every].sum(1)
        assert torch.equal(decoder.decode_words([document])[0][0][:, 0], every[sums.argmax()])


def test_losses_of_the_gold_tag() -> None:
    """Focal loss and weights, against their formulas; the same gradient as cross-entropy where both agree."""
    emissions = torch.randn(2, 4, 1, 7, requires_grad=True)
    gold = torch.tensor([[0, 1, 2, 5], [3, UNKNOWN, 0, 0]])[..., None]
    mask = torch.tensor([[True] * 4, [True] * 3 + [False]])
    known = mask[..., None] & (gold != UNKNOWN)
    log_p = emissions.log_softmax(-1).gather(-1, gold.clamp(min=0)[..., None])[..., 0][known]
    focal = made(loss=FocalLoss(alpha=0.5, gamma=2.0))
    wanted = -0.5 * (1 - log_p.exp()) ** 2 * log_p
    assert torch.allclose(focal.loss(emissions, gold, mask), wanted.sum())
    weights = torch.tensor([0.5, 2.0, 2.0, 1.0, 1.0, 1.0, 1.0])[gold[known]]
    weighted = made(class_weights={"O": 0.5, "a": 2.0})
    assert torch.allclose(weighted.loss(emissions, gold, mask), -(weights * log_p).sum())
    both = made(loss=FocalLoss(alpha=0.5), class_weights={"O": 0.5, "a": 2.0})
    assert torch.allclose(both.loss(emissions, gold, mask), (weights * wanted).sum())
    plain = [
        torch.autograd.grad(decoder.loss(emissions, gold, mask), emissions)[0]
        for decoder in (made(), made(loss=BCELoss()))
    ]
    assert torch.allclose(*plain, atol=1e-6)
    assert set(weighted.state_dict()) == set(made().state_dict())


def test_weights_of_a_chain_for_each_label() -> None:
    decoder = made(mode="independent", class_weights={"b": 3.0})
    emissions, mask = torch.randn(1, 5, 3, len(decoder.tags)), torch.ones(1, 5, dtype=torch.bool)
    gold = torch.randint(len(decoder.tags), (1, 5, 3))
    losses = F.cross_entropy(emissions.flatten(0, -2), gold.flatten(), reduction="none").view_as(gold)
    inside = (gold > 0) & (torch.arange(3) == 1)
    assert torch.allclose(
        decoder.loss(emissions, gold, mask), torch.where(inside, 3.0, 1.0).mul(losses).sum()
    )


@pytest.mark.parametrize(
    ("settings", "option"),
    [
        ({"loss": FocalLoss(negatives=0.5, masking="global")}, r"loss\.masking"),
        ({"loss": FocalLoss(), "label_smoothing": 0.1}, "label_smoothing"),
        ({"class_weights": {"d": 2.0}}, "class_weights"),
    ],
)
def test_losses_that_cannot_be_meant(settings: Any, option: str) -> None:
    with pytest.raises(ConfigError, match=rf"decoder\.{option}\]"):
        made(**settings)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_scores_are_mean_probabilities(scheme: Any) -> None:
    decoder = made(scheme=scheme)
    document = torch.randn(40, 1, len(decoder.tags)) * 2
    [candidates] = decoder.decode([document])
    [(_, probs)] = decoder.decode_words([document])
    assert candidates == sorted(candidates) and candidates
    for each in candidates:
        assert 0.0 <= each.score <= 1.0
        assert each.score == pytest.approx(probs[each.start : each.end + 1, 0].mean().item(), abs=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_loss_is_cross_entropy_of_known_tags(smoothing: float) -> None:
    decoder = made(label_smoothing=smoothing, mode="independent")
    emissions = torch.randn(2, 4, 3, 3)
    gold = torch.randint(3, (2, 4, 3))
    gold[0, 1, 2] = UNKNOWN
    mask = torch.tensor([[True, True, False, True], [True, True, False, False]])
    expected = sum(
        F.cross_entropy(emissions[row, word, chain], gold[row, word, chain], label_smoothing=smoothing)
        for row, word in mask.nonzero().tolist()
        for chain in range(3)
        if gold[row, word, chain] != UNKNOWN
    )
    assert torch.allclose(decoder.loss(emissions, gold, mask), torch.as_tensor(expected))
    assert decoder.count(mask, gold) == 5.0
    gold[1, :2] = UNKNOWN
    assert decoder.count(mask, gold) == 3.0


def test_a_loss_without_known_tags_is_zero() -> None:
    decoder = made()
    emissions = torch.randn(1, 4, 1, 7, requires_grad=True)
    gold = torch.full((1, 4, 1), UNKNOWN)
    loss = decoder.loss(emissions, gold, torch.ones(1, 4).bool())
    loss.backward()
    assert loss == 0.0 and not emissions.grad.any() and decoder.count(torch.ones(1, 4).bool(), gold) == 0.0


def test_dropout_is_for_training_only() -> None:
    decoder = made(dropout=0.5)
    words = torch.randn(1, 4, 8)
    assert torch.equal(decoder.emissions(words), decoder.emissions(words))
    decoder.train()
    assert not torch.equal(decoder.emissions(words), decoder.emissions(words))


def test_it_learns_overlapping_labels() -> None:
    decoder = made(mode="independent", scheme="bioul", dropout=0.0)
    words = torch.randn(1, 6, 8)
    spans = [(0, 4, 0), (2, 2, 1), (3, 5, 2)]
    gold, n_lost = decoder.encode(spans, 6)
    assert n_lost == 0
    optimizer = torch.optim.Adam(decoder.parameters(), 0.1)
    for _ in range(60):
        optimizer.zero_grad()
        decoder.loss(decoder.emissions(words), gold[None], torch.ones(1, 6).bool()).backward()
        optimizer.step()
    [candidates] = decoder.decode([decoder.emissions(words)[0]])
    assert [each[:3] for each in candidates] == sorted(spans)
    assert all(each.score > 0.9 for each in candidates)
