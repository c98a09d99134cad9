"""Prompts that are read once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import spacy
from conftest import gliner_config

from gliner_pipe.errors import ConfigError

TEXTS = ["Maria reads in Lima.", "The baker from Oslo met Bob."]


@pytest.fixture
def pipeline(backbone: Path) -> Any:
    nlp = spacy.blank("en")
    nlp.add_pipe("gliner", config=gliner_config(backbone, labels=["person", "big city"], threshold=0.0))
    nlp.initialize()
    return nlp


def scores(nlp: Any, text: str) -> dict[Any, float]:
    doc = nlp(text)
    group = doc.spans["gliner"]
    return {(s.start, s.end, s.label_): float(p) for s, p in zip(group, group.attrs["scores"], strict=True)}


def test_compression_over_one_text_gives_its_label_vectors(pipeline: Any) -> None:
    component = pipeline.get_pipe("gliner")
    encoder = component.gliner.encoder
    doc = pipeline.make_doc(TEXTS[0])
    (before,) = encoder.prepare([[t.text for t in doc]], [_query(component)], 0)
    expected = encoder(encoder.collate([before])).labels[0]
    component.compress_prompt([doc])
    assert encoder.table.entities.sub(expected).abs().max() < 1e-5
    (after,) = encoder.prepare([[t.text for t in doc]], [_query(component)], 0)
    assert len(before.prompt.ids) > len(after.prompt.ids) == 1


def _query(component: Any) -> Any:
    from gliner_pipe.modeling.encoders.base import Query

    return Query(tuple(item.text for item in component.label_items))


def test_saved_and_loaded(pipeline: Any, tmp_path: Path) -> None:
    component = pipeline.get_pipe("gliner")
    component.compress_prompt(pipeline.make_doc(text) for text in TEXTS)
    expected = [scores(pipeline, text) for text in TEXTS]
    assert all(expected)
    pipeline.to_disk(tmp_path / "model")
    loaded = spacy.load(tmp_path / "model")
    assert [scores(loaded, text) for text in TEXTS] == expected


def test_a_subset_of_the_labels_in_any_order(pipeline: Any) -> None:
    component = pipeline.get_pipe("gliner")
    component.compress_prompt(pipeline.make_doc(text) for text in TEXTS)
    component.cfg["multi_label"] = True
    both = scores(pipeline, TEXTS[0])
    component.labels = ["big city"]
    one = scores(pipeline, TEXTS[0])
    assert one
    for key, score in one.items():
        assert both.get(key, score) == pytest.approx(score, abs=1e-5)


def test_a_label_without_a_vector_is_refused(pipeline: Any) -> None:
    component = pipeline.get_pipe("gliner")
    component.compress_prompt([pipeline.make_doc(TEXTS[0])])
    component.labels = ["person", "ship"]
    with pytest.raises(ConfigError, match=r"components\.gliner\.labels.*'ship'"):
        pipeline(TEXTS[0])


def test_compression_needs_text(pipeline: Any) -> None:
    with pytest.raises(ValueError, match="compress_prompt"):
        pipeline.get_pipe("gliner").compress_prompt([pipeline.make_doc("")])
