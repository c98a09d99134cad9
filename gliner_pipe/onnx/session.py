"""Runs ONNX graphs with onnxruntime."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gliner_pipe.errors import CheckpointError, ConfigError, reason_of
from gliner_pipe.modeling.layers.cache import Cache
from gliner_pipe.util import optional

#: Section of a config that errors name.
WHERE = "components.*.model"
#: Suffix of graph files.
SUFFIX = ".onnx"
CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


def library(name: str) -> Any:
    """Return a module of the extra ``onnx``; see :func:`gliner_pipe.util.optional.library`."""
    return optional.library(name, WHERE, "onnx")


class Graph:
    """A graph file; its session is created at the first run, and again in a forked process, which has no threads.

    Parameters
    ----------
    path
        The file.
    threads
        Number of threads of a run; that of torch if None.
    providers
        Execution providers of onnxruntime, the preferred one first.
    """

    def __init__(self, path: Path, threads: int | None, providers: Sequence[str]) -> None:
        self.path = path
        self.threads = threads
        self.providers = list(providers)
        self._sessions: Cache[tuple[int, tuple[str, ...]], Any] = Cache(1)

    def __deepcopy__(self, _: Any) -> Graph:
        return Graph(self.path, self.threads, self.providers)

    @property
    def session(self) -> Any:
        """The ``onnxruntime.InferenceSession``."""
        return self._sessions.get((os.getpid(), tuple(self.providers)), self._open)

    def _open(self) -> Any:
        runtime = library("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = self.threads or torch.get_num_threads()
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            return runtime.InferenceSession(str(self.path), options, providers=self.providers)
        except Exception as error:  # onnxruntime's own exceptions have no common base
            reason = reason_of(error)
            raise CheckpointError(
                f"{self.path}: cannot be opened ({reason}). Export the pipeline again."
            ) from error

    def run(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run the graph.

        Parameters
        ----------
        values
            Inputs by name; values that the graph does not take are ignored.

        Returns
        -------
        dict of Tensor
            Outputs by name, on the CPU.
        """
        session = self.session
        feed = {item.name: values[item.name].cpu().numpy() for item in session.get_inputs()}
        names = [item.name for item in session.get_outputs()]
        return dict(zip(names, map(torch.from_numpy, session.run(names, feed)), strict=True))


def providers_for(device: torch.device) -> list[str]:
    """Return the execution providers for a device.

    Raises
    ------
    RuntimeError
        If the installed onnxruntime does not support the device.
    """
    if device.type == "cpu":
        return [CPU]
    known = library("onnxruntime").get_available_providers()
    if device.type == "cuda" and CUDA in known:
        return [CUDA, CPU]
    raise RuntimeError(f"this onnxruntime has {', '.join(known)} only; for CUDA install onnxruntime-gpu")


def cannot_train() -> ConfigError:
    """Return the error for training a model whose weights are graphs."""
    return ConfigError(
        WHERE,
        "found graphs for onnxruntime, which cannot be trained",
        "gliner_pipe.GLiNER.v1, gliner_pipe.TokenClassifier.v1",
        "Train the pipeline that was exported, and export it again",
    )


class NoWeights(nn.Module):
    """Base of blocks that run in onnxruntime."""

    def build(self, *_: object) -> None:
        """Raise an error: there are no weights to create.

        Raises
        ------
        ConfigError
            Always.
        """
        raise cannot_train()
