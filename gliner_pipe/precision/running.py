"""The copies of modules that run without gradients where less than their full precision is asked for."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from gliner_pipe.adapters import _wrapping
from gliner_pipe.backbones._hf import DTYPES
from gliner_pipe.model.cache import Cache
from gliner_pipe.model.linear import Linear
from gliner_pipe.model.modes import modules_of, weights_of
from gliner_pipe.precision.int8 import Int8Linear
from gliner_pipe.precision.settings import Precision

logger = logging.getLogger(__name__)

#: What compiles; ``torch.compile`` lists others.
COMPILER = "inductor"


class Running:
    """Stands for a module where it runs without gradients.

    The module keeps its weights: it learns, and it is saved. A copy of it is made when one is first needed, and made
    anew when the weights, the device or the precision have changed. What is the same in both is shared: with ``int8``
    all but the linear layers. It is no module, so no part of the model's weights; a copy or a pickle of it is empty.

    Attributes
    ----------
    precision
        What is asked for.
    """

    def __init__(self) -> None:
        self.precision = Precision()
        self._copy: Cache[tuple[Precision, int], Any] = Cache(1)

    def __reduce__(self) -> tuple[type[Running], tuple[()]]:
        return type(self), ()

    def _in_place_of(self, module: nn.Module, precision: Precision, where: str) -> Any:
        if precision == Precision():
            self.forget()
            return module

        def make() -> Any:
            with torch.inference_mode(False), torch.no_grad():
                return self._make(module, precision, where)

        return self._copy.get((precision, id(module)), make, weights_of(module))

    def _make(self, module: nn.Module, precision: Precision, where: str) -> Any:
        return running_copy(module, precision, where)

    def forget(self) -> None:
        """Give up the copy; the next is made when it is needed."""
        self._copy.forget()


class RunningEncoder(Running):
    """Stands for a text encoder."""

    def of(self, encoder: nn.Module, where: str) -> Any:
        """Return what runs in the place of `encoder`; itself where nothing else is asked for."""
        return self._in_place_of(encoder, self.precision, where)

    def _make(self, module: nn.Module, precision: Precision, where: str) -> Any:
        if precision.dtype == "fp16" and next(module.parameters()).device.type == "cpu":
            logger.warning("dtype = 'fp16' is slow on a CPU: take 'bf16'.")
        return super()._make(module, precision, where)


class RunningHead(Running):
    """Stands for a module on top of a text encoder, which follows ``dtype`` but is neither quantized nor compiled."""

    def run(self, head: nn.Module, call: Callable[..., Any], *inputs: Tensor) -> Any:
        """Return ``call(head, *inputs)``, computed in the numbers that are asked for.

        Parameters
        ----------
        head
            The module.
        call
            Gets what runs in the place of `head`, and `inputs` as numbers like its own; gives a tensor or some.
        *inputs
            Tensors, one at least.

        Returns
        -------
        Tensor or tuple of Tensor
            As numbers like those of the first input, where something else ran.
        """
        stand_in = self._of(head)
        if stand_in is head:
            return call(head, *inputs)
        numbers = next(stand_in.parameters()).dtype
        found = call(stand_in, *(one.to(numbers) for one in inputs))
        wanted = inputs[0].dtype
        return found.to(wanted) if isinstance(found, Tensor) else tuple(one.to(wanted) for one in found)

    def _of(self, head: nn.Module) -> Any:
        """What runs in the place of `head`; itself where nothing else is asked for, or with gradients."""
        if torch.is_grad_enabled() or head.training:
            self.forget()  # not all optimizers leave a trace on the weights that they change
            return head
        dtype = self.precision.dtype
        return self._in_place_of(head, Precision(None if dtype == "fp32" else dtype), "")


def running_copy(encoder: nn.Module, precision: Precision, where: str) -> Any:
    """Copy an encoder or a head, which is left as it is; adapters are merged.

    Parameters
    ----------
    encoder
        A Hugging Face encoder, or what stands on top of one.
    precision
        Of the copy.
    where
        Section of its adapter, for errors.

    Returns
    -------
    nn.Module
        Shares all weights that are the same in it. The encoder itself, compiled, where nothing else is asked for.
    """
    dtype = DTYPES.get(precision.dtype or "")
    if _wrapping.is_wrapped(encoder):
        encoder = _wrapping.merged(copy.deepcopy(encoder), where)
    weights = [weight for weight in encoder.parameters() if weight.is_floating_point()]
    changes = dtype is not None and any(weight.dtype != dtype for weight in weights)
    if changes or precision.quantize is not None:
        # what stands in the memo is taken as it is: linear layers in int8, weights shared or with other numbers
        memo: dict[int, Any] = {id(weight): _converted(weight, dtype) for weight in encoder.parameters()}
        if precision.quantize is not None:
            linears = (module for module in encoder.modules() if isinstance(module, nn.Linear))
            memo |= {id(one): Int8Linear(one) for one in linears if type(one) in (nn.Linear, Linear)}
        encoder = copy.deepcopy(encoder, memo).eval()
        for module in encoder.modules():
            if isinstance(module, nn.RNNBase):
                module.flatten_parameters()  # on a GPU its kernel wants them in one piece
    return torch.compile(encoder, dynamic=True, backend=COMPILER) if precision.compile else encoder


def _converted(weight: nn.Parameter, dtype: torch.dtype | None) -> nn.Parameter:
    if dtype is None or weight.dtype == dtype or not weight.is_floating_point():
        return weight
    return nn.Parameter(weight.detach().to(dtype), requires_grad=False)


def _all_running(model: nn.Module) -> Iterator[Running]:
    for module in modules_of(model):
        running = vars(module).get("running")  # a module's own way to look for what it lacks is slow
        if isinstance(running, Running):
            yield running


def running_encoders(model: nn.Module) -> Iterator[RunningEncoder]:
    """Yield those of the text encoders of a model; label encoders, whose vectors are kept, have none."""
    return (running for running in _all_running(model) if isinstance(running, RunningEncoder))


def set_precision(model: nn.Module, precision: Precision) -> None:
    """Say how a model runs from now on, without gradients."""
    for running in _all_running(model):
        running.precision = precision


@contextmanager
def full_precision(model: nn.Module) -> Iterator[None]:
    """Run with the weights themselves meanwhile, whatever is set."""
    before = [(running, running.precision) for running in _all_running(model)]
    set_precision(model, Precision())
    try:
        yield
    finally:
        for running, precision in before:
            running.precision = precision
