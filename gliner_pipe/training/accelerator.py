"""The one accelerator of a training: device, mixed precision, several processes."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gliner_pipe.errors import ConfigError

if TYPE_CHECKING:
    from accelerate import Accelerator

#: Longest time that the other processes wait for the main one to validate and save.
PATIENCE = timedelta(hours=12)


class TrainedModels(nn.Module):
    """All models of a pipeline that learn, as the one module that accelerate wraps.

    The wrapping (autocast, gradients over processes) stays on this module: the components keep theirs as they
    are.

    Parameters
    ----------
    models
        One torch module a component.
    distributed
        Whether gradients are averaged over processes.
    """

    def __init__(self, models: Mapping[str, nn.Module], distributed: bool) -> None:
        super().__init__()
        self.names = list(models)
        # not a ModuleDict: component names may hold dots
        self.models = nn.ModuleList(models.values())
        self.distributed = distributed

    def forward(self, batches: Mapping[str, Any]) -> dict[str, tuple[Tensor, dict[str, Tensor]]]:
        """Return the summed loss and its detached parts of each component's batch."""
        losses = {}
        for name, model in zip(self.names, self.models, strict=True):
            terms = model(batches[name])
            losses[name] = (terms.total.float(), dict(terms.parts))
        if self.distributed:
            # Processes must agree on what takes part in a step, also where a batch leaves a head without
            # work.
            touched = sum(parameter.sum() for parameter in self.parameters() if parameter.requires_grad)
            first = self.names[0]
            losses[first] = (losses[first][0] + 0.0 * touched, losses[first][1])
        return losses


def make_accelerator(mixed_precision: str, cpu: bool) -> Accelerator:
    """Return the accelerator of a training.

    Parameters
    ----------
    mixed_precision
        ``no``, ``fp16`` or ``bf16``.
    cpu
        Train on the CPU even where there is a GPU.

    Raises
    ------
    ConfigError
        If this machine cannot do that.
    """
    from accelerate import Accelerator, InitProcessGroupKwargs
    from accelerate.state import AcceleratorState, PartialState

    if AcceleratorState._shared_state and PartialState().num_processes == 1:
        # what an earlier training in this process chose must not decide for this one
        AcceleratorState._reset_state(reset_partial_state=True)
    handlers = [InitProcessGroupKwargs(timeout=PATIENCE)]
    try:
        accelerator = Accelerator(mixed_precision=mixed_precision, cpu=cpu, kwargs_handlers=handlers)
    except ValueError as error:
        raise _not_here(mixed_precision, str(error)) from error
    if mixed_precision == "fp16" and accelerator.device.type == "cpu":
        raise _not_here(mixed_precision, "it needs a GPU")  # accelerate would train in 32 bit without a word
    return accelerator


def _not_here(mixed_precision: str, why: str) -> ConfigError:
    return ConfigError(
        "train.mixed_precision", f"is {mixed_precision!r}, which cannot be had here: {why}", "no, bf16"
    )


def no_sync(accelerator: Accelerator, module: nn.Module, last: bool) -> AbstractContextManager[Any]:
    """Return a context in which gradients stay in this process, unless `last` sub-batch of a step."""
    return nullcontext() if last else accelerator.no_sync(module)


def summed(accelerator: Accelerator, values: Mapping[str, float]) -> dict[str, float]:
    """Sum numbers over all processes."""
    if accelerator.num_processes == 1:
        return dict(values)
    tensor = torch.tensor(list(values.values()), dtype=torch.float64, device=accelerator.device)
    return dict(zip(values, accelerator.reduce(tensor, "sum").tolist(), strict=True))


def agreed(accelerator: Accelerator, value: bool) -> bool:
    """Return the main process's answer in all processes."""
    return summed(accelerator, {"value": float(value and accelerator.is_main_process)})["value"] > 0
