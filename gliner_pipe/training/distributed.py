"""Device, mixed precision, compilation and communication between processes."""

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

#: Maximum time that the other processes wait for the main process to validate and save.
PATIENCE = timedelta(hours=12)


class TrainedModels(nn.Module):
    """All trained models of a pipeline in one module, which accelerate wraps.

    The wrapper (autocast, gradients over processes) is on this module only: the models of the components are not
    wrapped.

    Parameters
    ----------
    models
        Model of each component.
    distributed
        Whether gradients are averaged over processes.
    frozen
        Modules that stay in evaluation mode.
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
        """Set the training mode, except that of frozen modules."""
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
            # All processes must have gradients for the same parameters, also if a batch does not use a head.
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
        If this machine does not support it.
    """
    from accelerate import Accelerator, InitProcessGroupKwargs
    from accelerate.state import AcceleratorState, PartialState

    if AcceleratorState._shared_state and PartialState().num_processes == 1:
        # do not reuse the settings of an earlier training in this process
        AcceleratorState._reset_state(reset_partial_state=True)
    handlers = [InitProcessGroupKwargs(timeout=PATIENCE)]
    try:
        accelerator = Accelerator(mixed_precision=mixed_precision, cpu=cpu, kwargs_handlers=handlers)
    except ValueError as error:
        raise _unsupported(mixed_precision, str(error)) from error
    if accelerator.distributed_type.value in ("FSDP", "DEEPSPEED", "MEGATRON_LM"):
        raise ConfigError(
            "accelerate config",
            f"selects {accelerator.distributed_type.value}, which shards the weights over the processes",
            "all weights in every process (MULTI_GPU): the pipeline is validated and saved from them",
            "Run accelerate launch --multi_gpu; for large models use adapters, bf16 and gradient_checkpointing",
        )
    if mixed_precision == "fp16" and accelerator.device.type == "cpu":
        raise _unsupported(mixed_precision, "it needs a GPU")  # accelerate would silently train in 32 bit
    return accelerator


def _unsupported(mixed_precision: str, why: str) -> ConfigError:
    return ConfigError(
        "train.mixed_precision",
        f"is {mixed_precision!r}, which this machine does not support: {why}",
        "no, bf16",
    )


def compile_backbones(models: Mapping[str, nn.Module], backend: str | bool) -> None:
    """Compile the pretrained transformers with torch, in place; the names of the weights do not change.

    The first steps are slow, and so is every new shape; useful for long trainings on a GPU.

    Parameters
    ----------
    models
        Model of each component.
    backend
        Name of a backend of ``torch.compile``; True for torch's default.

    Raises
    ------
    ConfigError
        If torch does not have the backend.
    """
    from transformers import PreTrainedModel

    name = "inductor" if backend is True else str(backend)
    known = torch.compiler.list_backends(exclude_tags=())
    if name not in known:
        raise ConfigError("train.compile", f"is {backend!r}", f"true, false, {', '.join(known)}")

    for model in models.values():
        inside: set[nn.Module] = set()
        for module in model.modules():  # outer modules come first
            if isinstance(module, PreTrainedModel) and module not in inside:
                inside.update(module.modules())
                module.compile(backend=name, dynamic=True)


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """If `wanted`, use only deterministic kernels of torch; an operation without one raises an error."""
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
    """Return a context without gradient synchronisation, unless this is the `last` sub-batch of a step."""
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
