"""Training mode and evaluation mode."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Run a model in evaluation mode meanwhile.

    Where it is in that mode already nothing is switched: what is kept from one run to the next is forgotten with every
    switch, for weights may have changed in between.
    """
    was_training = model.training
    switch = any(module.training for module in model.modules())
    if switch:
        model.eval()
    try:
        yield
    finally:
        if switch:
            model.train(was_training)
