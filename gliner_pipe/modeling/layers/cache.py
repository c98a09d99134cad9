"""Values computed once from weights and kept until these change; and evaluation mode, whose switches clear them."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from gliner_pipe.util.thread_lock import Lock

_Key = TypeVar("_Key", bound=Hashable)
_Value = TypeVar("_Value")

#: Types of tensors with memory of their own; a subclass may have none.
_PLAIN = (Tensor, nn.Parameter)


def modules_of(model: nn.Module) -> list[nn.Module]:
    """Return a model and all modules in it; a module with several parents occurs several times.

    Takes a tenth of the time of ``model.modules()``, which yields each module through all levels above it.
    """
    found = [model]
    for module in found:  # the list grows during the loop
        if module._modules:
            found += [child for child in module._modules.values() if child is not None]
    return found


def weights_of(model: nn.Module) -> tuple[Tensor, ...]:
    """Return the parameters of a model; one that several modules share occurs several times."""
    return tuple(
        weight for module in modules_of(model) for weight in module._parameters.values() if weight is not None
    )


def weights_version(weights: Iterable[Tensor]) -> tuple[Any, ...]:
    """Return a value that differs once weights are changed in place, moved or replaced.

    Notes
    -----
    Some optimizers bypass it: a fused one writes to weights without raising their version. Caches are therefore
    cleared when gradients are computed, too.
    """
    return tuple(
        (
            id(weight),
            weight.dtype,
            weight.device,
            0 if weight.is_inference() else weight._version,
            weight.data_ptr() if type(weight) in _PLAIN and weight.layout is torch.strided else 0,
        )
        for weight in weights
    )


class _State(NamedTuple):
    """The values of a cache and their weights, which are referenced so that no other tensor gets their address."""

    weights: tuple[Tensor, ...]
    version: tuple[Any, ...]
    items: dict[Any, Any]


_EMPTY = _State((), (), {})


class Cache(Generic[_Key, _Value]):
    """Keeps one value per key until the weights behind it change; all threads may share a cache.

    Reading a cached value takes no lock. A missing value is computed by one thread, once; other threads that miss a
    value wait for it. Values must not be modified.

    The content is never saved: a copy or a pickle of a cache is empty.

    Parameters
    ----------
    most
        Largest number of keys, unless a single call needs more. The oldest are removed first. None for no limit.
    """

    def __init__(self, most: int | None = None) -> None:
        self.most = most
        self._lock = Lock()
        self._state = _EMPTY

    def __reduce__(self) -> tuple[type[Cache[_Key, _Value]], tuple[int | None]]:
        return type(self), (self.most,)

    def __len__(self) -> int:
        return len(self._state.items)

    def __iter__(self) -> Iterator[_Key]:
        return iter(list(self._state.items))

    def get(self, key: _Key, make: Callable[[], _Value], weights: Sequence[Tensor] = ()) -> _Value:
        """Return the value of a key.

        Parameters
        ----------
        key
            Key.
        make
            Computes a missing value; may use other caches.
        weights
            Weights that the value depends on.
        """
        found = self.peek(key, weights)
        return self.get_all([key], lambda _: [make()], weights)[0] if found is None else found

    def peek(self, key: _Key, weights: Sequence[Tensor] = ()) -> _Value | None:
        """Return the cached value of a key, or None."""
        state = self._state
        found: _Value | None = state.items.get(key)
        return found if found is not None and state.version == weights_version(weights) else None

    def get_all(
        self,
        keys: Sequence[_Key],
        make: Callable[[list[_Key]], Sequence[_Value]],
        weights: Sequence[Tensor] = (),
    ) -> list[_Value]:
        """Return the values of several keys; `make` computes those of the missing keys, each key once."""
        version = weights_version(weights)
        state = self._state
        if state.version == version:
            try:
                return [state.items[key] for key in keys]
            except KeyError:
                pass
        with self._lock:
            state = self._current(weights, version)
            found = {key: state.items[key] for key in keys if key in state.items}
            missing = [key for key in dict.fromkeys(keys) if key not in found]
            if missing:
                state = self._with_room(state, found, len(missing))
                new = dict(zip(missing, make(missing), strict=True))
                found |= new
                state.items.update(new)
        return [found[key] for key in keys]

    def items(self, weights: Sequence[Tensor] = ()) -> dict[_Key, _Value]:
        """Return all cached values, the oldest first."""
        with self._lock:
            return dict(self._current(weights, weights_version(weights)).items)

    def forget(self) -> None:
        """Clear the cache. A value that another thread is computing is not kept either."""
        if self._state is not _EMPTY:
            self._state = _EMPTY

    def _current(self, weights: Sequence[Tensor], version: tuple[Any, ...]) -> _State:
        state = self._state
        if state is _EMPTY or state.version != version:
            self._state = state = _State(tuple(weights), version, {})
        return state

    def _with_room(self, state: _State, needed: dict[_Key, _Value], new: int) -> _State:
        """Return a state with room for `new` keys beside the `needed` ones."""
        if self.most is None or len(state.items) + new <= self.most:
            return state
        # removes half at once, into a new dictionary: other threads read the old one
        others = [key for key in state.items if key not in needed]
        room = max(0, min(self.most // 2, self.most - len(needed) - new))
        kept = {key: state.items[key] for key in others[max(0, len(others) - room) :]}
        smaller = state._replace(items=kept | needed)
        if self._state is state:  # otherwise the cache was cleared
            self._state = smaller
        return smaller


class CachingModule(nn.Module):
    """A module with a cache of values that follow from its weights.

    The cache is cleared when the mode is switched and when weights are moved or loaded; subclasses clear it when
    gradients are computed. It is never saved, copied or pickled.
    """

    _cache: Cache[Any, Any]
    _cache_size: int | None = None

    def train(self: Any, mode: bool = True) -> Any:
        """Set the training mode."""
        self._cache.forget()
        return super().train(mode)

    def _apply(self: Any, *args: Any, **kwargs: Any) -> Any:
        self._cache.forget()
        return super()._apply(*args, **kwargs)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._cache.forget()
        super()._load_from_state_dict(*args, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        state = vars(self).copy()
        state.pop("_cache", None)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._cache = Cache(self._cache_size)


_Module = TypeVar("_Module", bound=nn.Module)


def as_kind(kind: type[_Module], module: nn.Module) -> _Module:
    """Return a `kind` (a class related to that of `module`) with the weights, hooks and settings of `module`."""
    copied = kind.__new__(kind)
    copied.__setstate__(vars(module).copy())
    return copied


# -- evaluation mode -------------------------------------------------------------------------------------------------

_switching = Lock()
#: Models in use by ``evaluating``: the number of users (threads or nested calls), and the mode to restore or None.
_in_use: weakref.WeakKeyDictionary[nn.Module, tuple[int, bool | None]] = weakref.WeakKeyDictionary()

if hasattr(os, "register_at_fork"):  # a forked process has none of its parent's other threads
    os.register_at_fork(after_in_child=_in_use.clear)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Keep a model in evaluation mode inside the context; any number of threads may enter it.

    The previous mode is restored when the last user leaves; until then the model must not be trained. A model that is
    in evaluation mode already is not switched, as each switch clears the caches of its modules.
    """
    with _switching:
        users, before = _in_use.get(model, (0, None))
        if not users and any(module.training for module in modules_of(model)):
            before = model.training
            model.eval()
        _in_use[model] = users + 1, before
    try:
        yield
    finally:
        with _switching:
            users, before = _in_use.pop(
                model, (1, None)
            )  # missing in a process that was forked inside the context
            if users > 1:
                _in_use[model] = users - 1, before
            elif before is not None:
                model.train(before)
