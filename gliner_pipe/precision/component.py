"""The settings ``dtype``, ``quantize`` and ``compile`` of a spaCy component."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from gliner_pipe.errors import ConfigError
from gliner_pipe.precision.running import running_encoders, set_precision
from gliner_pipe.precision.settings import Precision, check_device, check_precision


class RunsInPrecision:
    """A part of ``TorchPipe``: how its model runs without gradients. It can be changed at run time."""

    cfg: Mapping[str, Any]
    network: Any
    _where: str

    @property
    def device(self) -> torch.device:
        """Where the model runs."""
        raise NotImplementedError

    @property
    def dtype(self) -> str | None:
        """Numbers that the model runs with: ``"fp32"``, ``"bf16"``, ``"fp16"``, or None for those it has.

        As `quantize` and `compile`, it is about running without gradients: training and saving use the weights as they
        are.
        """
        return Precision.of(self.cfg).dtype

    @dtype.setter
    def dtype(self, value: str | None) -> None:
        self._change_precision(dtype=value)

    @property
    def quantize(self) -> str | None:
        """``"int8"`` for linear layers of 8 bits in the text encoder, or None."""
        return Precision.of(self.cfg).quantize

    @quantize.setter
    def quantize(self, value: str | None) -> None:
        self._change_precision(quantize=value)

    @property
    def compile(self) -> bool:
        """Whether torch compiles the text encoder."""
        return Precision.of(self.cfg).compile

    @compile.setter
    def compile(self, value: bool) -> None:
        self._change_precision(compile=value)

    def _change_precision(self, **changes: Any) -> None:
        cfg = {**self.cfg, **changes}
        check_precision(cfg, self._where)
        check_device(Precision.of(cfg), self.device, self._where)
        self.cfg = cfg

    def _set_precision(self) -> None:
        """Tell the model what the settings are now."""
        precision = Precision.of(self.cfg)
        if precision != Precision():
            check_precision(self.cfg, self._where)
            check_device(precision, self.network.device, self._where)
            if not any(running_encoders(self.network)):
                raise ConfigError(
                    f"{self._where}.model",
                    f"has no transformer that could run in {precision}",
                    "dtype = null, quantize = null and compile = false for this model",
                )
        set_precision(self.network, precision)
