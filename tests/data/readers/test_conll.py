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


def test_webanno_is_refused(write, nlp, fails):
    with fails(DataError, "a.tsv"):
        read(nlp, write("a.tsv", "#FORMAT=WebAnno TSV 3.3\n\n\n#Text=Ann\n1-1\t0-3\tAnn\tPER\t\n"))


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


def test_the_scheme_is_inferred_for_each_file(write, nlp, tmp_path):
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


def test_a_given_scheme_is_used(write, nlp, fails):
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


ANN_LEE = [["Ann", "Lee", "left"], ["Hi"]]


@pytest.mark.parametrize(
    "text",
    [
        "Ann B_PER\nLee I_PER\nleft O\n\nHi O\n",
        "Ann PER-B\nLee PER-I\nleft O\n\nHi O\n",
        "Ann x b-PER\nLee x i-PER\nleft x o\n\nHi x o\n",
        "Ann\tB:PER\nLee\tE:PER\nleft\tO\n\nHi\tO\n",
        "Ann B-PER\rLee I-PER\rleft O\r\rHi O\r",
        "\ufeffAnn\tB-PER\t\r\nLee \t I-PER  \r\nleft\t\tO\r\n\t \r\nHi O",
        "  Ann   x  B-PER \nLee\tx\tI-PER\nleft x O\n   \n\nHi x O",
        "token\ttag\nAnn\tB-PER\nLee\tI-PER\nleft\tO\n\nHi\tO\n",
        "Word POS Tag\n\nAnn x B-PER\nLee x I-PER\nleft x O\n\nHi x O\n",
        "-DOCSTART-\nAnn B-PER\nLee I-PER\nleft O\n-DOCSTART- (2)\nHi O\n",
        "Ann|B-PER Lee|I-PER left|O\nHi|O\n",
        "Ann|B-PER\tLee|I-PER\tleft|O\nHi|O\n",
        "Ann|NNP|B-PER Lee|NNP|I-PER left|VBD|O\n\nHi|UH|O\n",
        "# id 7f-a1\tdomain=train\nAnn _ _ B-PER\nLee _ _ I-PER\nleft _ _ O\n\n# id 8\tdomain=train\nHi _ _ O\n",
        "# id 7f-a1 domain=train\nAnn _ _ B-PER\nLee _ _ I-PER\nleft _ _ O\n\n# id 8 domain=dev\nHi _ _ O\n",
        "# text = Ann Lee left\n1\tAnn\tB-PER\t-\t-\n2\tLee\tI-PER\t-\t-\n3\tleft\tO\t-\t-\n\n1\tHi\tO\t-\t-\n",
    ],
)
def test_dialects_line_ends_and_layouts(write, nlp, text):
    examples = read(nlp, write("a.conll", text))
    assert [[token.text for token in e.reference] for e in examples] == ANN_LEE
    assert [triples(e) for e in examples] == [[(0, 2, "PER")], []]


def test_the_dialect_is_said_once_with_its_place(write, nlp, caplog):
    reader = conll(write("a.conll", "Hi O\n\nAnn B_PER\nLee I_PER\n\nBo B_PER\n"))
    list(reader(nlp))
    assert list(reader.report.values()) == [3]
    assert caplog.text.count("B_PER") == 1 and "a.conll:3" in caplog.text


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("#Paris LOC\nis O\n", ["#Paris", "is"]),
        ("is O\n#Paris LOC\n", ["is", "#Paris"]),
        ("#Paris B-LOC\n# O\n", ["#Paris", "#"]),
        ("# comment\nParis B-LOC\n", ["Paris"]),
        ("#comment here\nParis B-LOC\n", ["Paris"]),
        ("# B-LOC\nParis B-LOC\n", ["#", "Paris"]),
        ("# a longer comment\n#Paris\tLOC\nis\tO\n", ["#Paris", "is"]),
    ],
)
def test_hashes_are_words_if_they_have_a_tag(write, nlp, text, kept):
    reader = conll(write("a.conll", text))
    (example,) = reader(nlp)
    assert [token.text for token in example.reference] == kept
    assert reader.report["comment line (ignored)"] == text.count("\n") - len(kept)


