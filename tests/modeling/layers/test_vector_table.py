"""Vectors by name: each is computed once, costs one row, and is removed when it is out of use."""

from __future__ import annotations

import copy
import pickle
import threading
from collections import Counter

import pytest
import torch
from allocations import Allocations

from gliner_pipe.modeling.layers.vector_table import LONG, VectorTable


class Made:
    """Computes vectors and counts how often."""

    def __init__(self):
        self.counts = Counter()

    def __call__(self, keys):
        self.counts.update(keys)
        return torch.stack([self.vector(key) for key in keys])

    @staticmethod
    def vector(key):
        return torch.full((3,), float(key)) / 7


def expected(keys):
    return torch.stack([Made.vector(key) for key in keys])


@pytest.fixture
def made():
    return Made()


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
def test_the_vectors_are_those_computed(made, mode):
    table = VectorTable()
    with mode():
        for keys in ([0, 1, 2], [1, 2], [2, 0], [3, 3, 1], [4], list(range(200)), [199, 3]):
            assert table.get(keys, made).equal(expected(keys))
    with torch.no_grad():  # rows written in one mode are read and extended in another
        assert table.get([500, 3], made).equal(expected([500, 3]))
    assert set(made.counts.values()) == {1}


def test_a_stream_of_new_keys_is_forgotten(made):
    table = VectorTable(100)
    for number in range(3000):
        table.get([2 * number, 2 * number + 1], made)
        assert len(table) <= 200
    assert set(made.counts.values()) == {1}


def test_sets_in_use_are_held_however_large(made):
    table, own = VectorTable(100), list(range(1000))
    for number in range(1000, 3000):
        table.get([number], made)
        if number % 50 == 0:
            assert table.get(own, made).equal(expected(own))
    assert {made.counts[key] for key in own} == {1}
    assert len(table) <= 1000 + 200


def test_pinned_keys_are_held_though_out_of_use(made):
    table, loaded = VectorTable(100), list(range(1000))
    table.get(loaded, made, pin=True)
    for number in range(1000, 3000):
        table.get([number], made)
    assert table.get(loaded[::-1], made).equal(expected(loaded[::-1]))
    assert {made.counts[key] for key in loaded} == {1}


def test_a_new_key_beside_many_copies_none_of_them(made, monkeypatch):
    """The table is written anew once for each `most` new keys, and sets that follow each other are views of it."""
    table, written = VectorTable(500), []
    empty = torch.empty

    def counted(*size, **options):
        written.append(size[0])
        return empty(*size, **options)

    monkeypatch.setattr(torch, "empty", counted)
    many = list(range(2000))
    first = table.get(many, made)
    for number in range(2000, 6000):
        table.get([number], made)
        if number % 100 == 0:
            table.get(many, made)
    assert len(written) <= 2 + 2 * (4000 // 500)
    assert first.equal(expected(range(2000)))
    again = table.get([5990, 5991, 5992], made)
    assert again.data_ptr() == table.get([5990, 5991], made).data_ptr()


def test_a_new_key_in_a_long_list_copies_none_of_the_others(made):
    counts = []
    for n in (1000, 4000):
        table, many = VectorTable(), range(n)
        for number in range(n, n + 2):
            table.get((*many, number), made)
        with Allocations() as allocated:
            for number in range(n + 2, n + 12):
                last = table.get((*many, number), made)[-1].tolist()
                assert last == Made.vector(number).tolist()
        counts.append(allocated.numbers)
        assert table.get((*many, n), made).equal(expected([*many, n]))
        assert table.get((*many[:500], n, *many[501:-3]), made).equal(
            expected([*many[:500], n, *many[501:-3]])
        )
    assert counts[0] == counts[1] < 10 * 3 * 10


def test_vectors_in_use_are_not_overwritten(made):
    table, many = VectorTable(), range(2 * LONG)
    table.get((*many, 9000), made)
    tail = table.get((*many, 9001), made)[1:].view(-1)
    others = [table.get((*many, number), made) for number in range(9002, 9006)]
    shorter, longer = table.get(many[:-1], made), table.get((*many, 9001, 9006), made)
    assert tail.equal(expected([*many[1:], 9001]).view(-1))
    for number, other in enumerate(others, 9002):
        assert other.equal(expected([*many, number]))
    assert shorter.equal(expected(many[:-1])) and longer.equal(expected([*many, 9001, 9006]))


def test_other_weights_are_other_vectors(made):
    table, weight = VectorTable(), torch.ones(1)
    table.get([1], made, [weight], pin=True)
    table.get([1], made, [weight])
    assert made.counts[1] == 1
    weight.mul_(2)
    table.get([1], made, [weight])
    assert made.counts[1] == 2
    assert table.items([torch.ones(1)]) == ([], None)
    assert table.items([weight])[0] == list(table) == [1]


def test_what_is_forgotten_while_it_is_made_does_not_come_back(made):
    table = VectorTable()

    def make(keys):
        table.forget()
        return made(keys)

    assert table.get([1], make).equal(expected([1]))
    assert len(table) == 0


def test_a_copy_is_empty(made):
    table = VectorTable(7)
    table.get([1], made)
    for twin in (copy.deepcopy(table), pickle.loads(pickle.dumps(table))):
        assert (len(twin), twin.most) == (0, 7)
        assert twin.get([1], made).equal(expected([1]))


@pytest.mark.parametrize("length", [40, 2 * LONG])
def test_threads_share_a_table(made, length):
    table, shared, wrong = VectorTable(64), list(range(LONG * 3)), []

    def run(number):
        for at in range(150):
            keys = [*shared[at % 3 : at % 3 + length], 1000 * (number + 1) + at, at]
            if not table.get(keys, made).equal(expected(keys)):
                wrong.append(keys)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and len(table) <= 3 * LONG + 4 * 64
