"""Vectors by name in the rows of one tensor: computed once, shared by all threads, and forgotten when out of use."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from gliner_pipe.modeling.layers.cache import weights_version
from gliner_pipe.util.thread_lock import Lock

_Key = TypeVar("_Key", bound=Hashable)

#: Number of new vectors after which those that were not used meanwhile are removed.
NEW_VECTORS = 1 << 13


class _Rows(Generic[_Key]):
    """The rows of one set of weights; a row is written once, so that any thread may read it without a lock."""

    def __init__(self, weights: Sequence[Tensor], version: tuple[object, ...]) -> None:
        self.weights = tuple(weights)  # referenced, so that no other tensor gets their address
        self.version = version
        self.places: dict[_Key, int] = {}
        self.table: Tensor | None = None  # with room for more rows
        self.used = np.zeros(0, bool)  # since rows were last removed
        self.pinned = 0  # the first rows are never removed
        self.new = 0  # rows since then

    def at(self, places: Sequence[int]) -> Tensor:
        """Return rows: a view where they follow each other, as those of a label set that came first do."""
        rows = np.asarray(places, np.int64)
        self.used[rows] = True
        table = self.table
        assert table is not None
        first = int(rows[0])
        if (np.diff(rows) == 1).all():
            return table[first : first + len(rows)]
        return table.index_select(0, torch.from_numpy(rows).to(table.device))

    def add(self, keys: Sequence[_Key], vectors: Tensor, slack: int) -> None:
        """Append rows."""
        n, more = len(self.places), len(keys)
        with torch.inference_mode(False), torch.no_grad():  # rows are written and read in any mode
            table = self.table
            if table is None or n + more > len(table):
                room = n + more + min(max(64, (n + more) // 4), slack)
                larger = torch.empty(room, *vectors.shape[1:], dtype=vectors.dtype, device=vectors.device)
                if table is not None:
                    larger[:n] = table[:n]
                table = larger
                self.used = np.concatenate([self.used, np.zeros(room - len(self.used), bool)])
            table[n : n + more] = vectors
        self.table = table  # before the places, which other threads read first
        self.places.update(zip(keys, range(n, n + more), strict=True))
        self.new += more

    def without_unused(self, slack: int) -> _Rows[_Key]:
        """Return a copy of the rows that were used since the last removal."""
        smaller: _Rows[_Key] = _Rows(self.weights, self.version)
        kept = [(key, place) for key, place in self.places.items() if place < self.pinned or self.used[place]]
        if kept:
            assert self.table is not None
            rows = torch.tensor([place for _, place in kept], device=self.table.device)
            smaller.add([key for key, _ in kept], self.table.index_select(0, rows), slack)
        smaller.pinned, smaller.new = self.pinned, 0
        return smaller


class VectorTable(Generic[_Key]):
    """Keeps a vector for each key until the weights behind it change, or it is out of use.

    A new vector costs one row, whatever the number of rows. After `most` new vectors, those are removed that were not
    used since the last removal. So a set of keys in use is held, however large, and a stream of new keys takes no more
    than twice `most` rows beside it.

    All threads may share a table. Reading takes no lock; a missing vector is computed by one thread, once. A copy or a
    pickle of a table is empty.

    Parameters
    ----------
    most
        Number of new vectors between two removals.
    """

    def __init__(self, most: int = NEW_VECTORS) -> None:
        self.most = most
        self._lock = Lock()
        self._rows: _Rows[_Key] = _Rows((), ())

    def __reduce__(self) -> tuple[type[VectorTable[_Key]], tuple[int]]:
        return type(self), (self.most,)

    def __len__(self) -> int:
        return len(self._rows.places)

    def __iter__(self) -> Iterator[_Key]:
        return iter(list(self._rows.places))

    def get(
        self,
        keys: Sequence[_Key],
        make: Callable[[list[_Key]], Tensor],
        weights: Sequence[Tensor] = (),
        *,
        pin: bool = False,
    ) -> Tensor:
        """Return the vectors of keys, ``(keys, ...)``, which must not be modified.

        Parameters
        ----------
        keys
            One or more.
        make
            Computes the vectors of the missing keys, each key once.
        weights
            Weights that the vectors depend on.
        pin
            Never remove what the table holds after this call, until the weights change.
        """
        version = weights_version(weights)
        rows = self._rows
        if rows.version == version and not pin:
            try:
                return rows.at([rows.places[key] for key in keys])
            except KeyError:
                pass
        with self._lock:
            rows = self._rows
            if rows.version != version:
                self._rows = rows = _Rows(weights, version)
            missing = [key for key in dict.fromkeys(keys) if key not in rows.places]
            if missing and rows.new and rows.new + len(missing) > self.most:
                rows.used[[rows.places[key] for key in keys if key in rows.places]] = True
                smaller = rows.without_unused(self.most)
                if self._rows is rows:  # otherwise the table was cleared
                    self._rows = smaller
                rows = smaller
            if missing:
                vectors = make(missing)
                rows.add(missing, vectors.detach(), self.most)
            if pin:
                rows.pinned, rows.new = len(rows.places), 0
            return rows.at([rows.places[key] for key in keys])

    def items(self, weights: Sequence[Tensor] = ()) -> tuple[list[_Key], Tensor | None]:
        """Return all keys and their vectors, the oldest first; None for the vectors of no keys."""
        with self._lock:
            rows = self._rows
            if rows.version != weights_version(weights) or rows.table is None:
                return [], None
            return list(rows.places), rows.table[: len(rows.places)]

    def forget(self) -> None:
        """Clear the table. A vector that another thread is computing is not kept either."""
        self._rows = _Rows((), ())
