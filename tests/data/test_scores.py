"""``span._.score``: for each way to get a span, and each way to keep a document."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any

import pytest
import spacy
from spacy.tokens import Doc, DocBin, Span, SpanGroup

from gliner_pipe.data import scores

WORDS = ["Ada", "Lovelace", "met", "Babbage", "."]


@pytest.fixture(autouse=True)
def extension() -> Iterator[None]:
    before = Span.get_extension("score") if Span.has_extension("score") else None
    scores.install_extension()
    yield
    if Span.has_extension("score"):
        Span.remove_extension("score")
    if before is not None:
        Span.set_extension("score", getter=before[2], setter=before[3])


@pytest.fixture
def doc() -> Doc:
    """Two entities, one of them with two labels, as entities and in a group."""
    doc = Doc(spacy.blank("en").vocab, words=WORDS)
    spans = [Span(doc, 0, 2, "person"), Span(doc, 0, 2, "author"), Span(doc, 3, 4, "person")]
    scores.write_scores(doc, spans, [0.75, 0.5, 0.25])
    doc.spans["gliner"] = SpanGroup(doc, spans=spans, attrs={"scores": [0.75, 0.5, 0.25]})
    doc.ents = [spans[0], spans[2]]
    return doc


def found(doc: Doc) -> list[Any]:
    return [span._.score for span in doc.spans["gliner"]] + [ent._.score for ent in doc.ents]


EXPECTED = [0.75, 0.5, 0.25, 0.75, 0.25]


def test_every_span_object_of_an_entity(doc: Doc) -> None:
    assert found(doc) == EXPECTED and all(type(score) is float for score in found(doc))
    assert Span(doc, 0, 2, "author")._.score == 0.5
    assert Span(doc, 0, 2, "city")._.score is None and doc[0:2]._.score is None
    assert Span(doc, 0, 1, "person")._.score is None


def with_data(doc: Doc) -> Doc:
    kept = DocBin(store_user_data=True, docs=[doc])
    return next(DocBin().from_bytes(kept.to_bytes()).get_docs(doc.vocab))


def without_data(doc: Doc) -> Doc:
    return next(DocBin().from_bytes(DocBin(docs=[doc]).to_bytes()).get_docs(doc.vocab))


KEPT = {
    "bytes": lambda doc: Doc(doc.vocab).from_bytes(doc.to_bytes()),
    "pickle": lambda doc: pickle.loads(pickle.dumps(doc)),
    "copy": lambda doc: doc.copy(),
    "DocBin": with_data,
    "DocBin without user data": without_data,  # from the group
    "as_doc": lambda doc: doc[:].as_doc(copy_user_data=True),
    "from_docs": lambda doc: Doc.from_docs([doc]),
}


@pytest.mark.parametrize("way", KEPT)
def test_scores_are_kept_with_the_document(doc: Doc, way: str) -> None:
    again = KEPT[way](doc)
    assert [ent._.score for ent in again.ents] == [0.75, 0.25]
    if "gliner" in again.spans:
        assert found(again) == EXPECTED


def test_json(doc: Doc) -> None:
    written = doc.to_json(underscore=["score"])
    assert written["underscore_span"]["score"][0]["value"] == {"person": 0.75, "author": 0.5}
    again = Doc(doc.vocab).from_json(written)
    assert found(again) == EXPECTED


def test_a_part_of_a_document_and_merged_tokens(doc: Doc) -> None:
    part = doc[2:5].as_doc(copy_user_data=True)
    assert [ent._.score for ent in part.ents] == [0.25]
    del doc.spans["gliner"]
    with doc.retokenize() as retokenizer:
        retokenizer.merge(doc[0:2])
    assert [ent._.score for ent in doc.ents] == [0.75, 0.25]
    doc.ents = [Span(doc, 0, 1, "person", kb_id="Q7259"), *doc.ents[1:]]  # linked to a knowledge base
    assert [ent._.score for ent in doc.ents] == [0.75, 0.25]


def test_setting_and_removing(doc: Doc) -> None:
    span = doc.ents[1]
    span._.score = 1
    assert doc.ents[1]._.score == 1.0
    span._.score = None
    assert span._.score == 0.25  # that of the group
    scores.write_scores(doc, [], [], doc.spans.pop("gliner"))
    assert [ent._.score for ent in doc.ents] == [None, None]
    gold = Doc(doc.vocab, words=WORDS)
    gold.spans["gliner"] = [Span(gold, 0, 2, "person")]
    assert gold.spans["gliner"][0]._.score is None


def test_an_extension_of_another_package_is_left_alone(doc: Doc) -> None:
    Span.set_extension("score", default="theirs", force=True)
    assert not scores.install_extension() and not scores.is_installed()
    other = Doc(doc.vocab, words=WORDS)
    span = Span(other, 0, 2, "person")
    scores.write_scores(other, [span], [0.5])
    assert span._.score == "theirs" and other.user_data == {}
    other.spans["gliner"] = SpanGroup(other, spans=[span], attrs={"scores": [0.5]})
    assert scores.get_score(span) == 0.5
