"""What is computed once and shared by all threads that ask for it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from torch import Tensor

from gliner_pipe.modeling.layers.weights_version import marks
from gliner_pipe.util.thread_lock import Lock

_Key = TypeVar("_Key", bound=Hashable)
_Made = TypeVar("_Made")


class _State(NamedTuple):
    """What is kept, and the weights that it was made of; these are held, so that no others can lie where they are."""

    weights: tuple[Tensor, ...]
    marks: tuple[Any, ...]
    items: dict[Any, Any]


_NOTHING = _State((), (), {})


class Cache(Generic[_Key, _Made]):
    """Keeps what was made for a key as long as the weights that made it stay; all threads may share one.

    What is there is read without waiting. What is missing is made by one thread, once; others that miss something wait
    for it. Nobody may change what was made.

    It is no part of what is saved: a copy or a pickle of it is empty.

    Parameters
    ----------
    most
        Number of keys that are kept, unless one call asks for more of them. The oldest go first. None for any number.
    """

    def __init__(self, most: int | None = None) -> None:
        self.most = most
        self._lock = Lock()
        self._state = _NOTHING

    def __reduce__(self) -> tuple[type[Cache[_Key, _Made]], tuple[int | None]]:
        return type(self), (self.most,)

    def __len__(self) -> int:
        return len(self._state.items)

    def __iter__(self) -> Iterator[_Key]:
        return iter(list(self._state.items))

    def get(self, key: _Key, make: Callable[[], _Made], weights: Sequence[Tensor] = ()) -> _Made:
        """Return what is kept for a key, or else what `make` returns.

        Parameters
        ----------
        key
            Names what is wanted.
        make
            Makes it; may use other caches.
        weights
            What it is made of besides.
        """
        found = self.peek(key, weights)
        return self.get_all([key], lambda _: [make()], weights)[0] if found is None else found

    def peek(self, key: _Key, weights: Sequence[Tensor] = ()) -> _Made | None:
        """Return what is kept for a key, None for nothing."""
        state = self._state
        found: _Made | None = state.items.get(key)
        return found if found is not None and state.marks == marks(weights) else None

    def get_all(
        self,
        keys: Sequence[_Key],
        make: Callable[[list[_Key]], Sequence[_Made]],
        weights: Sequence[Tensor] = (),
    ) -> list[_Made]:
        """Return what is kept for several keys; `make` gets those that nothing is kept for, each once."""
        now = marks(weights)
        state = self._state
        if state.marks == now:
            try:
                return [state.items[key] for key in keys]
            except KeyError:
                pass
        with self._lock:
            state = self._current(weights, now)
            found = {key: state.items[key] for key in keys if key in state.items}
            missing = [key for key in dict.fromkeys(keys) if key not in found]
            if missing:
                state = self._with_room(state, found, len(missing))
                made = dict(zip(missing, make(missing), strict=True))
                found |= made
                state.items.update(made)
        return [found[key] for key in keys]

    def items(self, weights: Sequence[Tensor] = ()) -> dict[_Key, _Made]:
        """Return all that is kept, the oldest first."""
        with self._lock:
            return dict(self._current(weights, marks(weights)).items)

    def forget(self) -> None:
        """Forget what is kept. What is being made meanwhile is not kept either."""
        if self._state is not _NOTHING:
            self._state = _NOTHING

    def _current(self, weights: Sequence[Tensor], now: tuple[Any, ...]) -> _State:
        state = self._state
        if state is _NOTHING or state.marks != now:
            self._state = state = _State(tuple(weights), now, {})
        return state

    def _with_room(self, state: _State, asked: dict[_Key, _Made], new: int) -> _State:
        """Return what is kept, with room for `new` keys beside those of `asked`."""
        if self.most is None or len(state.items) + new <= self.most:
            return state
        # half of it goes at once, into a new dictionary: others read the one before
        others = [key for key in state.items if key not in asked]
        room = max(0, min(self.most // 2, self.most - len(asked) - new))
        kept = {key: state.items[key] for key in others[max(0, len(others) - room) :]}
        smaller = state._replace(items=kept | asked)
        if self._state is state:  # else it was forgotten
            self._state = smaller
        return smaller