@pytest.mark.parametrize(
    "text",
    [
        "Ann/B-PER Lee/I-PER\nin/O 1/2/O Paris/B-LOC\n",
        "Ann/NNP/B-PER Lee/NNP/I-PER\nin/IN/O 1/2/CD/O Paris/NNP/B-LOC\n",
        "Ann_B-PER Lee_I-PER\nin_O 1/2_O Paris_B-LOC\n",
        "Ann/PER Lee/PER\nin/O 1/2/O Paris/LOC\n",
    ],
)
def test_words_and_tags_in_one_cell(write, nlp, text):
    one, two = read(nlp, write("a.txt", text))
    assert [token.text for token in two.reference] == ["in", "1/2", "Paris"]
    assert (triples(one), triples(two)) == ([(0, 2, "PER")], [(2, 3, "LOC")])


@pytest.mark.parametrize(
    "text", ["0\tAnn\tB-PER\n1\tleft\tO\n", "1\tAnn\tB-PER\n1\tleft\tO\n2\tBob\tB-PER\n"]
)
def test_numbers_of_words_or_sentences_are_no_words(write, nlp, text, fails):
    with fails(DataError, "a.conll:1 (column 0)"):
        read(nlp, write("a.conll", text))
    (example,) = read(nlp, write("a.conll", text), token_column=1)
    assert [token.text for token in example.reference][:2] == ["Ann", "left"]


def test_words_with_bars(write, nlp):
    one, two = read(nlp, write("a.iob", "a|b|X|O Ann|X|B-PER\n||SYM|O\n"))
    assert [token.text for token in one.reference] == ["a|b", "Ann"]
    assert [token.text for token in two.reference] == ["|"]


@pytest.mark.parametrize(
    ("text", "options", "where"),
    [
        ("B-PER Ann\nI-PER Lee\nO left\n", {}, "a.conll:1 (tag)"),
        ("PER Ann\nPER Lee\nO left\n", {}, "a.conll:1 (tag)"),
        ("Ann B-PER 0.9\nLee I-PER 0.8\nleft O 1\n", {}, "a.conll:1 (tag)"),
        ("Ann B-PER NNP\nLee I-PER NNP\nleft O VBD\n", {}, "a.conll:1 (tag)"),
        ("Ann 1\nLee 2\nleft 0\n", {}, "a.conll:1 (tag)"),
        ("left O\nAnn B-PER\nLee X-PER\n", {}, "a.conll:3 (tag)"),
        ("left O\nAnn B-PER\nLee X Y I-PER\n", {}, "a.conll:3 (columns)"),
        ("Ann X Y B-PER\n\nLee I-PER\n", {}, "a.conll:3 (columns)"),
        ("\n".join(f"word{i} other{i}" for i in range(40)), {}, "a.conll:1 (tag)"),
        ("Ann|B-PER Lee|I-PER\nBo B-PER\n", {}, "a.conll:1 (tag)"),
        ("Ann|B-PER Lee|I-PER\n\nBo B-PER\n", {}, "a.conll:3 (word)"),
        ("Ann B\nLee I\nleft O\n", {}, "a.conll:1 (tag)"),
        ("1\tAnn\t_\t_\n2\tLee\t_\t_\n", {}, "a.conll:1 (columns)"),
        ("1\tAnn\tB-P\tB-Q\n2\tLee\tO\tO\n", {}, "a.conll:1 (columns)"),
        ("1\tAnn\tB-P\n2\tLee\tO\n\nx\tBo\tO\n", {}, "a.conll:4 (column 0)"),
    ],
)  # fmt: skip
def test_what_is_no_column_of_tags(write, nlp, text, options, where, fails):
    with fails(DataError, where) as caught:
        read(nlp, write("a.conll", text), **options)
    assert "\n" not in str(caught.value)


