"""Chunks that overlap."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from spacy.tokens import Span

from gliner_pipe.data.annotations import gold_spans, supervision
from gliner_pipe.data.splitting import Chunk, chunk_examples
from gliner_pipe.errors import ConfigError


def chunks(example, max_words, stride, report=None):
    return list(chunk_examples([example], Chunk(max_words, stride), report=report))


def triples(example):
    return [(span.start, span.end, span.label_) for span in gold_spans(example.reference)]


def test_stride_is_what_two_chunks_share(example):
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


def test_short_documents_stay_what_they_are(example):
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
        "document cut into chunks": 1,
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
    ("options", "message"),
    [
        ({"max_words": 10, "stride": 10}, r"\[t.chunk.stride\] is 10, max_words is 10; allowed: fewer words"),
        ({"max_words": 0}, r"\[t.chunk.max_words\] is 0"),
        ({"stride": -1}, r"\[t.chunk.stride\] is -1"),
        ({"max_words": True}, r"\[t.chunk.max_words\] is True"),
        ({"overlap": 3}, r"\[t.chunk.overlap\] is no option of chunks; allowed: max_words, stride"),
        (200, r"\[t.chunk\] is 200; allowed: max_words and stride"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ConfigError, match=message):
        Chunk.of(options, "t.chunk")


def test_defaults():
    assert Chunk.of({}, "t") == Chunk(max_words=200, stride=50)
    assert Chunk.of(Chunk(7, 3), "t") == Chunk(7, 3)
