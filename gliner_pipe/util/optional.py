"""Imports packages of the extras of ``pyproject.toml``."""

from __future__ import annotations

import importlib
from typing import Any

from gliner_pipe.errors import ConfigError


def library(module: str, where: str, extra: str, user: str = "") -> Any:
    """Return a module of an optional package.

    Parameters
    ----------
    module
        Name of the module, e.g. ``onnxruntime.quantization``.
    where
        Section or setting that needs it, for the error.
    extra
        Extra of this package that installs it.
    user
        What needs it, e.g. the registered name of a block.

    Raises
    ------
    ConfigError
        If it cannot be imported.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise ConfigError(
            where,
            f"{user} needs the package {package}, which cannot be imported ({error})".lstrip(),
            do=f'Run pip install "gliner_pipe[{extra}]"',
        ) from error
