"""Splits at sentence boundaries, and overlapping chunks."""

from __future__ import annotations

import itertools
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from spacy.tokens import Span
from spacy.training import Example

from gliner_pipe.data.annotations import gold_spans, set_supervision, supervision
from gliner_pipe.data.records import Record, get_records, set_records
from gliner_pipe.data.splitting import Chunk, chunk_examples, sentence_starts, split_examples
from gliner_pipe.errors import ConfigError
from gliner_pipe.util.options import checked


def texts(doc):
    return [token.text for token in doc]


def parts_of(example, **options):
    return list(split_examples([example], **options))


def sentences(doc, **options):
    starts = [i for i, start in enumerate(sentence_starts(doc, **options)) if start] + [len(doc)]
    return [doc[a:b].text.strip() for a, b in itertools.pairwise(starts)]


@st.composite
def documents(draw):
    length = draw(st.integers(1, 40))
    words = draw(st.lists(st.sampled_from(["Word", "word", ".", "?", ")"]), min_size=length, max_size=length))
    entities = []
    for _ in range(draw(st.integers(0, 6))):
        start = draw(st.integers(0, length - 1))
        entities.append(
            (start, draw(st.integers(start + 1, min(length, start + 8))), draw(st.sampled_from("ab")))
        )
    count = len(entities)
    index = st.integers(0, count - 1)
    relations = draw(st.lists(st.tuples(index, index, st.just("r")).map(list), max_size=5)) if count else []
    starts = draw(st.none() | st.sets(st.integers(0, length - 1)).map(lambda found: sorted({0, *found})))
    return words, entities, starts, relations


@given(documents(), st.integers(0, 15), st.booleans(), st.booleans(), st.integers(0, 3))
def test_only_relations_across_parts_are_lost(example, document, max_length, multi, randomize, seed):
    words, entities, starts, relations = document
    whole = example(words, entities, starts, relations=relations, ner_labels=["a", "b"], source="x:1")
    report = Counter()
    parts = parts_of(
        whole,
        max_length=max_length,
        multi_sentence=multi,
        randomize=randomize,
        rng=random.Random(seed),
        report=report,
    )
    assert [text for part in parts for text in texts(part.reference)] == words
    assert [text for part in parts for text in texts(part.predicted)] == words
    found, related, offset = [], [], 0
    for part in parts:
        spans = [(s.start + offset, s.end + offset, s.label_) for s in gold_spans(part.reference)]
        found += spans
        fields = supervision(part.reference)
        related += [(spans[head], spans[tail], label) for head, tail, label in fields["relations"]]
        assert fields["ner_labels"] == ["a", "b"]
        assert fields["source"] == "x:1"
        offset += len(part.reference)
    assert sorted(found) == sorted(entities)
    expected = [(entities[head], entities[tail], label) for head, tail, label in relations]
    assert len(related) + report["relation across two parts (dropped)"] == len(expected)
    assert not Counter(related) - Counter(expected)
    too_long = [part for part in parts if max_length and len(part.reference) > max_length]
    assert len(too_long) == report["entity longer than max_length (kept whole)"] or (
        len(too_long) <= 1 and len(parts) == 1
    )
    for part in too_long:
        covered = {i for s in gold_spans(part.reference) for i in range(s.start + 1, s.end)}
        assert covered >= set(range(1, max_length + 1))


def test_short_documents_stay_the_same_object(example):
    whole = example("A b . C d .")
    assert parts_of(whole, max_length=6)[0] is whole
    assert parts_of(whole)[0] is whole


def test_sentences_are_packed(example):
    whole = example("A b . C d . E f . G h .")
    assert [" ".join(texts(p.reference)) for p in parts_of(whole, max_length=7)] == [
        "A b . C d .",
        "E f . G h .",
    ]
    assert [len(p.reference) for p in parts_of(whole, max_length=6)] == [6, 6]
    assert [len(p.reference) for p in parts_of(whole, max_length=9)] == [9, 3]
    assert [len(p.reference) for p in parts_of(whole, max_length=7, multi_sentence=False)] == [3, 3, 3, 3]
    assert [len(p.reference) for p in parts_of(whole, multi_sentence=False)] == [3, 3, 3, 3]


