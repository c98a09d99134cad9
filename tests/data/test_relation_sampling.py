from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gliner_pipe.data.label_sampling import LabelSampling
from gliner_pipe.data.relation_sampling import (
    PairTarget,
    RelationSampling,
    pair_targets,
    sample_pairs,
    sample_relation_labels,
    vary,
)
from gliner_pipe.errors import ConfigError
from gliner_pipe.util.options import checked

ENTITIES = [(0, 1, "person"), (3, 3, "city"), (5, 6, "company"), (8, 8, "person")]
RELATIONS = [(0, 2, "works for"), (2, 1, "based in"), (3, 2, "works for"), (0, 3, "knows")]
SPANS = [entity[:2] for entity in ENTITIES]


def place_entities(entities, candidates):
    """Return the distinct spans with a candidate label, sorted, and the index of each entity among them, or None."""
    spans = sorted({(start, end) for start, end, label in entities if label in candidates})
    return spans, [
        spans.index((start, end)) if label in candidates else None for start, end, label in entities
    ]


@st.composite
def examples(draw):
    n = draw(st.integers(0, 6))
    labels = draw(st.lists(st.sampled_from(["a", "b", "c", "other"]), min_size=n, max_size=n))
    end = st.integers(0, max(n - 1, 0))
    relations = draw(st.lists(st.tuples(end, end, st.sampled_from("xyz")), max_size=8)) if n else []
    starts = draw(st.lists(st.integers(0, 4), min_size=n, max_size=n))
    return [(start, start + 1, label) for start, label in zip(starts, labels, strict=True)], relations


@given(examples(), st.integers(0, 50), st.sampled_from([1.0, 2.0, 10.0]), st.booleans())
def test_an_example_that_is_not_augmented_keeps_its_relations(example, seed, ratio, turned):
    entities, relations = example
    rng = random.Random(seed)
    sampling = RelationSampling(vary=0.8, pair_ratio=ratio, reversed_pairs=turned)
    varied = vary([label for *_, label in entities], relations, sampling, rng)
    asked = sorted({label for label in varied.labels if label is not None} - {"c"})
    spans, places = place_entities(
        [(*e[:2], label) for e, label in zip(entities, varied.labels, strict=True)], asked
    )
    rel_asked = [label for label in "zyx" if label not in varied.dropped_relations][:2]
    targets = pair_targets(relations, places, rel_asked, sampling, rng)

    true = {}
    for head, tail, label in relations:
        true.setdefault((entities[head][:2], entities[tail][:2]), set()).add(label)
    kept = {(spans[t.head], spans[t.tail], rel_asked[column]) for t in targets for column in t.relations}
    for head, tail, label in kept:
        assert label in true[head, tail]
    expected = {
        (entities[h][:2], entities[t][:2], label)
        for h, t, label in relations
        if label in rel_asked and None not in (places[h], places[t]) and places[h] != places[t]
    }
    assert kept == expected
    pairs = [(t.head, t.tail) for t in targets]
    assert pairs == sorted(set(pairs))
    assert all(0 <= end < len(spans) for pair in pairs for end in pair)
    assert all(head != tail for head, tail in pairs)
    for target in targets:
        if not target.relations:
            related = {(places[h], places[t]) for h, t, _ in relations}
            assert (target.head, target.tail) not in related
    if len(spans) < 2:
        assert targets == []


@given(examples(), st.integers(0, 50))
def test_augmented_examples(example, seed):
    entities, relations = example
    labels = [label for *_, label in entities]
    varied = vary(labels, relations, RelationSampling(vary=1.0), random.Random(seed))
    assert len(varied.labels) == len(labels)
    assert "other" not in varied.dropped_labels
    assert not varied.dropped_labels & {label for label in varied.labels if label != "other"}
    assert all(new in (old, "other", None) for old, new in zip(labels, varied.labels, strict=True))
    assert not labels or any(old == new for old, new in zip(labels, varied.labels, strict=True))
    expected = [
        item
        for item in relations
        if item[2] not in varied.dropped_relations
        and varied.labels[item[0]] is not None
        and varied.labels[item[1]] is not None
    ]
    assert varied.relations == expected
    for position, (old, new) in enumerate(zip(labels, varied.labels, strict=True)):
        if new == "other" != old:
            assert any(position in item[:2] for item in relations if item[2] not in varied.dropped_relations)


