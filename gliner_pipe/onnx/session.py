"""Runs ONNX graphs with onnxruntime or OpenVINO."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

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

Runtime = Literal["onnxruntime", "openvino"]


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
    runtime
        ``openvino`` to run on the CPU with OpenVINO, without `providers`.
    """

    def __init__(
        self, path: Path, threads: int | None, providers: Sequence[str], runtime: Runtime = "onnxruntime"
    ) -> None:
        self.path = path
        self.threads = threads
        self.providers = list(providers)
        self.runtime: Runtime = runtime
        self._sessions: Cache[tuple[int, tuple[str, ...]], Any] = Cache(1)

    def __deepcopy__(self, _: Any) -> Graph:
        return Graph(self.path, self.threads, self.providers, self.runtime)

    @property
    def session(self) -> Any:
        """The ``onnxruntime.InferenceSession``, or an :class:`OpenVinoSession` with the same methods."""
        return self._sessions.get((os.getpid(), tuple(self.providers)), self._open)

    def _open(self) -> Any:
        threads = self.threads or torch.get_num_threads()
        try:
            if self.runtime == "openvino":
                return OpenVinoSession(self.path, threads)
            runtime = library("onnxruntime")
            options = runtime.SessionOptions()
            options.intra_op_num_threads = threads
            options.inter_op_num_threads = 1
            options.log_severity_level = 3
            return runtime.InferenceSession(str(self.path), options, providers=self.providers)
        except ConfigError:
            raise
        except Exception as error:  # the exceptions of the runtimes have no common base
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


class OpenVinoSession:
    """Runs a graph with OpenVINO on the CPU, in single precision, with the methods of onnxruntime's session.

    Parameters
    ----------
    path
        The file.
    threads
        Number of threads of a run.
    """

    def __init__(self, path: Path, threads: int) -> None:
        core = openvino().Core()
        settings = {
            "INFERENCE_PRECISION_HINT": "f32",  # where the CPU has bf16, OpenVINO would compute in it
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
        }
        graph = core.read_model(path)
        for part in graph.get_ops():
            if part.get_attributes().get("direction") == "bidirectional":
                raise ValueError("its LSTM reads padding in OpenVINO")  # as of pipelines exported earlier
        self.model = core.compile_model(graph, "CPU", settings)
        self._of_thread = threading.local()

    def get_inputs(self) -> list[Any]:
        """Return the inputs, each with a ``name``."""
        return [_Named(port.get_any_name()) for port in self.model.inputs]

    def get_outputs(self) -> list[Any]:
        """Return the outputs, each with a ``name``."""
        return [_Named(port.get_any_name()) for port in self.model.outputs]

    def run(self, names: Sequence[str], feed: Mapping[str, Any]) -> list[Any]:
        """Return the outputs; each thread has memory of its own."""
        if not hasattr(self._of_thread, "request"):
            self._of_thread.request = self.model.create_infer_request()
        made = self._of_thread.request.infer(dict(feed))
        return [made[name] for name in names]


class _Named(NamedTuple):
    name: str


def openvino() -> Any:
    """Return the module of OpenVINO.

    Raises
    ------
    ConfigError
        If it is not installed.
    """
    return optional.library("openvino", f"{WHERE}.runtime", "openvino")


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
        "found ONNX graphs, which cannot be trained",
        "gliner_pipe.GLiNER.v1, gliner_pipe.TokenClassifier.v1",
        "Train the pipeline that was exported, and export it again",
    )


class NoWeights(nn.Module):
    """Base of blocks that run graphs."""

    def build(self, *_: object) -> None:
        """Raise an error: there are no weights to create.

        Raises
        ------
        ConfigError
            Always.
        """
        raise cannot_train()
