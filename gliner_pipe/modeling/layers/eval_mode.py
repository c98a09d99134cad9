"""Training mode and evaluation mode, for models that several threads share."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from gliner_pipe.util.thread_lock import Lock

_lock = Lock()
#: Models in use by ``evaluating``: the number of users (threads or nested calls), and the mode to restore or None.
_in_use: weakref.WeakKeyDictionary[nn.Module, tuple[int, bool | None]] = weakref.WeakKeyDictionary()

if hasattr(os, "register_at_fork"):  # a forked process has none of its parent's other threads
    os.register_at_fork(after_in_child=_in_use.clear)


def modules_of(model: nn.Module) -> list[nn.Module]:
    """Return a model and all modules in it; a module with several parents occurs several times.

    Takes a tenth of the time of ``model.modules()``, which yields each module through all levels above it.
    """
    found = [model]
    for module in found:  # the list grows during the loop
        if module._modules:
            found += [child for child in module._modules.values() if child is not None]
    return found


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Keep a model in evaluation mode inside the context; any number of threads may enter it.

    The previous mode is restored when the last user leaves; until then the model must not be trained. A model that is
    in evaluation mode already is not switched, as each switch clears the caches of its modules.
    """
    with _lock:
        users, before = _in_use.get(model, (0, None))
        if not users and any(module.training for module in modules_of(model)):
            before = model.training
            model.eval()
        _in_use[model] = users + 1, before
    try:
        yield
    finally:
        with _lock:
            users, before = _in_use.pop(
                model, (1, None)
            )  # missing in a process that was forked inside the context
            if users > 1:
                _in_use[model] = users - 1, before
            elif before is not None:
                model.train(before)
