from __future__ import annotations

from collections import Counter

import pytest
import spacy
from spacy.tokens import Doc, DocBin, Span

from gliner_pipe.data.annotations import gold_spans, set_spans, set_supervision, supervision
from gliner_pipe.errors import ConfigError


@pytest.fixture
def doc(nlp):
    return Doc(nlp.vocab, words=["The", "New", "York", "Times", "hired", "Ann", "Lee"])


@pytest.fixture
def spans(doc):
    return [
        Span(doc, 1, 3, label="city"),
        Span(doc, 1, 4, label="organization"),
        Span(doc, 5, 7, label="person"),
    ]


def triples(spans):
    return [(span.start, span.end, span.label_) for span in spans]


def test_supervision_is_empty_at_first_and_is_a_copy(doc):
    assert supervision(doc) == {}
    set_supervision(doc, ner_labels=["city"], source="a.jsonl:3")
    supervision(doc)["id"] = "changed"
    assert supervision(doc) == {"ner_labels": ["city"], "source": "a.jsonl:3"}


def test_set_supervision_keeps_other_fields_and_removes_none(doc):
    set_supervision(doc, id="7", ner_labels=["city"])
    set_supervision(doc, ner_labels=None, relations=[[0, 1, "in"]])
    assert supervision(doc) == {"id": "7", "relations": [[0, 1, "in"]]}


def test_set_supervision_refuses_unknown_fields(doc):
    with pytest.raises(TypeError, match=r"labels; allowed: id, source, ner_labels"):
        set_supervision(doc, labels=["a"])


def test_supervision_survives_docbin(doc, nlp):
    set_supervision(doc, relations=[[0, 1, "in"]], ner_labels=["city"])
    data = DocBin(docs=[doc], store_user_data=True).to_bytes()
    loaded = next(DocBin().from_bytes(data).get_docs(nlp.vocab))
    assert supervision(loaded) == supervision(doc)


def test_gold_spans_takes_the_group_or_else_ents(doc, spans):
    doc.ents = [spans[2]]
    assert triples(gold_spans(doc)) == [(5, 7, "person")]
    doc.spans["gliner"] = spans
    assert triples(gold_spans(doc)) == triples(spans)
    assert triples(gold_spans(doc, "ents")) == [(5, 7, "person")]
    doc.spans["none"] = []
    assert gold_spans(doc, "none") == []


def test_set_spans_one_group_keeps_nesting(doc, spans):
    assert set_spans(doc, spans, "gold") == [0, 1, 2]
    assert triples(doc.spans["gold"]) == triples(spans)
    assert not doc.ents


def test_set_spans_ents_keeps_the_longest_and_counts(doc, spans):
    report = Counter()
    assert set_spans(doc, spans, "ents", report) == [None, 0, 1]
    assert triples(doc.ents) == [(1, 4, "organization"), (5, 7, "person")]
    assert report == {"entities overlapping a longer one (not in doc.ents)": 1}


def test_set_spans_several_places(doc, spans):
    assert set_spans(doc, spans, ["ents", "*"]) == [None, 0, 1]
    assert set(doc.spans) == {"city", "organization", "person"}
    assert len(doc.ents) == 2


def test_set_spans_by_label(doc, spans):
    places = set_spans(doc, spans, {"names": ["person", "city"], "off": False, "rest": "organization"})
    assert places == [0, None, 1]
    assert triples(doc.spans["names"]) == [(1, 3, "city"), (5, 7, "person")]
    assert triples(doc.spans["rest"]) == [(1, 4, "organization")]
    assert "off" not in doc.spans


def test_set_spans_star_first_has_no_positions(doc, spans):
    assert set_spans(doc, spans, "*") == [None, None, None]


@pytest.mark.parametrize("setter", [[], "", {}, {"a": False}, ["a", ""]])
def test_set_spans_refuses_empty_setters(doc, spans, setter, fails):
    with fails(ConfigError, "span_setter"):
        set_spans(doc, spans, setter)


def test_annotations_of_a_pipeline_stay(doc, nlp):
    other = spacy.blank("en")
    set_supervision(doc, id="1")
    assert supervision(other(doc))["id"] == "1"
