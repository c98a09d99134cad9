"""Reduced precision at inference: the settings ``dtype``, ``quantize`` and ``compile``, and the copies."""

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
from gliner_pipe.modeling.layers.cache import Cache, modules_of, weights_of
from gliner_pipe.modeling.layers.int8 import Int8Linear, check_int8
from gliner_pipe.modeling.layers.linear import Linear

logger = logging.getLogger(__name__)

#: Backend of ``torch.compile``.
COMPILER = "inductor"

#: Dtypes by their short name.
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

#: Settings of the components, with their defaults.
#:
#: ``dtype``: dtype of the text encoder and the heads on it, ``"fp32"``, ``"bf16"`` or ``"fp16"``; null for the dtype of
#: their weights. ``quantize``: ``"int8"`` for 8-bit linear layers in the encoder. ``compile``: whether it is compiled.
PRECISION_SETTINGS: dict[str, Any] = {"dtype": None, "quantize": None, "compile": False}


class Precision(NamedTuple):
    """The precision of a model without gradients.

    Attributes
    ----------
    dtype
        ``"fp32"``, ``"bf16"``, ``"fp16"``, or None for the dtype of the weights.
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
        """Read the settings of a component."""
        return cls(settings["dtype"], settings["quantize"], settings["compile"])

    @classmethod
    def parse(cls, text: str, where: str) -> Precision:
        """Parse a short form: ``"fp32"``, ``"bf16"``, ``"int8"``, ``"bf16+int8"``, ``"bf16+compile"`` ...

        Raises
        ------
        ConfigError
            If it is not such a form.
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
    """Check the values of the settings; ``check_device`` checks that a device supports them.

    Raises
    ------
    ConfigError
        If a value is not allowed.
    """
    for name, choices, allowed in (
        ("dtype", (None, *DTYPES), "fp32, bf16, fp16, or null for the dtype of the weights"),
        ("quantize", (None, "int8"), "int8 or null"),
        ("compile", (True, False), "true or false"),
    ):
        value = settings[name]
        if not any(value is choice or (isinstance(value, str) and value == choice) for choice in choices):
            raise ConfigError(f"{where}.{name}", f"found {value!r}", allowed)


def check_device(precision: Precision, device: torch.device, where: str) -> None:
    """Check that a device supports a precision.

    Raises
    ------
    ConfigError
        If it does not.
    """
    if precision.quantize is not None:
        check_int8(device, f"{where}.quantize")
    if precision.dtype == "bf16" and device.type == "cuda" and not _has_bf16(device):
        raise ConfigError(f"{where}.dtype", f"found 'bf16', which {device} does not support", "fp16 or fp32")
    if precision.compile and (missing := _missing_compiler(device)):
        raise ConfigError(f"{where}.compile", f"found true without {missing}", "false", "Install it")


def _has_bf16(device: torch.device) -> bool:
    with torch.cuda.device(device):  # torch asks the current device
        return torch.cuda.is_bf16_supported()


def _missing_compiler(device: torch.device) -> str | None:
    """Return what torch.compile needs and is not installed."""
    if device.type == "cuda":
        return None if importlib.util.find_spec("triton") else "the package triton"
    names = (os.environ.get("CXX"), "g++", "c++", "clang++", "cl")
    return None if any(name and shutil.which(name) for name in names) else "a C++ compiler (g++)"


class ReducedCopy:
    """Provides a copy of a module in reduced precision, for use without gradients.

    The module itself keeps its weights, is trained and saved. The copy is made on first use and again after the
    weights, the device or the precision change; equal weights are shared, with ``int8`` all but the linear layers. This
    object is not a module, so the copy is not among the weights of the model; copies and pickles of it are empty.

    Attributes
    ----------
    precision
        Precision of the copy.
    """

    def __init__(self) -> None:
        self.precision = Precision()
        self._copy: Cache[tuple[Precision, int], Any] = Cache(1)

    def __reduce__(self) -> tuple[type[ReducedCopy], tuple[()]]:
        return type(self), ()

    def _of(self, module: nn.Module, precision: Precision, where: str) -> Any:
        if precision == Precision():
            self.forget()
            return module

        def make() -> Any:
            with torch.inference_mode(False), torch.no_grad():
                return self._make(module, precision, where)

        return self._copy.get((precision, id(module)), make, weights_of(module))

    def _make(self, module: nn.Module, precision: Precision, where: str) -> Any:
        return reduced_copy(module, precision, where)

    def forget(self) -> None:
        """Delete the copy."""
        self._copy.forget()