def test_a_long_sentence_is_cut_before_an_entity(example):
    whole = example("a b c d e f g h", [(3, 6, "x")])
    report = Counter()
    assert [len(p.reference) for p in parts_of(whole, max_length=4, report=report)] == [3, 4, 1]
    assert report == {"documents split into parts": 1}


def test_the_rest_of_a_long_sentence_is_filled_up(example):
    whole = example("a b c d e . F g . H i .")
    assert [texts(p.reference)[0] for p in parts_of(whole, max_length=4)] == ["a", "e", "F", "H"]
    assert [texts(p.reference)[0] for p in parts_of(whole, max_length=5)] == ["a", ".", "H"]


def test_an_entity_longer_than_a_part_stays_whole(example):
    whole = example("a b c d e f g h", [(1, 7, "x")])
    report = Counter()
    assert [len(p.reference) for p in parts_of(whole, max_length=3, report=report)] == [1, 6, 1]
    assert report["entity longer than max_length (kept whole)"] == 1


def test_a_sentence_boundary_inside_an_entity_is_no_cut(example):
    whole = example("See Yahoo ! Inc and go . Bye now .", [(1, 4, "company")])
    assert [len(p.reference) for p in parts_of(whole, max_length=7)] == [7, 3]


def test_given_sentences_are_used(example):
    whole = example("a . B . c d", starts=[0, 4])
    first, second = parts_of(whole, max_length=4)
    assert texts(first.reference) == ["a", ".", "B", "."]
    assert [token.is_sent_start for token in second.reference] == [True, False]


def test_ents_and_other_groups_and_tags_survive(nlp, example):
    whole = example("A b . C d .", [(3, 5, "x")])
    doc = whole.reference
    doc.ents = [Span(doc, 0, 2, label="y", kb_id="Q1")]
    doc.spans["other"] = [doc[1:2], doc[4:5]]
    for token in doc:
        token.tag_ = token.text.upper()
    one, two = parts_of(Example(whole.predicted, doc), max_length=3)
    assert [(ent.text, ent.label_, ent.kb_id_) for ent in one.reference.ents] == [("A b", "y", "Q1")]
    assert not two.reference.ents
    assert [[s.text for s in p.reference.spans["other"]] for p in (one, two)] == [["b"], ["d"]]
    assert [token.tag_ for token in two.reference] == ["C", "D", "."]
    assert not one.predicted.ents


def test_relations_refer_to_ents_without_span_groups(nlp):
    doc = nlp.make_doc("a b c d e f")
    doc.ents = [Span(doc, 1, 4, label="x"), Span(doc, 4, 5, label="y")]
    set_supervision(doc, relations=[[0, 1, "r"], [1, 1, "s"]])
    report = Counter()
    parts = parts_of(Example(nlp.make_doc(doc.text), doc), max_length=3, spans_key="ents", report=report)
    assert [len(p.reference) for p in parts] == [1, 3, 2]
    assert [supervision(p.reference)["relations"] for p in parts] == [[], [], [[0, 0, "s"]]]
    assert report["relation across two parts (dropped)"] == 1


def test_randomize_moves_the_cuts_within_bounds(example):
    whole = example(["w"] * 1000)
    lengths = [
        tuple(
            len(p.reference) for p in parts_of(whole, max_length=100, randomize=True, rng=random.Random(seed))
        )
        for seed in (0, 0, 1)
    ]
    assert lengths[0] == lengths[1] != lengths[2]
    assert all(50 <= n <= 100 for n in lengths[0][:-1])
    assert len(set(lengths[0])) > 4


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("He left. She stayed.", ["He left.", "She stayed."]),
        ("He left... and came back! Really?", ["He left... and came back!", "Really?"]),
        ('"He left." She stayed.', ['"He left."', "She stayed."]),
        ("He left. (She stayed.) Then", ["He left.", "(She stayed.)", "Then"]),
        ("First line\nSecond line\nthird", ["First line", "Second line\nthird"]),
        ("版本 一 。 版本 二", ["版本 一 。", "版本 二"]),
        ("It costs 3.50 today. 5 left.", ["It costs 3.50 today.", "5 left."]),
    ],
)
def test_sentence_ends(nlp, text, expected):
    assert sentences(nlp.make_doc(text)) == expected


