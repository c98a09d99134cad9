"""The settings ``dtype``, ``quantize`` and ``compile``: what they may be, and on which device."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from gliner_pipe.backbones._hf import DTYPES
from gliner_pipe.errors import ConfigError
from gliner_pipe.precision.int8 import check_int8

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
