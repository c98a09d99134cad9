"""Models that are trained here load in the `gliner2` package, with the same results."""

from __future__ import annotations

import json
import random
import warnings
from pathlib import Path
from typing import Any

import pytest
import spacy
import torch
from conftest import make_backbone
from gliner2_parity import (
    CLOSE,
    LABELS,
    TEXTS,
    boundary_checkpoint,
    checkpoint,
    load,
    load_peer,
    our_entities,
    our_records,
    our_relations,
    peer,
    their_entities,
)
from safetensors.torch import load_file
from task_pipeline import boundary_blocks

from gliner_pipe.data.readers import gliner2_json
from gliner_pipe.errors import ConfigError
from gliner_pipe.pipeline.convert import to_gliner

DATA = [
    {
        "input": "Ann works for Acme in Oslo.",
        "output": {
            "entities": {"person": ["Ann"], "company": ["Acme"]},
            "relations": [{"works for": {"head": "Ann", "tail": "Acme"}}],
            "classifications": [{"task": "tone", "labels": ["good", "bad"], "true_label": ["good"]}],
            "json_structures": [
                {"home": {"who": "Ann", "state": {"value": "big", "choices": ["big", "small"]}}}
            ],
        },
    }
]


def component_config(backbone: Path, **model: Any) -> dict[str, Any]:
    text_encoder = {"@backbones": "transformer", "model": str(backbone), "special_pieces": False}
    blocks = {
        "@architectures": "gliner_pipe.GLiNER.v1",
        "encoder": {"@encoders": "schema_encoder", "backbone": text_encoder},
        "span_rep": {"@span_reps": "markerV0", "max_width": 4, "dropout": 0.1},
        "counter": {"@counters": "count_lstm"},
        "classifier": {"@classifiers": "label_mlp"},
        "relation_finder": {"@relation_finders": "slots"},
        "record_finder": {"@record_finders": "slots"},
        "decoder": {"@decoders": "span", "across_labels": False},
        "loss": {"@losses": "gliner_pipe.bce"},
    }
    splitter = {"@word_splitters": "gliner2"}
    sampling = {"drop_tasks": 0.0, "drop_fields": 0.0, "drop_labels": 0.0}
    changes = {"word_splitter": splitter, "task_sampling": sampling}
    return {"device": "cpu", **changes, "model": {**blocks, **model}}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A pipeline trained on one text until it finds what is in it."""
    nlp = spacy.blank("en")
    folder = make_backbone(tmp_path_factory.mktemp("write") / "backbone", "deberta-v2")
    component = nlp.add_pipe("gliner", config=component_config(folder))
    examples = list(gliner2_json(DATA)(nlp))
    nlp.initialize(lambda: examples)
    optimizer = torch.optim.AdamW(component.network.parameters(), lr=3e-3)
    for seed in range(90):
        component.network.train()
        loss = component.network(component.collate(examples, random.Random(seed))).total
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(component.network.parameters(), 10.0)
        optimizer.step()
    component.network.eval()
    return nlp


def test_a_trained_model_finds_the_same_in_the_package(trained, tmp_path):
    to_gliner(trained, tmp_path / "checkpoint")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = peer.GLiNER2.from_pretrained(str(tmp_path / "checkpoint")).eval()
    text = DATA[0]["input"]
    doc = trained(text)
    labels = ["company", "person"]
    assert [(ent.text, ent.label_) for ent in doc.ents] == [("Ann", "person"), ("Acme", "company")]
    # alone in the prompt: scores depend on what else is asked
    alone = spacy.blank("en")
    component = alone.add_pipe("gliner", config={"model": str(tmp_path / "checkpoint"), "labels": labels})
    (ours,) = our_entities([alone(text)])
    (expected,) = their_entities(theirs, [text], labels, 0.5)
    assert ours.keys() == expected.keys() and ours
    for key, score in expected.items():
        assert ours[key] == pytest.approx(score, abs=CLOSE)
    component.labels = []
    component.classes = {"tone": ["good", "bad"]}
    found = theirs.classify_text(text, {"tone": ["good", "bad"]}, include_confidence=True)["tone"]
    done = alone(text)
    assert done._.classes == {"tone": found["label"]}
    assert done.cats[found["label"]] == pytest.approx(found["confidence"], abs=CLOSE)
    component.classes, component.relations = {}, ["works for"]
    relations = theirs.extract_relations(text, ["works for"])["relation_extraction"]["works for"]
    assert [(one.head.text, one.tail.text) for one in alone(text)._.relations] == [
        tuple(pair) for pair in relations
    ]
    component.relations = []
    component.records = {"home": ["who", {"field": "state", "choices": ["big", "small"]}]}
    structure = theirs.create_schema().structure("home").field("who", dtype="str")
    structure = structure.field("state", dtype="str", choices=["big", "small"])
    homes = theirs.extract(text, structure)["home"]
    (record,) = alone(text)._.records
    assert [{"who": record.fields["who"].text, "state": record.fields["state"]}] == homes


@pytest.mark.parametrize("counter", ["count_lstm", "count_lstm_v2", "count_lstm_moe"])
def test_a_checkpoint_is_written_as_it_was(counter, tmp_path):
    source = checkpoint(counter)
    to_gliner(load(source), tmp_path / "written")
    before, after = (load_file(folder / "model.safetensors") for folder in (source, tmp_path / "written"))
    assert before.keys() == after.keys()
    assert all(tensor.equal(after[name]) for name, tensor in before.items())
    ours, theirs = (
        json.loads((folder / "config.json").read_text()) for folder in (tmp_path / "written", source)
    )
    for name in ("counting_layer", "max_width", "token_pooling", "architecture", "model_type"):
        assert ours[name] == theirs[name]
    assert our_entities([load(tmp_path / "written", labels=["date"])(TEXTS[0])]) == our_entities(
        [load(source, labels=["date"])(TEXTS[0])]
    )


@pytest.mark.parametrize(
    ("model", "option"),
    [
        ({"classifier": None}, "model.classifier"),
        (
            {"counter": {"@counters": "count_lstm"}, "decoder": {"@decoders": "span"}},
            "model.decoder.across_labels",
        ),
        ({"span_rep": {"@span_reps": "marker", "max_width": 4}}, "model.span_rep"),
    ],
)
def test_blocks_that_the_package_does_not_have(backbone, tmp_path, model, option):
    nlp = spacy.blank("en")
    nlp.add_pipe("gliner", config=component_config(backbone, **model))
    nlp.get_pipe("gliner").gliner.build()
    with pytest.raises(ConfigError) as caught:
        to_gliner(nlp, tmp_path / "checkpoint")
    assert caught.value.where == f"components.gliner.{option}"
    assert not (tmp_path / "checkpoint").exists()


def test_other_words(backbone, tmp_path):
    nlp = spacy.blank("en")
    nlp.add_pipe("gliner", config={**component_config(backbone), "word_splitter": None})
    nlp.get_pipe("gliner").gliner.build()
    with pytest.raises(ConfigError) as caught:
        to_gliner(nlp, tmp_path / "checkpoint")
    assert caught.value.where == "components.gliner.word_splitter"


# -- the architecture boundary ---------------------------------------------------------------------------------------

BOUNDARY: list[dict[str, Any]] = [
    {"candidate_pool": "per_query", "dropout": 0.0, "enable_rotary_endpoints": True},
    {"candidate_pool": "shared", "candidate_attention_layers": 1, "soft_iou_aux_weight": 0.7},
    {
        "candidate_pool": "per_query",
        "enable_records": False,
        "enable_relations": False,
        "max_gold_per_query": 7,
    },
]


@pytest.mark.parametrize("head", BOUNDARY, ids=range(len(BOUNDARY)))
def test_a_boundary_checkpoint_is_written_as_it_was(head: dict[str, Any], tmp_path: Path) -> None:
    """With all tensors, used or not, and all options; also from a saved pipeline."""
    source = boundary_checkpoint(enable_abstention=False, **head)
    load(source).to_disk(tmp_path / "saved")
    to_gliner(str(tmp_path / "saved"), tmp_path / "written")
    before, after = (load_file(folder / "model.safetensors") for folder in (source, tmp_path / "written"))
    assert before.keys() == after.keys()
    assert all(tensor.equal(after[name]) for name, tensor in before.items())
    ours, theirs = (
        json.loads((folder / "config.json").read_text()) for folder in (tmp_path / "written", source)
    )
    for name in ("architecture", "model_type", "token_pooling", "boundary_head"):
        assert ours[name] == theirs[name]
    expected = their_entities(load_peer(source), TEXTS, LABELS, 0.4)
    assert sum(map(len, expected)) > 3
    assert their_entities(load_peer(tmp_path / "written"), TEXTS, LABELS, 0.4) == expected


@pytest.mark.parametrize("kind", ["boundary", "boundary_pool"])
@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_a_new_boundary_model_finds_the_same_in_the_package(
    kind: str, dropout: float, tmp_path: Path
) -> None:
    """Whatever its dropout, on which the names of the classifier's tensors depend there."""
    folder = make_backbone(tmp_path / "backbone", "deberta-v2")
    nlp = spacy.blank("en")
    blocks = boundary_blocks(kind, dropout=dropout, enable_abstention=False)
    component = nlp.add_pipe("gliner", config=component_config(folder, **blocks))
    torch.manual_seed(2)
    component.gliner.build()
    with torch.no_grad():
        for name, parameter in component.gliner.named_parameters():
            if parameter.dim() > 1 and not name.startswith("encoder."):
                torch.nn.init.normal_(parameter, std=0.2)
    to_gliner(nlp, tmp_path / "checkpoint")
    theirs = load_peer(tmp_path / "checkpoint")
    component.labels = LABELS
    component.threshold = 0.3
    expected = their_entities(theirs, TEXTS, LABELS, 0.3)
    assert sum(map(len, expected)) > 3
    assert our_entities(nlp.pipe(TEXTS)) == [pytest.approx(one, abs=CLOSE) for one in expected]
    task = {"tone": ["good", "bad"]}
    component.labels, component.classes = [], task
    found = theirs.classify_text(TEXTS[0], task, include_confidence=True)["tone"]
    assert nlp(TEXTS[0]).cats[found["label"]] == pytest.approx(found["confidence"], abs=CLOSE)
    # the written checkpoint read here again: relations and records, too
    settings = {"relations": ["knows"], "records": {"home": {"fields": ["who"], "mode": "latent"}}}
    component.classes = {}
    component.relations, component.records = settings["relations"], settings["records"]
    again = load(tmp_path / "checkpoint", threshold=0.3, **settings)
    for ours, other in zip(nlp.pipe(TEXTS), again.pipe(TEXTS), strict=True):
        assert our_relations(ours) == our_relations(other)
        assert our_records(ours) == our_records(other)


@pytest.mark.parametrize(
    ("model", "option"),
    [
        ({"classifier": None}, "model.classifier"),
        ({"decoder": {"@decoders": "span"}}, "model.decoder"),
        (
            {"relation_finder": {"@relation_finders": "boundary_pairs", "join_mentions": False}},
            "model.relation_finder.join_mentions",
        ),
    ],
)
def test_boundary_blocks_that_the_package_does_not_have(backbone, tmp_path, model, option):
    nlp = spacy.blank("en")
    nlp.add_pipe("gliner", config=component_config(backbone, **{**boundary_blocks("boundary"), **model}))
    nlp.get_pipe("gliner").gliner.build()
    with pytest.raises(ConfigError) as caught:
        to_gliner(nlp, tmp_path / "checkpoint")
    assert caught.value.where == f"components.gliner.{option}"
    assert not (tmp_path / "checkpoint").exists()
