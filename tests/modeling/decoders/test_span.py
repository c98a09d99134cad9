import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gliner_pipe.modeling.decoders.span import Candidate, SpanDecoder


@st.composite
def candidates(draw):
    keys = draw(
        st.lists(
            st.tuples(st.integers(0, 12), st.integers(0, 5), st.integers(0, 2)),
            unique=True,
            min_size=0,
            max_size=40,
        )
    )
    found = [
        Candidate(start, start + width, label, draw(st.sampled_from([0.5, 0.6, 0.7, 0.8, 0.9])))
        for start, width, label in keys
    ]
    return sorted(found, key=lambda c: c[:3])


def all_pairs(found, flat, multi_label):
    """Each candidate against all kept ones, the rule as it is written."""

    def conflict(a, b):
        if a[:2] == b[:2]:
            return not multi_label
        apart = a.end < b.start or b.end < a.start
        if flat:
            return not apart
        nested = (a.start <= b.start and b.end <= a.end) or (b.start <= a.start and a.end <= b.end)
        return not (apart or nested)

    kept = []
    for candidate in sorted(found, key=lambda c: -c.score):
        if not any(conflict(candidate, other) for other in kept):
            kept.append(candidate)
    return sorted(kept, key=lambda c: c.start)


@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize("multi_label", [True, False])
@given(found=candidates())
@settings(max_examples=100, deadline=None)
def test_same_as_all_pairs(flat, multi_label, found):
    assert SpanDecoder().decode(found, flat=flat, multi_label=multi_label) == all_pairs(
        found, flat, multi_label
    )


@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize("multi_label", [True, False])
@given(found=candidates())
@settings(max_examples=100, deadline=None)
def test_same_as_gliner(flat, multi_label, found):
    decoding = pytest.importorskip("gliner.decoding.decoder")
    utils = pytest.importorskip("gliner.decoding.utils")
    del utils
    peer = decoding.SpanDecoder(config=None)
    spans = [decoding.Span(start=c.start, end=c.end, entity_type=str(c.label), score=c.score) for c in found]
    theirs = peer.greedy_search(spans, flat_ner=flat, multi_label=multi_label)
    ours = SpanDecoder().decode(found, flat=flat, multi_label=multi_label)
    assert [(s.start, s.end, int(s.entity_type), s.score) for s in theirs] == [tuple(c) for c in ours]


class Counted(int):
    """A number of a word that counts how often any such is compared."""

    times = 0

    def __gt__(self, other):
        Counted.times += 1
        return int(self) > int(other)

    def __lt__(self, other):
        Counted.times += 1
        return int(self) < int(other)


@pytest.mark.parametrize("flat", [True, False])
def test_comparisons_grow_with_n_log_n_whatever_the_width(flat):
    def comparisons(n_words, widest):
        rng = random.Random(0)
        places = {(rng.randrange(n_words - widest), rng.randrange(widest)) for _ in range(4 * n_words)}
        found = [Candidate(at, Counted(at + width), 0, rng.random()) for at, width in sorted(places)]
        Counted.times = 0
        SpanDecoder().decode(found, flat=flat, multi_label=False)
        return Counted.times / len(found)

    few = comparisons(1000, 10)
    assert (
        comparisons(8000, 10) < few + 3
    )  # a level of the tree for each doubling, and only where one is kept
    assert comparisons(2000, 1000) < few + 2 * 10  # on the way up and down at most two a level


def test_many_candidates_are_fast():
    found = [Candidate(i, i + k, 0, (i * 7 + k) % 97 / 97) for i in range(20000) for k in range(3)]
    for flat in (True, False):
        kept = SpanDecoder().decode(found, flat=flat, multi_label=False)
        assert len(kept) > 5000
