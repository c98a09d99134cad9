"""Chooses relations, and perhaps entities with them, that together have the best score among those that obey rules."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from graphlib import CycleError, TopologicalSorter
from itertools import combinations, pairwise
from typing import Any, NamedTuple

import numpy as np

from gliner_pipe.pipeline.labels import RelationItem
from gliner_pipe.util.optional import library

#: Nodes of the branch-and-bound search, each a linear program, after which the best graph found so far is taken.
MOST_SEARCH_NODES = 200
#: Bound on the number of searches times that of variables. Each search forbids the cycles that were found before;
#: beyond the bound, relations that could make a cycle are left out.
MOST_ROUNDS = 4_000


class Node(NamedTuple):
    """An entity that can be chosen: words `start` to `end` (inclusive), number of its label, and what it is worth."""

    start: int
    end: int
    label: int
    utility: float


class Edge(NamedTuple):
    """A relation that can be chosen: its number, positions of head and tail among the nodes, and what it is worth.

    Edges with the same `slot` stand for one predicted relation with several candidates for its ends: only one of them
    can be chosen.
    """

    relation: int
    head: int
    tail: int
    utility: float
    slot: Hashable = None


class Graph(NamedTuple):
    """What was chosen.

    Attributes
    ----------
    nodes
        Positions of the chosen nodes.
    edges
        The chosen edges, each as relation, head, tail, and position of the edge that it follows from: its own, or that
        of its mirror image for the other direction of a symmetric or inverse relation.
    proven
        Whether no better choice exists.
    """

    nodes: list[int]
    edges: list[tuple[int, int, int, int]]
    proven: bool


#: A relation between two nodes, together with its mirror image (see ``Graph``): relation, head and tail of one of them.
_Fact = tuple[int, int, int]
#: Coefficients of an inequality by number of the variable, and what their sum may be at most.
_Row = tuple[dict[int, float], float]


def best_graph(
    nodes: Sequence[Node],
    edges: Sequence[Edge],
    relations: Sequence[RelationItem],
    conflict: Callable[[Node, Node], bool] | None,
    where: str,
) -> Graph:
    """Return the nodes and edges with the largest sum of utilities that obey the rules of their relations.

    An edge needs both its ends, and two edges of a relation differ in an end. Nodes without edges follow by their
    utility, the best first, if they conflict with none that is chosen.

    Parameters
    ----------
    nodes, edges
        What can be chosen.
    relations
        The relations, with their rules.
    conflict
        Whether two nodes exclude each other; None if all nodes stay as they are.
    where
        Section of the rules, for errors.

    Raises
    ------
    ConfigError
        If rules contradict what was found, and SciPy is not installed.

    Notes
    -----
    Source of the objective: the joint extraction of GLiNER2 2.1, which approximates it by a beam search. Here it is an
    integer program, solved by HiGHS.
    """
    program = _Program(nodes, edges, relations, conflict)
    solution, proven = program.solved(where)
    chosen = list(range(len(nodes))) if conflict is None else program.nodes_in(solution)
    return Graph(chosen, list(program.edges_in(solution)), proven)


class _Program:
    """The integer program: a variable for each edge and node, and one for each fact of two inverse relations.

    A fact is a relation between two nodes together with its mirror image, the same relation (symmetric) or another one
    (inverse) in the other direction. `facts` says by which variables a fact is chosen: their sum is then 1.
    """

    def __init__(
        self,
        nodes: Sequence[Node],
        edges: Sequence[Edge],
        relations: Sequence[RelationItem],
        conflict: Callable[[Node, Node], bool] | None,
    ) -> None:
        self.nodes, self.edges, self.relations, self.conflict = nodes, edges, relations, conflict
        by_label = {item.label: number for number, item in enumerate(relations)}
        self.partner: dict[int, int] = {}
        for number, item in enumerate(relations):
            if item.inverse is not None:
                other = by_label[item.inverse]
                self.partner |= {number: other, other: number}
        self.utilities: list[float] = []
        self.rows: list[_Row] = []
        self.facts: dict[_Fact, dict[int, float]] = {}
        kept = [at for at, edge in enumerate(edges) if edge.utility >= 0 and self._may_be(edge)]
        kept = kept if conflict is None else self._worth(kept)
        self.edge_at = {at: self._variable(edges[at].utility) for at in kept}
        self.node_at: dict[int, int] = {}
        if conflict is not None:
            self._add_nodes(kept, conflict)
        groups: dict[tuple[_Fact, int], list[int]] = {}
        slots: dict[Hashable, list[int]] = {}
        for at in kept:
            edge = edges[at]
            groups.setdefault((self._fact(edge), edge.relation), []).append(self.edge_at[at])
            if edge.slot is not None:
                slots.setdefault(edge.slot, []).append(self.edge_at[at])
        for (fact, number), some in groups.items():
            chosen = dict.fromkeys(some, 1.0)
            if number not in self.partner:
                self.facts[fact] = chosen
                self.rows += [(chosen, 1.0)] if len(some) > 1 else []
                continue
            if fact not in self.facts:
                self.facts[fact] = {self._variable(0.0): 1.0}
            (variable,) = self.facts[fact]
            self.rows.append(({**chosen, variable: -1.0}, 0.0))
        self.rows += [(dict.fromkeys(some, 1.0), 1.0) for some in slots.values() if len(some) > 1]
        self._add_ends(kept)
        self._add_limits()
        self._add_pairs()

    def _variable(self, utility: float) -> int:
        self.utilities.append(utility)
        return len(self.utilities) - 1

    def _may_be(self, edge: Edge) -> bool:
        head, tail = self.nodes[edge.head], self.nodes[edge.tail]
        return self.relations[edge.relation].allow_self or head[:2] != tail[:2]

    def _worth(self, kept: list[int]) -> list[int]:
        """Return the edges that can pay for their ends.

        A node below its threshold costs something. Its edges are left out if it costs more than all of them are worth.
        """
        while True:
            best: dict[int, dict[Hashable, float]] = {}
            for at in kept:
                edge = self.edges[at]
                for end in {edge.head, edge.tail}:
                    if self.nodes[end].utility < 0:
                        of_end = best.setdefault(end, {})
                        key = edge[:3] if edge.slot is None else ("slot", edge.slot)
                        of_end[key] = max(of_end.get(key, 0.0), edge.utility)
            hopeless = {
                end for end, values in best.items() if self.nodes[end].utility + sum(values.values()) < 0
            }
            if not hopeless:
                return kept
            kept = [at for at in kept if hopeless.isdisjoint(self.edges[at][1:3])]

    def _fact(self, edge: Edge) -> _Fact:
        """Return what an edge and its mirror image have in common."""
        number, head, tail = edge[:3]
        if self.relations[number].symmetric:
            return number, min(head, tail), max(head, tail)
        partner = self.partner.get(number, number)
        return (partner, tail, head) if partner < number else (number, head, tail)

    def _images(self, fact: _Fact) -> set[_Fact]:
        """Return the relations that a fact stands for."""
        number, head, tail = fact
        images = {fact}
        if self.relations[number].symmetric:
            images.add((number, tail, head))
        if number in self.partner:
            images.add((self.partner[number], tail, head))
        return images

    def _add_nodes(self, kept: Sequence[int], conflict: Callable[[Node, Node], bool]) -> None:
        """Add the ends of edges, and the entities that exclude one of them."""
        ends = {end for at in kept for end in self.edges[at][1:3]}
        pairs = list(_conflicts(self.nodes, conflict))
        needed = ends.union(*({one, other} for one, other in pairs if one in ends or other in ends))
        needed = {at for at in needed if at in ends or self.nodes[at].utility >= 0}
        self.node_at = {at: self._variable(self.nodes[at].utility) for at in sorted(needed)}
        within = [pair for pair in pairs if needed.issuperset(pair)]
        for clique in _cliques(self.nodes, within):
            self.rows.append(({self.node_at[at]: 1.0 for at in clique}, 1.0))

    def _add_ends(self, kept: Sequence[int]) -> None:
        """Require both ends of a chosen edge; edges of a slot exclude each other and share one row for each end."""
        groups: defaultdict[Hashable, dict[int, float]] = defaultdict(dict)
        if self.node_at:
            for at in kept:
                edge = self.edges[at]
                for side, end in enumerate(edge[1:3]):
                    slot = (at,) if edge.slot is None else edge.slot
                    groups[edge.relation, slot, side, end][self.edge_at[at]] = 1.0
            self.rows += [({**row, self.node_at[key[3]]: -1.0}, 0.0) for key, row in groups.items()]  # type: ignore[index]

    def _add_limits(self) -> None:
        """Bound the relations of a node as head, and as tail."""
        counts: defaultdict[tuple[int, int, int], dict[int, float]] = defaultdict(dict)
        for fact, chosen in self.facts.items():
            for number, *ends in self._images(fact):
                for side, end in enumerate(ends):
                    row = counts[number, side, end]
                    row.update({variable: row.get(variable, 0.0) + 1.0 for variable in chosen})
        for (number, side, _), row in counts.items():
            item = self.relations[number]
            most = (item.max_per_head, item.max_per_tail)[side]
            if most is not None:
                self.rows.append((row, float(most)))

    def _add_pairs(self) -> None:
        """Forbid cycles of two relations; longer ones are forbidden where they are found."""
        for number, item in enumerate(self.relations):
            arcs = (
                {arc: fact for fact in self.facts for arc in self._arcs(fact, number)} if item.acyclic else {}
            )
            for (head, tail), fact in arcs.items():
                if head < tail and (other := arcs.get((tail, head))) is not None:
                    self.rows.append((self.facts[fact] | self.facts[other], 1.0))

    def solved(self, where: str) -> tuple[set[int], bool]:
        """Return the variables that are 1, and whether no better choice exists."""
        every = set(range(len(self.utilities)))
        fits = all(sum(row.values()) <= limit for row, limit in self.rows)
        if fits and min(self.utilities, default=0.0) >= 0 and not any(self._cuts(every)):
            return every, True
        for _ in range(1 + MOST_ROUNDS // max(1, len(self.utilities))):
            solution, proven = self._optimum(where)
            cuts = list(self._cuts(solution))
            if not cuts:
                return solution, proven
            if not proven:
                break
            self.rows += cuts
        self.rows += self._without_cycles(solution)
        return self._optimum(where)[0], False

    def _optimum(self, where: str) -> tuple[set[int], bool]:
        optimize = library("scipy.optimize", where, "rules", "rules of relations")
        sparse = library("scipy.sparse", where, "rules", "rules of relations")
        n = len(self.utilities)
        values = [
            (number, variable, value)
            for number, (row, _) in enumerate(self.rows)
            for variable, value in row.items()
        ]
        numbers, variables, coefficients = np.array(values, dtype=float).reshape(-1, 3).T
        matrix = sparse.csr_array(
            (coefficients, (numbers.astype(int), variables.astype(int))), shape=(len(self.rows), n)
        )
        limits = np.array([limit for _, limit in self.rows])
        found: Any = optimize.milp(
            -np.array(self.utilities),
            integrality=np.ones(n),
            bounds=optimize.Bounds(0, 1),
            constraints=optimize.LinearConstraint(matrix, -np.inf, limits),
            options={"node_limit": MOST_SEARCH_NODES, "mip_rel_gap": 1e-6},
        )
        if found.x is None:
            return set(), False
        return set(np.flatnonzero(found.x > 0.5).tolist()), found.status == 0

    def _cuts(self, solution: set[int]) -> Iterator[_Row]:
        """Yield inequalities that forbid the cycles in a solution of acyclic relations, which share no relation."""
        chosen = {self._fact(self.edges[at]) for at, variable in self.edge_at.items() if variable in solution}
        for number, item in enumerate(self.relations):
            arcs = {arc: fact for fact in chosen for arc in self._arcs(fact, number)} if item.acyclic else {}
            while cycle := _cycle(arcs):
                facts = {arcs[pair] for pair in pairwise(cycle)}
                yield {at: 1.0 for fact in facts for at in self.facts[fact]}, len(facts) - 1.0
                arcs = {pair: fact for pair, fact in arcs.items() if fact not in facts}

    def _arcs(self, fact: _Fact, number: int) -> list[tuple[int, int]]:
        return [image[1:] for image in self._images(fact) if image[0] == number]

    def _without_cycles(self, solution: set[int]) -> Iterator[_Row]:
        """Yield inequalities after which no cycle is left; relations of the solution are kept first, the best first."""
        worth: dict[_Fact, tuple[bool, float]] = {}
        for at, variable in self.edge_at.items():
            fact = self._fact(self.edges[at])
            worth[fact] = max(worth.get(fact, (False, 0.0)), (variable in solution, self.utilities[variable]))
        for number, item in enumerate(self.relations):
            arcs: dict[tuple[int, int], _Fact] = {}
            for fact in (
                sorted(worth, key=lambda one: (worth[one], one), reverse=True) if item.acyclic else ()
            ):
                more = dict.fromkeys(self._arcs(fact, number), fact)
                if _cycle(arcs | more):
                    yield dict.fromkeys(self.facts[fact], 1.0), 0.0
                else:
                    arcs |= more

    def edges_in(self, solution: set[int]) -> Iterator[tuple[int, int, int, int]]:
        """Yield the relations of a solution, ordered, with the positions of the edges that they follow from."""
        found: dict[_Fact, int] = {}
        chosen = [at for at, variable in self.edge_at.items() if variable in solution]
        for at in chosen:
            found.setdefault(self.edges[at][:3], at)
        for at in chosen:
            for image in self._images(self._fact(self.edges[at])):
                found.setdefault(image, at)
        yield from ((*image, at) for image, at in sorted(found.items()))

    def nodes_in(self, solution: set[int]) -> list[int]:
        """Return the nodes of a solution, and others above their thresholds that fit in."""
        assert self.conflict is not None
        chosen = [at for at, variable in self.node_at.items() if variable in solution]
        words = _Occupied(self.nodes, chosen)
        rest = [at for at, node in enumerate(self.nodes) if at not in self.node_at and node.utility >= 0]
        for at in sorted(rest, key=lambda one: (-self.nodes[one].utility, self.nodes[one])):
            if not any(
                self.conflict(self.nodes[at], self.nodes[other]) for other in words.near(self.nodes[at])
            ):
                words.add(at)
                chosen.append(at)
        return sorted(chosen)


def _cycle(arcs: Iterable[tuple[int, int]]) -> list[int]:
    """Return the nodes of a cycle, the first one again at its end; empty if there is none."""
    sorter: TopologicalSorter[int] = TopologicalSorter()
    for head, tail in arcs:
        sorter.add(tail, head)
    try:
        sorter.prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


class _Occupied:
    """The chosen nodes by their words."""

    def __init__(self, nodes: Sequence[Node], chosen: Sequence[int]) -> None:
        self.nodes = nodes
        self.by_word: defaultdict[int, list[int]] = defaultdict(list)
        for at in chosen:
            self.add(at)

    def add(self, at: int) -> None:
        for word in range(self.nodes[at].start, self.nodes[at].end + 1):
            self.by_word[word].append(at)

    def near(self, node: Node) -> set[int]:
        return {at for word in range(node.start, node.end + 1) for at in self.by_word.get(word, ())}


def _cliques(nodes: Sequence[Node], pairs: Sequence[tuple[int, int]]) -> Iterator[tuple[int, ...]]:
    """Yield sets of nodes that all exclude each other, so that each pair is in one: those at one word, or pairs."""
    known = {frozenset(pair) for pair in pairs}
    by_word: defaultdict[int, set[int]] = defaultdict(set)
    for pair in pairs:
        one, other = (nodes[at] for at in pair)
        by_word[max(one.start, other.start)].update(pair)
    left = set(known)
    for some in by_word.values():
        inside = {frozenset(pair) for pair in combinations(some, 2)}
        if inside <= known and inside & left:
            left -= inside
            yield tuple(sorted(some))
    yield from (tuple(sorted(pair)) for pair in left)


def _conflicts(nodes: Sequence[Node], conflict: Callable[[Node, Node], bool]) -> Iterator[tuple[int, int]]:
    """Yield the pairs of nodes that exclude each other; these share words."""
    order = sorted(range(len(nodes)), key=lambda at: nodes[at].start)
    for place, one in enumerate(order):
        for other in order[place + 1 :]:
            if nodes[other].start > nodes[one].end:
                break
            if conflict(nodes[one], nodes[other]):
                yield one, other


def overlaps(*, flat_ner: bool, multi_label: bool, partial_overlaps: bool) -> Callable[[Node, Node], bool]:
    """Return whether two entities exclude each other, whatever their labels; the settings are those of decoders."""

    def conflict(one: Node, other: Node) -> bool:
        if one.end < other.start or other.end < one.start:
            return False
        if one[:2] == other[:2]:
            return not multi_label or one.label == other.label
        first, second = sorted((one, other), key=lambda node: (node.start, -node.end))
        return flat_ner if second.end <= first.end else not partial_overlaps

    return conflict
