"""Scores of words as start, end and inside."""

import pytest
import torch

from gliner_pipe.modeling.span_reps.token_level import TokenScorer


def scorer():
    torch.manual_seed(0)
    return TokenScorer(8, 0.0).eval()


@pytest.mark.parametrize("at_once", [1, 100, 1 << 18])
def test_scores_are_the_same_with_and_without_gradients(at_once, monkeypatch):
    """However many words are taken at once, for rows with labels of their own and with shared ones."""
    monkeypatch.setattr("gliner_pipe.modeling.span_reps.token_level.NUMBERS_AT_ONCE", at_once)
    module = scorer()
    mask = torch.arange(7) < torch.tensor([5, 0, 7, 1])[:, None]
    words, labels = torch.randn(4, 7, 8), torch.randn(4, 3, 8)
    for some in (labels, labels[:1].expand(4, -1, -1)):
        expected = module(words, some, mask)
        with torch.no_grad():
            scores = module(words, some, mask)
            torch.testing.assert_close(module(words, some), expected.detach())
        torch.testing.assert_close(scores[mask], expected[mask])
        assert not scores[~mask].any()


def test_no_words_and_no_labels():
    for words, labels in ((0, 3), (4, 0)):
        with torch.no_grad():
            assert scorer()(torch.randn(2, words, 8), torch.randn(2, labels, 8)).shape == (
                2,
                words,
                labels,
                3,
            )
        assert scorer()(torch.randn(2, words, 8), torch.randn(2, labels, 8)).shape == (2, words, labels, 3)
