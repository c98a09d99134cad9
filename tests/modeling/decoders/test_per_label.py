"""The decoder ``per_label``: the overlap policies of GLiNER2.5, label by label."""

import random

import pytest

from gliner_pipe.modeling.decoders.per_label import PerLabel
from gliner_pipe.modeling.decoders.span import Candidate, SpanDecoder

FLAT = {"flat": True, "multi_label": False}


def drawn(seed, n_labels=1):
    numbers = random.Random(seed)
    spans = set()
    for _ in range(numbers.randint(0, 14)):
        start = numbers.randrange(12)
        spans.add((start, start + numbers.choice([0, 0, 1, 2, 5]), numbers.randrange(n_labels)))
    return [Candidate(*span, numbers.random()) for span in sorted(spans)]


@pytest.mark.parametrize("policy", ["flat", "nested", "longest"])
@pytest.mark.parametrize("seed", range(40))
def test_policies_equal_those_of_gliner2(policy, seed):
    overlap = pytest.importorskip("gliner2.inference.overlap")
    candidates = drawn(seed, 2)
    expected = []
    for label in range(2):
        some = [one for one in candidates if one.label == label]
        places = {
            "score": lambda one: one.score,
            "start": lambda one: one.start,
            "end": lambda one: one.end + 1,
        }
        expected += overlap.resolve_overlaps(some, policy, **places)
    assert PerLabel(policy).decode(candidates, **FLAT) == sorted(expected)


def test_several_short_spans_may_beat_a_better_long_one():
    long, first, second = Candidate(0, 3, 0, 0.9), Candidate(0, 0, 0, 0.5), Candidate(2, 3, 0, 0.5)
    assert PerLabel().decode([first, long, second], **FLAT) == [first, second]
    assert PerLabel().decode([long, first], **FLAT) == [long]
    assert PerLabel().decode([], **FLAT) == []


@pytest.mark.parametrize(
    "settings",
    [
        {"flat": False, "multi_label": True},
        {"flat": True, "multi_label": False, "prefer": "longest"},
        {"flat": True, "multi_label": False, "partial_overlaps": True},
    ],
)
@pytest.mark.parametrize("seed", range(5))
def test_settings_of_the_component_take_precedence(settings, seed):
    candidates = drawn(seed)
    assert PerLabel().decode(candidates, **settings) == sorted(SpanDecoder().decode(candidates, **settings))