def test_the_error_shows_three_examples_and_the_column(write, nlp, fails):
    with fails(DataError, "a.conll:1 (tag)") as caught:
        read(nlp, write("a.conll", "B-PER Ann\nI-PER Lee\nO left\nO early\n"))
    message = str(caught.value)
    assert "tag_column = 0 and token_column = 1" in message
    assert (
        all(word in message for word in ("'Ann'", "line 2 'Lee'", "line 3 'left'")) and "early" not in message
    )
    (example,) = read(nlp, write("a.conll", "B-PER Ann\nI-PER Lee\n"), tag_column=0, token_column=1)
    assert triples(example) == [(0, 2, "PER")]
    (example,) = read(nlp, write("a.conll", "Ann B-PER NNP\nLee I-PER NNP\n"), scheme="plain")
    assert triples(example) == [(0, 2, "NNP")]


@pytest.mark.parametrize(
    ("tags", "names"),
    [
        ("1 2 0", ["O", "B-P", "I-P"]),
        ("1 2 0", {"O": 0, "B-P": 1, "I-P": 2}),
        ("B I O", {"B": "B-P", "I": "I-P"}),
    ],
)
def test_tags_by_id_and_renamed(write, nlp, tags, names):
    text = "".join(f"w {tag}\n" for tag in tags.split())
    (example,) = read(nlp, write("a.conll", text), tag_names=names)
    assert triples(example) == [(0, 2, "P")]


CONLLU = """\
# newdoc id = 1
# text = Ann doesn't like the marché du Mans.
1\tAnn\tAnn\tPROPN\tNNP\t_\t3\tnsubj\t_\tNER=B-PER
2-3\tdoesn't\t_\t_\t_\t_\t_\t_\t_\t_
2\tdoes\tdo\tAUX\tVBZ\t_\t3\taux\t_\tNER=O
3\tn't\tnot\tPART\tRB\t_\t3\taux\t_\t_
4\tlike\tlike\tVERB\tVB\t_\t0\troot\t_\t_
4.1\tghost\tghost\tVERB\tVB\t_\t_\t_\t_\t_
5\tthe\tthe\tDET\tDT\t_\t3\tdet\t_\tGloss=x
6\tmarché\tmarché\tNOUN\tNN\t_\t3\tobj\t_\tNER=B-LOC
7-8\tdu\t_\t_\t_\t_\t_\t_\t_\t_
7\tde\tde\tADP\tIN\t_\t3\tcase\t_\tNER=I-LOC
8\tle\tle\tDET\tDT\t_\t3\tdet\t_\tNER=I-LOC
9\tMans\tMans\tPROPN\tNNP\t_\t3\tnmod\t_\tSpaceAfter=No|NER=I-LOC
10\t.\t.\tPUNCT\t.\t_\t3\tpunct\t_\t_

# newdoc id = 2
1\tHi\tHi\tINTJ\tUH\t_\t0\troot\t_\tSpaceAfter=No

# text = Bo
1\tBo\tBo\tPROPN\tNNP\t_\t0\troot\t_\tNER=B-PER
"""


@pytest.mark.parametrize("key", ["NER", "Entity", "name", "Type"])
def test_conllu(write, nlp, key):
    reader = conll(write("a.conllu", CONLLU.replace("NER=", f"{key}=")))
    first, second, third = reader(nlp)
    assert first.reference.text == "Ann doesn't like the marché de le Mans."
    assert triples(first) == [(0, 1, "PER"), (5, 9, "LOC")]
    assert [second.reference.text, third.reference.text] == ["Hi", "Bo"]
    assert triples(third) == [(0, 1, "PER")]
    assert reader.report == {
        "comment line (ignored)": 4,
        "multiword token (its words are read)": 2,
        "empty node (left out)": 1,
    }
    assert str(reader.report.first["empty node (left out)"]).endswith("a.conllu:8")


NEWS = "bc/news 0 {} {} NN (TOP* - - - Ann#1 {} *{} -\n"


