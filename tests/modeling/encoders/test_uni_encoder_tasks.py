"""Tasks in the prompt of ``uni_encoder``: a classifier, and records, on a model of this project."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import spacy
import torch
from conftest import gliner_config

from gliner_pipe.errors import ConfigError
from gliner_pipe.modeling.backbones.transformer import Transformer
from gliner_pipe.modeling.encoders.base import Query
from gliner_pipe.modeling.encoders.uni_encoder import UniEncoder
from gliner_pipe.modeling.tasks import Task, TaskField
from gliner_pipe.pipeline.convert import to_gliner

TONE = Task("classes", "tone", (TaskField("good"), TaskField("bad", "very bad")))
ORDER = Task("record", "order", (TaskField("id"), TaskField("state", None, ("open", "paid"))))


def make(backbone: Path, **options: Any) -> UniEncoder:
    encoder = UniEncoder(
        Transformer(str(backbone)), 0, class_token="<<CLASS>>", field_token="<<FIELD>>", **options
    )
    encoder.build()
    return encoder.eval()


@pytest.mark.parametrize("embed", [False, True])
def test_places_of_tasks(backbone: Path, embed: bool) -> None:
    encoder = make(backbone, embed_ent_token=embed)
    query = Query(("person",), (), (ORDER, TONE))
    prompt = encoder.prompt(query)
    pieces = encoder.backbone.tokenizer.convert_ids_to_tokens(prompt.ids)
    found = [pieces[place] for place in prompt.positions]
    names = ["order", "<<FIELD>>", "<<FIELD>>", "tone", "<<CLASS>>", "<<CLASS>>"]
    assert len(found) == 1 + len(names)
    if embed:
        assert found[0] == "<<ENT>>"
        assert [piece for piece in found if "<<" in piece] == [
            "<<ENT>>",
            *(name for name in names if "<<" in name),
        ]
    else:
        assert not any("<<" in piece for piece in found)
        after = [pieces[place - 1] for place in prompt.positions]
        assert [piece for piece in after if piece in encoder.new_tokens and piece != "<<SEP>>"] == [
            "<<ENT>>",
            *(name for name in names if "<<" in name),
        ]
    n_words = len(prompt.word_counts)  # ( order: state ( open | paid ) )
    assert n_words == 9


def test_words_of_choices_are_rows_before_the_text(backbone: Path) -> None:
    encoder = make(backbone)
    (window,) = encoder.prepare([["It", "is", "paid"]], [Query(("person",), (), (ORDER, TONE))], 4)
    batch = encoder.collate([window])
    assert batch.windows.word_mask.shape == (1, 12)
    assert batch.windows.annotated.tolist() == [[False] * 9 + [True] * 3]
    with torch.no_grad():
        encoded = encoder(batch)
    assert encoded.tasks is not None
    assert encoded.tasks.fields.shape == (1, 2, 2, encoder.output_size)
    assert encoded.tasks.places("classes").tolist() == [[0, 1, 0], [0, 1, 1]]
    # without tasks nothing changes
    (plain,) = encoder.prepare([["It", "is", "paid"]], [Query(("person",))], 4)
    assert encoder.collate([plain]).tasks is None


def test_a_classifier_on_a_model_of_this_project(backbone: Path, tmp_path: Path) -> None:
    config = gliner_config(
        backbone, classes={"tone": ["good", "bad"]}, word_splitter={"@word_splitters": "whitespace"}
    )
    config["model"]["encoder"]["class_token"] = "<<CLASS>>"
    config["model"]["classifier"] = {"@classifiers": "label_mlp"}
    nlp = spacy.blank("en")
    nlp.add_pipe("gliner", config=config)
    nlp.initialize()
    doc = nlp("Ann went to Oslo.")
    assert sum(doc.cats.values()) == pytest.approx(1)
    nlp.to_disk(tmp_path)
    assert spacy.load(tmp_path)("Ann went to Oslo.").cats == doc.cats
    component = nlp.get_pipe("gliner")
    with pytest.raises(ConfigError, match=r"model\.classifier\]"):
        to_gliner(nlp, tmp_path / "gliner")
    with pytest.raises(ConfigError, match=r"^\[components\.gliner\.classes\]"):
        component.compress_prompt([doc])
    component.classes = {}
    component.compress_prompt([doc])
    component.classes = {"tone": ["good", "bad"]}
    with pytest.raises(ConfigError, match=r"^\[components\.gliner\.model\.encoder\]"):
        nlp("Ann went to Oslo.")


def test_records_and_relations_on_a_model_of_this_project(backbone: Path, tmp_path: Path) -> None:
    config = gliner_config(
        backbone,
        relations=["lives in"],
        records={
            "order": ["id", {"field": "state", "choices": ["open", "paid"]}, {"field": "item", "list": True}]
        },
        threshold=0.4,
    )
    config["model"]["encoder"]["field_token"] = "<<FIELD>>"
    config["model"] |= {
        "counter": {"@counters": "count_lstm"},
        "relation_finder": {"@relation_finders": "slots"},
        "record_finder": {"@record_finders": "slots"},
    }
    nlp = spacy.blank("en")
    nlp.add_pipe("gliner", config=config)
    nlp.initialize()
    with torch.no_grad():  # one instance of each task
        nlp.get_pipe("gliner").gliner.counter.number[2].bias[1] = 99.0
    text = "Ann went to Oslo and paid for a lamp."
    doc = nlp(text)
    (record,) = doc._.records
    assert set(record.fields) == {"id", "state", "item"}
    assert record.fields["state"] in ("open", "paid", None)
    assert record.fields["item"] and all(value.text in text for value in record.fields["item"])
    nlp.to_disk(tmp_path)
    assert [str(one) for one in spacy.load(tmp_path)(text)._.records] == [str(one) for one in doc._.records]


def test_a_head_needs_an_encoder_that_reads_its_tasks(backbone: Path) -> None:
    config = gliner_config(backbone)
    config["model"]["classifier"] = {"@classifiers": "label_mlp"}
    nlp = spacy.blank("en")
    nlp.add_pipe("gliner", config=config)
    with pytest.raises(ConfigError, match=r"^\[components\.gliner\.model\.classifier\]"):
        nlp.initialize()