class EncoderCopy(ReducedCopy):
    """The copy of a text encoder."""

    def of(self, encoder: nn.Module, where: str) -> Any:
        """Return the copy of `encoder`, or `encoder` itself in full precision; `where` is for errors of adapters."""
        return self._of(encoder, self.precision, where)

    def _make(self, module: nn.Module, precision: Precision, where: str) -> Any:
        if precision.dtype == "fp16" and next(module.parameters()).device.type == "cpu":
            logger.warning("dtype = 'fp16' is slow on a CPU: set 'bf16' instead.")
        return super()._make(module, precision, where)


class HeadCopy(ReducedCopy):
    """The copy of a module on top of a text encoder; it follows ``dtype`` but is neither quantized nor compiled."""

    def of(self, head: nn.Module) -> Any:
        """Return the copy of a module, or the module itself with gradients and in full precision."""
        if torch.is_grad_enabled() or head.training:
            self.forget()  # fused optimizers do not raise the version of weights
            return head
        dtype = self.precision.dtype
        return self._of(head, Precision(None if dtype == "fp32" else dtype), "")

    def run(self, head: nn.Module, call: Callable[..., Any], *inputs: Tensor) -> Any:
        """Return ``call(head, *inputs)``, computed in the dtype of ``precision``.

        Parameters
        ----------
        head
            The module.
        call
            Takes the module to run, and `inputs` in its dtype; returns a tensor or several.
        *inputs
            One tensor or more.

        Returns
        -------
        Tensor or tuple of Tensor
            In the dtype of the first input, if a copy was run.
        """
        module = self.of(head)
        if module is head:
            return call(head, *inputs)
        found = call(module, *(one.to(DTYPES[self.precision.dtype or ""]) for one in inputs))
        wanted = inputs[0].dtype
        return found.to(wanted) if isinstance(found, Tensor) else tuple(one.to(wanted) for one in found)


def reduced_copy(module: nn.Module, precision: Precision, where: str) -> Any:
    """Copy an encoder or a head in reduced precision, with adapters merged.

    Parameters
    ----------
    module
        A Hugging Face encoder, or a module on top of one; it is not modified.
    precision
        Precision of the copy.
    where
        Section of its adapter, for errors.

    Returns
    -------
    nn.Module
        Shares all equal weights with `module`. If only compilation is set, `module` itself, compiled.
    """
    dtype = DTYPES.get(precision.dtype or "")
    if wrapping.is_wrapped(module):
        module = wrapping.merged(copy.deepcopy(module), where)
    weights = [weight for weight in module.parameters() if weight.is_floating_point()]
    if (
        dtype is not None and any(weight.dtype != dtype for weight in weights)
    ) or precision.quantize is not None:
        # objects in the memo of a deepcopy are not copied: shared weights, converted weights, linear layers in int8
        memo: dict[int, Any] = {id(weight): _converted(weight, dtype) for weight in module.parameters()}
        if precision.quantize is not None:
            linears = (part for part in module.modules() if isinstance(part, nn.Linear))
            memo |= {id(one): Int8Linear(one) for one in linears if type(one) in (nn.Linear, Linear)}
        module = copy.deepcopy(module, memo).eval()
        for part in module.modules():
            if isinstance(part, nn.RNNBase):
                part.flatten_parameters()  # on a GPU its kernel needs them in one block of memory
    return torch.compile(module, dynamic=True, backend=COMPILER) if precision.compile else module


def _converted(weight: nn.Parameter, dtype: torch.dtype | None) -> nn.Parameter:
    if dtype is None or weight.dtype == dtype or not weight.is_floating_point():
        return weight
    return nn.Parameter(weight.detach().to(dtype), requires_grad=False)


def _copies(model: nn.Module) -> Iterator[ReducedCopy]:
    for module in modules_of(model):
        reduced = vars(module).get("reduced")  # getattr on a module without the attribute is slow
        if isinstance(reduced, ReducedCopy):
            yield reduced


def has_text_encoder(model: nn.Module) -> bool:
    """Whether a model has a text encoder that supports reduced precision; label encoders do not, as they are cached."""
    return any(isinstance(one, EncoderCopy) for one in _copies(model))


def set_precision(model: nn.Module, precision: Precision) -> None:
    """Set the precision of a model without gradients."""
    for one in _copies(model):
        one.precision = precision


@contextmanager
def full_precision(model: nn.Module) -> Iterator[None]:
    """Run a model in full precision inside the context, whatever is set."""
    before = [(one, one.precision) for one in _copies(model)]
    set_precision(model, Precision())
    try:
        yield
    finally:
        for one, precision in before:
            one.precision = precision
