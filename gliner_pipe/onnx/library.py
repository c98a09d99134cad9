"""Imports what the extra ``onnx`` installs, on first use."""

from __future__ import annotations

import importlib
from typing import Any

from gliner_pipe.errors import ConfigError


def library(name: str, where: str) -> Any:
    """Return one of the packages.

    Parameters
    ----------
    name
        Module, such as ``onnxruntime.quantization``.
    where
        Section that needs it.

    Raises
    ------
    ConfigError
        When it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(
            where,
            f"needs the package {name.partition('.')[0]}, which cannot be imported ({error})",
            do='Run pip install "gliner_pipe[onnx]"',
        ) from error
