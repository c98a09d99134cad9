import torch

from gliner_pipe.modeling.span_reps.marker import MarkerV0


def reference(block, words, labels):
    """One vector a span, as the formula is written in the paper's code."""
    start, end = block.project_start(words), block.project_end(words)
    rows, n_words, _ = words.shape
    logits = torch.zeros(rows, n_words, block.max_width, labels.shape[1])
    for i in range(n_words):
        for k in range(min(block.max_width, n_words - i)):
            span = block.out_project(torch.cat([start[:, i], end[:, i + k]], -1).relu())
            logits[:, i, k] = torch.einsum("rd,rcd->rc", span, labels)
    return logits


def built(max_width=4):
    torch.manual_seed(0)
    block = MarkerV0(max_width, dropout=0.0)
    block.build(16)
    return block


def everywhere(words):
    return torch.ones(words.shape[:2], dtype=torch.bool)


def inside(n_words, max_width):
    return torch.arange(n_words)[:, None] + torch.arange(max_width) < n_words


def test_the_factored_form_gives_the_same_numbers():
    block, words, labels = built(), torch.randn(3, 7, 16), torch.randn(3, 5, 16)
    mask = inside(7, 4)
    torch.testing.assert_close(
        block.score(words, labels, everywhere(words))[:, mask],
        reference(block, words, labels)[:, mask],
        rtol=1e-5,
        atol=1e-6,
    )


def test_the_factored_form_gives_the_same_gradients():
    block, words, labels = built(), torch.randn(2, 5, 16), torch.randn(2, 3, 16)
    grads = []
    for score in (lambda w, c: block.score(w, c, everywhere(w)), lambda w, c: reference(block, w, c)):
        block.zero_grad()
        given = words.clone().requires_grad_()
        score(given, labels)[:, inside(5, 4)].square().sum().backward()
        grads.append([given.grad, *(p.grad.clone() for p in block.parameters())])
    for ours, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_represented_spans_score_as_in_the_table():
    block, words, labels = built(), torch.randn(2, 6, 16), torch.randn(2, 3, 16)
    spans = torch.tensor([[[0, 0], [1, 3]], [[2, 5], [4, 4]]])
    vectors = block.represent(words, spans, everywhere(words))
    scores = torch.einsum("rsd,rcd->rsc", vectors, labels)
    table = block.score(words, labels, everywhere(words))
    for row in range(2):
        for index, (first, last) in enumerate(spans[row].tolist()):
            torch.testing.assert_close(
                scores[row, index], table[row, first, last - first], rtol=1e-5, atol=1e-6
            )


def test_a_width_beyond_the_text():
    words = torch.randn(1, 2, 16)
    assert built(9).score(words, torch.randn(1, 1, 16), everywhere(words)).shape == (1, 2, 9, 1)
