"""Training mode and evaluation mode."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


def modules_of(model: nn.Module) -> list[nn.Module]:
    """Return a model and all modules in it, as often as they stand there; for what is done at each text.

    A tenth of the time of ``model.modules()``, which hands each module up through all levels above it.
    """
    found = [model]
    for module in found:  # it grows meanwhile
        if module._modules:
            found += [child for child in module._modules.values() if child is not None]
    return found


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Run a model in evaluation mode meanwhile.

    Where it is in that mode already nothing is switched: what is kept from one run to the next is forgotten with every
    switch, for weights may have changed in between.
    """
    was_training = model.training
    switch = any(module.training for module in modules_of(model))
    if switch:
        model.eval()
    try:
        yield
    finally:
        if switch:
            model.train(was_training)
