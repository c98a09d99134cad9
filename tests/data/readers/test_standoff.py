from __future__ import annotations

import pytest

from gliner_pipe.data.annotations import gold_spans, supervision
from gliner_pipe.data.readers import standoff
from gliner_pipe.errors import DataError

TEXT = "Ann Lee lives in Paris.\nShe likes it."
ANN = "T1\tperson 0 7\tAnn Lee\nT2\tcity 17 22\tParis\nR1\tlives_in Arg1:T1 Arg2:T2\t\n"


def triples(example):
    return [(span.text, span.label_) for span in gold_spans(example.reference)]


def pair(write, text=TEXT, annotations=ANN, name="doc"):
    if annotations is not None:
        write(f"{name}.ann", annotations)
    return write(f"{name}.txt", text)


def read(nlp, path, **options):
    return list(standoff(path, **options)(nlp))


def test_entities_and_relations(write, nlp):
    (example,) = read(nlp, pair(write), converter="standoff")
    assert example.predicted.text == TEXT
    assert triples(example) == [("Ann Lee", "person"), ("Paris", "city")]
    assert supervision(example.reference) == {
        "id": "doc",
        "source": "doc.txt",
        "relations": [[0, 1, "lives_in"]],
    }


def test_folder_ann_file_and_pattern(write, nlp, tmp_path):
    pair(write, name="a")
    pair(write, name="sub/b")
    assert [supervision(e.reference)["id"] for e in read(nlp, tmp_path)] == ["a", "b"]
    assert len(read(nlp, tmp_path / "a.ann")) == 1
    assert len(read(nlp, str(tmp_path / "*.txt"))) == 1


def test_other_lines_are_counted(write, nlp):
    extra = "A1\tNo T1\nM1\tSure T2\nN1\tRef T2 wiki:1\tParis\n#1\tNotes T1\tsure?\n*\tAlias T1 T2\n"
    events = "T3\tLive 8 13\tlives\nE1\tLive:T3 Who:T1\nR2\tpart Arg1:E1 Arg2:T2\n\n"
    reader = standoff(pair(write, annotations=ANN + extra + events))
    (example,) = reader(nlp)
    assert supervision(example.reference)["relations"] == [[0, 1, "lives_in"], [2, 1, "part"]]
    assert reader.report == {
        "attribute (ignored)": 2,
        "normalization (ignored)": 1,
        "note (ignored)": 1,
        "equivalence of entities (ignored)": 1,
        "event (ignored)": 1,
    }


def test_relations_may_come_before_their_entities(write, nlp):
    lines = ANN.splitlines(keepends=True)
    (example,) = read(nlp, pair(write, annotations="".join(reversed(lines))))
    assert triples(example) == [("Paris", "city"), ("Ann Lee", "person")]
    assert supervision(example.reference)["relations"] == [[1, 0, "lives_in"]]


def test_discontinuous_entities(write, nlp):
    annotations = "T1\tx 0 3;17 22\tAnn Paris\nT2\ty 8 13\tlives\nR1\tr Arg1:T1 Arg2:T2\n"
    path = pair(write, annotations=annotations)
    cover, drop = standoff(path), standoff(path, discontinuous="drop")
    assert triples(next(cover(nlp))) == [("Ann Lee lives in Paris", "x"), ("lives", "y")]
    assert cover.report == {"discontinuous entity (extended from its first to its last character)": 1}
    assert triples(next(drop(nlp))) == [("lives", "y")]
    assert drop.report == {"discontinuous entity (dropped)": 1, "relation without its entity (dropped)": 1}


def test_ranges_in_any_order(write, nlp):
    (example,) = read(nlp, pair(write, annotations="T1\tx 17 22;0 3\tParis Ann\n"))
    assert triples(example) == [("Ann Lee lives in Paris", "x")]


def test_an_entity_over_two_lines_is_not_discontinuous(write, nlp):
    reader = standoff(pair(write, annotations="T1\tx 17 23;24 27\tParis. She\n"), discontinuous="drop")
    assert triples(next(reader(nlp))) == [("Paris.\nShe", "x")]
    assert not reader.report


CRLF = TEXT.replace("\n", "\r\n")


@pytest.mark.parametrize(
    ("text", "annotations", "read_text", "reasons"),
    [
        (CRLF, "T1\tx 25 28\tShe\n", CRLF, []),
        (
            CRLF,
            "T1\tx 24 27\tShe\r\n",
            TEXT,
            ["line break \\r\\n counted as one character (carriage returns removed)"],
        ),
        ("\ufeff" + TEXT, "T1\tx 24 27\tShe\n", TEXT, []),
        (
            "\ufeff" + TEXT,
            "\ufeffT1\tx 25 28\tShe\n",
            TEXT,
            ["byte order mark counted as a character (offsets shifted)"],
        ),
    ],
)
def test_line_ends_and_byte_order_marks(write, nlp, text, annotations, read_text, reasons):
    reader = standoff(pair(write, text, annotations))
    (example,) = reader(nlp)
    assert example.reference.text == read_text
    assert triples(example) == [("She", "x")]
    assert list(reader.report) == reasons


def test_missing_ann_file(write, nlp, fails):
    path = pair(write, annotations=None)
    with fails(DataError, "doc.ann"):
        read(nlp, path)
    reader = standoff(path, require_gold=False)
    assert triples(next(reader(nlp))) == []
    list(reader(nlp))
    assert reader.report == {"text without .ann file (no entities)": 1}


def test_empty_ann_file_means_no_entities(write, nlp):
    assert triples(read(nlp, pair(write, annotations=""))[0]) == []


def test_missing_text(write, nlp, tmp_path, fails):
    write("doc.ann", ANN)
    with fails(DataError, "doc.txt"):
        read(nlp, tmp_path)


def test_empty_texts_are_skipped(write, nlp, tmp_path, fails):
    pair(write)
    pair(write, "", "", name="empty")
    reader = standoff(tmp_path)
    assert len(list(reader(nlp))) == 1
    assert reader.report == {"empty text (skipped)": 1}
    (tmp_path / "doc.txt").unlink()
    (tmp_path / "doc.ann").unlink()
    with fails(DataError, str(tmp_path)):
        list(reader(nlp))


def test_alignment(write, nlp):
    path = pair(write, annotations="T1\tx 18 22\taris\n")
    assert triples(read(nlp, path)[0]) == [("Paris", "x")]
    assert triples(read(nlp, path, alignment_mode="strict")[0]) == []


def test_span_setter(write, nlp):
    (example,) = read(nlp, pair(write), span_setter=["ents", "gold"])
    assert [ent.text for ent in example.reference.ents] == ["Ann Lee", "Paris"]
    assert set(example.reference.spans) == {"gold"}
