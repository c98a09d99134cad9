"""Rules of relations, and the choice of entities and relations that obey them."""

from __future__ import annotations

import random
from graphlib import TopologicalSorter
from itertools import combinations, product
from typing import Any

import pytest

from gliner_pipe.errors import ConfigError
from gliner_pipe.pipeline.gliner.relation_rules import Edge, Node, best_graph, overlaps
from gliner_pipe.pipeline.labels import parse_relations

FLAT = overlaps(flat_ner=True, multi_label=False, partial_overlaps=False)


def rel(label: str = "r", **rules: Any) -> dict[str, Any]:
    return {"label": label, "allow_self": False, **rules}


def chosen(nodes: Any, edges: Any, *rules: dict[str, Any], fixed: bool = False) -> Any:
    graph = best_graph(
        [Node(*one) for one in nodes],
        [Edge(*one) for one in edges],
        parse_relations(rules or [rel()], "x"),
        None if fixed else FLAT,
        "x",
    )
    assert graph.proven
    return graph.nodes, [one[:3] for one in graph.edges]


APART = [(at, at, 0, 1.0) for at in range(4)]


def test_a_relation_brings_back_an_entity() -> None:
    nodes = [(0, 0, 0, 2.0), (3, 3, 0, -1.0)]
    assert chosen(nodes, [(0, 0, 1, 1.5)]) == ([0, 1], [(0, 0, 1)])
    assert chosen(nodes, [(0, 0, 1, 0.5)]) == ([0], [])
    assert chosen(nodes, [(0, 0, 1, 0.5), (0, 1, 0, 0.6)]) == ([0, 1], [(0, 0, 1), (0, 1, 0)])
    assert chosen(nodes, [(0, 0, 1, -0.5)]) == ([0], [])


def test_entities_that_overlap() -> None:
    nodes = [(0, 2, 0, 1.0), (2, 3, 1, 1.5), (5, 5, 0, 1.0)]
    assert chosen(nodes, []) == ([1, 2], [])
    assert chosen(nodes, [(0, 0, 2, 1.0)]) == ([0, 2], [(0, 0, 2)])
    # without relations, the best first, as decoders do, and not the largest sum
    assert chosen([(0, 3, 0, 2.0), (0, 0, 0, 1.5), (2, 2, 0, 1.5)], []) == ([0], [])


@pytest.mark.parametrize(
    ("rules", "edges", "wanted"),
    [
        ({}, [(0, 0, 1, 1.0), (0, 0, 1, 2.0, "b"), (0, 0, 0, 3.0)], [(0, 0, 1)]),
        ({"allow_self": True}, [(0, 0, 0, 3.0)], [(0, 0, 0)]),
        ({}, [(0, 0, 1, 1.0, "a"), (0, 2, 3, 2.0, "a")], [(0, 2, 3)]),
        ({"max_per_head": 1}, [(0, 0, 1, 1.0), (0, 0, 2, 2.0), (0, 3, 2, 1.0)], [(0, 0, 2), (0, 3, 2)]),
        ({"max_per_tail": 1}, [(0, 0, 2, 1.0), (0, 1, 2, 2.0), (0, 0, 3, 1.0)], [(0, 0, 3), (0, 1, 2)]),
        ({"max_per_head": 0}, [(0, 0, 1, 1.0)], []),
        ({"symmetric": True}, [(0, 0, 1, 1.0)], [(0, 0, 1), (0, 1, 0)]),
        ({"symmetric": True, "max_per_head": 1}, [(0, 0, 1, 1.0), (0, 2, 0, 2.0)], [(0, 0, 2), (0, 2, 0)]),
        ({"acyclic": True}, [(0, 0, 1, 1.0), (0, 1, 2, 2.0), (0, 2, 0, 3.0), (0, 3, 0, 1.0)], [(0, 1, 2), (0, 2, 0), (0, 3, 0)]),
        ({"acyclic": True, "allow_self": True}, [(0, 1, 1, 1.0)], []),
    ],
)  # fmt: skip
def test_each_rule(rules: Any, edges: Any, wanted: Any) -> None:
    for fixed in (False, True):
        assert chosen(APART, edges, rel(**rules), fixed=fixed) == ([0, 1, 2, 3], wanted)


