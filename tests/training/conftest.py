"""A tiny task that a tiny model learns in some seconds, and a config for it."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch

PEOPLE = ["Ann", "Ben", "Carla Diaz", "Dora", "Emil Berg", "Fay"]
CITIES = ["Oslo", "Lima", "New York", "Paris", "Turin", "Cairo"]
TEMPLATES = [
    "{p} lives in {c} .",
    "{p} left {c} and {c} .",
    "In {c} , {p} met {p} .",
    "It rained in {c} .",
    "{p} slept .",
]

CONFIG = """
[vars]
train = "{train}"
dev = "{dev}"

[nlp]
lang = "en"
components = ${{components}}

[components]

[components.gliner]
@factory = "gliner"
labels = ["person", "city"]
label_sampling = {{"all_labels": true, "shuffle": false}}

[components.gliner.model]
@architectures = "gliner_pipe.GLiNER.v1"
dropout = 0.0

[components.gliner.model.encoder]
@encoders = "uni_encoder"

[components.gliner.model.encoder.backbone]
@backbones = "transformer"
model = "{backbone}"

[components.gliner.model.span_rep]
@span_reps = "markerV0"
max_width = 3
dropout = 0.0

[scorer]

[scorer.ner]
@metrics = "gliner_pipe.ner_exact"

[train]
nlp = ${{nlp}}
max_steps = 4
validation_interval = ${{train.max_steps//2}}
batch_size = 8 samples
transformer_lr = 1e-3
task_lr = 3e-3
scorer = ${{scorer}}
output_path = "{out}"
overwrite = true

[train.train_data]
randomize = true
max_length = 100
multi_sentence = true

[train.train_data.reader]
@readers = "gliner_json"
path = ${{vars.train}}

[train.val_data]

[train.val_data.reader]
@readers = "gliner_json"
path = ${{vars.dev}}
"""


def records(number: int, seed: int = 0) -> list[dict[str, Any]]:
    """Make sentences with people and cities."""
    rng = random.Random(seed)
    made = []
    for _ in range(number):
        words: list[str] = []
        ner = []
        for token in rng.choice(TEMPLATES).split():
            label, pool = {"{p}": ("person", PEOPLE), "{c}": ("city", CITIES)}.get(token, ("", [token]))
            found = rng.choice(pool).split()
            if label:
                ner.append([len(words), len(words) + len(found) - 1, label])
            words += found
        made.append({"tokenized_text": words, "ner": ner})
    return made


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf8")
    return path


@pytest.fixture
def still_backbone(backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny BERT without dropout."""
    from transformers import AutoModel, AutoTokenizer

    folder = tmp_path_factory.mktemp("still")
    model = AutoModel.from_pretrained(backbone)
    model.config.hidden_dropout_prob = model.config.attention_probs_dropout_prob = 0.0
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(backbone).save_pretrained(folder)
    return folder


@pytest.fixture
def config_path(still_backbone: Path, tmp_path: Path) -> Path:
    """A config that trains the tiny model on the tiny task for four steps."""
    path = tmp_path / "config.cfg"
    text = CONFIG.format(
        train=write(tmp_path / "train.jsonl", records(64)),
        dev=write(tmp_path / "dev.jsonl", records(20, seed=1)),
        backbone=still_backbone,
        out=tmp_path / "out",
    )
    path.write_text(text, encoding="utf8")
    return path


def weights(nlp: Any) -> dict[str, torch.Tensor]:
    """Copy all weights of a pipeline."""
    return {name: value.detach().clone() for name, value in nlp.get_pipe("gliner").model.state_dict().items()}
