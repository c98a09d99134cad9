"""A saved tagger is the same tagger, whatever way it was saved, and in other processes."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import spacy
from spacy.tokens import DocBin
from tagging_pipeline import config, examples, found, trained

from gliner_pipe.errors import CheckpointError, ConfigError
from gliner_pipe.modeling.merging import merge_adapters

TEXTS = ["Ada Smith lives in Rome .", "", "Oslo is a city .", "Emmy Smith lives in London . " * 8]


def spans(nlp: Any) -> list[list[tuple[str, str]]]:
    return [found(doc) for doc in nlp.pipe(TEXTS)]


@pytest.fixture(scope="module")
def nlp(backbone: Path) -> Any:
    return trained(backbone)


def test_round_trips(nlp: Any, tmp_path: Path) -> None:
    wanted = spans(nlp)
    assert sum(map(len, wanted)) > 3
    nlp.to_disk(tmp_path / "model")
    again = spacy.load(tmp_path / "model")
    assert again.get_pipe("token_classifier").labels == ("city", "person")
    assert spans(again) == wanted
    blank = spacy.blank("en", config=nlp.config)
    assert spans(blank.from_bytes(nlp.to_bytes())) == wanted
    component = nlp.get_pipe("token_classifier")
    for other in (copy.deepcopy(component), pickle.loads(pickle.dumps(component))):
        docs = [nlp.make_doc(text) for text in TEXTS]
        assert [found(doc) for doc in other.pipe(docs)] == wanted


def test_pipeline_goes_on_learning_after_loading(nlp: Any, tmp_path: Path) -> None:
    nlp.to_disk(tmp_path / "model")
    again = spacy.load(tmp_path / "model")
    losses: dict[str, float] = {}
    again.update(examples(again), sgd=again.resume_training(), losses=losses)
    assert 0 < losses["token_classifier"] < 1
    gold = examples(again)
    again.get_pipe("token_classifier").initialize(lambda: gold)  # weights are kept
    assert found(again("Ada Smith lives in Rome .")) == found(nlp("Ada Smith lives in Rome ."))


@pytest.mark.parametrize("stacked", ["text_cnn", "lstm"])
def test_stacked_backbones(backbone: Path, tmp_path: Path, stacked: str) -> None:
    embedding = {"@backbones": stacked, "embedding": config(backbone)["embedding"]}
    made = trained(backbone, embedding=embedding)
    wanted = spans(made)
    assert wanted[0] == [("Ada Smith", "person"), ("Rome", "city")]
    made.to_disk(tmp_path / "model")
    assert spans(spacy.load(tmp_path / "model")) == wanted


def test_settings_changed_at_run_time(nlp: Any, tmp_path: Path) -> None:
    component = nlp.get_pipe("token_classifier")
    component.threshold = 0.25
    nlp.to_disk(tmp_path / "model")
    component.threshold = 0.0
    again = spacy.load(tmp_path / "model").get_pipe("token_classifier")
    assert again.threshold == 0.25
    given = spacy.load(tmp_path / "model", config={"components.token_classifier.threshold": 0.75})
    assert given.get_pipe("token_classifier").threshold == 0.75


def test_other_labels_than_those_of_the_weights(nlp: Any, tmp_path: Path) -> None:
    nlp.to_disk(tmp_path / "model")
    with pytest.raises(ConfigError, match=r"^\[components\.token_classifier\.labels\].*'town'"):
        spacy.load(tmp_path / "model", config={"components.token_classifier.labels": ["town"]})
    labels = tmp_path / "model" / "token_classifier" / "model" / "labels.json"
    assert json.loads(labels.read_text("utf8")) == ["city", "person"]
    labels.unlink()
    with pytest.raises(CheckpointError, match=r"labels\.json"):
        spacy.load(tmp_path / "model")


def test_not_trained_yet(backbone: Path, tmp_path: Path) -> None:
    bare = spacy.blank("en")
    bare.add_pipe("token_classifier", config=config(backbone))
    bare.to_disk(tmp_path / "model")
    again = spacy.load(tmp_path / "model")
    assert not again.get_pipe("token_classifier").network.is_built


def test_several_processes(nlp: Any) -> None:
    wanted = spans(nlp)
    piped = list(nlp.pipe(TEXTS, n_process=2, batch_size=1))
    assert [found(doc) for doc in piped] == wanted
    assert len(DocBin(docs=piped, store_user_data=True)) == len(TEXTS)


@pytest.mark.parametrize("save", ["full", "merged"])
def test_adapters(backbone: Path, tmp_path: Path, save: str) -> None:
    settings = config(backbone)
    settings["embedding"]["adapter"] = {"@adapters": "lora", "r": 4, "save": save}
    made = trained(backbone, steps=40, **settings)
    component = made.get_pipe("token_classifier")
    wanted = spans(made)
    made.to_disk(tmp_path / "model")
    assert spans(spacy.load(tmp_path / "model")) == wanted
    merge_adapters(component)
    assert spans(made) == wanted and component._optimizer is None