def test_inverse_relations() -> None:
    pair = rel("owns", inverse="owned by"), rel("owned by", max_per_head=1)
    assert chosen(APART, [(0, 0, 1, 1.0)], *pair)[1] == [(0, 0, 1), (1, 1, 0)]
    assert chosen(APART, [(1, 0, 1, 1.0)], *pair)[1] == [(0, 1, 0), (1, 0, 1)]
    # the limit holds for what follows from a relation, too
    assert chosen(APART, [(0, 0, 1, 1.0), (0, 2, 1, 2.0)], *pair)[1] == [(0, 2, 1), (1, 1, 2)]


RULES = [
    [rel(max_per_head=1), rel("s", max_per_tail=1)],
    [rel(symmetric=True, max_per_tail=2), rel("s", acyclic=True)],
    [rel(inverse="s", max_per_head=1), rel("s")],
]


@pytest.mark.parametrize("seed", range(9))
def test_nothing_is_better(seed: int) -> None:
    """Beside all subsets of nodes and edges."""
    rng = random.Random(seed)
    rules = RULES[seed % 3]
    nodes = [(at, at + rng.randint(0, 1), 0, rng.uniform(-1.5, 1.5)) for at in (0, 1, 3, 5)]
    pairs = [(r, a, b) for r in range(2) for a in range(4) for b in range(4) if a != b]
    edges = [(*one, rng.uniform(-0.5, 1.5), rng.choice([None, 1, 2])) for one in rng.sample(pairs, 6)]
    for fixed in (False, True):
        found = chosen(nodes, edges, *rules, fixed=fixed)
        worth = {tuple(one[:3]): one[3] for one in edges}
        value = sum(worth[one] for one in found[1] if one in worth and worth[one] > 0)
        value += 0 if fixed else sum(nodes[at][3] for at in found[0])
        best = max(
            sum(edge[3] for edge in some) + (0 if fixed else sum(nodes[at][3] for at in ends))
            for size in range(len(edges) + 1)
            for some in combinations(edges, size)
            for ends in ([range(4)] if fixed else subsets(4))
            if fits(nodes, ends, some, rules, fixed)
        )
        assert value >= best - 1e-9
        if rules[0].get("symmetric"):
            continue  # both directions are chosen, of which one counts
        assert value == pytest.approx(best)


def subsets(number: int) -> list[list[int]]:
    return [[at for at, is_in in enumerate(one) if is_in] for one in product([0, 1], repeat=number)]


def fits(nodes: Any, ends: Any, some: Any, rules: Any, fixed: bool) -> bool:
    """Whether a choice obeys the rules, as one would check it by hand."""
    if any(edge[side] not in ends for edge in some for side in (1, 2)):
        return False
    if not fixed and any(FLAT(Node(*nodes[a]), Node(*nodes[b])) for a, b in combinations(ends, 2)):
        return False
    used = [edge[4] for edge in some if edge[4] is not None]
    every = {edge[:3] for edge in some}
    if rules[0].get("symmetric"):
        if any((0, b, a) in every for r, a, b in every if r == 0):
            return False
        every |= {(0, b, a) for r, a, b in every if r == 0}
    if "inverse" in rules[0]:
        every |= {(1 - r, b, a) for r, a, b in every}
    for number, rule in enumerate(rules):
        for side, name in ((1, "max_per_head"), (2, "max_per_tail")):
            counts = [sum(one[0] == number and one[side] == at for one in every) for at in range(4)]
            if name in rule and max(counts) > rule[name]:
                return False
        if rule.get("acyclic"):
            left = {one[1:] for one in every if one[0] == number}
            while ends_here := {pair for pair in left if pair[1] not in {a for a, _ in left}}:
                left -= ends_here
            if left:
                return False
    return len(used) == len(set(used))


