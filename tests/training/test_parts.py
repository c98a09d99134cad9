"""Sub-batches give the labels, the loss and the gradient of the whole batch."""

from __future__ import annotations

import math
import random

import confit
import pytest
import spacy
import torch
from spacy.training import Example

from gliner_pipe.data.batching import OVERHEAD, parse_size
from gliner_pipe.registry import registry
from gliner_pipe.train import train
from gliner_pipe.training.data_loader import StepStream
from gliner_pipe.training.data_sections import Section
from gliner_pipe.training.datasets import Dataset, counting_pieces
from tests import relation_pipeline, tagging_pipeline
from tests.conftest import gliner_config
from tests.training.conftest import records, weights


def spans(backbone):
    """Labels are drawn from those of the batch."""
    config = gliner_config(backbone, labels=["person", "city"])
    config["model"]["loss"] = {"@losses": "gliner_pipe.focal", "label_smoothing": 0.1, "width_weight": True}
    nlp = spacy.blank("en")
    component = nlp.add_pipe("gliner", config=config)
    examples = [
        relation_pipeline.example(
            nlp, " ".join(row["tokenized_text"]), [(a, b + 1, label) for a, b, label in row["ner"]], None
        )
        for row in records(8)
    ]
    return nlp, component, examples


def relations(backbone):
    """Labels, relations and pairs are drawn."""
    settings = {"label_sampling": {}, "relation_sampling": {"vary": 0.5}}
    nlp = spacy.blank("en")
    component = nlp.add_pipe("gliner", config=relation_pipeline.config(backbone, **settings))
    return nlp, component, [relation_pipeline.example(nlp, *one) for one in relation_pipeline.DATA * 2]


def tags(backbone):
    """A tagger, with a text of several windows among the others."""
    nlp = spacy.blank("en")
    component = nlp.add_pipe("token_classifier", config=tagging_pipeline.config(backbone))
    examples = tagging_pipeline.examples(nlp)[12:]
    long = ["Ada", "Smith", "lives", "in", "Rome", "."] * 6
    return (
        nlp,
        component,
        [*examples, tagging_pipeline.example(nlp, long, [(0, 1, "person"), (4, 4, "city")])],
    )


class Steps:
    """A logger that keeps what it is told of steps."""

    def __init__(self):
        self.records = []

    def start(self, run): ...

    def step(self, record):
        self.records.append(record)

    def validation(self, record): ...

    def finish(self): ...


@pytest.mark.parametrize("kind", [spans, relations, tags])
def test_sub_batches_have_the_labels_loss_and_gradient_of_the_batch(backbone, kind):
    nlp, component, examples = kind(backbone)
    nlp.initialize(lambda: examples)
    model = component.model
    model.eval()  # without dropout
    found = []
    for overhead in (math.inf, 3, 0.1):
        stream = StepStream([], {"it": component}, seed=1, max_tokens=None, overhead=overhead)
        step = stream.collate([(7, examples)])
        model.zero_grad()
        losses = [model(part["it"]) for part in step.sub_batches]
        total = sum(loss.total for loss in losses)
        total.backward()
        gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        asked = sorted(query for part in step.sub_batches for query in part["it"].inputs.queries)
        counts = sum(part["it"].count for part in step.sub_batches)
        pieces = sum(part["it"].n_pieces for part in step.sub_batches)
        words = sum(part["it"].n_words for part in step.sub_batches)
        found.append((asked, words, step.n_docs, counts, total.detach(), gradients, pieces, step.dropped))
    whole = found[0]
    for other in found[1:]:
        assert other[:4] == whole[:4] and other[7] == whole[7]
        torch.testing.assert_close(other[4], whole[4], rtol=1e-5, atol=1e-5)
        assert other[5].keys() == whole[5].keys()
        for name, gradient in other[5].items():
            torch.testing.assert_close(gradient, whole[5][name], rtol=1e-4, atol=1e-4, msg=name)
    assert found[2][6] < whole[6]  # with less padding


def test_sub_batches_respect_the_maximum_size(backbone):
    nlp, component, examples = spans(backbone)
    nlp.initialize(lambda: examples)
    for most in (20, 40, 80):
        stream = StepStream([], {"it": component}, seed=1, max_tokens=most)
        step = stream.collate([(0, examples)])
        for part, size in zip(step.sub_batches, step.sizes, strict=True):
            assert part["it"].n_pieces <= most or size == 1
        assert sum(step.sizes) == len(examples)


def test_empty_texts_and_chance(backbone):
    nlp, component, examples = spans(backbone)
    nlp.initialize(lambda: examples)
    empty = Example(nlp.make_doc(""), nlp.make_doc(""))
    stream = StepStream([], {"it": component}, seed=1, max_tokens=None, overhead=0.1)
    step = stream.collate([(0, [*examples, empty])])
    assert sum(step.sizes) == 9 and all(part["it"].n_pieces for part in step.sub_batches)
    again = component.draw(examples, random.Random(3)), component.draw(examples, random.Random(3))
    assert (
        again[0].prompts == again[1].prompts
        and again[0].prompts != component.draw(examples, random.Random(4)).prompts
    )


def test_training_with_sub_batches_gives_the_same_weights(config_path, monkeypatch):
    resolved = confit.Config.from_disk(config_path, resolve=True, registry=registry)
    given = {**resolved["train"], "loggers": [], "optimizer": "sgd", "max_grad_norm": 0.1, "task_lr": 0.1}
    given["transformer_lr"] = 0.1
    whole = weights(train(**{**given, "cut_by_length": False}))
    monkeypatch.setitem(OVERHEAD, "cpu", 1)
    parts = weights(train(**given))
    assert any(not torch.equal(whole[name], parts[name]) for name in whole), "nothing was cut"
    for name in whole:
        assert torch.allclose(whole[name], parts[name], atol=1e-6), name


@pytest.mark.parametrize("kind", [spans, tags])
def test_batches_of_so_many_pieces(backbone, kind):
    nlp, component, examples = kind(backbone)
    nlp.initialize(lambda: examples)
    counts = component.count_pieces(examples)
    tokenizer = component.network.encoder.backbone.tokenizer
    words = [[token.text for token in example.reference] for example in examples]
    cut = tokenizer(words, is_split_into_words=True, add_special_tokens=False)["input_ids"]
    assert counts == list(map(len, cut))
    most = max(counts) + min(counts)
    (dataset,) = counting_pieces(
        [Dataset(Section(examples), examples, parse_size(f"{most} pieces"), "gliner")], {"it": component}
    )
    seen = list(dataset.one_pass(random.Random(0)))
    assert sorted(id(e.reference) for batch in seen for e in batch) == sorted(
        id(e.reference) for e in examples
    )
    assert 1 < len(seen) < len(examples)
    assert all(sum(component.count_pieces(batch)) <= most for batch in seen)


def test_an_epoch_of_batches_in_pieces(config_path):
    config = confit.Config.from_disk(config_path, resolve=True, registry=registry)
    steps, cut = Steps(), {"max_length": 0, "multi_sentence": True}
    data = {"reader": records(64), **cut}
    options = {**config["train"], "train_data": data, "max_steps": None, "max_epochs": 1}
    nlp = train(**{**options, "batch_size": "100 pieces", "loggers": [steps]})
    docs = [nlp.make_doc(" ".join(row["tokenized_text"])) for row in records(64)]
    pieces = sum(nlp.get_pipe("gliner").count_pieces([Example(doc, doc) for doc in docs]))
    assert sum(record["docs"] for record in steps.records) == 64  # each once
    assert pieces / 100 <= len(steps.records) <= 2 * pieces / 100
