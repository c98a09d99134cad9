from __future__ import annotations

import pytest

from gliner_pipe.data.annotations import gold_spans, supervision
from gliner_pipe.data.readers import conll
from gliner_pipe.errors import DataError


def triples(example):
    return [(span.start, span.end, span.label_) for span in gold_spans(example.reference)]


def read(nlp, path, **options):
    return list(conll(path, **options)(nlp))


@pytest.mark.parametrize(
    "text",
    [
        "Ann B-PER\nLee I-PER\n\nin O\nParis B-LOC\n",
        "Ann\tB-PER\nLee\tI-PER\n\n\nin\tO\nParis\tB-LOC",
        "Ann NN x B-PER\nLee NN x I-PER\n \t\nin IN x O\nParis NN x B-LOC\n\n",
        "\ufeffAnn\tB-PER\r\nLee\tI-PER\r\n\r\nin\tO\r\nParis\tB-LOC\r\n",
        "-DOCSTART- -X- O O\n\nAnn NN x B-PER\nLee NN x I-PER\n\nin IN x O\nParis NN x B-LOC\n",
        "Ann S S-x\n".replace("S-x", "U-PER").replace(
            "Ann S U-PER\n", "Ann S B-PER\nLee S L-PER\n\nin S O\nParis S U-LOC\n"
        ),
    ],
)
def test_column_files(write, nlp, text):
    examples = read(nlp, write("a.conll", text))
    assert [[token.text for token in e.reference] for e in examples] == [["Ann", "Lee"], ["in", "Paris"]]
    assert [triples(e) for e in examples] == [[(0, 2, "PER")], [(1, 2, "LOC")]]


def test_columns_and_comments(write, nlp):
    text = (
        "# sent_id = 1\n# text = Ann Lee\n1\tAnn\tB-PER\t-\n2\tLee\tI-PER\t-\n\n# sent_id = 2\n1\t#\tO\t-\n"
    )
    reader = conll(write("a.iob2", text), token_column=1, tag_column=2)
    examples = list(reader(nlp))
    assert [[token.text for token in e.reference] for e in examples] == [["Ann", "Lee"], ["#"]]
    assert reader.report == {"comment line (ignored)": 3}


@pytest.mark.parametrize("gap", [" ", "\t"])
def test_words_that_begin_with_a_hash(write, nlp, gap):
    text = f"# a comment\n#{gap}O\n#nlp{gap}B-topic\nrocks{gap}O\n"
    (example,) = read(nlp, write("a.conll", text))
    assert [token.text for token in example.reference] == ["#", "#nlp", "rocks"]
    assert triples(example) == [(1, 2, "topic")]


def test_the_source_is_the_first_line_of_the_sentence(write, nlp):
    examples = read(nlp, write("a.conll", "\n\na O\nb O\n\nc O\n"))
    assert [supervision(e.reference)["source"] for e in examples] == ["a.conll:3", "a.conll:6"]


def test_documents(write, nlp):
    text = "-DOCSTART- O\n\nAnn B-P\n\nBob B-P\nleft O\n\n-DOCSTART- O\n\nEve B-P\n"
    one, two = read(nlp, write("a.conll", text), level="document")
    assert triples(one) == [(0, 1, "P"), (1, 2, "P")]
    assert [len(sentence) for sentence in one.reference.sents] == [1, 2]
    assert triples(two) == [(0, 1, "P")]
    assert len(read(nlp, write("b.conll", "a O\n\nb O\n"), level="document")) == 1


def test_the_scheme_belongs_to_the_file(write, nlp, tmp_path):
    write("a.conll", "x I-a\ny I-a\n")
    write("b.conll", "x U-a\ny U-a\n")
    one, two = read(nlp, tmp_path)
    assert triples(one) == [(0, 2, "a")]
    assert triples(two) == [(0, 1, "a"), (1, 2, "a")]


def test_i_without_b_is_counted(write, nlp):
    reader = conll(write("a.conll", "a B-x\nb O\nc I-x\n"))
    assert triples(next(reader(nlp))) == [(0, 1, "x"), (2, 3, "x")]
    list(reader(nlp))
    assert reader.report == {"I- without B- before it (read as the beginning)": 1}


def test_a_given_scheme_is_kept_to(write, nlp, fails):
    path = write("a.conll", "a I-x\nb B-x\n")
    assert triples(read(nlp, path, scheme="IOB1")[0]) == [(0, 1, "x"), (1, 2, "x")]
    with fails(DataError, "a.conll:2 (tag)"):
        read(nlp, path, scheme="IO")


def test_separators(write, nlp):
    (example,) = read(nlp, write("a.csv", "New York;B-x\nx y;O\n"), separator=";")
    assert [token.text for token in example.reference] == ["New York", "x y"]
    (example,) = read(nlp, write("b.tsv", "New York\tB-x\n"), separator="tab")
    assert triples(example) == [(0, 1, "x")]
    (example,) = read(nlp, write("c.txt", "a \t  B-x\n"), separator="whitespace")
    assert triples(example) == [(0, 1, "x")]


def test_labels_and_label_map(write, nlp):
    path = write("a.conll", "a B-PER\nb B-LOC\n")
    (example,) = read(nlp, path, label_map={"PER": "person", "LOC": None}, labels=["person", "date"])
    assert triples(example) == [(0, 1, "person")]
    assert supervision(example.reference)["ner_labels"] == ["person", "date"]


def test_unknown_options():
    with pytest.raises(ValueError, match="scheme"):
        conll("a", scheme="BILOU")
    with pytest.raises(ValueError, match="separator"):
        conll("a", separator="")
