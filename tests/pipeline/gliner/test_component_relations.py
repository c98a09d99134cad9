"""Relations: trained until they are known by heart, found, scored, written and saved."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import spacy
from conftest import make_backbone
from relation_pipeline import DATA, EXPECTED, config, docs_of, example, found, restored, trained
from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example

from gliner_pipe.data.relations import RELATIONS_KEY
from gliner_pipe.evaluate import evaluate, evaluate_pipeline, read_examples
from gliner_pipe.predict import predict_texts
from gliner_pipe.prediction.outputs import write


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Language:
    return trained(config(make_backbone(tmp_path_factory.mktemp("relations")), "bi_encoder"))


@pytest.fixture
def nlp(learned: Language) -> Iterator[Any]:
    """The trained pipeline, with its settings put back at the end."""
    with restored(learned):
        yield learned


@pytest.mark.parametrize("span_rep", ["markerV0", "token_level"])
@pytest.mark.parametrize("encoder", ["uni_encoder", "bi_encoder"])
def test_learned_by_heart(backbone: Path, encoder: str, span_rep: str) -> None:
    nlp = trained(config(backbone, encoder, span_rep))
    component: Any = nlp.get_pipe("gliner")
    assert component.relations == ("founded", "located in", "works for")
    docs = list(nlp.pipe(docs_of(nlp)))
    assert [found(doc) for doc in docs] == EXPECTED
    for doc in docs:
        assert RELATIONS_KEY in doc.user_data
        for relation in doc._.relations:
            assert relation.head.label_ in ("person", "company") and 0.5 < relation.score <= 1


def test_vectors_of_spans_are_made_once_a_batch(nlp: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    span_rep, calls = nlp.get_pipe("gliner").gliner.span_rep, []
    represent = span_rep.represent

    def noted(words: Any, spans: Any, word_mask: Any) -> Any:
        calls.append(len(words))
        return represent(words, spans, word_mask)

    monkeypatch.setattr(span_rep, "represent", noted)
    assert [found(doc) for doc in nlp.pipe(docs_of(nlp))] == EXPECTED
    assert calls == [len(EXPECTED)]


def test_pipe_and_call_agree_whatever_the_batch(nlp: Any) -> None:
    alone = [[(r.head.text, r.tail.text, r.label, r.score) for r in nlp(d)._.relations] for d in docs_of(nlp)]
    for batch_size in (1, 3, 100):
        docs = list(nlp.pipe(docs_of(nlp) * 2, batch_size=batch_size))
        for left, doc in zip(alone * 2, docs, strict=True):
            right = [(r.head.text, r.tail.text, r.label, r.score) for r in doc._.relations]
            assert [x[:3] for x in left] == [x[:3] for x in right]
            assert [x[3] for x in left] == pytest.approx([x[3] for x in right], abs=1e-5)


def test_relations_change_at_any_time(nlp: Any) -> None:
    component = nlp.get_pipe("gliner")
    component.relations = ["founded"]
    assert [found(doc) for doc in nlp.pipe(docs_of(nlp))][1] == {("Bert", "founded", "Initech")}
    component.relations = []
    doc = nlp(docs_of(nlp)[0])
    assert RELATIONS_KEY not in doc.user_data and doc._.relations == []
    doc = docs_of(nlp)[0]
    doc._.gliner_relations = [{"label": "works for", "threshold": 1.0}]
    assert found(nlp(doc)) == set() and RELATIONS_KEY in doc.user_data
    doc._.gliner_relations = ["works for"]
    assert found(nlp(doc)) == EXPECTED[0]


def test_thresholds(nlp: Any) -> None:
    component = nlp.get_pipe("gliner")
    assert component.relation_threshold == component.threshold
    component.relation_threshold = 1.0
    assert not any(found(doc) for doc in nlp.pipe(docs_of(nlp)))
    component.relation_threshold = None
    component.adjacency_threshold = 1.0
    assert not any(found(doc) for doc in nlp.pipe(docs_of(nlp)))
    component.cfg |= {"relation_threshold": 0.0, "adjacency_threshold": 0.0}
    # every ordered pair of entities with every relation, but for scores that are zero to the last digit
    found_now = [found(doc) for doc in nlp.pipe(docs_of(nlp))]
    assert all(some >= right for some, right in zip(found_now, EXPECTED, strict=True))
    assert sum(map(len, EXPECTED)) < sum(map(len, found_now)) <= (2 + 6 + 2) * 3


def test_types_of_the_ends(nlp: Any) -> None:
    component = nlp.get_pipe("gliner")
    component.cfg |= {"relation_threshold": 0.0, "adjacency_threshold": 0.0}
    component.relations = [{"label": "works for", "head": ["person"], "tail": ["company", "city"]}]
    docs = list(nlp.pipe(docs_of(nlp)))
    ends = [{(r.head.label_, r.tail.label_) for r in doc._.relations} for doc in docs]
    assert ends[0] == {("person", "company")}
    assert ends[1] <= {("person", "company"), ("person", "city")}
    assert ends[2:] == [set(), set()]


def test_of_several_labels_the_one_that_fits_is_named(nlp: Any) -> None:
    component = nlp.get_pipe("gliner")
    component.cfg |= {"relation_threshold": 0.0, "adjacency_threshold": 0.0, "multi_label": True}
    component.cfg |= {"threshold": 0.0, "flat_ner": True}
    component.relations = [{"label": "works for", "head": ["company"], "tail": ["person"]}]
    doc = nlp(docs_of(nlp)[0])
    spans = {(span.start, span.end) for span in doc.spans["gliner"]}
    assert len(doc.spans["gliner"]) > len(spans)  # several labels on a span
    tied = {(r.head.start, r.head.end, r.tail.start, r.tail.end) for r in doc._.relations}
    assert 0 < len(doc._.relations) == len(tied)  # a tie is one relation all the same
    assert {(r.head.label_, r.tail.label_) for r in doc._.relations} == {("company", "person")}


def test_rules_of_relations(nlp: Any) -> None:
    """All pairs are found at a threshold of 0; of them the best stay that obey the rules."""
    component = nlp.get_pipe("gliner")
    component.relation_threshold = component.adjacency_threshold = 0.0
    component.relations = ["works for", "founded", "located in"]
    free = {(one.label, one.head.text, one.tail.text): one.score for one in nlp(docs_of(nlp)[1])._.relations}
    component.relations = ["works for", {"label": "founded", "max_per_head": 1, "max_per_tail": 1}, {"label": "located in", "acyclic": True}]  # fmt: skip
    doc = nlp(docs_of(nlp)[1])
    kept = {(one.label, one.head.text, one.tail.text): one.score for one in doc._.relations}
    assert all(free[key] == score for key, score in kept.items())
    assert {key for key in free if key[0] == "works for"} == {key for key in kept if key[0] == "works for"}
    founded = [key for key in kept if key[0] == "founded"]
    assert len(founded) == len({key[1] for key in founded}) == len({key[2] for key in founded}) > 1
    places = {key[1:] for key in kept if key[0] == "located in"}
    assert places and not places & {pair[::-1] for pair in places}
    assert (
        component.report["relation left out because of the rules of relations"] == len(free) - len(kept) > 0
    )
    component.relations = [
        {"label": "founded", "inverse": "founded by"},
        {"label": "founded by", "threshold": 1.0},
    ]
    found_here = {one[2]: (one.head.text, one.tail.text) for one in nlp(docs_of(nlp)[1])._.relations}
    assert set(found_here) == {"founded", "founded by"}


def test_saved_and_loaded(nlp: Any, tmp_path: Path) -> None:
    component = nlp.get_pipe("gliner")
    component.relations = [{"label": "founded", "head": ["person"], "threshold": 0.25}, "works for"]
    component.cfg["relation_reach"] = 2
    expected = component.predict(docs_of(nlp))
    assert expected[1].relations
    nlp.to_disk(tmp_path / "model")
    loaded: Any = spacy.load(tmp_path / "model")
    twin = loaded.get_pipe("gliner")
    assert twin.relation_items == component.relation_items and twin.cfg == component.cfg
    assert twin.predict(docs_of(loaded)) == expected
    other: Any = spacy.util.load_model_from_config(nlp.config).from_bytes(nlp.to_bytes())
    assert other.get_pipe("gliner").predict(docs_of(other)) == expected
    assert copy.deepcopy(component).predict(docs_of(nlp)) == expected
    other = spacy.load(tmp_path / "model", config={"components": {"gliner": {"relations": ["founded"]}}})
    assert other.get_pipe("gliner").relations == ("founded",)


def test_relations_survive_the_bytes_of_a_document(nlp: Any) -> None:
    doc = nlp(docs_of(nlp)[1])
    again = Doc(nlp.vocab).from_bytes(doc.to_bytes())
    assert found(again) == EXPECTED[1]


# -- scores and files --------------------------------------------------------------------------------------------------


def test_scores(nlp: Any) -> None:
    gold = [example(nlp, *one) for one in DATA]
    scores = nlp.evaluate(
        [Example(Doc(nlp.vocab, words=[t.text for t in eg.reference]), eg.reference) for eg in gold]
    )
    assert scores["relations_f"] == scores["relations_boundary_f"] == 1.0
    assert scores["relations_per_type"]["founded"] == {"p": 1.0, "r": 1.0, "f": 1.0}
    result = evaluate_pipeline(nlp, gold)
    assert result["relations"]["strict"]["micro"]["f"] == result["relations"]["boundary"]["micro"]["f"] == 1.0
    assert result["relations"]["examples"] == 4
    bare = [example(nlp, text, spans, None) for text, spans, _ in DATA]
    assert "relations" not in evaluate_pipeline(nlp, bare)
    assert "relations_f" not in nlp.evaluate(bare)
    nlp.get_pipe("gliner").relations = []
    assert (
        evaluate_pipeline(nlp, gold)["relations"]["strict"]["micro"]["f"] == 1.0
    )  # those of the data are asked for
    assert nlp.get_pipe("gliner").relations == ()
    some = evaluate_pipeline(nlp, gold, relations=["founded"])["relations"]["strict"]
    assert set(some) == {"founded", "micro", "macro"}


def test_the_command_shows_relations(nlp: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    gold = [example(nlp, *one) for one in DATA]
    evaluate(pipeline=nlp, data=gold, output=tmp_path / "scores.json")
    shown = capsys.readouterr().out
    assert "Relations of 4 documents" in shown and "located in" in shown
    assert re.search(r"strict +boundary +\nrelation +gold +P +R +F +P +R +F", shown)
    assert json.loads((tmp_path / "scores.json").read_text())["relations"]["strict"]["micro"]["f"] == 1.0


@pytest.mark.parametrize(("format", "reader"), [("jsonl", "jsonl"), ("standoff", "standoff")])
def test_written_relations_are_read_again(nlp: Any, tmp_path: Path, format: str, reader: str) -> None:
    texts = [text for text, _, _ in DATA]
    target = tmp_path / ("out" if format == "standoff" else "out.jsonl")
    assert write(predict_texts(nlp, texts), format, target) == 4
    again = read_examples(str(target), nlp, reader=reader)
    read = [
        {
            (spans[h].text, label.replace("_", " "), spans[t].text)
            for h, t, label in eg.reference.user_data["gliner_pipe"].get("relations", [])
        }
        for eg in again
        for spans in [list(eg.reference.spans["gliner"])]
    ]
    assert read == EXPECTED
    if format == "jsonl":
        first = json.loads(target.read_text().splitlines()[0])
        assert first["relations"] == [[0, 1, "works for"]] and 0.5 < first["relation_scores"][0] <= 1


def test_relations_on_a_terminal(nlp: Any, tmp_path: Path) -> None:
    write(predict_texts(nlp, [DATA[0][0]]), "terminal", tmp_path / "out.txt")
    assert "Ada --[works for " in (tmp_path / "out.txt").read_text()
