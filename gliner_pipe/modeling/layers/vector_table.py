"""Vectors by name in the rows of one tensor: computed once, shared by all threads, and forgotten when out of use."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gliner_pipe.modeling.layers.cache import weights_version
from gliner_pipe.util.sequences import equal_at_start
from gliner_pipe.util.thread_lock import Lock

_Key = TypeVar("_Key", bound=Hashable)

#: Number of new vectors after which those that were not used meanwhile are removed.
NEW_VECTORS = 1 << 13
#: Length from which on a list of keys is compared with the one before it: what did not change is not done again.
LONG = 256

_Places = npt.NDArray[np.int64]


class _Matrix:
    """Rows of a table in the order of a list of keys; for the next list only the rows that differ are copied.

    The memory of a list is used again once no tensor reads it; until then the next list gets other memory.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._places: _Places = np.zeros(0, np.int64)  # of the rows in memory
        self._memory: Tensor | None = None
        #: One array for each tensor that was returned, which lives as long as any view of the tensor.
        self._readers: list[weakref.ref[npt.NDArray[Any]]] = []

    def of(self, table: Tensor, places: _Places, slack: int) -> Tensor:
        """Return rows of a table on the CPU."""
        with self._lock, torch.inference_mode(False), torch.no_grad():
            memory, held = self._memory, min(len(self._places), len(places))
            self._readers = [reader for reader in self._readers if reader() is not None]
            new = np.flatnonzero(self._places[:held] != places[:held])
            if memory is None or len(places) > len(memory) or (len(new) and self._readers):
                room = len(places) + min(max(64, len(places) // 4), slack)
                self._memory = memory = torch.empty(room, *table.shape[1:], dtype=table.dtype)
                self._places, self._readers = places, []
                torch.index_select(table, 0, torch.from_numpy(places), out=memory[: len(places)])
            elif len(new) or len(places) > held:
                new = np.concatenate([new, np.arange(held, len(places))])
                memory[torch.from_numpy(new)] = table[torch.from_numpy(places[new])]
                self._places = places
            array = memory.numpy()[: len(places)]
            self._readers.append(weakref.ref(array))
            return torch.from_numpy(array)


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
        self.mark = torch.empty(0)
        self.last: tuple[tuple[_Key, ...], _Places] = (), np.zeros(0, np.int64)  # the last long list
        self.matrix = _Matrix()

    def known(self, keys: tuple[_Key, ...]) -> _Places:
        """Return the rows of the first keys, as far as they are those of the last long list."""
        last, places = self.last
        return places[: equal_at_start(last, keys)] if len(keys) >= LONG else places[:0]

    def find(self, keys: tuple[_Key, ...], known: _Places) -> _Places:
        """Return the rows of keys, given those of the first ones.

        Raises
        ------
        KeyError
            If a key has no row.
        """
        if len(known) < len(keys):
            rest = [self.places[key] for key in keys[len(known) :]]
            known = np.concatenate([known, np.array(rest, np.int64)])
        if len(keys) >= LONG:
            self.last = keys, known
        return known

    def at(self, places: _Places, slack: int) -> Tensor:
        """Return rows: a view where they follow each other, as those of a label set that came first do."""
        self.used[places] = True
        table = self.table
        assert table is not None
        first = int(places[0])
        if (np.diff(places) == 1).all():
            return table[first : first + len(places)]
        if (
            len(places) >= LONG
            and table.device.type == "cpu"
            and table.dtype in (torch.float32, torch.float64)
        ):
            return self.matrix.of(table, places, slack)
        return table.index_select(0, torch.from_numpy(places).to(table.device))

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
        smaller.pinned, smaller.new, smaller.mark = self.pinned, 0, self.mark
        return smaller


class VectorTable(Generic[_Key]):
    """Keeps a vector for each key until the weights behind it change, or it is out of use.

    A new vector costs one row, whatever the number of rows. After `most` new vectors, those are removed that were not
    used since the last removal. So a set of keys in use is held, however large, and a stream of new keys takes no more
    than twice `most` rows beside it.

    A long list of keys is compared with the long list before it: where both begin alike, keys are not looked up again,
    and on a CPU only the rows that differ are copied, unless the former result is still in use.

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
            Computes the vectors of the missing keys, each key once, in the order of `keys`.
        weights
            Weights that the vectors depend on.
        pin
            Never remove what the table holds after this call, until the weights change.
        """
        version, keys = weights_version(weights), tuple(keys)
        before = rows = self._rows
        known = rows.known(keys)
        if rows.version == version and not pin:
            try:
                return rows.at(rows.find(keys, known), self.most)
            except KeyError:
                pass
        with self._lock:
            rows = self._rows
            if rows.version != version:
                self._rows = rows = _Rows(weights, version)
            if rows is not before:
                known = rows.known(keys)
            missing = [key for key in dict.fromkeys(keys[len(known) :]) if key not in rows.places]
            if missing and rows.new and rows.new + len(missing) > self.most:
                rows.used[[rows.places[key] for key in keys if key in rows.places]] = True
                smaller = rows.without_unused(self.most)
                if self._rows is rows:  # otherwise the table was cleared
                    self._rows = smaller
                rows, known = smaller, known[:0]
            if missing:
                vectors = make(missing)
                rows.add(missing, vectors.detach(), self.most)
            if pin:
                rows.pinned, rows.new = len(rows.places), 0
            return rows.at(rows.find(keys, known), self.most)

    @property
    def mark(self) -> Tensor:
        """A tensor that is another one once the vectors are no longer valid; an input of caches of what follows."""
        return self._rows.mark

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
