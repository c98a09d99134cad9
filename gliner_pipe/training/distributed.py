"""The one accelerator of a training: device, mixed precision, several processes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
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
    frozen
        Parts of the models that stay in evaluation mode.
    """

    def __init__(
        self, models: Mapping[str, nn.Module], distributed: bool, frozen: Sequence[nn.Module] = ()
    ) -> None:
        super().__init__()
        self._frozen = list(frozen)
        self.names = list(models)
        # not a ModuleDict: component names may hold dots
        self.models = nn.ModuleList(models.values())
        self.distributed = distributed

    def train(self, mode: bool = True) -> TrainedModels:
        """Set the training mode of all that learns."""
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self

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
    if accelerator.distributed_type.value in ("FSDP", "DEEPSPEED", "MEGATRON_LM"):
        raise ConfigError(
            "accelerate config",
            f"asks for {accelerator.distributed_type.value}, which shards the weights over the processes",
            "whole weights in every process (MULTI_GPU): the pipeline is measured and saved from them",
            "Run accelerate launch --multi_gpu; for large models use adapters, bf16 and gradient_checkpointing",
        )
    if mixed_precision == "fp16" and accelerator.device.type == "cpu":
        raise _not_here(mixed_precision, "it needs a GPU")  # accelerate would train in 32 bit without a word
    return accelerator


def _not_here(mixed_precision: str, why: str) -> ConfigError:
    return ConfigError(
        "train.mixed_precision", f"is {mixed_precision!r}, which cannot be had here: {why}", "no, bf16"
    )


def compile_backbones(models: Mapping[str, nn.Module], backend: str | bool) -> None:
    """Have torch compile the pretrained transformers, in place: names of weights stay as they are.

    The first steps take long, and so does every new shape; worth it for long trainings on a GPU.

    Parameters
    ----------
    models
        One torch module a component.
    backend
        Name of a backend of ``torch.compile``; True for torch's default.

    Raises
    ------
    ConfigError
        If torch knows no such backend.
    """
    from transformers import PreTrainedModel

    name = "inductor" if backend is True else str(backend)
    known = torch.compiler.list_backends(exclude_tags=())
    if name not in known:
        raise ConfigError("train.compile", f"is {backend!r}", f"true, false, {', '.join(known)}")

    for model in models.values():
        inside: set[nn.Module] = set()
        for module in model.modules():  # the outer ones come first
            if isinstance(module, PreTrainedModel) and module not in inside:
                inside.update(module.modules())
                module.compile(backend=name, dynamic=True)


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Have torch choose kernels that give the same numbers every time, if `wanted`; an operation without one raises."""
    if not wanted:
        yield
        return
    before = torch.are_deterministic_algorithms_enabled()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def gathered(accelerator: Accelerator, value: Any) -> list[Any]:
    """Return the values of all processes, in their order."""
    if accelerator.num_processes == 1:
        return [value]
    from accelerate.utils import gather_object

    found: list[Any] = gather_object([value])
    return found


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
