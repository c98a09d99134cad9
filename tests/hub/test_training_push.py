"""A training that pushes what it saves, and can be resumed on another machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import SAMPLE, gliner_config
from hub.hub_server import TOKEN, HubServer
from huggingface_hub import snapshot_download
from transformers import pipeline

from gliner_pipe import autotrain
from gliner_pipe.errors import ConfigError
from gliner_pipe.hub import from_hub
from gliner_pipe.migration.autotrain import TokenClassificationParams
from gliner_pipe.train import train

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")


def run(backbone: Path, folder: Path, **options: object) -> object:
    config = gliner_config(backbone, labels=["person", "city"], label_sampling={"all_labels": True})
    return train(
        {"lang": "en", "components": {"gliner": {"@factory": "gliner", **config}}},
        train_data={"reader": str(SAMPLE / "train.jsonl"), "limit": 6},
        val_data={"reader": str(SAMPLE / "dev.jsonl"), "limit": 2},
        max_steps=2,
        batch_size="2 samples",
        output_path=folder / "people" / "model-last",
        loggers=["jsonl", "tensorboard"],
        cpu=True,
        push_to_hub=True,
        **options,
    )


def test_a_training_pushes(hub: HubServer, backbone: Path, tmp_path: Path) -> None:
    run(backbone, tmp_path, hub_strategy="checkpoint", checkpoint_interval=1)
    repo = hub.repos["ada/people"]
    assert repo.private
    files = repo.branches["main"]
    assert {"config.cfg", "README.md", "train_config.cfg", "last-checkpoint/config.cfg"} <= set(files)
    assert any(path.startswith("last-checkpoint/training_state/") for path in files)
    assert not any(path.startswith("training_state/") for path in files)
    last = repo.commits[-1]
    assert last["summary"] == "End of the training"
    card = files["README.md"].decode()
    assert "model-index:" in card and "| **batch_size** | `2 samples` |" in card
    nlp = from_hub("ada/people")
    assert nlp.get_pipe("gliner").labels == ("person", "city")
    assert not any(TOKEN.encode() in data for data in files.values())
    assert not any(TOKEN.encode() in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_transformers_loads_what_a_training_of_autotrain_pushes(
    hub: HubServer, backbone: Path, tmp_path: Path
) -> None:
    rows = [{"tokens": ["Ada", "lives", "in", "Oslo"], "tags": ["B-person", "O", "O", "B-city"]}] * 10
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf8")
    params = TokenClassificationParams(
        str(tmp_path / "train.jsonl"),
        str(backbone),
        str(tmp_path / "people"),
        epochs=20,
        lr=5e-3,
        batch_size=4,
        push_to_hub=True,
        username="ada",
    )
    nlp = autotrain.train(params)
    card = hub.repos["ada/people"].branches["main"]["README.md"].decode()
    assert {"library_name: transformers", "pipeline_tag: token-classification"} <= set(card.splitlines())
    assert 'gliner_pipe.load("ada/people")' in card
    folder = snapshot_download("ada/people", endpoint=hub.url)
    tagger = pipeline("token-classification", model=folder, aggregation_strategy="first", device="cpu")
    found = [(one["word"], one["entity_group"]) for one in tagger("Ada lives in Oslo")]
    doc = from_hub("ada/people")("Ada lives in Oslo")
    wanted = [(ent.text, ent.label_) for ent in doc.ents]
    assert [label for _, label in found] == [label for _, label in wanted] == ["person", "city"]
    assert wanted == [(ent.text, ent.label_) for ent in nlp("Ada lives in Oslo").ents]


def test_a_hub_that_fails_does_not_end_the_training(
    hub: HubServer, backbone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.broken["POST */commit/*"] = 400
    run(backbone, tmp_path, hub_model_id="ada/mine", hub_private_repo=False)
    assert (tmp_path / "people" / "model-last" / "config.cfg").is_file()
    assert not hub.repos["ada/mine"].commits and not hub.repos["ada/mine"].private
    messages = capsys.readouterr().out
    assert messages.count("warning: [train.push_to_hub]") == 1 and "400" in messages


def test_without_a_login_nothing_is_trained(
    hub: HubServer, backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(ConfigError, match=r"\[train.push_to_hub\] .*HF_TOKEN"):
        run(backbone, tmp_path)
    assert not (tmp_path / "people" / "model-last").exists()
