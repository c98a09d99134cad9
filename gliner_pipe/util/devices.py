"""Memory and abilities of the devices of torch."""

from __future__ import annotations

import re
import traceback

import torch

#: Texts of errors that say that memory is full: of PyTorch on CUDA, ROCm, MPS and the CPU, of the CUDA libraries, which
#: allocate memory of their own, and of onnxruntime.
_FULL = re.compile(
    r"out of memory|can't allocate memory|not enough memory|[A-Z]_STATUS_ALLOC_FAILED|Failed to allocate memory"
)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether the memory of a device, or of the machine, is full.

    PyTorch raises ``OutOfMemoryError`` for its own allocations only. Errors of cuBLAS, cuDNN, the CUDA driver, MPS and
    the CPU are recognized by their text.
    """
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or bool(_FULL.search(str(error)))


def release_memory(error: BaseException) -> None:
    """Free what the stack frames of an error hold, such as activations, and return cached memory to the devices.

    Parameters
    ----------
    error
        An error that was caught; its traceback still shows where it was raised.
    """
    traceback.clear_frames(error.__traceback__)
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()


def has_flash_attention(device: torch.device) -> bool:
    """Return whether a GPU runs flash-attn and flashdeberta: compute capability 8.0 (Ampere) or newer."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
