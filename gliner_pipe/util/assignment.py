"""Assignment of rows to columns at the least cost."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def least_cost(costs: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.int64]:
    """Assign each row a column of its own, so that the sum of the costs is least.

    Parameters
    ----------
    costs
        Finite numbers, ``(rows, columns)``, with at least as many columns as rows.

    Returns
    -------
    ndarray
        Column of each row, ``(rows,)``.

    Notes
    -----
    Adds one row at a time along a shortest augmenting path, in ``rows * rows * columns`` steps (the Hungarian method;
    Kuhn, 1955).
    """
    n_rows, n_columns = costs.shape
    of_rows, of_columns = np.zeros(n_rows), np.zeros(n_columns)  # potentials
    row_at = np.full(n_columns, -1)
    for row in range(n_rows):
        distance = np.full(n_columns, np.inf)
        before = np.full(n_columns, -1)
        done = np.zeros(n_columns, bool)
        column, current = -1, row
        while True:
            reached = costs[current] - of_rows[current] - of_columns
            nearer = ~done & (reached < distance)
            distance[nearer], before[nearer] = reached[nearer], column
            column = int(np.where(done, np.inf, distance).argmin())
            step = distance[column]
            of_rows[row] += step
            of_rows[row_at[done]] += step
            of_columns[done] -= step
            distance[~done] -= step
            done[column] = True
            current = row_at[column]
            if current < 0:
                break
        while column >= 0:
            row_at[column] = row if before[column] < 0 else row_at[before[column]]
            column = before[column]
    assigned = np.empty(n_rows, np.int64)
    taken = row_at >= 0
    assigned[row_at[taken]] = taken.nonzero()[0]
    return assigned
