"""The parts of a hub's card that programs read: front matter, data and settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from gliner_pipe.packaging.card import base_models, model_card, training_facts

META: dict[str, Any] = {
    "lang": "en",
    "name": "pipeline",
    "version": "0.0.0",
    "spacy_version": ">=3.8.7,<3.9.0",
    "description": "Finds people: and cities",
    "author": "",
    "email": "",
    "url": "",
    "license": "MIT",
    "components": ["gliner"],
    "labels": {"gliner": ["person"]},
    "performance": {},
    "requirements": ["gliner_pipe>=0.1.0"],
    "sources": [],
}

TRAINING = """# gliner_pipe 0.1.0
[vars]
dev = "corpora/dev.jsonl"
password = "hush"

[train]
max_steps = 100
batch_size = "8 samples"
task_lr = 1e-4
patience = null
validation_interval = ${train.max_steps//10}
seed = ${vars.seed}

[train.schedule]
@schedules = "cosine"

[train.train_data]
randomize = true

[train.train_data.reader]
@readers = "jsonl"
path = ["/home/me/corpora/train.jsonl", "someone/corpus"]

[train.val_data.reader]
@readers = "jsonl"
path = ${vars.dev}
"""


def card(config: dict[str, Any] | None = None, training: str | None = None, **changes: Any) -> str:
    return model_card({**META, **changes}, config or {}, training, "", "ada/people")


def front(text: str) -> dict[str, Any]:
    return yaml.safe_load(text.split("---\n")[1])


def test_front_matter_with_scores() -> None:
    performance = {
        "ner": {
            "micro": {"p": 0.5, "r": 0.25, "f": 1 / 3, "support": 9},
            "macro": {"p": 1.0, "r": 1.0, "f": 1.0},
            "per_label": {"person": {"p": 1.0, "r": 1.0, "f": 1.0}},
        },
        "relations": {"micro": {"p": 0.1, "r": None, "f": None}},
        "ner.micro.f": 1 / 3,
    }
    text = card(training=TRAINING, performance=performance)
    loaded = ModelCard(text).data
    assert loaded.model_name == "people" and loaded.pipeline_tag == "token-classification"
    assert loaded.tags == ["spacy", "token-classification", "gliner", "named-entity-recognition"]
    assert (loaded.language, loaded.license, loaded.metrics) == (["en"], "mit", ["precision", "recall", "f1"])
    results = {item.metric_name: (item.metric_type, item.metric_value) for item in loaded.eval_results}
    assert results == {
        "ner.micro.p": ("precision", 0.5),
        "ner.micro.r": ("recall", 0.25),
        "ner.micro.f": ("f1", 0.333333),
        "relations.micro.p": ("precision", 0.1),
    }
    assert {item.dataset_name for item in loaded.eval_results} == {"dev.jsonl"}
    assert "# people\n\nFinds people: and cities\n" in text


def test_scores_as_spacy_train_writes_them() -> None:
    text = card(performance={"ents_p": 0.5, "ents_r": 0.5, "ents_f": 0.5, "ents_per_type": {}, "loss": 3.0})
    results = {item.metric_name: item.metric_value for item in ModelCard(text).data.eval_results}
    assert results == {"ents.p": 0.5, "ents.r": 0.5, "ents.f": 0.5}
    assert "validation data" in text


def test_without_scores() -> None:
    text = card(license="", lang="xx")
    assert "model-index" not in text and "license" not in text.split("---\n")[1]
    assert front(text)["language"] == ["multilingual"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Apache-2.0", {"license": "apache-2.0"}),
        ("GPL-3.0-or-later", {"license": "gpl-3.0"}),
        ("My own: ask me", {"license": "other", "license_name": "My own: ask me"}),
    ],
)
def test_licences(name: str, expected: dict[str, str]) -> None:
    found = front(card(license=name))
    assert {key: found.get(key) for key in ("license", "license_name") if key in found} == expected


def test_base_models(tmp_path: Path) -> None:
    backbone = {"@backbones": "transformer", "model": "someone/encoder"}
    config = {
        "components": {
            "one": {"model": {"encoder": {"backbone": backbone, "labels": backbone}}},
            "two": {"model": "someone/checkpoint"},
            "three": {"model": {"@architectures": "gliner_pipe.Pretrained.v1", "name": "someone/third"}},
            "four": {"model": str(tmp_path), "name": "someone/no-model"},
        }
    }
    assert base_models(config) == ["someone/encoder", "someone/checkpoint", "someone/third"]
    assert front(card(config))["base_model"] == ["someone/encoder", "someone/checkpoint", "someone/third"]


def test_data_and_settings() -> None:
    assert training_facts(TRAINING) == {
        "Training data": "train.jsonl, someone/corpus",
        "Validation data": "dev.jsonl",
        "max_steps": "100",
        "batch_size": "8 samples",
        "task_lr": "0.0001",
        "schedule": "cosine",
    }
    text = card(training=TRAINING)
    assert "| **Training data** | `train.jsonl, someone/corpus` |" in text
    assert "hush" not in text and 'password = "***"' in text
    assert training_facts("no config at all") == {} and training_facts("[nlp]\nlang = 'en'\n") == {}


def test_usage_with_and_without_gliner_pipe() -> None:
    text = card()
    assert 'pip install "spacy>=3.8.7,<3.9.0" "gliner_pipe>=0.1.0"\n' in text
    assert 'nlp = gliner_pipe.load("ada/people")' in text
    text = card(requirements=[])
    assert 'pip install "spacy>=3.8.7,<3.9.0" huggingface_hub\n' in text
    assert 'nlp = spacy.load(snapshot_download("ada/people"))' in text and "gliner_pipe.load" not in text
