"""What is an error of full memory, what is freed after it, and what a GPU can run."""

from __future__ import annotations

import weakref

import pytest
import torch

from gliner_pipe.util.devices import has_flash_attention, is_out_of_memory, release_memory


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        MemoryError(),
        RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB"),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("MPS backend out of memory (MPS allocated: 8.00 GB)"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."),
    ],
    ids=str,
)
def test_errors_of_full_memory(error):
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: device-side assert triggered"),
        RuntimeError(
            "cuDNN error: CUDNN_STATUS_NOT_SUPPORTED. This error may appear for non-contiguous input"
        ),
        RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED"),
        ValueError("sizes do not match"),
    ],
    ids=str,
)
def test_other_errors(error):
    assert not is_out_of_memory(error)


def test_a_full_cpu_is_recognized():
    with pytest.raises(RuntimeError) as error:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(error.value)


def test_frames_of_an_error_hold_no_tensors_afterwards():
    held = []

    def full():
        activations = torch.ones(3)
        held.append(weakref.ref(activations))
        raise torch.OutOfMemoryError("full")

    try:
        full()
    except torch.OutOfMemoryError as error:
        assert held[0]() is not None
        release_memory(error)
        assert held[0]() is None


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_flash_attention_needs_ampere(capability, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert has_flash_attention(torch.device("cuda", 1)) is expected
    assert not has_flash_attention(torch.device("cpu"))
