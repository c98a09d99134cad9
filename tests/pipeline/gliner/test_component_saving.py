"""Saving and loading: the same predictions without the source of the weights; which settings win."""

from __future__ import annotations

import copy
import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import spacy
from conftest import gliner_config, make_backbone
from spacy.language import Language
from spacy.tokens import Doc

from gliner_pipe.errors import CheckpointError, ConfigError, NotInitializedError

TEXT = "Ada Lovelace met Charles Babbage in London."


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A backbone that a test may delete."""
    return make_backbone(tmp_path / "own")


def made(backbone: Path, **changes: Any) -> Language:
    nlp = spacy.blank("en")
    nlp.add_pipe("gliner", config=gliner_config(backbone, **{"threshold": 0.3, **changes}))
    nlp.initialize()
    return nlp


def predicted(nlp: Language, name: str = "gliner") -> Any:
    return nlp.get_pipe(name).predict([nlp.make_doc(TEXT)])


def test_an_unpickled_component_registers_its_extensions(backbone: Path) -> None:
    """As in a spawned process, which has none."""
    nlp = made(backbone)
    pickled = pickle.dumps(nlp.get_pipe("gliner"))
    for name in ("gliner_labels", "gliner_relations", "relations"):
        Doc.remove_extension(name)
    component = pickle.loads(pickled)
    doc = component(nlp.make_doc(TEXT))
    assert doc.spans["gliner"]
    assert doc._.gliner_labels is None
    assert doc._.relations == []


def test_the_backbone_is_not_needed_any_more(own: Path, tmp_path: Path) -> None:
    nlp = made(own)
    expected = predicted(nlp)
    assert expected[0]
    nlp.to_disk(tmp_path / "model")
    shutil.rmtree(own)
    loaded = spacy.load(tmp_path / "model")
    assert predicted(loaded) == expected
    loaded.to_disk(tmp_path / "again")
    shutil.rmtree(tmp_path / "model")
    assert predicted(spacy.load(tmp_path / "again")) == expected


def test_saving_into_the_folder_that_was_loaded(backbone: Path, tmp_path: Path) -> None:
    nlp = made(backbone)
    nlp.to_disk(tmp_path / "model")
    loaded = spacy.load(tmp_path / "model")
    loaded.to_disk(tmp_path / "model")
    assert predicted(spacy.load(tmp_path / "model")) == predicted(nlp)


def test_bytes(backbone: Path) -> None:
    nlp = made(backbone)
    data = nlp.to_bytes()
    other = spacy.util.load_model_from_config(nlp.config)
    other.from_bytes(data)
    assert predicted(other) == predicted(nlp)
    alone = nlp.get_pipe("gliner").to_bytes(exclude=["model"])
    assert len(alone) < 5000 < len(nlp.get_pipe("gliner").to_bytes())


def test_pickle_and_deepcopy(backbone: Path) -> None:
    nlp = made(backbone)
    expected = predicted(nlp)
    component = nlp.get_pipe("gliner")
    for twin in (pickle.loads(pickle.dumps(component)), copy.deepcopy(component)):
        assert twin.predict([nlp.make_doc(TEXT)]) == expected
        assert twin.labels == component.labels and twin.cfg == component.cfg
        twin.labels = ["other"]
        assert component.labels == ("person", "city")


def test_pickled_pipeline(backbone: Path) -> None:
    nlp = made(backbone)
    assert predicted(pickle.loads(pickle.dumps(nlp))) == predicted(nlp)


def test_source(backbone: Path, tmp_path: Path) -> None:
    source = made(backbone)
    nlp = spacy.blank("en")
    nlp.add_pipe("gliner", source=source)
    assert predicted(nlp) == predicted(source)
    nlp.to_disk(tmp_path / "model")
    assert predicted(spacy.load(tmp_path / "model")) == predicted(source)


def test_custom_name(backbone: Path, tmp_path: Path) -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("gliner", name="ner2", config=gliner_config(backbone, threshold=0.3))
    nlp.initialize()
    nlp.to_disk(tmp_path / "model")
    loaded = spacy.load(tmp_path / "model")
    assert loaded.pipe_names == ["ner2"] and loaded.get_pipe("ner2").name == "ner2"
    assert predicted(loaded, "ner2") == predicted(nlp, "ner2")


def test_what_was_changed_at_run_time_is_saved(backbone: Path, tmp_path: Path) -> None:
    nlp = made(backbone)
    component: Any = nlp.get_pipe("gliner")
    component.labels = ["ship", {"label": "tree", "description": "a plant", "threshold": 0.4}]
    component.threshold = 0.25
    component.cfg["flat_ner"] = False
    nlp.to_disk(tmp_path / "model")
    for load in (spacy.load, _from_bytes(backbone)):
        loaded: Any = load(tmp_path / "model").get_pipe("gliner")
        assert loaded.label_data == component.label_data
        assert loaded.cfg == component.cfg


def _from_bytes(backbone: Path) -> Any:
    def load(path: Path) -> Language:
        nlp = spacy.blank("en")
        nlp.add_pipe("gliner", config=gliner_config(backbone, threshold=0.3))
        return nlp.from_bytes(spacy.load(path).to_bytes())

    return load


def test_a_setting_given_to_load_wins(backbone: Path, tmp_path: Path) -> None:
    nlp = made(backbone)
    component: Any = nlp.get_pipe("gliner")
    component.threshold = 0.25
    component.labels = ["ship"]
    nlp.to_disk(tmp_path / "model")
    config = {"components.gliner.threshold": 0.7, "components.gliner.multi_label": True}
    loaded: Any = spacy.load(tmp_path / "model", config=config).get_pipe("gliner")
    assert loaded.threshold == 0.7 and loaded.cfg["multi_label"] is True
    assert loaded.labels == ("ship",)
    relabelled = {"components.gliner.labels": ["tree"]}
    loaded = spacy.load(tmp_path / "model", config=relabelled).get_pipe("gliner")
    assert loaded.labels == ("tree",) and loaded.threshold == 0.25


def test_exclude(backbone: Path, tmp_path: Path) -> None:
    nlp = made(backbone)
    nlp.to_disk(tmp_path / "model", exclude=["gliner"])
    assert not (tmp_path / "model" / "gliner").exists()
    component: Any = nlp.get_pipe("gliner")
    component.threshold = 0.9
    component.to_disk(tmp_path / "bare", exclude=["model"])
    assert [path.name for path in (tmp_path / "bare").iterdir()] == ["cfg.json"]
    component.to_disk(tmp_path / "whole")
    other: Any = made(backbone).get_pipe("gliner")
    other.from_disk(tmp_path / "whole", exclude=["cfg", "model"])
    assert other.threshold == 0.3
    other.from_disk(tmp_path / "bare")
    assert other.threshold == 0.9
    excluded = spacy.blank("en")
    excluded.add_pipe("gliner", config=gliner_config(backbone))
    excluded.get_pipe("gliner").from_disk(tmp_path / "whole", exclude=["model"])  # type: ignore[attr-defined]
    with pytest.raises(NotInitializedError):
        excluded(TEXT)


def test_a_pipeline_without_weights_is_saved_too(backbone: Path, tmp_path: Path) -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("gliner", config=gliner_config(backbone))
    nlp.to_disk(tmp_path / "model")
    loaded = spacy.load(tmp_path / "model")
    with pytest.raises(NotInitializedError):
        loaded(TEXT)
    loaded.initialize()
    assert loaded(TEXT).text == TEXT


def test_weights_of_other_blocks(backbone: Path, tmp_path: Path) -> None:
    nlp = made(backbone)
    nlp.to_disk(tmp_path / "model")
    config = {"components.gliner.model.encoder.rnn_layers": 0}
    with pytest.raises(CheckpointError, match=r"does not fit the blocks of the config: .*encoder\.rnn\.lstm"):
        spacy.load(tmp_path / "model", config=config)
    config = {"components.gliner.model.encoder.rnn_layers": 2}
    with pytest.raises(CheckpointError, match=r"[Mm]issing.*encoder\.rnn\.lstm\.weight_ih_l1"):
        spacy.load(tmp_path / "model", config=config)


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("cfg.json", r"gliner: no cfg\.json.*'gliner'"),
        ("model", r"gliner: .*'model'"),
        ("model/model.safetensors", r"no model/model\.safetensors"),
        ("model/encoder/backbone/config.json", r"no model/encoder/backbone/config\.json"),
        ("model/encoder", r"no model/encoder/backbone/.*tokenizer\.json"),
        ("", r"no cfg\.json.*'gliner'"),
    ],
)
def test_a_missing_file_is_named(backbone: Path, tmp_path: Path, missing: str, message: str) -> None:
    made(backbone).to_disk(tmp_path / "model")
    path = tmp_path / "model" / "gliner" / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(CheckpointError, match=message):
        spacy.load(tmp_path / "model")


@pytest.mark.parametrize("name", ["cfg.json", "model/model.safetensors"])
def test_a_damaged_file_is_refused(backbone: Path, tmp_path: Path, name: str) -> None:
    made(backbone).to_disk(tmp_path / "model")
    path = tmp_path / "model" / "gliner" / name
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(
        CheckpointError, match=r"cfg\.json: no valid JSON|model/model\.safetensors was not saved"
    ):
        spacy.load(tmp_path / "model")


# -- a checkpoint given by name ---------------------------------------------------------------------------


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A random checkpoint in GLiNER's own format, written by its own package."""
    gliner = pytest.importorskip("gliner")
    backbone = make_backbone(tmp_path / "source")
    config = {
        "model_name": str(backbone),
        "encoder_config": json.loads((backbone / "config.json").read_text()),
        "hidden_size": 32,
        "span_mode": "markerV0",
        "max_width": 6,
        "num_rnn_layers": 1,
        "subtoken_pooling": "first",
        "max_len": 384,
    }
    model = gliner.GLiNER.from_config(config, backbone_from_pretrained=False)
    model.eval().save_pretrained(tmp_path / "checkpoint", safe_serialization=True)
    shutil.rmtree(backbone)
    return tmp_path / "checkpoint"


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_short_form(checkpoint: Path, tmp_path: Path) -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("gliner", config={"model": str(checkpoint), "labels": ["person"], "threshold": 0.3})
    component: Any = nlp.get_pipe("gliner")
    doc = nlp(TEXT)  # no nlp.initialize() needed
    assert len(doc.spans["gliner"]) and component.word_splitter.split(doc).texts[-1] == "."
    expected = predicted(nlp)
    nlp.to_disk(tmp_path / "model")
    data = nlp.to_bytes()
    other = spacy.blank("en")
    other.add_pipe("gliner", config={"model": str(checkpoint), "labels": ["person"], "threshold": 0.3})
    shutil.rmtree(checkpoint)
    loaded = spacy.load(tmp_path / "model")
    assert predicted(loaded) == expected
    assert predicted(other.from_bytes(data)) == expected
    assert loaded.get_pipe("gliner").word_splitter.split(doc).offsets is not None  # type: ignore[attr-defined]
    loaded.to_disk(tmp_path / "again")
    assert predicted(spacy.load(tmp_path / "again")) == expected
    (tmp_path / "again" / "gliner" / "model" / "blocks.json").unlink()
    with pytest.raises(CheckpointError, match=r"no model/blocks\.json"):
        spacy.load(tmp_path / "again")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("./no/such", r"^\[components\.gliner\.model\].*'\./no/such'"),
        ("no_folder_here", r"^\[components\.gliner\.model\].*'no_folder_here'"),
    ],
)
def test_a_missing_checkpoint_is_named(name: str, message: str) -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("gliner", config={"model": name, "labels": ["person"]})  # the name is looked up on first use
    with pytest.raises(ConfigError, match=message):
        nlp(TEXT)


def test_a_pipeline_given_as_checkpoint_is_refused(backbone: Path, tmp_path: Path) -> None:
    made(backbone).to_disk(tmp_path / "model")
    nlp = spacy.blank("en")
    nlp.add_pipe("gliner", config={"model": str(tmp_path / "model"), "labels": ["person"]})
    with pytest.raises(ConfigError, match=r"It is a spaCy pipeline: spacy\.load"):
        nlp(TEXT)
