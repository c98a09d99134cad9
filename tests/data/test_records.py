import pickle
from types import SimpleNamespace

import pytest
import spacy
from spacy.tokens import Doc, DocBin, Span
from spacy.vocab import Vocab

from gliner_pipe.data.records import RECORDS_KEY, Record, get_records, install_extension, set_records
from gliner_pipe.errors import DataError

WORDS = ["Two", "red", "lamps", "and", "a", "chair", "for", "20", "euros"]


@pytest.fixture(autouse=True)
def extension():
    """Leave ``doc._`` as it was."""
    before = Doc.get_extension("records") if Doc.has_extension("records") else None
    if before:
        Doc.remove_extension("records")
    yield
    if Doc.has_extension("records"):
        Doc.remove_extension("records")
    if before:
        Doc.set_extension("records", getter=before[2], setter=before[3])


def make_doc():
    doc = Doc(Vocab(), words=WORDS)

    def span(start, end, field):
        return Span(doc, start, end, label=field)

    return doc, [
        Record(
            "product",
            {
                "name": span(2, 3, "name"),
                "colours": [span(1, 2, "colours")],
                "state": "new",
                "uses": ["home", "office"],
                "price": None,
            },
            0.75,
            {"name": 0.75, "colours": [0.5], "state": 0.625, "uses": [0.5, 0.5], "price": None},
        ),
        Record("product", {"name": span(5, 6, "name"), "colours": [], "uses": []}, 0.5),
    ]


def shown(doc):
    return [
        (one.name, {field: value(one.fields[field]) for field in one.fields}, one.score, one.scores)
        for one in get_records(doc)
    ]


def value(found):
    if isinstance(found, list):
        return [value(one) for one in found]
    return (found.text, found.label_) if isinstance(found, Span) else found


EXPECTED = [
    (
        "product",
        {
            "name": ("lamps", "name"),
            "colours": [("red", "colours")],
            "state": "new",
            "uses": ["home", "office"],
            "price": None,
        },
        0.75,
        {"name": 0.75, "colours": [0.5], "state": 0.625, "uses": [0.5, 0.5], "price": None},
    ),
    ("product", {"name": ("chair", "name"), "colours": [], "uses": []}, 0.5, {}),
]


def test_records_of_a_document():
    install_extension()
    doc, items = make_doc()
    assert doc._.records == []
    doc._.records = items
    assert doc._.records == items
    assert shown(doc) == EXPECTED
    doc._.records = items[:1]
    assert shown(doc) == EXPECTED[:1]
    doc._.records = []
    assert doc._.records == [] and RECORDS_KEY in doc.user_data
    doc._.records = None
    assert RECORDS_KEY not in doc.user_data


@pytest.mark.parametrize("way", ["bytes", "pickle", "docbin", "copy"])
def test_records_survive(way):
    install_extension()
    doc, items = make_doc()
    doc._.records = items
    if way == "bytes":
        again = Doc(Vocab()).from_bytes(doc.to_bytes())
    elif way == "pickle":
        again = pickle.loads(pickle.dumps(doc))
    elif way == "docbin":
        data = DocBin(docs=[doc], store_user_data=True).to_bytes()
        (again,) = DocBin(store_user_data=True).from_bytes(data).get_docs(Vocab())
    else:
        again = doc.copy()
    assert shown(again) == EXPECTED
    assert again._.records[0].fields["name"].doc is again
    set_records(again, reversed(get_records(again)))
    assert shown(again) == EXPECTED[::-1]
    assert shown(doc) == EXPECTED


def test_stored_records_are_plain_data():
    doc, items = make_doc()
    set_records(doc, items)
    name, fields, score, scores = doc.user_data[RECORDS_KEY][0]
    assert (name, score) == ("product", 0.75)
    assert fields["name"] == (2, 3) and fields["colours"] == [(1, 2)] and fields["state"] == "new"
    numpy = pytest.importorskip("numpy")
    set_records(doc, [items[0]._replace(score=numpy.float32(0.5), scores={"name": numpy.float32(0.5)})])
    _, _, score, scores = doc.user_data[RECORDS_KEY][0]
    assert type(score) is float and type(scores["name"]) is float


def test_records_without_scores_of_their_values_are_read():
    doc, _ = make_doc()
    doc.user_data[RECORDS_KEY] = [("product", {"name": (2, 3)}, 1.0)]
    assert shown(doc) == [("product", {"name": ("lamps", "name")}, 1.0, {})]


def test_any_object_with_the_attributes_is_accepted():
    doc, items = make_doc()
    set_records(doc, (SimpleNamespace(**item._asdict()) for item in items))
    assert shown(doc) == EXPECTED


def test_an_extension_of_other_code_is_not_changed():
    Doc.set_extension("records", default="theirs")
    assert not install_extension()
    doc, items = make_doc()
    set_records(doc, items)
    assert doc._.records == "theirs"
    assert shown(doc) == EXPECTED


def test_spans_of_another_document_are_refused():
    doc, items = make_doc()
    other = spacy.blank("en")(doc.text)
    with pytest.raises(ValueError, match="'product'"):
        set_records(other, items)


def test_a_part_of_the_document_has_no_records():
    doc, items = make_doc()
    set_records(doc, items)
    assert get_records(doc[2:6].as_doc()) == []
    with pytest.raises(DataError):
        get_records(doc[1:3].as_doc(copy_user_data=True))
