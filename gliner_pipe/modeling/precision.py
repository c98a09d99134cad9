"""Reduced precision at inference: the settings ``dtype``, ``quantize`` and ``compile``, and the copies they run."""

from __future__ import annotations

import copy
import importlib.util
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from gliner_pipe.errors import ConfigError
from gliner_pipe.modeling.adapters import wrapping
from gliner_pipe.modeling.layers.cache import Cache, weights_of
from gliner_pipe.modeling.layers.eval_mode import modules_of
from gliner_pipe.modeling.layers.int8 import Int8Linear, check_int8
from gliner_pipe.modeling.layers.linear import Linear

#: Number types by their short name.
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

#: Settings of the components, with their defaults.
#:
#: ``dtype``: numbers that the text encoder and the heads on it run with, ``"fp32"``, ``"bf16"`` or ``"fp16"``; null for
#: those of their weights. ``quantize``: ``"int8"`` for linear layers of 8 bits in the encoder. ``compile``: whether
#: torch compiles it.
PRECISION_SETTINGS: dict[str, Any] = {"dtype": None, "quantize": None, "compile": False}


class Precision(NamedTuple):
    """How a model runs without gradients.

    Attributes
    ----------
    dtype
        ``"fp32"``, ``"bf16"``, ``"fp16"``, or None for the numbers of the weights.
    quantize
        ``"int8"`` or None.
    compile
        Whether torch compiles the text encoder.
    """

    dtype: str | None = None
    quantize: str | None = None
    compile: bool = False

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Precision:
        """Take what the settings of a component say."""
        return cls(settings["dtype"], settings["quantize"], settings["compile"])

    @classmethod
    def parse(cls, text: str, where: str) -> Precision:
        """Read a short form: ``"fp32"``, ``"bf16"``, ``"int8"``, ``"bf16+int8"``, ``"bf16+compile"`` ...

        Raises
        ------
        ConfigError
            If it is none of these.
        """
        parts = text.split("+")
        dtypes = [part for part in parts if part in DTYPES]
        rest = sorted(part for part in parts if part not in DTYPES)
        if len(dtypes) > 1 or rest not in ([], ["int8"], ["compile"], ["compile", "int8"]):
            allowed = "fp32, bf16, fp16, int8, or several joined, as in bf16+int8 or bf16+compile"
            raise ConfigError(where, f"found {text!r}", allowed)
        return cls(dtypes[0] if dtypes else None, "int8" if "int8" in rest else None, "compile" in rest)

    def __str__(self) -> str:
        """The short form."""
        parts = [self.dtype, self.quantize, "compile" if self.compile else None]
        return "+".join(part for part in parts if part) or "fp32"


def check_precision(settings: Mapping[str, Any], where: str) -> None:
    """Refuse values that mean nothing; whether the device can do them is asked when the model runs.

    Raises
    ------
    ConfigError
        With the setting, what was found and what is allowed.
    """
    for name, choices, allowed in (
        ("dtype", (None, *DTYPES), "fp32, bf16, fp16, or null for the numbers of the weights"),
        ("quantize", (None, "int8"), "int8 or null"),
        ("compile", (True, False), "true or false"),
    ):
        value = settings[name]
        if not any(value is choice or (isinstance(value, str) and value == choice) for choice in choices):
            raise ConfigError(f"{where}.{name}", f"found {value!r}", allowed)


def check_device(precision: Precision, device: torch.device, where: str) -> None:
    """Refuse what the device cannot do.

    Raises
    ------
    ConfigError
        With the setting and what to take instead.
    """
    if precision.quantize is not None:
        check_int8(device, f"{where}.quantize")
    if precision.dtype == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise ConfigError(f"{where}.dtype", f"found 'bf16', which {device} cannot", "fp16 or fp32")
    if precision.compile and (missing := _missing_compiler(device)):
        raise ConfigError(f"{where}.compile", f"found true without {missing}", "false", "Install it")


def _missing_compiler(device: torch.device) -> str | None:
    """What torch.compile needs and does not find."""
    if device.type == "cuda":
        return None if importlib.util.find_spec("triton") else "the package triton"
    names = (os.environ.get("CXX"), "g++", "c++", "clang++", "cl")
    return None if any(name and shutil.which(name) for name in names) else "a C++ compiler (g++)"


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
    if wrapping.is_wrapped(encoder):
        encoder = wrapping.merged(copy.deepcopy(encoder), where)
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
