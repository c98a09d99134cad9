"""Trainings on entities, relations, classes and records by the training loop."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import confit
import pytest
import spacy
import torch
from task_pipeline import DATA, boundary_blocks, component_config

from gliner_pipe.registry import registry
from gliner_pipe.train import train
from tests.training.conftest import weights


@pytest.fixture
def config_path(tmp_path: Path, backbone: Path) -> Path:
    return config_of(tmp_path, backbone)


def config_of(tmp_path: Path, backbone: Path, **changes: Any) -> Path:
    """Write a config and the data of its training."""
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(one) + "\n" for one in DATA), "utf8")
    component = component_config(backbone, task_sampling={}, label_sampling={}, **changes)
    config = {
        "nlp": {"lang": "en", "components": "${components}"},
        "components": {"gliner": {"@factory": "gliner", **component}},
        "train": {
            "nlp": "${nlp}",
            "train_data": str(tmp_path / "train.jsonl"),
            "val_data": str(tmp_path / "train.jsonl"),
            "max_steps": 6,
            "validation_interval": 2,
            "batch_size": "4 samples",
            "output_path": str(tmp_path / "out" / "model-last"),
            "overwrite": True,
        },
    }
    return written(config, tmp_path / "config.cfg")


def written(config: dict[str, Any], path: Path) -> Path:
    """Write a config whose references are no strings."""
    path.write_text(re.sub(r'"(\$\{\w+\})"', r"\1", confit.Config(config).to_str()), "utf8")
    return path


def options(path: Path, **changes: Any) -> dict[str, Any]:
    resolved = confit.Config.from_disk(path, resolve=True, registry=registry)
    return {**resolved["train"], "loggers": [], **changes}


#: Records that a boundary model forms itself.
RECORDS = {"product": {"fields": ["name", "price"], "mode": "anchorless"}}
#: Blocks of a boundary model that find relations and records.
FINDERS = ("relation_finder", "record_finder")


def test_tasks_of_the_config_and_of_the_data(config_path, capsys):
    raw = confit.Config.from_disk(config_path)
    raw["components"]["gliner"]["classes"] = {"tone": ["good", "bad", "angry"]}
    raw["components"]["gliner"]["records"] = {"product": ["name", "weight"]}
    written(raw, config_path)
    train(**options(config_path, max_steps=1, validation_interval=1))
    shown = [
        line for line in capsys.readouterr().out.splitlines() if line.startswith("warning: [components.")
    ]
    for part in (
        "gliner.classes] lacks a classification",
        "gliner.classes.tone] lacks a label",
        "gliner.classes.tone] has a label that no training text has: angry",
        "gliner.records.product] lacks a field",
        "gliner.records.product] has a field that no training text has: weight",
    ):
        assert sum(part in line for line in shown) == 1


class StopError(Exception):
    """Raised in the middle of a training."""


@pytest.mark.parametrize("kind", ["slots", "boundary", "boundary_pool"])
def test_resumed_and_scored(backbone, tmp_path, kind):
    changes = {} if kind == "slots" else {"blocks": boundary_blocks(kind, dropout=0.2), "records": RECORDS}
    config_path = config_of(tmp_path, backbone, **changes)
    out = {"output_path": tmp_path / "whole" / "model-last"}
    whole = train(**options(config_path, **out))

    def stop(record: dict[str, Any]) -> None:
        if record["step"] == 4:
            raise StopError

    with pytest.raises(StopError):
        train(**options(config_path, on_validation_callback=stop))
    torch.manual_seed(99)
    random.seed(99)
    went_on = train(**options(config_path, resume_from_checkpoint="auto"))
    one, other = weights(whole), weights(went_on)
    assert [name for name, value in one.items() if not torch.equal(value, other[name])] == []
    scores = spacy.load(tmp_path / "out" / "model-last").meta["performance"]
    assert {"ner", "relations", "classes", "records"} <= scores.keys()
    assert set(scores["classes"]["tasks"]) == {"tone", "topics"}
    saved = spacy.load(tmp_path / "out" / "model-last").get_pipe("gliner")
    assert (saved.classes, saved.records, saved.relations) == (
        ("tone", "topics"),
        ("product",),
        ("works for",),
    )


@pytest.mark.parametrize("kind", ["slots", "boundary"])
def test_adapters_are_trained_with_all_heads(backbone, tmp_path, kind):
    blocks = {} if kind == "slots" else boundary_blocks(kind)
    config_path = config_of(tmp_path, backbone, blocks=blocks)
    config = confit.Config.from_disk(config_path)
    config["train"]["nlp"], config["nlp"]["components"] = "${nlp}", "${components}"
    encoder = config["components"]["gliner"]["model"]["encoder"]["backbone"]
    encoder["adapter"] = {"@adapters": "lora", "r": 2}
    config["train"] |= {"max_steps": 2}
    written(config, tmp_path / "lora.cfg")
    nlp = train(**options(tmp_path / "lora.cfg"))
    model = nlp.get_pipe("gliner").gliner
    learning = {name for name, one in model.named_parameters() if one.requires_grad}
    assert any(".lora_" in name for name in learning)
    heads = ("span_rep", "classifier", *(["counter"] if kind == "slots" else FINDERS))
    assert all(any(name.startswith(head) for name in learning) for head in heads)
    assert not any(
        name.startswith("encoder.backbone.encoder") and name.endswith("base_layer.weight")
        for name in learning
    )


def test_frozen_parts_of_a_boundary_model_keep_their_weights(backbone, tmp_path):
    config_path = config_of(tmp_path, backbone, blocks=boundary_blocks("boundary"), records=RECORDS)
    start = weights(train(**options(config_path, task_lr=0.0, transformer_lr=0.0, max_steps=1)))
    frozen = {"freeze_components": ["text_encoder", "span_rep.boundary_encoder"], "weight_decay": 0.1}
    after = weights(train(**options(config_path, **frozen, max_steps=2)))
    changed = {name for name in start if not torch.equal(start[name], after[name])}
    assert not any(name.startswith(("encoder.backbone.", "span_rep.boundary_encoder.")) for name in changed)
    assert all(any(name.startswith(part) for name in changed) for part in ("span_rep", *FINDERS))