def test_sentence_options(nlp):
    doc = nlp.make_doc("one. two; three\nfour\n\nFive")
    assert sentences(doc) == ["one. two; three\nfour", "Five"]
    assert len(sentences(doc, check_capitalized=False)) == 4
    assert len(sentences(doc, check_capitalized=False, min_newline_count=2)) == 3
    assert len(sentences(doc, check_capitalized=False, min_newline_count=0)) == 2
    assert len(sentences(doc, punct_chars=[";"], check_capitalized=False, min_newline_count=0)) == 2


def test_a_long_document_with_many_entities(example):
    words = [f"w{i % 997}" if i % 20 else "." for i in range(200_000)]
    entities = [(i, i + 3, "x") for i in range(1, 199_000, 7)]
    whole = example(words, entities, relations=[[i, i + 1, "r"] for i in range(20_000)])
    parts = parts_of(whole, max_length=384)
    assert sum(len(gold_spans(p.reference)) for p in parts) == len(entities)
    assert max(len(p.reference) for p in parts) <= 384
    assert len(parts) < 540


def chunks(example, max_words, stride, report=None):
    return list(chunk_examples([example], Chunk(max_words, stride), report=report))


def triples(example):
    return [(span.start, span.end, span.label_) for span in gold_spans(example.reference)]


def test_stride_is_the_overlap(example):
    found = chunks(example([f"w{i}" for i in range(10)]), 4, 1)
    assert [[token.text for token in e.reference] for e in found] == [
        ["w0", "w1", "w2", "w3"],
        ["w3", "w4", "w5", "w6"],
        ["w6", "w7", "w8", "w9"],
    ]
    assert [[token.text for token in e.predicted] for e in found] == [
        [token.text for token in e.reference] for e in found
    ]
    assert [len(e.reference) for e in chunks(example(["a"] * 9), 4, 0)] == [4, 4, 1]
    assert [len(e.reference) for e in chunks(example(["a"] * 11), 4, 1)] == [4, 4, 4, 2]


def test_short_documents_are_not_chunked(example):
    short = example("a b c d", [(0, 2, "x")])
    assert chunks(short, 4, 2) == [short]


def test_entities_that_are_cut(example):
    report: Counter[str] = Counter()
    long = example("a b c d e f g h", [(3, 5, "two"), (0, 1, "one"), (2, 6, "four"), (5, 8, "three")])
    first, second, third = chunks(long, 4, 2, report)
    assert triples(first) == [(0, 1, "one")]
    assert triples(second) == [(1, 3, "two"), (0, 4, "four")]
    assert triples(third) == [(1, 4, "three")]
    assert report == {
        "documents cut into chunks": 1,
        "entity cut by a chunk (left out of that one, whole in another)": 3,
    }
    report.clear()
    chunks(long, 4, 1, report)
    assert report["entity whole in no chunk (left out)"] == 2


def test_relations_and_supervision(example):
    report: Counter[str] = Counter()
    long = example(
        "a b c d e f",
        [(0, 1, "x"), (2, 3, "y"), (5, 6, "z")],
        relations=[[1, 2, "r"], [0, 1, "s"], [0, 2, "t"]],
        ner_labels=["x", "y", "z"],
        id="d1",
        source="a.jsonl:3",
    )
    long.reference.ents = [Span(long.reference, 0, 1, label="v"), Span(long.reference, 2, 5, label="w")]
    first, second = chunks(long, 4, 2, report)
    assert triples(first) == [(0, 1, "x"), (2, 3, "y")]
    assert triples(second) == [(0, 1, "y"), (3, 4, "z")]
    assert supervision(first.reference)["relations"] == [[0, 1, "s"]]
    assert supervision(second.reference)["relations"] == [[0, 1, "r"]]
    assert report["relation whole in no chunk (left out)"] == 1
    for part in (first, second):
        assert supervision(part.reference)["ner_labels"] == ["x", "y", "z"]
        assert (supervision(part.reference)["id"], supervision(part.reference)["source"]) == (
            "d1",
            "a.jsonl:3",
        )
    assert [(e.start, e.end) for e in first.reference.ents] == [(0, 1)]
    assert [(e.start, e.end, e.label_) for e in second.reference.ents] == [(0, 3, "w")]