def test_augmentation():
    labels = [label for *_, label in ENTITIES]
    settings = {"vary": 1.0, "drop_entities": (1.0, 1.0), "drop_relations": (0.0, 0.0)}
    rng = random.Random(0)
    without = vary(labels, RELATIONS, RelationSampling(**settings, other=0.0), rng)
    assert len(without.dropped_labels) == 2
    assert [label is None for label in without.labels] == [
        label in without.dropped_labels for label in labels
    ]
    instead = vary([*labels, "city"], RELATIONS, RelationSampling(**settings, other=1.0), rng)
    assert instead.relations == RELATIONS
    assert instead.labels.count("other") >= 2
    lone = "city" in instead.dropped_labels
    assert instead.labels[4] == (None if lone else "city")
    none = vary(labels, RELATIONS, RelationSampling(vary=1.0, drop_relations=(1.0, 1.0)), rng)
    assert none.relations == []
    assert none.dropped_relations == {"works for", "based in", "knows"}
    same = vary(labels, RELATIONS, RelationSampling(vary=0.0), rng)
    assert (same.labels, same.relations) == (labels, RELATIONS)
    assert not same.dropped_labels | same.dropped_relations
    assert vary(labels, None, RelationSampling(vary=1.0), rng).relations is None
    assert vary([], [], RelationSampling(vary=1.0), rng).labels == []


def test_the_share_of_augmented_examples():
    rng = random.Random(0)
    sampling = RelationSampling(vary=0.3, drop_relations=(1.0, 1.0))
    varied = [bool(vary(["a", "b"], [(0, 1, "x")], sampling, rng).dropped_relations) for _ in range(2000)]
    assert sum(varied) / 2000 == pytest.approx(0.3, abs=0.04)


def test_relations_move_with_their_entities():
    spans, places = place_entities(list(reversed(ENTITIES)), {"person", "company"})
    assert spans == [(0, 1), (5, 6), (8, 8)]
    assert places == [2, 1, None, 0]
    relations = [(3 - head, 3 - tail, label) for head, tail, label in RELATIONS]
    report = Counter()
    sampling = RelationSampling(pair_ratio=1.0, reversed_pairs=False)
    targets = pair_targets(relations, places, ["knows", "works for"], sampling, random.Random(0), report)
    assert [t for t in targets if t.relations] == [
        PairTarget(0, 1, (1,)),
        PairTarget(0, 2, (0,)),
        PairTarget(2, 1, (1,)),
    ]
    assert report == {"relation of an entity whose label is no candidate (left out)": 1}


def test_two_labels_of_one_span_are_one_entity():
    entities = [(0, 0, "a"), (0, 0, "b"), (2, 2, "a"), (2, 3, "a")]
    spans, places = place_entities(entities, {"a", "b"})
    assert spans == [(0, 0), (2, 2), (2, 3)]
    assert places == [0, 0, 1, 2]
    report = Counter()
    relations = [(1, 2, "x"), (0, 2, "x"), (0, 3, "y"), (0, 1, "x")]
    targets = pair_targets(relations, places, ["x", "y"], RelationSampling(), random.Random(0), report)
    assert [t for t in targets if t.relations] == [PairTarget(0, 1, (0,)), PairTarget(0, 2, (1,))]
    assert report == {"relation of an entity with itself (left out)": 1}


def test_a_pair_with_several_relations_occurs_once():
    targets = pair_targets(
        [(0, 1, "y"), (0, 1, "x"), (0, 1, "y")], [0, 1], ["x", "y"], RelationSampling(), random.Random(0)
    )
    assert targets == [PairTarget(0, 1, (0, 1)), PairTarget(1, 0, ())]


@pytest.mark.parametrize("places", [[], [0], [None], [None, 0], [0, 0]])
def test_no_pairs_with_fewer_than_two_entities(places):
    assert pair_targets([], places, ["x"], RelationSampling(), random.Random(0)) == []
    related = [(0, len(places) - 1, "x")] if places else []
    assert pair_targets(related, places, ["x"], RelationSampling(), random.Random(0)) == []


def test_no_pairs_without_annotated_relations():
    assert pair_targets(None, [0, 1, 2], ["x"], RelationSampling(), random.Random(0)) == []
    assert len(pair_targets([], [0, 1, 2], ["x"], RelationSampling(), random.Random(0))) == 1


def test_relations_without_candidate_label_are_no_negatives():
    relations = [(0, 1, "x"), (1, 0, "hidden")]
    for seed in range(50):
        targets = pair_targets(relations, [0, 1], ["x"], RelationSampling(), random.Random(seed))
        assert targets == [PairTarget(0, 1, (0,))]


