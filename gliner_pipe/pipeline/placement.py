"""Device and precision of the model of a component."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Mapping, MutableMapping
from typing import Any, ClassVar

import torch
from spacy.pipeline import Pipe
from torch import nn

from gliner_pipe.errors import ConfigError, reason_of
from gliner_pipe.modeling.precision import Precision, check_device, has_text_encoder, set_precision
from gliner_pipe.pipeline.checked_settings import CheckedSettings
from gliner_pipe.pipeline.component_settings import DEVICES, Settings
from gliner_pipe.util.thread_lock import Lock

logger = logging.getLogger(__name__)


class PlacedPipe(Pipe):  # type: ignore[misc]
    """A component with checked settings, whose model has a device and a precision.

    Attributes
    ----------
    settings_type
        The settings with their types, ranges and defaults.
    network_type
        Class of the blocks.
    """

    settings_type: ClassVar[type[Settings]]
    network_type: ClassVar[type[nn.Module]]
    model: nn.Module
    _where: str
    _lock: Lock
    _told: set[str]

    @property
    @abstractmethod
    def network(self) -> Any:
        """The blocks with their weights."""

    @property
    def cfg(self) -> MutableMapping[str, Any]:
        """The current settings. A change applies from the next document on, and is saved with the pipeline.

        An assignment (``cfg["flat_ner"] = False``) raises a ``ConfigError`` if there is no such setting, or its value
        is not allowed.
        """
        return self._cfg

    @cfg.setter
    def cfg(self, settings: Mapping[str, Any]) -> None:
        self._cfg = CheckedSettings(settings, self.settings_type, self._where)

    @property
    def device(self) -> torch.device:
        """Device of the model: ``"auto"`` is CUDA if available, else the CPU, and always the CPU for ``int8``."""
        return self._device_for(self.cfg)

    def _device_for(self, settings: Mapping[str, Any]) -> torch.device:
        name = settings["device"]
        if name == "auto":
            name = "cuda" if settings["quantize"] is None and torch.cuda.is_available() else "cpu"
        return torch.device(name)

    def place(self) -> None:
        """Move the model to ``device`` if it is on another, after a change of settings."""
        if isinstance(self.model, self.network_type) and self.network.is_built:
            index = self.device.index
            here = self.network.device
            if here.type != self.device.type or index not in (None, here.index):
                self._move(self.model)

    def _move(self, model: torch.nn.Module) -> None:
        if self.cfg["device"] == "auto" and self.cfg["quantize"] is not None and torch.cuda.is_available():
            self._tell(
                "runs on the CPU, as 'int8' has no kernel for GPUs. Set quantize = null to use the GPU, "
                'or device = "cpu" to see no warning.'
            )
        try:
            model.to(self.device)
        except (RuntimeError, AssertionError) as error:  # torch raises either for a device that is missing
            reason = reason_of(error, 200)
            found = f"found {self.cfg['device']!r}, which this machine cannot use ({reason})"
            do = 'Write "auto" for CUDA if available, else the CPU'
            raise ConfigError(f"{self._where}.device", found, DEVICES, do) from error

    @property
    def dtype(self) -> str | None:
        """Precision of inference: ``"fp32"``, ``"bf16"``, ``"fp16"``, or None for that of the weights.

        Like `quantize` and `compile`, it applies to prediction only: training and saving use the weights as they are.
        """
        return Precision.of(self.cfg).dtype

    @dtype.setter
    def dtype(self, value: str | None) -> None:
        self._change_precision(dtype=value)

    @property
    def quantize(self) -> str | None:
        """``"int8"`` for 8-bit linear layers in the text encoder, or None."""
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
        cfg = CheckedSettings({**self.cfg, **changes}, self.settings_type, self._where)
        check_device(Precision.of(cfg), self._device_for(cfg), self._where)
        self.cfg = cfg
        self.place()

    def _tell(self, text: str) -> None:
        """Log a warning about the model, once."""
        with self._lock:
            if text not in self._told:
                self._told.add(text)
                logger.warning("[%s] The model %s", self._where, text)

    def _set_precision(self) -> None:
        """Apply the current precision settings to the model."""
        precision, device = Precision.of(self.cfg), self.network.device
        if device.type == "cuda" and not torch.cuda.is_initialized():
            raise ConfigError(
                f"{self._where}.device",
                f"found a model on {device} in a process forked from one that used CUDA, which CUDA does not support",
                "cpu, or CUDA in one process",
                'Set n_process = 1, or call multiprocessing.set_start_method("spawn") first',
            )
        if precision != Precision():
            if precision.quantize is not None and device.type != "cpu" and self.cfg["device"] == "auto":
                precision = precision._replace(quantize=None)  # a training has moved the model
                self._tell(
                    f"runs on {device} without 'int8', which has no kernel for GPUs, until it is loaded again."
                )
            check_device(precision, device, self._where)
            if not has_text_encoder(self.network):
                raise ConfigError(
                    f"{self._where}.model",
                    f"has no transformer to run at {precision}",
                    "dtype = null, quantize = null and compile = false for this model",
                )
        set_precision(self.network, precision)
