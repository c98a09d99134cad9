"""The config of gliner-spacy's component becomes one of ``gliner``."""

from __future__ import annotations

import pytest
import spacy

from gliner_pipe.errors import ConfigError
from gliner_pipe.migration import from_gliner_spacy


def test_the_defaults() -> None:
    assert from_gliner_spacy({}) == {
        "model": "urchade/gliner_base",
        "labels": ["person", "organization", "school"],
        "device": "cpu",
        "overwrite_ents": True,
    }


def test_every_option() -> None:
    notes: list[str] = []
    config = {
        "gliner_model": "mine",
        "chunk_size": 100,
        "labels": ["people"],
        "style": "span",
        "threshold": 0.3,
        "map_location": "cuda",
        "load_onnx_model": False,
        "onnx_model_file": "model.onnx",
    }
    made = from_gliner_spacy(config, notes.append)
    assert made == {
        "model": "mine",
        "labels": ["people"],
        "threshold": 0.3,
        "device": "cuda",
        "flat_ner": False,
        "spans_key": "sc",
        "annotate_ents": False,
    }
    assert [note.split()[0] for note in notes] == ["chunk_size", "onnx_model_file"]


@pytest.mark.parametrize("style", ["ent", "span"])
def test_the_component_accepts_it(style: str) -> None:
    component = spacy.blank("en").add_pipe("gliner", config=from_gliner_spacy({"style": style}))
    assert component.labels == ("person", "organization", "school")  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("config", "where"),
    [
        ({"threshold": 3}, "gliner_spacy.threshold"),
        ({"style": "ents"}, "gliner_spacy.style"),
        ({"load_onnx_model": True}, "gliner_spacy.load_onnx_model"),
        ({"chunksize": 3}, "gliner_spacy.chunksize"),
    ],
)
def test_mistakes(config: dict[str, object], where: str) -> None:
    with pytest.raises(ConfigError) as error:
        from_gliner_spacy(config)
    assert error.value.where == where