@given(st.integers(0, 7), st.floats(1, 10), st.integers(0, 30), st.booleans(), st.data())
def test_negative_pairs(n, ratio, seed, turned, data):
    every = [(i, j) for i in range(n) for j in range(n) if i != j]
    known = data.draw(st.lists(st.sampled_from(every), unique=True)) if every else []
    positives, unknown = known[::2], known[1::2]
    sampling = RelationSampling(pair_ratio=ratio, reversed_pairs=turned)
    found = sample_pairs(n, positives, sampling, random.Random(seed), unknown)
    assert len(set(found)) == len(found)
    assert set(found) <= set(every) - set(known)
    reverse = {(j, i) for i, j in positives} - set(known)
    if turned:
        assert reverse <= set(found)
    target = max(1, int(len(positives) * random.Random(seed).uniform(1, ratio)))
    free = len(every) - len(known)
    assert len(found) == max(min(target, free), len(reverse) if turned else 0)


def test_random_pairs_are_drawn_evenly():
    sampling = RelationSampling(pair_ratio=1.0, reversed_pairs=False)
    rng = random.Random(0)
    drawn = Counter(pair for _ in range(6000) for pair in sample_pairs(4, [(0, 1)], sampling, rng, [(2, 0)]))
    assert len(drawn) == 10
    assert all(count == pytest.approx(600, abs=100) for count in drawn.values())


def test_many_entities_are_fast():
    assert len(sample_pairs(100_000, [(0, 1)], RelationSampling(pair_ratio=9.0), random.Random(0))) >= 1


def sample(gold, supervision=None, labels=(), seed=0, dropped=None, **settings):
    return sample_relation_labels(
        gold,
        supervision or [{} for _ in gold],
        labels,
        LabelSampling(**settings),
        random.Random(seed),
        dropped=dropped,
    )


def test_labels_of_relations():
    gold = [[(0, 1, "x"), (1, 0, "x")], [(0, 1, "y")], []]
    for seed in range(20):
        labels = sample(gold, seed=seed)
        assert set(labels[0]) == {"x", "y"} == set(labels[1])
        assert labels[2] and set(labels[2]) <= {"x", "y"}
    assert sample(gold, negative_ratio=0)[:2] == [["x"], ["y"]]
    assert sample(gold, labels=["y", "x", "z"], all_labels=True, shuffle=False) == [["y", "x", "z"]] * 3


def test_annotated_relation_label_sets():
    gold = [[(0, 1, "x")], [(0, 1, "y")], []]
    stated = [
        {"rel_labels": ["x", "z"]},
        {"rel_negatives": ["q"], "ner_labels": ["person"]},
        {"rel_labels": ["z"]},
    ]
    assert [set(labels) for labels in sample(gold, stated)] == [{"x", "z"}, {"y", "q"}, {"z"}]


def test_examples_without_annotated_relations_have_no_candidates():
    assert sample([None, [(0, 1, "x")], None], labels=["x", "y"], negatives_from="labels")[::2] == [[], []]
    assert sample([None, None], [{"rel_labels": ["x"]}, {}]) == [[], []]


@pytest.mark.parametrize("settings", [{}, {"all_labels": True}, {"negatives_from": "none"}])
def test_no_relation_label_without_known_ones(settings):
    assert sample([[], []], **settings) == [[], []]


def test_annotated_label_sets_are_the_only_candidates():
    assert sample([[], []], [{"rel_labels": ["x"]}, {}]) == [["x"], []]


def test_dropped_relation_labels_are_no_candidates():
    gold = [[(0, 1, "x"), (0, 1, "y")], [(0, 1, "z")]]
    for seed in range(20):
        labels = sample(gold, labels=["x", "y", "z"], seed=seed, dropped=[{"y", "z"}, ()])
        assert labels[0] == ["x"]
        assert "z" in labels[1]


def test_the_same_state_gives_the_same():
    gold = [[(0, 1, label) for label in "abcdef"], [(0, 1, label) for label in "ghij"]]
    assert sample(gold, seed=3) == sample(gold, seed=3)
    assert sample(gold, seed=3) != sample(gold, seed=4)
    sampling = RelationSampling(vary=1.0)
    for seed in range(3):
        one, other = (vary(list("abcd"), gold[0], sampling, random.Random(seed)) for _ in range(2))
        assert one == other


@pytest.mark.parametrize(
    "settings",
    [
        {"pair_ratio": 0.5},
        {"pair_ratio": float("nan")},
        {"vary": 1.5},
        {"other": -1},
        {"drop_entities": (0.5, 0.2)},
        {"drop_relations": (0.0, 2.0)},
        {"drop_relations": (0.0,)},
        {"other_label": ""},
    ],
)
def test_wrong_settings(settings, fails):
    with fails(ConfigError, f"relation_sampling.{next(iter(settings))}"):
        checked(RelationSampling, settings, "relation_sampling")
