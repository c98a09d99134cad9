"""Every config of a ``gliner`` pipeline trains on the sample; those of taggers do in tagging."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import spacy
from confit import Config

from gliner_pipe.train import app
from tests.conftest import make_causal_lm

ROOT = Path(__file__).parent.parent
SAMPLE = ROOT / "data" / "sample"
CONFIGS = [
    path
    for path in sorted((ROOT / "configs").glob("*.cfg"))
    if "gliner" in Config.from_disk(path)["components"] and path.stem != "spacy_train"
]
#: Encoder, span representation, and what stands on top, of each architecture that GLiNER's documentation has.
ARCHITECTURES = {
    "uni_encoder_span": ("uni_encoder", "markerV0", set()),
    "uni_encoder_token": ("uni_encoder", "token_level", set()),
    "bi_encoder_span": ("bi_encoder", "markerV0", {"fusion"}),
    "bi_encoder_token": ("bi_encoder", "token_level", set()),
    "uni_encoder_span_decoder": ("uni_encoder", "markerV0", {"decoder"}),
    "uni_encoder_span_relex": ("uni_encoder", "markerV0", {"relation_layer", "triple"}),
    "uni_encoder_token_relex": ("uni_encoder", "token_level", {"relation_layer", "triple"}),
    "bi_encoder_span_relex": ("bi_encoder", "markerV0", {"fusion", "relation_layer", "triple"}),
}


@pytest.fixture(scope="session")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny random GPT-2."""
    return make_causal_lm(tmp_path_factory.mktemp("language_model"))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_config_holds_the_blocks_of_its_architecture(name):
    encoder, span_rep, more = ARCHITECTURES[name]
    model = Config.from_disk(ROOT / "configs" / f"{name}.cfg")["components"]["gliner"]["model"]
    assert model["encoder"]["@encoders"] == encoder
    assert model["span_rep"]["@span_reps"] == span_rep
    assert {key for key, value in model.items() if isinstance(value, dict)} == {
        "encoder", "span_rep", "loss", *more,
    }  # fmt: skip


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_config_trains_on_the_sample(path, backbone, language_model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    config = Config.from_disk(path)
    component = config["components"]["gliner"]
    changes: dict[str, Any] = {
        "components.gliner.model.encoder.backbone.model": str(backbone),
        "components.gliner.threshold": 0.8,  # by chance thousands of spans reach 0.5 in a model that has not learned
        "train.train_data.limit": 4,
        "train.val_data.limit": 4,
        "train.batch_size": "4 samples",
        "train.max_steps": 2,
        "train.cpu": True,
        "train.sample_texts": ["Ann lives in Oslo."],
        "train.output_path": str(tmp_path / "model-last"),
    }
    if "label_model" in component["model"]["encoder"]:
        changes["components.gliner.model.encoder.label_model"] = str(backbone)
    if "model" in component["model"].get("decoder", {}):
        changes["components.gliner.model.decoder.model"] = str(language_model)
    train = config["vars"]["train"]
    if isinstance(train, str) and not Path(train).is_file():  # a corpus that is not part of the project
        changes["vars.train"], changes["vars.dev"] = str(SAMPLE / "train.jsonl"), str(SAMPLE / "dev.jsonl")
        changes["vars.labels"] = sample_labels()
    arguments = [part for key, value in changes.items() for part in (f"--{key}", as_argument(value))]
    app(["--config", str(path), *arguments])

    trained = spacy.load(tmp_path / "model-last")
    assert trained.get_pipe("gliner").labels
    rows = (tmp_path / "train_log.jsonl").read_text("utf8").splitlines()
    steps = [row for row in map(json.loads, rows) if "loss" in row]
    assert len(steps) >= 2
    for name in ("model-last", "model-best"):
        assert (tmp_path / name / "train_config.cfg").is_file()
    assert "entities found by the model in" in capsys.readouterr().out
    assert 0 <= trained.meta["performance"]["ner.micro.f"] <= 1
    if "relation_layer" in component["model"]:
        assert 0 <= trained.meta["performance"]["relations"]["strict"]["micro"]["f"] <= 1


def test_relations_asked_for_are_those_of_the_sample():
    rows = map(json.loads, (SAMPLE / "train.jsonl").read_text("utf8").splitlines())
    found = Counter(label for row in rows for _, _, label in row["relations"])
    for name in (name for name in ARCHITECTURES if name.endswith("_relex")):
        config = Config.from_disk(ROOT / "configs" / f"{name}.cfg")
        asked = config["components"]["gliner"]["relations"]
        assert {relation["label"] for relation in asked} == set(found)


def as_argument(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def sample_labels() -> list[str]:
    rows = map(json.loads, (SAMPLE / "train.jsonl").read_text("utf8").splitlines())
    return sorted({label for row in rows for _, _, label in row["ner"]})


def test_the_unified_yaml_trains_on_the_sample(backbone, tmp_path, monkeypatch):
    from gliner_pipe.migration import configured

    monkeypatch.chdir(ROOT)
    arguments = configured(["--config", "configs/unified.yaml", "--max_steps", "2"])
    app([*arguments, "--output_path", str(tmp_path / "model-last"), "--train.validation_interval", "2",
         "--components.gliner.model.encoder.backbone.model", str(backbone), "--train.train_data.limit", "8",
         "--components.gliner.model.encoder.backbone.hidden_size", "32"])  # fmt: skip
    assert spacy.load(tmp_path / "model-best").get_pipe("gliner").labels
