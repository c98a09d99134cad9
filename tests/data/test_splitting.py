from __future__ import annotations

import itertools
import random
from collections import Counter

import pytest
import spacy
from hypothesis import given
from hypothesis import strategies as st
from spacy.training import Example

from gliner_pipe.data.annotations import gold_spans, set_supervision, supervision
from gliner_pipe.data.splitting import sentence_starts, split_examples


def texts(doc):
    return [token.text for token in doc]


def pieces(example, **options):
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
def test_nothing_is_lost_but_relations_between_pieces(example, document, max_length, multi, randomize, seed):
    words, entities, starts, relations = document
    whole = example(words, entities, starts, relations=relations, ner_labels=["a", "b"], source="x:1")
    report = Counter()
    parts = pieces(
        whole,
        max_length=max_length,
        multi_sentence=multi,
        randomize=randomize,
        rng=random.Random(seed),
        report=report,
    )
    assert [text for part in parts for text in texts(part.reference)] == words
    assert [text for part in parts for text in texts(part.predicted)] == words
    found, tied, offset = [], [], 0
    for part in parts:
        spans = [(s.start + offset, s.end + offset, s.label_) for s in gold_spans(part.reference)]
        found += spans
        fields = supervision(part.reference)
        tied += [(spans[head], spans[tail], label) for head, tail, label in fields["relations"]]
        assert fields["ner_labels"] == ["a", "b"]
        assert fields["source"] == "x:1"
        offset += len(part.reference)
    assert sorted(found) == sorted(entities)
    expected = [(entities[head], entities[tail], label) for head, tail, label in relations]
    assert len(tied) + report["relation between two pieces (dropped)"] == len(expected)
    assert not Counter(tied) - Counter(expected)
    too_long = [part for part in parts if max_length and len(part.reference) > max_length]
    assert len(too_long) == report["entity longer than max_length (kept whole)"] or (
        len(too_long) <= 1 and len(parts) == 1
    )
    for part in too_long:
        covered = {i for s in gold_spans(part.reference) for i in range(s.start + 1, s.end)}
        assert covered >= set(range(1, max_length + 1))


def test_short_documents_stay_the_same_object(example):
    whole = example("A b . C d .")
    assert pieces(whole, max_length=6)[0] is whole
    assert pieces(whole)[0] is whole


def test_sentences_are_packed(example):
    whole = example("A b . C d . E f . G h .")
    assert [" ".join(texts(p.reference)) for p in pieces(whole, max_length=7)] == [
        "A b . C d .",
        "E f . G h .",
    ]
    assert [len(p.reference) for p in pieces(whole, max_length=6)] == [6, 6]
    assert [len(p.reference) for p in pieces(whole, max_length=9)] == [9, 3]
    assert [len(p.reference) for p in pieces(whole, max_length=7, multi_sentence=False)] == [3, 3, 3, 3]
    assert [len(p.reference) for p in pieces(whole, multi_sentence=False)] == [3, 3, 3, 3]


def test_a_long_sentence_is_cut_before_an_entity(example):
    whole = example("a b c d e f g h", [(3, 6, "x")])
    report = Counter()
    assert [len(p.reference) for p in pieces(whole, max_length=4, report=report)] == [3, 4, 1]
    assert report == {"document cut into pieces": 1}


def test_the_rest_of_a_long_sentence_is_filled_up(example):
    whole = example("a b c d e . F g . H i .")
    assert [texts(p.reference)[0] for p in pieces(whole, max_length=4)] == ["a", "e", "F", "H"]
    assert [texts(p.reference)[0] for p in pieces(whole, max_length=5)] == ["a", ".", "H"]


def test_an_entity_longer_than_a_piece_stays_whole(example):
    whole = example("a b c d e f g h", [(1, 7, "x")])
    report = Counter()
    assert [len(p.reference) for p in pieces(whole, max_length=3, report=report)] == [1, 6, 1]
    assert report["entity longer than max_length (kept whole)"] == 1


def test_a_sentence_border_inside_an_entity_is_no_cut(example):
    whole = example("See Yahoo ! Inc and go . Bye now .", [(1, 4, "company")])
    assert [len(p.reference) for p in pieces(whole, max_length=7)] == [7, 3]


def test_given_sentences_are_used(example):
    whole = example("a . B . c d", starts=[0, 4])
    first, second = pieces(whole, max_length=4)
    assert texts(first.reference) == ["a", ".", "B", "."]
    assert [token.is_sent_start for token in second.reference] == [True, False]


def test_ents_and_other_groups_and_tags_survive(nlp, example):
    whole = example("A b . C d .", [(3, 5, "x")])
    doc = whole.reference
    doc.ents = [spacy.tokens.Span(doc, 0, 2, label="y", kb_id="Q1")]
    doc.spans["other"] = [doc[1:2], doc[4:5]]
    for token in doc:
        token.tag_ = token.text.upper()
    one, two = pieces(Example(whole.predicted, doc), max_length=3)
    assert [(ent.text, ent.label_, ent.kb_id_) for ent in one.reference.ents] == [("A b", "y", "Q1")]
    assert not two.reference.ents
    assert [[s.text for s in p.reference.spans["other"]] for p in (one, two)] == [["b"], ["d"]]
    assert [token.tag_ for token in two.reference] == ["C", "D", "."]
    assert not one.predicted.ents


def test_ents_alone_are_spared_and_counted_in(nlp):
    doc = nlp.make_doc("a b c d e f")
    doc.ents = [spacy.tokens.Span(doc, 1, 4, label="x"), spacy.tokens.Span(doc, 4, 5, label="y")]
    set_supervision(doc, relations=[[0, 1, "r"], [1, 1, "s"]])
    report = Counter()
    parts = pieces(Example(nlp.make_doc(doc.text), doc), max_length=3, spans_key="ents", report=report)
    assert [len(p.reference) for p in parts] == [1, 3, 2]
    assert [supervision(p.reference)["relations"] for p in parts] == [[], [], [[0, 0, "s"]]]
    assert report["relation between two pieces (dropped)"] == 1


def test_randomize_moves_the_cuts_within_bounds(example):
    whole = example(["w"] * 1000)
    lengths = [
        tuple(
            len(p.reference) for p in pieces(whole, max_length=100, randomize=True, rng=random.Random(seed))
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
    parts = pieces(whole, max_length=384)
    assert sum(len(gold_spans(p.reference)) for p in parts) == len(entities)
    assert max(len(p.reference) for p in parts) <= 384
    assert len(parts) < 540
