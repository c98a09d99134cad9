"""Relations that say the same are joined, as in GLiNER2.5."""

import random

import pytest

from gliner_pipe.modeling.decoders.span import Candidate
from gliner_pipe.modeling.instances import Instance
from gliner_pipe.modeling.mentions import joined

WORDS = [
    "Ada",
    "Lovelace",
    "met",
    "Mr",
    "Babbage",
    "in",
    "London",
    ".",
    "mr",
    "Babbage",
    "knew",
    "ada",
    "lovelace",
    "of",
    "London",
    "town",
]
TEXT = " ".join(WORDS)
STARTS = [sum(len(word) + 1 for word in WORDS[:at]) for at in range(len(WORDS))]


def offsets(value):
    return STARTS[value.start], STARTS[value.end] + len(WORDS[value.end])


def relation(head, tail, score, task=0):
    return Instance(task, ((Candidate(*head, 0, score),), (Candidate(*tail, 1, score),)))


def named(instances):
    return [(*head[:2], *tail[:2], head.score) for _, ((head,), (tail,)) in instances]


@pytest.mark.parametrize("seed", range(40))
def test_relations_equal_those_of_gliner2(seed):
    engine = pytest.importorskip("gliner2.models.boundary.engine")
    numbers = random.Random(seed)

    def span():
        start = numbers.randrange(len(WORDS) - 2)
        return start, start + numbers.randrange(3)

    ends = [span() for _ in range(6)]
    found = {(numbers.choice(ends), numbers.choice(ends)) for _ in range(numbers.randrange(1, 25))}
    ours = [relation(head, tail, numbers.random()) for head, tail in sorted(found)]
    edges = []
    for one in ours:
        places = [offsets(value) for (value,) in one.values]
        sides = [(TEXT[start:end], start, end, 0.0) for start, end in places]
        edges.append({"score": one.values[0][0].score, "head": sides[0], "tail": sides[1]})
    kept = engine.BoundaryExtractor._deduplicate_relation_edges(edges)
    expected = [(*edge["head"][1:3], *edge["tail"][1:3], edge["score"]) for edge in kept]
    found = joined(ours, [0], offsets, TEXT)
    assert [(*offsets(head), *offsets(tail), head.score) for _, ((head,), (tail,)) in found] == expected


def test_a_part_of_an_end_becomes_the_whole():
    found = joined([relation((0, 0), (4, 4), 0.5), relation((0, 1), (3, 4), 0.4)], [0], offsets, TEXT)
    assert named(found) == [(0, 1, 3, 4, 0.5)]


def test_of_the_same_words_those_that_stand_closest_stay():
    found = joined([relation((0, 1), (8, 9), 0.9), relation((0, 1), (3, 4), 0.4)], [0], offsets, TEXT)
    assert named(found) == [(0, 1, 3, 4, 0.4)]


def test_kinds_of_relations_and_records_are_left_apart():
    record = Instance(1, ((), ()))
    both = [relation((0, 1), (3, 4), 0.5, 2), record, relation((0, 0), (3, 4), 0.5, 0)]
    found = joined(both, [0, 2], offsets, TEXT)
    assert found == [both[2], record, both[0]]
