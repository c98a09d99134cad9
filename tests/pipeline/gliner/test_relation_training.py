"""Relations in training: what a batch teaches, what it leaves out, and what is refused."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import spacy
import torch
from conftest import gliner_config, make_backbone
from relation_pipeline import DATA, collate, config, example, found, restored, trained
from spacy.language import Language
from spacy.tokens import Doc

from gliner_pipe.data.relation_sampling import RelationSampling
from gliner_pipe.data.relations import RELATIONS_KEY
from gliner_pipe.errors import ConfigError, DataError
from gliner_pipe.pipeline.annotate import RELATION_UNALIGNED, Entity, Link, Prediction
from gliner_pipe.pipeline.gliner.training_batch import TOO_WIDE
from gliner_pipe.pipeline.gliner.training_targets import (
    BETWEEN_WINDOWS,
    NOT_TRAINED,
    Placed,
    relation_targets,
)
from gliner_pipe.pipeline.labels import parse_relations


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Language:
    return trained(config(make_backbone(tmp_path_factory.mktemp("relations")), "bi_encoder"))


@pytest.fixture
def nlp(learned: Language) -> Iterator[Any]:
    """The trained pipeline, with its settings put back at the end."""
    with restored(learned):
        yield learned


def test_where_nothing_is_known_there_is_no_loss(nlp: Any) -> None:
    component = nlp.get_pipe("gliner")
    bare = [(text, spans, None) for text, spans, _ in DATA]
    batch = collate(nlp, bare)
    assert batch.relations is None and "relation" not in component.gliner(batch).parts
    mixed = collate(nlp, [bare[0], DATA[1]])
    rows = mixed.relations
    assert rows.span_mask.any(1).tolist() == [False, True]
    assert set(rows.triples[:, 0].tolist()) == set(rows.pairs[:, 0].tolist()) == {1}
    assert not mixed.inputs.relation_mask[0].any()
    # the same loss of relations as without the other example
    alone = collate(nlp, [DATA[1]]).relations
    torch.testing.assert_close(rows.triples[:, 1:3], alone.triples[:, 1:3])


@pytest.mark.parametrize("layer", ["mlp", "attention", "gat", "gcn", "biaffine", "none"])
@pytest.mark.parametrize("span_rep", ["markerV0", "token_level", "conv_max"])
def test_few_or_no_entities(backbone: Path, layer: str, span_rep: str) -> None:
    settings = config(backbone, labels=["person"], relations=["r"])
    settings["model"]["span_rep"] = {"@span_reps": span_rep}
    settings["model"]["relation_layer"] = {"@relation_layers": layer}
    nlp = spacy.blank("en")
    component: Any = nlp.add_pipe("gliner", config=settings)
    nlp.initialize()
    for data in (
        [("a b", [], [])],
        [("a b", [(0, 1, "person")], [])],
        [("a b", [(0, 1, "person")], []), ("c", [], [])],
        [("a b", [(0, 1, "person"), (1, 2, "person")], [[0, 1, "r"]]), (" ", [], [])],
    ):
        batch = collate(nlp, data)
        loss = component.gliner.train()(batch)
        assert torch.isfinite(loss.total)
        loss.total.backward()
    for threshold in (1.0, 0.0):
        component.cfg |= {"threshold": threshold, "relation_threshold": 0.0, "adjacency_threshold": 0.0}
        docs = list(nlp.pipe(["", "a", "a b c"]))
        assert all(RELATIONS_KEY in doc.user_data for doc in docs)
        if threshold:
            assert not any(doc._.relations for doc in docs)


def test_targets(nlp: Any) -> None:
    component = nlp.get_pipe("gliner")
    batch = collate(nlp, [DATA[1]])
    spans = batch.relations.spans[0].tolist()
    assert spans == [[0, 0], [2, 2], [4, 4]]
    asked = batch.inputs.queries[0].relations
    named = {(head, tail, asked[label]) for _, head, tail, label in batch.relations.triples.tolist()}
    assert named == {(0, 1, "founded"), (1, 2, "located in")}
    pairs = {tuple(pair[1:]) for pair in batch.relations.pairs.tolist()}
    assert {(0, 1), (1, 2), (1, 0), (2, 1)} <= pairs  # the pairs and their reverses
    component.relations = [{"label": "founded", "description": "made a company"}]
    assert "made a company" in collate(nlp, [DATA[1]]).inputs.queries[0].relations


def test_a_label_that_is_not_asked_for_ties_all_the_same(nlp: Any) -> None:
    placed = [Placed(0, 0, 0, 0, 0, 0), Placed(0, 2, 0, 0, 0, 1)]
    targets = relation_targets(
        placed, [0], [[(0, 1, "x"), (1, 0, "y")]], [["y"]], RelationSampling(), [random.Random(0)], Counter()
    )
    assert targets is not None
    assert targets.triples.tolist() == [[0, 0, 1, -1], [0, 1, 0, 0]]
    assert targets.pairs.tolist() == [[0, 1, 0]]
    batch = collate(nlp, [DATA[0], DATA[1]])
    hidden = batch.relations.triples.clone()
    hidden[0, 3] = -1
    model = nlp.get_pipe("gliner").gliner
    parts = model(replace(batch, relations=replace(batch.relations, triples=hidden))).parts
    whole = model(batch).parts
    torch.testing.assert_close(parts["adjacency"], whole["adjacency"])  # tied all the same
    assert float(parts["relation"]) > float(whole["relation"])  # the model knows the relation that is hidden


def test_what_cannot_be_learned_is_counted(backbone: Path) -> None:
    settings = config(backbone, labels=["person"], relations=["r"])
    settings["model"]["span_rep"]["max_width"] = 2
    nlp = spacy.blank("en")
    nlp.add_pipe("gliner", config=settings)
    nlp.initialize()
    wide = ("a b c d e", [(0, 3, "person"), (4, 5, "person")], [[0, 1, "r"]])
    batch = collate(nlp, [wide])
    assert batch.dropped == {TOO_WIDE: 1, NOT_TRAINED: 1} and not len(batch.relations.triples)
    with pytest.raises(DataError, match=r"holds \[0, 7, 'r'\] with 2 entities in 'gliner'"):
        collate(nlp, [(wide[0], wide[1], [[0, 7, "r"]])])


def test_two_relations_of_one_pair_and_two_labels_of_one_span(nlp: Any) -> None:
    twice = (
        "Ada works for Acme .",
        [(0, 1, "person"), (0, 1, "boss"), (3, 4, "company")],
        [[0, 2, "works for"], [1, 2, "founded"], [1, 0, "founded"]],
    )
    batch = collate(nlp, [twice])
    assert batch.relations.spans[0].tolist() == [[0, 0], [3, 3]]
    asked = batch.inputs.queries[0].relations
    assert {(h, t, asked[c]) for _, h, t, c in batch.relations.triples.tolist()} == {
        (0, 1, "works for"),
        (0, 1, "founded"),
    }
    assert batch.dropped == {"relation of an entity with itself (left out)": 1}


def test_windows(backbone: Path) -> None:
    """A relation within the reach of neighbouring windows is found; in training its ends must share a window."""
    settings = config(backbone)
    settings["model"]["span_rep"]["max_width"] = 2
    settings["model"]["encoder"]["backbone"] |= {"window": 40, "stride": 20}
    nlp = trained(settings)
    component: Any = nlp.get_pipe("gliner")
    filler = " ".join(["nothing"] * 6)
    text = (
        f"Ada works for Acme . {filler} {filler} {filler} {filler} {filler} Bert founded Initech in Paris ."
    )
    words = text.split(" ")
    ends = [(0, 1, "person"), (len(words) - 4, len(words) - 3, "company")]
    batch = collate(nlp, [(text, ends, [[0, 1, "works for"]])])
    assert len(batch.inputs.queries) > 1, "the text must need several windows"
    assert batch.dropped[BETWEEN_WINDOWS] == 1 and not len(batch.relations.triples)
    component.cfg |= {"threshold": 0.0, "relation_threshold": 0.0, "adjacency_threshold": 0.0}
    spread = []
    for reach in (0, 1, 10):
        component.cfg["relation_reach"] = reach
        doc = nlp(Doc(nlp.vocab, words=words))
        found_pairs = [(r.head.start, r.tail.start, r.label) for r in doc._.relations]
        assert len(
            {(r.head.start, r.head.end, r.tail.start, r.tail.end, r.label) for r in doc._.relations}
        ) == len(found_pairs)  # none twice
        spread.append(max(abs(head - tail) for head, tail, _ in found_pairs))
    assert spread[0] < spread[1] <= spread[2] and spread[2] >= len(words) - 3


def test_spacy_update_learns_relations(backbone: Path) -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("gliner", config=config(backbone))
    gold = [example(nlp, *one) for one in DATA]
    nlp.initialize(lambda: gold)
    component: Any = nlp.get_pipe("gliner")
    parts = component.get_loss(gold).parts
    assert set(parts) == {"span", "adjacency", "relation"} and all(float(part) > 0 for part in parts.values())
    assert component.update(gold, sgd=False)["gliner"] > 0
    layer = component.gliner.relation_layer.mlp[0].weight
    assert layer.grad is not None and float(layer.grad.abs().sum()) > 0


# -- mistakes ----------------------------------------------------------------------------------------------------------


def test_a_model_without_relation_layer(backbone: Path) -> None:
    nlp = spacy.blank("en")
    with pytest.raises(ConfigError, match=r"^\[components\.gliner\.relations\].*relation_layer"):
        nlp.add_pipe("gliner", config=gliner_config(backbone, relations=["r"]))
    component: Any = nlp.add_pipe("gliner", config=gliner_config(backbone))
    with pytest.raises(ConfigError, match=r"^\[components\.gliner\.relations\]"):
        component.relations = ["r"]
    assert component.relations == ()
    nlp.initialize()
    doc = nlp.make_doc("a b")
    doc._.gliner_relations = ["r"]
    with pytest.raises(ConfigError, match=r"doc\._\.gliner_relations"):
        nlp(doc)


def test_a_prompt_without_a_relation_token(backbone: Path) -> None:
    settings = config(backbone)
    del settings["model"]["encoder"]["rel_token"]
    nlp = spacy.blank("en")
    nlp.add_pipe("gliner", config=settings)
    with pytest.raises(ConfigError, match=r"components\.gliner\.model\.encoder\.rel_token\].*<<REL>>"):
        nlp.initialize()


@pytest.mark.parametrize(
    ("relations", "message"),
    [
        ("r", r"found 'r'; allowed: a list of labels"),
        (
            [{"label": "r", "from": ["a"]}],
            r"found the key 'from'; allowed: label, description, threshold, head, tail",
        ),
        (
            [{"label": "r", "head": "a"}],
            r"\[relations\[0\]\.head\] found 'a'; allowed: a list.*Write \[\"a\"\]",
        ),
        ([{"label": "r", "tail": []}], r"\[relations\[0\]\.tail\] found \[\]"),
        ([{"label": " "}], r"found the label ' '"),
        ([3], r"found 3; allowed: a string, or"),
    ],
)
def test_relations_that_are_not_allowed(relations: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_relations(relations, "relations")


@pytest.mark.parametrize(
    ("setting", "value", "where"),
    [
        ("relation_threshold", 2.0, "relation_threshold"),
        ("adjacency_threshold", None, "adjacency_threshold"),
        ("relation_reach", -1, "relation_reach"),
        ("relation_reach", True, "relation_reach"),
        ("relation_sampling", 3, "relation_sampling"),
        ("relation_sampling", {"pairs": 1}, "relation_sampling.pairs"),
        ("relation_sampling", {"vary": 2.0}, "relation_sampling.vary"),
    ],
)
def test_values_that_are_not_allowed(backbone: Path, setting: str, value: Any, where: str) -> None:
    nlp = spacy.blank("en")
    with pytest.raises(ConfigError) as error:
        nlp.add_pipe("gliner", config=config(backbone, **{setting: value}))
    assert error.value.where == f"components.gliner.{where}" and error.value.allowed


def test_relations_round_trip_through_a_config(backbone: Path) -> None:
    relations = ["r", {"label": "s", "description": "d", "threshold": 0.5, "head": ["a"], "tail": ["b", "c"]}]
    nlp = spacy.blank("en")
    component: Any = nlp.add_pipe("gliner", config=config(backbone, relations=relations))
    assert component.relation_data == relations
    assert nlp.config["components"]["gliner"]["relations"] == relations


def test_relations_of_unaligned_entities_are_counted(backbone: Path) -> None:
    nlp = spacy.blank("en")
    settings = config(backbone, word_splitter={"@word_splitters": "whitespace"}, alignment_mode="strict")
    component: Any = nlp.add_pipe("gliner", config=settings)
    doc = Doc(nlp.vocab, words=["x,y", "z", "w"], spaces=[True, True, False])
    entities = [Entity(0, 0, "a", 0.9), Entity(3, 3, "a", 0.9), Entity(4, 4, "b", 0.9)]
    links = [Link(0, 1, "r", 0.8), Link(1, 2, "r", 0.7)]
    component.set_annotations([doc], [Prediction(entities, links)])
    assert found(doc) == {("z", "r", "w")} and component.report[RELATION_UNALIGNED] == 1
    (relation,) = doc._.relations
    assert (relation.head.label_, relation.tail.label_, relation.score) == ("a", "b", 0.7)
