from __future__ import annotations

import math
import random
from collections import Counter
from itertools import combinations, islice, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gliner_pipe.data.batching import BatchSize, batches, cut_by_length, parse_size
from gliner_pipe.errors import ConfigError


@pytest.fixture(scope="session")
def sized(example):
    """Make examples of given lengths, each word of which says which example it is."""
    cache = {}

    def make(lengths):
        key = tuple(lengths)
        if key not in cache:
            cache[key] = [example([f"{i}"] * n) for i, n in enumerate(lengths)]
        return cache[key]

    return make


def lengths(batch):
    return [len(e.predicted) for e in batch]


def ids(batch):
    return [int(e.predicted[0].text) for e in batch]


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("2000 words", (2000, "words")),
        ("1 word", (1, "words")),
        ("48000 tokens", (48000, "words")),
        ("512 padded_words", (512, "padded_words")),
        ("4096 pieces", (4096, "pieces")),
        ("1 piece", (1, "pieces")),
        ("16 samples", (16, "samples")),
        ("16 docs", (16, "samples")),
        (" 200  SPANS ", (200, "spans")),
        ("8", (8, "samples")),
        (16, (16, "samples")),
        (BatchSize(3, "spans"), (3, "spans")),
    ],
)
def test_parse_size(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "words", "0 words", 0, -4, "2000 apples", "1.5 words", 2.0, True, None, "2k"]
)
def test_parse_size_refuses(text, fails):
    with fails(ConfigError, "batch_size"):
        parse_size(text)


@given(
    st.lists(st.integers(1, 30), max_size=30),
    st.sampled_from(["words", "padded_words", "samples"]),
    st.integers(1, 60),
    st.booleans(),
    st.sampled_from([0, 4, 1000]),
)
def test_every_example_once_and_no_batch_too_large(sized, sizes, unit, number, shuffle, window):
    rng = random.Random(1)
    pool = sized(sizes)
    result = list(batches(pool, f"{number} {unit}", shuffle=shuffle, rng=rng, sort_window=window))
    assert sorted(i for batch in result for i in ids(batch)) == list(range(len(sizes)))
    for batch in result:
        cost = {
            "words": sum(lengths(batch)),
            "padded_words": max(lengths(batch)) * len(batch),
            "samples": len(batch),
        }[unit]
        assert cost <= number or len(batch) == 1
    if not shuffle:
        assert [i for batch in result for i in ids(batch)] == list(range(len(sizes)))


def test_batches_are_filled(sized):
    result = list(batches(sized([5] * 20), "10 words", rng=random.Random(0)))
    assert [len(batch) for batch in result] == [2] * 10


def test_similar_lengths_come_together_in_random_order(sized):
    pool = sized([1 + i % 50 for i in range(500)])
    rng = random.Random(0)

    def padding(**options):
        result = list(batches(pool, "8 samples", rng=random.Random(0), **options))
        return sum(max(lengths(b)) * len(b) - sum(lengths(b)) for b in result)

    assert padding(sort_window=1000) < 0.2 * padding()
    first = [max(lengths(b)) for b in batches(pool, "8 samples", rng=rng, sort_window=1000)]
    assert first not in (sorted(first), sorted(first, reverse=True))


def test_noise_mixes_examples_between_passes(sized):
    pool = sized([10 + i for i in range(40)])
    both = list(islice(batches(pool, 4, rng=random.Random(0), sort_window=40, noise=0.3, endless=True), 20))
    one, two = ({frozenset(ids(b)) for b in part} for part in (both[:10], both[10:]))
    assert one != two
    still = list(islice(batches(pool, 4, rng=random.Random(0), sort_window=40, noise=0.0, endless=True), 20))
    one, two = ({frozenset(ids(b)) for b in part} for part in (still[:10], still[10:]))
    assert one == two


def test_endless_passes_are_complete(sized):
    pool = sized(range(1, 8))
    seen = Counter()
    for batch in islice(batches(pool, 1, rng=random.Random(0), endless=True), 21):
        seen.update(ids(batch))
    assert seen == dict.fromkeys(range(7), 3)


def test_the_same_rng_state_gives_the_same_batches(sized):
    pool = sized(range(1, 30))
    runs = [[ids(b) for b in batches(pool, "60 words", rng=random.Random(5))] for _ in range(2)]
    assert runs[0] == runs[1]
    assert runs[0] != [ids(b) for b in batches(pool, "60 words", rng=random.Random(6))]


def test_spans(example):
    pool = [example(f"{i} b c", [(0, 1, "x")] * n) for i, n in enumerate([2, 2, 1, 0, 0, 5])]
    result = list(batches(pool, "4 spans", shuffle=False))
    assert [ids(batch) for batch in result] == [[0, 1], [2, 3, 4], [5]]


def test_pieces(sized, fails):
    pool = sized([1, 2, 3, 4, 5])
    counted = lambda examples: [2 * len(e.predicted) for e in examples]  # noqa: E731
    result = list(batches(pool, "12 pieces", shuffle=False, count_pieces=counted))
    assert list(map(lengths, result)) == [[1, 2, 3], [4], [5]]
    with fails(ConfigError, "batch_size"):
        next(batches(pool, "12 pieces"))


def test_padded_words(sized):
    result = list(batches(sized([10, 1, 2, 3, 4]), "10 padded_words", shuffle=False))
    assert [ids(batch) for batch in result] == [[0], [1, 2, 3], [4]]


def test_no_examples():
    assert list(batches([], 4, endless=True)) == []


def test_a_batch_is_cut_where_padding_costs_more_than_a_part():
    sizes = [(1, 10), (1, 50), (1, 11), (1, 52)]
    assert cut_by_length(sizes, overhead=20) == [[1, 3], [0, 2]]
    assert cut_by_length(sizes, overhead=0.5) == [[3], [1], [2], [0]]
    assert cut_by_length(sizes, overhead=90) == [[0, 1, 2, 3]]  # in their order
    assert cut_by_length(sizes) == [[0, 1, 2, 3]]
    assert cut_by_length([]) == []


def test_a_part_holds_what_it_may_hold():
    sizes = [(1, 10), (1, 50), (1, 11), (3, 52)]
    assert cut_by_length(sizes, 60) == [[3], [1], [0, 2]]
    assert cut_by_length(sizes, 5) == [[3], [1], [2], [0]]


@given(
    st.lists(st.tuples(st.integers(1, 3), st.integers(1, 40)), max_size=12),
    st.one_of(st.none(), st.integers(1, 200)),
    st.one_of(st.just(math.inf), st.integers(0, 100)),
)
def test_no_text_is_lost_and_no_cut_of_the_sorted_texts_costs_less(sizes, most, overhead):
    parts = cut_by_length(sizes, most, overhead)
    assert sorted(text for part in parts for text in part) == list(range(len(sizes)))

    def cost(part):
        pieces = sum(sizes[text][0] for text in part) * max(sizes[text][1] for text in part)
        return math.inf if most is not None and pieces > most and len(part) > 1 else pieces

    def total(parts):
        return sum(map(cost, parts)) + len(parts) * min(overhead, 10**6)

    order = sorted(range(len(sizes)), key=lambda text: sizes[text][1])
    for n_cuts in range(min(len(order), 4)):
        for at in combinations(range(1, len(order)), n_cuts):
            bounds = [0, *at, len(order)]
            assert total(parts) <= total([order[a:b] for a, b in pairwise(bounds)])
