"""The CRF against sums over all paths, written out one by one."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gliner_pipe.errors import ConfigError
from gliner_pipe.modeling.decoders.crf import CRFTags
from gliner_pipe.modeling.decoders.tags import UNKNOWN

SETTINGS: list[dict[str, Any]] = [
    {"scheme": "bio"},
    {"scheme": "bioul"},
    {"scheme": "io"},
    {"scheme": "word"},
    {"scheme": "bio", "constrained": False},
    {"scheme": "bioul", "constrained": False},
    {"scheme": "io", "chains": "per_label"},
    {"scheme": "bioul", "chains": "per_label"},
    {"scheme": "bio", "learnable_transitions": False},
]


def named(settings: dict[str, Any]) -> str:
    return "-".join(map(str, settings.values()))


def made(labels: tuple[str, ...] = ("a", "b"), hidden: int = 8, **settings: Any) -> CRFTags:
    decoder = CRFTags(**{"chains": "one", **settings})
    decoder.build(hidden, labels)
    for weights in decoder.parameters():
        torch.nn.init.normal_(weights)
    return decoder.eval().double()


def legal(decoder: CRFTags, path: tuple[int, ...]) -> bool:
    """Written a second time, from the names of the tags alone."""
    if decoder.scheme in ("io", "word"):
        return True
    closed = decoder.scheme == "bioul"  # entities have a last tag
    before, label = "O", ""
    for tag in [decoder.tags[index] for index in path] + ["O"]:
        prefix, _, name = tag.partition("-")
        opened = before in "BI"
        if prefix in "IL" and not (opened and name == label):
            return False
        if closed and opened and prefix not in "IL":
            return False
        before, label = prefix, name
    return True


def paths(decoder: CRFTags, emissions: Tensor, chain: int) -> tuple[list[tuple[int, ...]], Tensor]:
    """All paths of a row ``(words, chains, tags)`` that may be, and their scores."""
    n_words, _, n_tags = emissions.shape
    listed, scores = [], []
    for path in itertools.product(range(n_tags), repeat=n_words):
        if decoder.constrained and not legal(decoder, path):
            continue
        score = sum(emissions[word, chain, tag] for word, tag in enumerate(path))
        if decoder.steps is not None:
            steps = {name: weights[chain] for name, weights in decoder.steps.items()}
            score = score + steps["start"][path[0]] + steps["end"][path[-1]]
            score = score + sum(steps["between"][i, j] for i, j in itertools.pairwise(path))
        listed.append(path)
        scores.append(score)
    return listed, torch.stack(scores)


def fits(path: tuple[int, ...], gold: list[int]) -> bool:
    return all(wanted in (UNKNOWN, tag) for tag, wanted in zip(path, gold, strict=True))


def sample(decoder: CRFTags, lengths: tuple[int, ...], unknown: float) -> tuple[Tensor, Tensor, Tensor]:
    """Random emissions, legal gold tags of which a part is not known, and mask."""
    shape = (len(lengths), max(lengths), decoder.n_chains, len(decoder.tags))
    emissions = 2 * torch.randn(shape, dtype=torch.float64)
    gold = torch.full(shape[:3], 7)  # what stands at padding is not read
    for row, length in enumerate(lengths):
        for chain in range(decoder.n_chains):
            listed, _ = paths(decoder, emissions[row, :length], chain)
            path = torch.tensor(listed[int(torch.randint(len(listed), ()))])
            gold[row, :length, chain] = torch.where(torch.rand(length) < unknown, UNKNOWN, path)
    mask = torch.arange(shape[1]) < torch.tensor(lengths)[:, None]
    return emissions, gold, mask


def brute_loss(decoder: CRFTags, emissions: Tensor, gold: Tensor, mask: Tensor) -> Tensor:
    total = emissions.new_zeros(())
    for row in range(len(gold)):
        for chain in range(decoder.n_chains):
            wanted = gold[row, mask[row], chain].tolist()
            listed, scores = paths(decoder, emissions[row, mask[row]], chain)
            if decoder.mode == "joint":
                fitting = torch.tensor([fits(path, wanted) for path in listed])
                total = total + scores.logsumexp(0) - scores[fitting].logsumexp(0)
                continue
            probs = scores.softmax(0)
            for word, tag in enumerate(wanted):
                if tag != UNKNOWN:
                    total = total - probs[torch.tensor([path[word] == tag for path in listed])].sum().log()
    return total


@pytest.mark.parametrize("unknown", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("mode", ["joint", "marginal"])
@pytest.mark.parametrize("settings", SETTINGS, ids=named)
def test_loss_and_gradients_are_those_of_all_paths(
    settings: dict[str, Any], mode: Any, unknown: float
) -> None:
    decoder = made(**{"chains": "one", **settings}, mode=mode)
    emissions, gold, mask = sample(decoder, (3, 1, 2), unknown)
    weights = [emissions.requires_grad_(), *(decoder.steps.values() if decoder.steps else ())]
    ours = decoder.loss(emissions, gold, mask)
    brute = brute_loss(decoder, emissions, gold, mask)
    assert ours.item() == pytest.approx(brute.item(), abs=1e-9)
    if unknown == 1.0:
        assert ours.item() == pytest.approx(0.0, abs=1e-9)
        return
    expected = torch.autograd.grad(brute, weights)
    for found, wanted in zip(torch.autograd.grad(ours, weights), expected, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-9, rtol=1e-7)


@pytest.mark.parametrize("settings", SETTINGS, ids=named)
def test_best_path_and_marginals_are_those_of_all_paths(settings: dict[str, Any]) -> None:
    decoder = made(**settings).float()
    lengths = (3, 1, 2)
    rows = [torch.randn(length, decoder.n_chains, len(decoder.tags)) * 2 for length in lengths]
    for row, (tags, probs) in zip(rows, decoder.decode_words(rows), strict=True):
        for chain in range(decoder.n_chains):
            listed, scores = paths(decoder, row, chain)
            assert tuple(tags[:, chain].tolist()) == listed[int(scores.argmax())]
            for word in range(len(row)):
                same = torch.tensor([path[word] == tags[word, chain] for path in listed])
                assert probs[word, chain].item() == pytest.approx(
                    scores.softmax(0)[same].sum().item(), abs=1e-5
                )


@pytest.mark.parametrize("settings", SETTINGS, ids=named)
def test_the_score_of_an_entity_is_its_probability(settings: dict[str, Any]) -> None:
    decoder = made(**settings)
    rows = [torch.randn(3, decoder.n_chains, len(decoder.tags), dtype=torch.float64) for _ in range(6)]
    n_found = 0
    for row, found in zip(rows, decoder.decode(rows), strict=True):
        for start, end, label, score in found:
            chain = label if decoder.chain_per_label else 0
            listed, scores = paths(decoder, row, chain)
            tags = torch.zeros(len(listed), 3, decoder.n_chains, dtype=torch.long)
            tags[:, :, chain] = torch.tensor(listed)
            spans = decoder.spans_of(tags, torch.ones(len(listed), 3, dtype=torch.bool))
            same = (spans.starts == start) & (spans.ends == end) & (spans.chains == chain)
            there = spans.rows[same]
            spelled = decoder.tables.labels[chain, tags[there, start, chain]] == label
            expected = scores.softmax(0)[there[spelled]].sum().item()
            if decoder.constrained:
                assert score == pytest.approx(expected, abs=1e-9)
            else:  # other sequences, that break the scheme, may spell the same entity
                assert 0.0 < score <= expected + 1e-9
            n_found += 1
    assert n_found


def test_gradients_by_differences() -> None:
    decoder = made(scheme="bio", mode="marginal", chains="one")
    emissions, gold, mask = sample(decoder, (3, 2), 0.3)
    emissions.requires_grad_()
    assert torch.autograd.gradcheck(lambda each: decoder.loss(each, gold, mask), (emissions,))


@pytest.mark.parametrize("mode", ["joint", "marginal", "independent"])
def test_padding_gaps_and_other_rows_have_no_effect(mode: Any) -> None:
    decoder = made(scheme="bioul", mode=mode)
    emissions, gold, mask = sample(decoder, (3, 4), 0.2)
    alone = [
        decoder.loss(emissions[i : i + 1, :n], gold[i : i + 1, :n], mask[i : i + 1, :n])
        for i, n in ((0, 3), (1, 4))
    ]
    together = decoder.loss(emissions, gold, mask)
    torch.testing.assert_close(together, sum(alone))
    # words that are not there between, before and behind those that are
    places = torch.tensor([1, 2, 5, 7])
    wide, wide_gold = (
        torch.full((2, 9, *emissions.shape[2:]), 1e4, dtype=torch.float64),
        torch.zeros(2, 9, gold.shape[2]),
    )
    wide_mask = torch.zeros(2, 9, dtype=torch.bool)
    wide[:, places], wide_gold[:, places], wide_mask[:, places] = emissions, gold.double().float(), mask
    torch.testing.assert_close(decoder.loss(wide, wide_gold.long(), wide_mask), together)
    assert decoder.count(mask, gold) == float((gold[mask] != UNKNOWN).any(-1).sum())


def test_a_batch_without_words_has_zero_loss() -> None:
    decoder = made()
    none = torch.zeros(2, 0, 1, len(decoder.tags))
    assert decoder.loss(none, torch.zeros(2, 0, 1).long(), torch.zeros(2, 0).bool()) == 0.0
    masked = torch.randn(2, 3, 1, len(decoder.tags))
    assert decoder.loss(masked, torch.zeros(2, 3, 1).long(), torch.zeros(2, 3).bool()) == 0.0
    assert decoder.decode([torch.zeros(0, 1, len(decoder.tags))]) == [[]]


@pytest.mark.parametrize("mode", ["joint", "marginal", "independent"])
def test_each_label_has_a_chain_by_default(mode: Any) -> None:
    assert made(mode=mode, chains=None).n_chains == 2
    assert made(mode=mode, chains="one").n_chains == 1
    assert made(mode=mode, chains=None, scheme="word").n_chains == 1
    assert (made(mode=mode).steps is None) == (mode == "independent")
    with pytest.raises(ConfigError, match=r"decoder\.chains\]"):
        made(mode=mode, chains="per_label", scheme="word")


@pytest.mark.parametrize(("mode", "earlier"), [("joint", 1), ("marginal", 2), ("independent", 2)])
def test_saved_weights_keep_their_chains(mode: Any, earlier: int, tmp_path: Path) -> None:
    """Earlier versions wrote no file: the chains followed from the mode."""
    for chains in ("one", "per_label"):
        made(mode=mode, chains=chains).save_assets(tmp_path)
        again = CRFTags(mode=mode)
        again.load_assets(tmp_path)
        assert again.chain_per_label == (chains == "per_label")
        again.save_assets(tmp_path)
        third = CRFTags(mode=mode)
        third.load_assets(tmp_path)
        assert third.chain_per_label == again.chain_per_label
    (tmp_path / "chains.json").unlink()
    again = CRFTags(mode=mode)
    again.load_assets(tmp_path)
    again.build(8, ["a", "b"])
    assert again.n_chains == earlier


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_has_no_effect(dtype: torch.dtype) -> None:
    decoder = made(scheme="bio").float()
    words = torch.randn(2, 5, 8)
    gold, mask = torch.zeros(2, 5, 1).long(), torch.ones(2, 5).bool()
    emissions = decoder.emissions(words)
    with torch.autocast("cpu", dtype=dtype):
        inside = decoder.emissions(words)
        loss = decoder.loss(inside, gold, mask)
        found = decoder.decode(list(inside))
    assert inside.dtype == loss.dtype == torch.float32
    assert torch.equal(inside, emissions) and torch.equal(loss, decoder.loss(emissions, gold, mask))
    assert found == decoder.decode(list(emissions))


def test_extreme_scores_stay_finite() -> None:
    decoder = made(scheme="bioul").float()
    emissions = (torch.randn(2, 50, 1, len(decoder.tags)) * 3000).requires_grad_()
    gold = torch.stack([decoder.encode([(0, 3, 0), (49, 49, 1)], 50)[0]] * 2)
    for mode in ("joint", "marginal"):
        decoder.mode = mode
        loss = decoder.loss(emissions, gold, torch.ones(2, 50).bool())
        assert torch.isfinite(loss) and loss > 0
        assert torch.isfinite(torch.autograd.grad(loss, emissions)[0]).all()
    assert all(0.0 <= each.score <= 1.0 for row in decoder.decode(list(emissions.detach())) for each in row)


def test_a_text_of_20000_words_and_40_tags() -> None:
    decoder = made(tuple(f"label {i}" for i in range(10)), scheme="bioul").float()
    assert len(decoder.tags) == 41
    emissions = torch.randn(20_000, 1, 41) * 3
    started = time.perf_counter()
    [found] = decoder.decode([emissions])
    assert time.perf_counter() - started < 60
    # far from its ends, a text is tagged like a part of it
    near = {each[:3]: each.score for each in decoder.decode([emissions[9_000:11_000]])[0]}
    middle = [each for each in found if each.start >= 9_500 and each.end < 10_500]
    assert len(middle) > 50
    for each in middle:
        assert near[each.start - 9_000, each.end - 9_000, each.label] == pytest.approx(each.score, abs=1e-5)


@pytest.mark.parametrize("mode", ["joint", "marginal"])
def test_training_keeps_no_table_of_tags_by_tags_for_each_word(mode: Any) -> None:
    decoder = made(tuple("abcdefghij"), scheme="bioul", mode=mode, chains="one").float()
    emissions = torch.randn(2, 300, 1, 41, requires_grad=True)
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = decoder.loss(emissions, torch.zeros(2, 300, 1).long(), torch.ones(2, 300).bool())
    assert (
        sum(kept.values()) < 12 * emissions.untyped_storage().nbytes()
    )  # one table a word would be 41 times as much
    loss.backward()
    assert torch.isfinite(emissions.grad).all()


def test_gold_tags_that_violate_the_scheme_have_a_large_finite_loss() -> None:
    decoder = made(scheme="bio").float()
    emissions = torch.randn(1, 4, 1, 5, requires_grad=True)
    gold = torch.tensor([decoder.tags.index(tag) for tag in ("O", "I-a", "B-b", "I-a")])[None, :, None]
    loss = decoder.loss(emissions, gold, torch.ones(1, 4).bool())
    assert 1.9e4 < loss.item() < 2.1e4
    loss.backward()
    assert torch.isfinite(emissions.grad).all() and emissions.grad.abs().max() <= 1.0


@pytest.mark.parametrize("mode", ["joint", "marginal"])
def test_transitions_are_learned_from_uninformative_words(mode: Any) -> None:
    decoder = CRFTags(scheme="word", mode=mode, chains="one", dropout=0.0)
    decoder.build(4, ["a", "b", "c"])
    words = torch.zeros(2, 9, 4)
    words[0, 0], words[1, 0] = 1.0, -1.0  # the first word alone tells which sequence it is
    gold = torch.tensor([[0, 1, 2] * 3, [1, 2, 0] * 3])[:, :, None]
    optimizer = torch.optim.Adam(decoder.parameters(), 0.1)
    for _ in range(60):
        optimizer.zero_grad()
        decoder.loss(decoder.emissions(words), gold, torch.ones(2, 9).bool()).backward()
        optimizer.step()
    found = decoder.decode_words(list(decoder.emissions(words).detach()))
    for (tags, probs), wanted in zip(found, gold, strict=True):
        assert torch.equal(tags, wanted) and probs.min() > 0.8


def test_the_loss_of_a_long_text_is_exact() -> None:
    decoder = made(scheme="bio").float()
    emissions = torch.randn(1, 5_000, 1, 5) * 3
    gold = torch.stack([decoder.encode([(i, i + 2, i % 2) for i in range(0, 4_990, 7)], 5_000)[0]])
    mask = torch.ones(1, 5_000).bool()
    unsure = gold.clone()
    unsure[0, 2::7] = UNKNOWN
    for tags in (gold, unsure):
        exact = decoder.double().loss(emissions.double(), tags, mask).item()
        assert decoder.float().loss(emissions, tags, mask).item() == pytest.approx(exact, rel=1e-6)


def test_same_results_as_pytorch_crf() -> None:
    peer = pytest.importorskip("torchcrf").CRF(5, batch_first=True).double()
    decoder = made(scheme="bio", constrained=False)
    names = {"between": "transitions", "start": "start_transitions", "end": "end_transitions"}
    with torch.no_grad():
        for ours, theirs in names.items():
            getattr(peer, theirs).copy_(decoder.steps[ours][0])
    emissions, gold, mask = sample(decoder, (4, 2, 3), 0.0)
    expected = -peer(emissions[:, :, 0], gold[:, :, 0] % 5, mask, reduction="sum")
    torch.testing.assert_close(decoder.loss(emissions, gold, mask), expected)
    tags = decoder.best(emissions, mask)[:, :, 0]
    assert [row[there].tolist() for row, there in zip(tags, mask, strict=True)] == peer.decode(
        emissions[:, :, 0], mask
    )
