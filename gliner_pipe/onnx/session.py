"""An exported model on disk, and the onnxruntime sessions that run its graphs."""

from __future__ import annotations

import importlib
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gliner_pipe.errors import CheckpointError, ConfigError
from gliner_pipe.modeling.encoders.base import Encoder
from gliner_pipe.modeling.layers.cache import Cache
from gliner_pipe.onnx.graphs import MODEL


def library(name: str, where: str) -> Any:
    """Return one of the packages.

    Parameters
    ----------
    name
        Module, such as ``onnxruntime.quantization``.
    where
        Section that needs it.

    Raises
    ------
    ConfigError
        When it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(
            where,
            f"needs the package {name.partition('.')[0]}, which cannot be imported ({error})",
            do='Run pip install "gliner_pipe[onnx]"',
        ) from error


SUFFIX = ".onnx"
CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
WHERE = "components.*.model"


class Graph:
    """Opens its file when it is first run; once more in a process that was forked, which has none of the threads.

    Parameters
    ----------
    path
        The file.
    threads
        Threads that one run may use; as many as torch uses when None.
    providers
        Execution providers of onnxruntime, the best first.
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
        runtime = library("onnxruntime", WHERE)
        options = runtime.SessionOptions()
        options.intra_op_num_threads = self.threads or torch.get_num_threads()
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            return runtime.InferenceSession(str(self.path), options, providers=self.providers)
        except Exception as error:  # onnxruntime's own exceptions have no common base
            reason = " ".join(str(error).split())[:300]
            raise CheckpointError(
                f"{self.path}: cannot be opened ({reason}). Export the pipeline again."
            ) from error

    def run(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run the graph.

        Parameters
        ----------
        values
            Inputs by name; what the graph does not read is left out.

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
    """Execution providers for a device.

    Raises
    ------
    RuntimeError
        If the onnxruntime that is installed has none for it.
    """
    if device.type == "cpu":
        return [CPU]
    known = library("onnxruntime", WHERE).get_available_providers()
    if device.type == "cuda" and CUDA in known:
        return [CUDA, CPU]
    raise RuntimeError(f"this onnxruntime has {', '.join(known)} only; for CUDA install onnxruntime-gpu")


def check_providers(providers: Sequence[str], where: str) -> None:
    """Refuse execution providers that are not there."""
    known = library("onnxruntime", where).get_available_providers()
    for name in providers:
        if name not in known:
            raise ConfigError(f"{where}.providers", f"found {name!r}", ", ".join(known))


def check_threads(threads: int | None, where: str) -> None:
    """Refuse a number of threads below 1."""
    if threads is not None and threads < 1:
        raise ConfigError(
            f"{where}.threads", f"found {threads}", "1 or more, or null for as many as torch uses"
        )


#: Label vectors of a compressed prompt.
VECTORS = "label_vectors.safetensors"


def open_graphs(path: Path, threads: int | None, providers: Sequence[str]) -> dict[str, Graph]:
    """Return the graphs of a folder by name, none of them opened yet.

    Raises
    ------
    CheckpointError
        If the graph that reads texts is missing.
    """
    found = {file.stem: Graph(file, threads, providers) for file in sorted(path.glob(f"*{SUFFIX}"))}
    if MODEL not in found:
        raise CheckpointError(
            f"{path}: no {MODEL}{SUFFIX}. The folder is not whole: export the pipeline again."
        )
    return found


def load_without_weights(encoder: Encoder, path: Path) -> None:
    """Make tokenizer and windows of an encoder whose weights are in a graph."""
    with torch.device("meta"):
        encoder.load_assets(path)
    encoder.requires_grad_(False).eval()
    for module in encoder.modules():
        vars(module).pop("running", None)  # there is nothing that could run in another precision


def copy_folder(source: Path, target: Path) -> None:
    """Copy the files of a model to where it is saved."""
    if not source.is_dir():
        raise CheckpointError(f"{source}: the graphs are not there any more, so that they cannot be copied.")
    if source.resolve() != target.resolve():
        shutil.copytree(source, target, dirs_exist_ok=True)


def cannot_train() -> ConfigError:
    """Return the error for whoever wants to train graphs."""
    return ConfigError(
        WHERE,
        "found graphs for onnxruntime, which cannot be trained",
        "gliner_pipe.GLiNER.v1, gliner_pipe.TokenClassifier.v1",
        "Train the pipeline that was exported, and export it again",
    )


class NoWeights(nn.Module):
    """Base of what runs in onnxruntime in place of a block."""

    def build(self, *_: object) -> None:
        """Refuse: there is nothing to make.

        Raises
        ------
        ConfigError
            Always.
        """
        raise cannot_train()
