"""Work is counted, not timed: how many operations a task takes, against what it needs at least.

Operations are those of matrix products (``FlopCounterMode``), two for a multiplication with its addition. A test fails
when padding, vectors of spans that nobody asked for, or work done twice come back.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import spacy
import torch
from conftest import gliner_config, make_backbone
from torch.utils.flop_counter import FlopCounterMode

from gliner_pipe.registry import registry

WORDS = ["Maria", "met", "Bob", "in", "Oslo", "and", "they", "flew", "to", "Lima", "with", "Ana"]


def _of_packed(inputs: Any, weight: Any, *_: Any, **__: Any) -> int:
    """Operations of a linear layer whose weight is packed, from shapes."""
    return 2 * math.prod(inputs) * weight[0]


def operations(run: Callable[[], Any], module: str = "Global") -> float:
    """Operations of matrix products that a call takes."""
    packed = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
    with FlopCounterMode(display=False, custom_mapping={packed: _of_packed} if packed else {}) as counter:
        run()
    return float(sum(counter.get_flop_counts()[module].values()))


def texts_of(lengths: list[int]) -> list[str]:
    return [
        " ".join(WORDS[(place + number) % len(WORDS)] for place in range(length))
        for number, length in enumerate(lengths)
    ]


def skewed(number: int) -> list[int]:
    """Lengths as sentences have them: most short, some very long."""
    rng = random.Random(0)
    return [min(120, max(2, round(rng.lognormvariate(2.5, 0.9)))) for _ in range(number)]


@pytest.fixture(scope="module")
def pipeline(backbone: Path) -> Any:
    nlp = spacy.blank("en")
    config = gliner_config(backbone, threshold=0.9)
    config["model"]["encoder"]["rnn_layers"] = 0
    nlp.add_pipe("gliner", config=config)
    nlp.initialize()
    return nlp


def test_texts_of_all_lengths_are_hardly_padded(pipeline):
    texts = texts_of(skewed(200))
    pipeline.get_pipe("gliner").network.encoder.backbone.max_tokens_per_device = 512
    pipeline.get_pipe("gliner").budget = None
    needed = operations(lambda: [pipeline(text) for text in texts])
    together = operations(lambda: list(pipeline.pipe(texts)))
    assert together < 1.12 * needed


def test_a_prompt_is_cut_into_pieces_once_for_all_texts(pipeline, monkeypatch):
    backbone = pipeline.get_pipe("gliner").network.encoder.backbone
    asked: list[list[str]] = []
    tokenize = type(backbone).tokenize

    def listening(self: Any, texts: Any) -> Any:
        asked.extend(list(text) for text in texts)
        return tokenize(self, texts)

    monkeypatch.setattr(type(backbone), "tokenize", listening)
    pipeline.get_pipe("gliner").labels = ["a new label", "another new one"]
    list(pipeline.pipe(texts_of([5] * 30), batch_size=4))
    assert sum("a new label" in words for words in asked) == 1


def _head(name: str, size: int = 16, **options: Any) -> Any:
    span_rep = registry.span_reps.get(name)(**options)
    span_rep.build(size)
    return span_rep.eval()


@pytest.mark.parametrize("labels", [1, 20])
def test_the_marker_makes_no_vector_of_a_span(labels):
    size, words, widths = 16, 30, 12
    head = _head("markerV0", max_width=widths)
    inputs = torch.randn(2, words, size), torch.randn(2, labels, size), torch.ones(2, words, dtype=torch.bool)
    once_a_word = 2 * words * (2 * 16 * size**2 + 2 * 8 * size**2)
    once_a_label = 2 * labels * 8 * size**2
    once_a_span = 2 * words * widths * 8 * size * labels
    with torch.inference_mode():
        counted = operations(lambda: head.score(*inputs))
    assert counted < 1.02 * (once_a_word + once_a_label + once_a_span) + 2 * labels * 2 * size


@pytest.mark.parametrize("labels", [1, 20])
def test_the_token_scorer_joins_no_words_with_labels(labels):
    size, words = 16, 30
    head = _head("token_level")
    inputs = torch.randn(2, words, size), torch.randn(2, labels, size), torch.ones(2, words, dtype=torch.bool)
    once = 2 * (words + labels) * (4 * size**2 + 8 * size**2)
    pairs = 2 * words * labels * (8 * size**2 + 24 * size)
    with torch.inference_mode():
        counted = operations(lambda: head.score(*inputs))
    assert counted < 1.02 * (once + pairs)


@pytest.mark.parametrize("n_spans", [2, 200])
def test_vectors_are_made_of_chosen_spans_and_their_words_only(n_spans):
    size, words = 16, 60
    head = _head("markerV0", max_width=12)
    spans = torch.tensor([[3, 5]]).expand(1, n_spans, 2)
    inputs = torch.randn(1, words, size), spans, torch.ones(1, words, dtype=torch.bool)
    once_a_word = min(words, n_spans) * (2 * 16 * size**2 + 2 * 8 * size**2)
    with torch.inference_mode():
        counted = operations(lambda: head.represent(*inputs))
    assert counted < 1.02 * (once_a_word + n_spans * 8 * size**2)


@pytest.mark.parametrize("length", [8, 64])
def test_deberta_multiplies_no_distance_that_does_not_occur(tmp_path, length):
    folder = make_backbone(tmp_path, "deberta-v2", 32)
    backbone = registry.backbones.get("transformer")(model=str(folder))
    backbone.build()
    encoder = backbone.encoder.eval()
    config = encoder.config
    size, inner, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    ids = torch.randint(5, 500, (3, length))
    run = lambda: encoder(input_ids=ids, attention_mask=torch.ones_like(ids))  # noqa: E731
    with torch.inference_mode():
        run()  # projections of the distances are kept from the first run on
        counted = operations(run)
    linear = 2 * length * (4 * size**2 + 2 * size * inner)
    attention = 4 * length**2 * size
    # one product with the embeddings of the distances from the side of the queries, one from that of the keys
    distances = 2 * 2 * length * (2 * length - 1) * size
    assert counted < 1.02 * 3 * layers * (linear + attention + distances)


def test_labels_of_a_bi_encoder_are_read_once(backbone):
    nlp = spacy.blank("en")
    config = gliner_config(backbone, threshold=0.9)
    config["model"]["encoder"] |= {"@encoders": "bi_encoder", "label_model": str(backbone)}
    nlp.add_pipe("gliner", config=config)
    nlp.initialize()
    component = nlp.get_pipe("gliner")
    component.labels = [f"label {number}" for number in range(50)]
    texts = texts_of([6] * 8)
    first = operations(lambda: list(nlp.pipe(texts)))
    again = operations(lambda: list(nlp.pipe(texts)))
    labels = operations(lambda: component.network.encoder.label_encoder._run(component.labels))
    assert first - again > 0.9 * labels
    component.labels = [*component.labels, "one more"]
    assert operations(lambda: list(nlp.pipe(texts))) - again < 0.2 * labels


def test_a_step_costs_three_times_its_scores(pipeline):
    """Forward, and backward to inputs and weights: heads and losses do nothing twice."""
    from spacy.training import Example

    component = pipeline.get_pipe("gliner")
    docs = [pipeline.make_doc(text) for text in texts_of([20] * 4)]
    for doc in docs:
        doc.ents = [doc.char_span(0, len(doc[0].text), "person")]
    batch = component.collate([Example(doc.copy(), doc) for doc in docs], random.Random(0))
    network = component.network.train()
    forward = operations(lambda: network(batch))
    both = operations(lambda: network(batch).total.backward())
    network.zero_grad()
    assert both < 3.05 * forward


def test_one_text_at_a_time_repeats_nothing(tmp_path):
    folder = make_backbone(tmp_path / "backbone", "deberta-v2", 32)
    nlp = spacy.blank("en")
    nlp.add_pipe("gliner", config=gliner_config(folder, threshold=0.9))
    nlp.initialize()
    nlp.to_disk(tmp_path / "saved")
    nlp = spacy.load(tmp_path / "saved")
    nlp.get_pipe("gliner").network.requires_grad_(False)  # the counter looks for gradients of what it counts
    first = operations(lambda: nlp("Maria met Bob"))
    again = operations(lambda: nlp("Maria met Bob"))
    config = nlp.get_pipe("gliner").network.encoder.backbone.encoder.config
    # the projections of 64 distances, of queries and of keys, in each layer
    tables = 2 * 2 * 64 * config.hidden_size**2 * config.num_hidden_layers
    assert again <= first - tables