@pytest.mark.parametrize(("size", "n_edges", "proven"), [(12, 60, True), (24, 300, False)])
def test_many_circles(size: int, n_edges: int, proven: bool) -> None:
    """What cannot be searched whole obeys the rules, too."""
    relations = parse_relations([{"label": "r", "acyclic": True}], "x")
    rng = random.Random(1)
    nodes = [Node(at, at, 0, 1.0) for at in range(size)]
    edges = [Edge(0, rng.randrange(size), rng.randrange(size), rng.uniform(0.1, 2)) for _ in range(n_edges)]
    graph = best_graph(nodes, edges, relations, None, "x")
    assert graph.proven == proven
    after: dict[int, set[int]] = {at: set() for at in range(size)}
    for _, head, tail, _ in graph.edges:
        after[tail].add(head)
    TopologicalSorter(after).prepare()
    rest = sorted(edges, key=lambda edge: -edge.utility)[:size]
    assert sum(edges[one[3]].utility for one in graph.edges) > sum(edge.utility for edge in rest)


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ((True, False, False), {(1, 2), (2, 3), (2, 2, 1)}),
        ((False, False, False), {(2, 3), (2, 2, 1)}),
        ((True, False, True), {(1, 2), (2, 2, 1)}),
        ((True, True, True), {(1, 2)}),
    ],
)
def test_which_entities_exclude_each_other(settings: Any, wanted: Any) -> None:
    conflict = overlaps(**dict(zip(("flat_ner", "multi_label", "partial_overlaps"), settings, strict=True)))
    one = Node(1, 3, 0, 0.0)
    others = {(1, 2): Node(1, 2, 0, 0.0), (2, 3): Node(3, 4, 0, 0.0), (2, 2, 1): Node(1, 3, 1, 0.0)}
    assert {name for name, other in others.items() if conflict(one, other)} == wanted
    assert not conflict(one, Node(4, 5, 0, 0.0))


@pytest.mark.parametrize(
    ("rules", "option"),
    [
        ([{"label": "r", "max_per_head": -1}], r"\[0\]\.max_per_head"),
        ([{"label": "r", "max_per_tail": True}], r"\[0\]\.max_per_tail"),
        ([{"label": "r", "symmetric": "yes"}], r"\[0\]\.symmetric"),
        ([{"label": "r", "symmetric": True, "head": ["a"], "tail": ["b"]}], r"\[0\]\.symmetric"),
        ([{"label": "r", "inverse": "s"}], r"\[0\]\.inverse"),
        ([{"label": "r", "inverse": "r"}], r"\[0\]\.inverse"),
        (["s", {"label": "r", "inverse": "s", "head": ["a"]}], r"\[1\]\.inverse"),
        ([{"label": "s", "inverse": "t"}, "t", {"label": "r", "inverse": "s"}], r"\[2\]\.inverse"),
        ([{"label": "r", "cyclic": True}], r"\[0\]"),
        ([{"label": "r", 1: 2, "cyclic": True}], r"\[0\]"),
        ([{"label": "r", "max_per_head": 10**400}], r"\[0\]\.max_per_head"),
        ([{"label": "r", "symmetric": True, "acyclic": True}], r"\[0\]\.acyclic"),
        ([{"label": "r", "inverse": "s"}, {"label": "s", "symmetric": True}], r"\[0\]\.inverse"),
        ([{"label": "r", "head": [" "]}], r"\[0\]\.head"),
        (["\udcff"], r"\[0\]"),
    ],
)
def test_errors(rules: Any, option: str) -> None:
    with pytest.raises(ConfigError, match=rf"^\[x{option}\]"):
        parse_relations(rules, "x")


def test_config_form() -> None:
    given = ["s", {"label": "r", "head": ["a"], "max_per_head": 0, "acyclic": True, "allow_self": False}]
    assert [item.to_config() for item in parse_relations(given, "x")] == given
