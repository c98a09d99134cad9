import pickle
from types import SimpleNamespace

import pytest
import spacy
from spacy.tokens import Doc, DocBin, Span
from spacy.vocab import Vocab

from gliner_pipe.data.relations import (
    RELATIONS_KEY,
    Relation,
    get_relations,
    install_extension,
    set_relations,
)
from gliner_pipe.errors import DataError

WORDS = ["Ana", "Silva", "works", "at", "Acme", "in", "Oslo"]


@pytest.fixture(autouse=True)
def extension():
    """Leave ``doc._`` as it was."""
    before = Doc.get_extension("relations") if Doc.has_extension("relations") else None
    if before:
        Doc.remove_extension("relations")
    yield
    if Doc.has_extension("relations"):
        Doc.remove_extension("relations")
    if before:
        Doc.set_extension("relations", getter=before[2], setter=before[3])


def make_doc():
    doc = Doc(Vocab(), words=WORDS)
    ana, acme, oslo = (
        Span(doc, 0, 2, label="person"),
        Span(doc, 4, 5, label="company"),
        Span(doc, 6, 7, label="city"),
    )
    return doc, [Relation(ana, acme, "works for", 0.75), Relation(acme, oslo, "based in", 0.5)]


def shown(doc):
    return [
        (item.head.text, item.head.label_, item.label, item.tail.text, item.tail.label_, item.score)
        for item in get_relations(doc)
    ]


EXPECTED = [
    ("Ana Silva", "person", "works for", "Acme", "company", 0.75),
    ("Acme", "company", "based in", "Oslo", "city", 0.5),
]


def test_relations_of_a_document():
    install_extension()
    doc, items = make_doc()
    assert doc._.relations == []
    doc._.relations = items
    assert doc._.relations == items
    assert shown(doc) == EXPECTED
    assert all(item.head.doc is doc and isinstance(item, Relation) for item in doc._.relations)
    doc._.relations = items[:1]
    assert shown(doc) == EXPECTED[:1]
    doc._.relations = []
    assert doc._.relations == [] and RELATIONS_KEY in doc.user_data
    doc._.relations = None
    assert RELATIONS_KEY not in doc.user_data


@pytest.mark.parametrize("way", ["bytes", "pickle", "docbin", "disk", "copy"])
def test_relations_survive(way, tmp_path):
    install_extension()
    doc, items = make_doc()
    doc._.relations = items
    if way == "bytes":
        again = Doc(Vocab()).from_bytes(doc.to_bytes())
    elif way == "pickle":
        again = pickle.loads(pickle.dumps(doc))
    elif way == "docbin":
        data = DocBin(docs=[doc], store_user_data=True).to_bytes()
        (again,) = DocBin(store_user_data=True).from_bytes(data).get_docs(Vocab())
    elif way == "disk":
        doc.to_disk(tmp_path / "doc")
        again = Doc(Vocab()).from_disk(tmp_path / "doc")
    else:
        again = doc.copy()
    assert shown(again) == EXPECTED
    assert all(item.tail.doc is again for item in again._.relations)
    set_relations(again, reversed(get_relations(again)))
    assert shown(again) == EXPECTED[::-1]
    assert shown(doc) == EXPECTED


def test_stored_relations_are_plain_data():
    doc, items = make_doc()
    set_relations(doc, items)
    assert doc.user_data[RELATIONS_KEY][0] == (0, 2, "person", 4, 5, "company", "works for", 0.75)
    numpy = pytest.importorskip("numpy")
    set_relations(doc, [items[0]._replace(score=numpy.float32(0.5))])
    assert type(doc.user_data[RELATIONS_KEY][0][-1]) is float


def test_any_object_with_the_attributes_is_accepted():
    doc, items = make_doc()
    set_relations(doc, (SimpleNamespace(**item._asdict()) for item in items))
    assert shown(doc) == EXPECTED


def test_the_extension_is_installed_once():
    assert install_extension()
    assert install_extension()


def test_an_extension_of_other_code_is_not_changed():
    Doc.set_extension("relations", default="theirs")
    assert not install_extension()
    doc, items = make_doc()
    set_relations(doc, items)
    assert doc._.relations == "theirs"
    assert shown(doc) == EXPECTED
    doc._.relations = "still theirs"
    assert shown(doc) == EXPECTED


def test_spans_of_another_document_are_refused():
    doc, items = make_doc()
    other = spacy.blank("en")(doc.text)
    with pytest.raises(ValueError, match="'works for'"):
        set_relations(other, items)
    mixed = items[0]._replace(tail=Span(other, 4, 5))
    with pytest.raises(ValueError, match="'works for'"):
        set_relations(doc, [mixed])


def test_a_part_of_the_document_has_no_relations():
    doc, items = make_doc()
    set_relations(doc, items)
    assert get_relations(doc[2:6].as_doc()) == []
    with pytest.raises(DataError):
        get_relations(doc[2:6].as_doc(copy_user_data=True))