@given(
    st.integers(1, 40),
    st.integers(1, 12),
    st.integers(0, 11),
    st.lists(st.tuples(st.integers(0, 39), st.integers(1, 9)), max_size=8),
)
def test_nothing_is_lost_that_fits_into_the_overlap(example, length, max_words, stride, spans):
    stride = min(stride, max_words - 1)
    entities = {(start, min(length, start + width), "x") for start, width in spans if start < length}
    long = example([f"w{i}" for i in range(length)], sorted(entities))
    report: Counter[str] = Counter()
    found, offset, words = set(), 0, []
    parts = chunks(long, max_words, stride, report)
    for part in parts:
        words += [token.text for token in part.reference][stride if offset else 0 :]
        found |= {(start + offset, end + offset, label) for start, end, label in triples(part)}
        assert len(part.reference) <= max_words
        offset += max_words - stride
    assert words == [f"w{i}" for i in range(length)]
    if len(parts) > 1:
        assert all(len(part.reference) > stride for part in parts)  # the last one holds something new
    assert found <= entities
    assert {e for e in entities if e[1] - e[0] <= stride + 1} <= found
    assert report["entity whole in no chunk (left out)"] == len(entities - found)


@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({"max_words": 10, "stride": 10}, "t.chunk.stride"),
        ({"max_words": 0}, "t.chunk.max_words"),
        ({"stride": -1}, "t.chunk.stride"),
        ({"max_words": True}, "t.chunk.max_words"),
        ({"overlap": 3}, "t.chunk.overlap"),
        (200, "t.chunk"),
    ],
)
def test_wrong_options(options, where, fails):
    with fails(ConfigError, where):
        checked(Chunk, options, "t.chunk")


def test_defaults():
    assert checked(Chunk, {}, "t") == Chunk(max_words=200, stride=50)
    assert checked(Chunk, Chunk(7, 3), "t") == Chunk(7, 3)


def test_classes_records_and_links_of_parts(example):
    whole = example("Fox costs 5 . Owl costs 7 8 .", [])
    doc = whole.reference
    doc.cats = {"tone=good": 1.0}
    price, later = Span(doc, 2, 3), Span(doc, 6, 8)
    records = [
        Record("product", {"name": Span(doc, 0, 1), "price": [price, later], "state": "new"}),
        Record("product", {"name": Span(doc, 4, 5), "price": [later], "state": None}),
        Record("note", {"kind": "short"}),
    ]
    set_records(doc, records)
    set_supervision(doc, links=[[0, 1, 2, 3, "costs"], [4, 5, 6, 8, "costs"], [0, 1, 4, 5, "next"]])
    report = Counter()
    first, second = (part.reference for part in parts_of(whole, max_length=5, report=report))
    assert first.cats == second.cats == doc.cats
    assert supervision(first)["links"] == [[0, 1, 2, 3, "costs"]]
    assert supervision(second)["links"] == [[0, 1, 2, 4, "costs"]]
    fox, note = get_records(first)
    assert (fox.fields["name"].text, [span.text for span in fox.fields["price"]]) == ("Fox", ["5"])
    assert (fox.fields["state"], note.fields) == ("new", {"kind": "short"})
    (owl,) = get_records(second)
    assert (owl.fields["name"].start, owl.fields["price"][0].text) == (0, "7 8")
    assert report["value of a record in another part (left out)"] == 1
    assert report["relation across two parts (dropped)"] == 1
    # a value is not cut
    assert [len(part.reference) for part in parts_of(whole, max_length=3)] == [3, 1, 2, 3]


def test_parts_of_a_text_in_which_nobody_looked_for_entities_are_kept(example):
    whole = example("A b . C d .", [])
    set_supervision(whole.reference, entities_annotated=False)
    assert len(parts_of(whole, max_length=3)) == 2
