"""What is known of boundaries in training, and that every gold span is scored."""

import pytest
import torch

from gliner_pipe.errors import ConfigError
from gliner_pipe.modeling.encoders.base import EncoderBatch
from gliner_pipe.modeling.losses.bce import BCELoss
from gliner_pipe.modeling.span_reps.base import FieldSpans, FoundSpans, Representations
from gliner_pipe.modeling.span_reps.boundary import Boundary
from gliner_pipe.modeling.span_reps.boundary_pool import BoundaryPool
from gliner_pipe.modeling.span_reps.boundary_training import Known, hard_negatives, listwise, padded
from tests.modeling.span_reps.test_boundary import HIDDEN, POOL, SIZES, SMALL, batch, windows_of

BLOCKS = [(Boundary, SMALL), (BoundaryPool, POOL)]


def made(kind, options):
    torch.manual_seed(0)
    block = kind(**SIZES, **options, dropout=0.0)
    block.build(HIDDEN)
    return block


def loss_of(block, words, mask, labels, label_mask, gold, outside=None, **options):
    vectors = Representations(words, words, labels, labels[:, :0], None, {})
    inputs = EncoderBatch(windows_of(mask, **options), label_mask, label_mask[:, :0], ())
    fields = FieldSpans(torch.zeros(0, 4).long(), torch.zeros(0, 4).long(), outside)
    return block.loss(vectors, inputs, torch.tensor(gold).view(-1, 4), BCELoss(), fields)


@pytest.mark.parametrize(("kind", "options"), BLOCKS)
@torch.no_grad()
def test_every_gold_span_is_scored(kind, options):
    """Also those beyond the budgets, each once."""
    block = made(kind, options)
    words, mask, queries, query_mask = batch()
    gold = [(0, first, 2, first % 3) for first in range(7)] + [(0, 0, 0, 0), (3, 11, 2, 1)]
    places, known = padded(torch.tensor(gold), 4, 3)
    read = block.boundary_encoder(words, mask)
    some = block.proposed(read, queries, query_mask, places, known)
    for row, first, width, query in gold:
        spans = some.spans[row, query][some.valid[row, query]].tolist()
        assert spans.count([first, first + width + 1]) == 1
    own = block.candidates(read, queries, query_mask)
    for row in range(4):  # what is proposed keeps its score, in a pool of its own unless spans were added
        if kind is Boundary:
            before = set(map(tuple, own.spans[row, 0][own.valid[row, 0]].tolist()))
            assert before <= set(map(tuple, some.spans[row, 0][some.valid[row, 0]].tolist()))


@pytest.mark.parametrize(("kind", "options"), BLOCKS)
def test_words_that_nobody_annotated_and_other_rows_change_nothing(kind, options):
    block = made(kind, {**options, "enable_abstention": False, "enable_count_head": False})
    words, mask, labels, label_mask = batch((9, 9), (3, 3))
    gold = [(0, 2, 1, 0), (1, 0, 0, 2)]
    one = loss_of(block, words, mask, labels, label_mask, gold)
    first = loss_of(block, words[:1], mask[:1], labels[:1], label_mask[:1], gold[:1])
    second = loss_of(block, words[1:], mask[1:], labels[1:], label_mask[1:], [(0, 0, 0, 2)])
    for name, value in one.items():
        torch.testing.assert_close(value, first[name] + second[name], rtol=1e-4, atol=1e-4)


def test_what_is_known_of_labels():
    mask = torch.ones(1, 6, dtype=torch.bool)
    labels = torch.ones(1, 1, dtype=torch.bool)
    read = made(Boundary, SMALL).boundary_encoder(torch.randn(1, 6, HIDDEN), mask)

    def known(outside=None, **options):
        found = Known.of_labels(read, windows_of(mask, **options), labels, outside)
        return [
            part[0, 0].int().tolist() for part in (found.starts, found.ends, found.lasts)
        ], found.whole.item()

    assert known() == ([[1] * 7, [1] * 7, [0, *[1] * 6]], True)
    # words 2 and 3 are owned: what begins elsewhere is for other windows, but may end here
    assert known(own=[[2, 4]]) == ([[0, 0, 1, 1, 0, 0, 1], [1, 0, 0, 1, 1, 0, 0], [0, *[1] * 6]], False)
    # nothing begins or ends at a word that is not read
    assert known(unread=[(0, 1)]) == (
        [[1, 0, 1, 1, 1, 1, 1], [1, 1, 0, 1, 1, 1, 1], [0, 1, 0, 1, 1, 1, 1]],
        True,
    )


def test_hard_negatives_and_the_choice_by_hand():
    logits = torch.tensor([[3.0, 2.0, 1.0, 0.0, -1.0]])
    right = torch.tensor([[False, True, False, False, False]])
    valid = torch.tensor([[True, True, True, False, True]])
    options = {"hard_negatives_per_positive": 1.0, "minimum_hard_negatives": 2.0}
    assert hard_negatives(logits, right, valid, options).tolist() == [[True, False, True, False, False]]
    expected = torch.tensor([3.0, 2.0, 1.0, -1.0]).logsumexp(0) - 2
    assert listwise(logits, right, valid).item() == pytest.approx(expected.item(), rel=1e-6)
    assert listwise(logits, right & False, valid).item() == 0


@pytest.mark.parametrize(("kind", "options"), BLOCKS)
def test_gold_spans_that_are_more_than_are_proposed(kind, options):
    block = made(kind, options)
    starts = torch.arange(9)
    zeros = torch.zeros_like(starts)
    # 9 spans of one label; 3 starts and 4 ends are tried, or 5 of each
    number, names = block.not_proposed(20, FoundSpans(zeros, starts, starts, zeros, zeros))
    assert number == (5 if kind is Boundary else 4)
    assert all(name in vars(block) for name in names.replace(" and ", ", ").split(", "))
    apart = FoundSpans(starts, starts, starts, zeros, zeros)
    assert block.not_proposed(20, apart)[0] == 0


def test_options_of_the_training():
    assert Boundary(loss_options={"count_loss_weight": 0.0}).of_loss["count_loss_weight"] == 0
    for name, value in (("count_weight", 1.0), ("count_loss_weight", -1.0)):
        with pytest.raises(ConfigError) as caught:
            BoundaryPool(loss_options={name: value})
        assert caught.value.where == f"components.*.model.span_rep.loss_options.{name}"