def test_conll2012(write, nlp):
    """The number of columns differs between sentences."""
    text = "#begin document (bc/news); part 000\n"
    for number, (word, name) in enumerate(
        [("In", "*"), ("New", "(GPE*"), ("York", "*)"), ("Ann", "(PERSON)")]
    ):
        text += NEWS.format(number, word, name, "")
    text += "\n" + NEWS.format(0, "Monday", "(DATE*)", " (ARG1*)") + "\n#end document\n"
    for name in ("a.gold_conll", "a.conll"):
        first, second = read(nlp, write(name, text))
        assert [token.text for token in first.reference] == ["In", "New", "York", "Ann"]
        assert triples(first) == [(1, 3, "GPE"), (3, 4, "PERSON")]
        assert triples(second) == [(0, 1, "DATE")]
    assert len(read(nlp, write("a.conll", text * 2), level="document")) == 2
    (example,) = read(nlp, write("b.conll", "Ann (PER*\nLee *)\n"))
    assert triples(example) == [(0, 2, "PER")]


@pytest.mark.parametrize("text", ["Ann (PER*\nleft *\n", "Ann (PER)\nleft *)\n", "Ann (PER*\nleft (ORG*)\n"])
def test_brackets_that_are_not_closed_or_opened(write, nlp, text, fails):
    with fails(DataError, "a.conll:2 (tag)"):
        read(nlp, write("a.conll", text))


def test_further_columns_of_tags_are_counted(write, nlp):
    reader = conll(write("a.conll", "Ann B-PER B-ORG\nleft O O\n"))
    assert triples(*reader(nlp)) == [(0, 1, "ORG")]
    assert reader.report == {"file with tags in column 1, too (not read; set tag_column)": 1}
    reader = conll(write("b.conll", "Ann NN B-NP B-PER\nleft VB B-VP O\n"))  # chunks
    assert triples(*reader(nlp)) == [(0, 1, "PER")] and not reader.report


def test_documents_of_conllu(write, nlp):
    _, two = read(nlp, write("a.conllu", CONLLU), level="document")
    assert two.reference.text == "HiBo" and triples(two) == [(1, 2, "PER")]
    assert [len(sentence) for sentence in two.reference.sents] == [1, 1]


def test_conllu_with_a_column_of_tags_or_given_columns(write, nlp):
    rows = [line.split("\t") for line in CONLLU.splitlines()]
    tagged = "\n".join(
        "\t".join([*row[:9], row[9].rpartition("NER=")[2] if "NER=" in row[9] else "O"])
        if len(row) > 1
        else row[0]
        for row in rows
    )
    assert triples(read(nlp, write("b.conllu", tagged))[0]) == [(0, 1, "PER"), (5, 9, "LOC")]
    (example,) = read(
        nlp, write("c.conllu", "1\tAnn\tB-P\tB-Q\n2\tLee\tO\tI-Q\n"), token_column=1, tag_column=3
    )
    assert triples(example) == [(0, 2, "Q")]
    given = read(nlp, write("a.conllu", CONLLU), token_column=1, tag_column=4, scheme="plain")
    assert [token.text for token in given[0].reference][:3] == ["Ann", "does", "n't"]
    assert triples(given[1]) == [(0, 1, "UH")]
    assert triples(read(nlp, write("a.conllu", CONLLU), token_column=1, tag_column=9)[2]) == [(0, 1, "PER")]
    (example,) = read(nlp, write("d.conll", "1 O\n2 B-P\n"))
    assert [token.text for token in example.reference] == ["1", "2"]
    first, *_ = read(nlp, write("e.conll", "1 CD O\n2 CD B-P\n\nHi UH O\n\nHo UH O\n\n"))
    assert [token.text for token in first.reference] == ["1", "2"] and triples(first) == [(1, 2, "P")]


@pytest.mark.parametrize("text", ["", "\n \n", "# only\n# comments\n", "-DOCSTART- O\n"])
def test_files_without_words(write, nlp, text, fails):
    with fails(DataError, "a.conll"):
        read(nlp, write("a.conll", text))
