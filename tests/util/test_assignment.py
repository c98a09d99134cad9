"""Assignment of rows to columns at the least cost, against all assignments and against SciPy."""

from itertools import permutations

import numpy as np
import pytest

from gliner_pipe.util.assignment import least_cost


@pytest.mark.parametrize("seed", range(30))
def test_no_assignment_costs_less(seed):
    numbers = np.random.default_rng(seed)
    rows = int(numbers.integers(1, 5))
    costs = numbers.normal(size=(rows, rows + numbers.integers(0, 3))).round(1)
    columns = least_cost(costs)
    assert len(set(columns)) == rows
    found = costs[range(rows), columns].sum()
    least = min(costs[range(rows), some].sum() for some in permutations(range(costs.shape[1]), rows))
    assert found == pytest.approx(least)


def test_many_rows_cost_as_much_as_with_scipy():
    optimize = pytest.importorskip("scipy.optimize")
    costs = np.random.default_rng(0).exponential(size=(40, 90))
    found = costs[range(40), least_cost(costs)].sum()
    assert found == pytest.approx(costs[optimize.linear_sum_assignment(costs)].sum())


def test_no_rows():
    assert least_cost(np.zeros((0, 3))).tolist() == []
