from __future__ import annotations

from typing import Any

import pytest
import spacy
import torch
from conftest import gliner_config
from torch import nn

from gliner_pipe.modeling import label_projection as projected_labels
from gliner_pipe.modeling.label_projection import ProjectedLabels


class Counting(nn.Module):
    """A layer that notes how many rows it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6)
        self.rows: list[int] = []

    def forward(self, rows: Any) -> Any:
        self.rows.append(len(rows))
        return self.layer(rows)


@pytest.fixture(autouse=True)
def few_at_once(monkeypatch):
    monkeypatch.setattr(projected_labels, "LABELS_AT_ONCE", 8)


MARK = torch.empty(0)
OLD = list(range(100))


def named(numbers):
    return tuple(f"label {number}" for number in numbers)


@pytest.mark.parametrize(
    ("new", "cost"),
    [
        (OLD, 0),
        ([*OLD, 200], 1),
        ([200, *OLD], 1),
        ([*OLD[:50], 200, 201, *OLD[50:]], 2),
        ([*OLD[:50], *OLD[51:]], 0),
        (OLD[-9:], 0),
        ([200, 3, 201, 200], 2),
        ([], 0),
        (OLD[::-1], 0),
        (range(100, 130), 30),
    ],
)
def test_only_new_labels_are_projected(new, cost):
    vectors = torch.randn(300, 6)
    layer, kept = Counting(), ProjectedLabels()
    with torch.inference_mode():
        kept.of(layer, named(OLD), vectors[OLD], MARK)
        layer.rows.clear()
        made = kept.of(layer, named(new), vectors[list(new)], MARK)
        assert sum(layer.rows) == cost
        assert max(layer.rows, default=0) <= 8
        torch.testing.assert_close(made, layer.layer(vectors[list(new)]))


def test_few_labels_do_not_cost_the_projections_of_many():
    vectors = torch.randn(300, 6)
    many = range(200)
    layer, kept = Counting(), ProjectedLabels()
    with torch.inference_mode():
        kept.of(layer, named(many), vectors[:200], MARK)
        layer.rows.clear()
        for number in range(200, 220):
            few = [number, number + 1]
            torch.testing.assert_close(
                kept.of(layer, named(few), vectors[few], MARK), layer.layer(vectors[few])
            )
            kept.of(layer, named(many), vectors[:200], MARK)
        assert sum(layer.rows) == 21


def test_changed_weights_and_vectors_invalidate_the_cache():
    layer, kept, labels = Counting(), ProjectedLabels(), torch.randn(20, 6)
    with torch.no_grad():
        kept.of(layer, named(range(20)), labels, MARK)
        layer.layer.weight.mul_(2)
        torch.testing.assert_close(kept.of(layer, named(range(20)), labels, MARK), layer.layer(labels))
        assert sum(layer.rows) == 40
        other = labels + 1
        made = kept.of(layer, named(range(20)), other, torch.empty(0))
        torch.testing.assert_close(made, layer.layer(other))


def test_only_a_new_label_is_encoded_and_projected(backbone):
    nlp = spacy.blank("en")
    names = [f"label {number}" for number in range(40)]
    config = gliner_config(backbone, labels=names, threshold=0.0)
    config["model"]["encoder"] |= {"@encoders": "bi_encoder", "label_model": str(backbone)}
    component = nlp.add_pipe("gliner", config=config)
    nlp.initialize()
    text = "Maria met Bob in Lima"
    nlp(text)
    read, projected = [], []
    embedder = component.gliner.encoder.label_encoder
    embedder.encoder.register_forward_pre_hook(
        lambda _, args, options: read.append(len(options["input_ids"])), with_kwargs=True
    )
    component.gliner.prompt_rep.register_forward_pre_hook(lambda _, args: projected.append(len(args[0])))
    component.add_label("one more")
    nlp(text)
    assert (sum(read), sum(projected)) == (1, 1)
    scores = nlp(text).spans["gliner"].attrs["scores"]
    embedder.encoder_changed()
    component.gliner.projected_labels.forget()
    assert nlp(text).spans["gliner"].attrs["scores"] == pytest.approx(scores, abs=1e-6)
