"""Training mode and evaluation mode."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from gliner_pipe.util.thread_lock import Lock

_lock = Lock()
#: Models that run in evaluation mode now: by how many threads or levels of calls, and their mode before where it has to
#: be put back.
_running: weakref.WeakKeyDictionary[nn.Module, tuple[int, bool | None]] = weakref.WeakKeyDictionary()

if hasattr(os, "register_at_fork"):  # the other threads stay behind in the parent
    os.register_at_fork(after_in_child=_running.clear)


def modules_of(model: nn.Module) -> list[nn.Module]:
    """Return a model and all modules in it, as often as they stand there; for what is done at each text.

    A tenth of the time of ``model.modules()``, which hands each module up through all levels above it.
    """
    found = [model]
    for module in found:  # it grows meanwhile
        if module._modules:
            found += [child for child in module._modules.values() if child is not None]
    return found


def weights_of(model: nn.Module) -> tuple[Tensor, ...]:
    """Return the parameters of a model; one that several modules share comes several times."""
    return tuple(
        weight for module in modules_of(model) for weight in module._parameters.values() if weight is not None
    )


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Run a model in evaluation mode meanwhile; any number of threads may.

    The mode before comes back when the last of them is done; nobody may train the model until then. Where it is in
    evaluation mode already nothing is switched: what is kept from one run to the next is forgotten with every switch,
    for weights may have changed in between.
    """
    with _lock:
        users, before = _running.get(model, (0, None))
        if not users and any(module.training for module in modules_of(model)):
            before = model.training
            model.eval()
        _running[model] = users + 1, before
    try:
        yield
    finally:
        with _lock:
            users, before = _running.pop(model, (1, None))  # gone in a process that was forked meanwhile
            if users > 1:
                _running[model] = users - 1, before
            elif before is not None:
                model.train(before)
