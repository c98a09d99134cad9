"""The readers resolve by name in confit files and in spaCy's own configs."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points

import pytest
import spacy
from confit import Config
from confit.errors import ConfitValidationError
from spacy.tokens import DocBin
from spacy.training import Example

from gliner_pipe.data.annotations import gold_spans
from gliner_pipe.data.readers import GlinerJsonReader, StandoffReader, gliner_json
from gliner_pipe.registry import registry

NAMES = ["bio", "conll", "gliner2_json", "gliner_json", "jsonl", "standoff"]


@pytest.fixture
def folder(write, tmp_path):
    write("train/doc.txt", "Ann Lee lives here.")
    write("train/doc.ann", "T1\tperson 0 7\tAnn Lee\n")
    return tmp_path / "train"


def test_names():
    ours = {name for name in registry.readers.get_available() if not name.startswith("spacy.")}
    assert set(NAMES) <= ours
    assert {
        name: registry.readers.get(name) is spacy.registry.readers.get(name) for name in NAMES
    } == dict.fromkeys(NAMES, True)


def test_entry_points_load_in_a_fresh_process():
    assert set(NAMES) <= {point.name for point in entry_points(group="spacy_readers")}
    code = f"import spacy; print(all(callable(spacy.registry.readers.get(name)) for name in {NAMES}))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "True"


def test_nested_in_a_confit_section(folder, nlp):
    text = f"""
[vars]
train = "{folder}"
gold = "gold_spans"

[train.train_data]
max_length = 384

[train.train_data.reader]
@readers = "standoff"
path = ${{vars.train}}
converter = "standoff"  # by default
span_setter = ${{vars.gold}}
labels = ["person", "date: full"]
"""
    config = Config.from_str(text).resolve(registry=registry)
    reader = config["train"]["train_data"]["reader"]
    assert isinstance(reader, StandoffReader)
    (example,) = reader(nlp)
    assert [span.text for span in gold_spans(example.reference, "gold_spans")] == ["Ann Lee"]
    assert Config.serialize({"reader": reader})["reader"]["@readers"] == "standoff"


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("standoff", 'converter = "omop"'),
        ("conll", 'spliter = "x"'),
        ("conll", 'rel_labels = ["a"]'),
        ("gliner_json", 'alignment_mode = "strict"'),
        ("jsonl", 'alignment_mode = "loose"'),
        ("bio", 'limit = "some"'),
    ],
)
def test_wrong_options_are_named(folder, name, option):
    """Options of the format, options of all readers, and options that mean nothing for the format."""
    config = Config.from_str(f'[r]\n@readers = "{name}"\npath = "{folder}"\n{option}\n')
    with pytest.raises(ConfitValidationError, match=option.split()[0]):
        config.resolve(registry=registry)


def test_in_a_spacy_corpora_section(folder):
    text = f"""
[paths]
train = "{folder}"

[corpora]

[corpora.train]
@readers = "standoff"
path = ${{paths.train}}
limit = 5
span_setter = ["ents", "gliner"]
label_map = {{"person": "human"}}
"""
    config = spacy.util.load_config_from_str(text, interpolate=True)
    corpora = spacy.util.registry.resolve(config["corpora"])
    nlp = spacy.blank("en")
    (example,) = corpora["train"](nlp)
    assert isinstance(example, Example)
    assert [(ent.text, ent.label_) for ent in example.reference.ents] == [("Ann Lee", "human")]


def test_spacy_trains_its_own_component_from_a_reader(folder):
    nlp = spacy.blank("en")
    embed = {"@architectures": "spacy.HashEmbedCNN.v2", "pretrained_vectors": None, "width": 8, "depth": 1}
    embed |= {"embed_size": 50, "window_size": 1, "maxout_pieces": 2, "subword_features": False}
    ner = nlp.add_pipe("ner", config={"model": {"tok2vec": embed, "hidden_width": 8}})
    reader = registry.readers.get("standoff")(str(folder), span_setter="ents")
    nlp.initialize(lambda: reader(nlp))
    assert ner.labels == ("person",)
    assert nlp.update(list(reader(nlp)))["ner"] > 0


def test_spacys_own_corpus_reader_resolves_in_confit(write, nlp, tmp_path):
    reader = gliner_json(write("a.jsonl", [{"tokenized_text": ["Ann", "left"], "ner": [[0, 0, "person"]]}]))
    assert isinstance(reader, GlinerJsonReader)
    DocBin(docs=[e.reference for e in reader(nlp)], store_user_data=True).to_disk(tmp_path / "a.spacy")
    text = f'[reader]\n@readers = "spacy.Corpus.v1"\npath = "{tmp_path / "a.spacy"}"\ngold_preproc = false\n'
    corpus = Config.from_str(text).resolve(registry=registry)["reader"]
    (example,) = corpus(nlp)
    assert [span.label_ for span in gold_spans(example.reference)] == ["person"]
