"""What models share whose weights are in graphs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from gliner_pipe.onnx.files import cannot_train, copy_folder, open_graphs
from gliner_pipe.onnx.graphs import CPU, WHERE, Graph, check_providers, check_threads, providers_for

if TYPE_CHECKING:
    from typing_extensions import Self


class RunsGraphs(nn.Module):
    """Goes before the class of a model: the graphs in place of weights, and no training.

    Attributes
    ----------
    threads, providers
        Of onnxruntime; see ``gliner_pipe.ONNX.v1``.
    folder
        Where the graphs are, once loaded.
    graphs
        By name.
    """

    threads: int | None
    providers: list[str] | None
    folder: Path | None
    graphs: dict[str, Graph]

    def set_session(self, threads: int | None, providers: list[str] | None) -> None:
        """Store the settings of onnxruntime, for the end of a constructor; there are no graphs yet.

        Raises
        ------
        ConfigError
            If a number of threads cannot be.
        """
        check_threads(threads, WHERE)
        self.threads, self.providers = threads, providers
        self.folder, self.graphs = None, {}
        self.eval()

    def take_graphs(self, path: Path) -> None:
        """Take the graphs of a folder; they are opened when they are first run.

        Raises
        ------
        CheckpointError
            When there are none.
        ConfigError
            If the execution providers are not there.
        """
        if self.providers is not None:
            check_providers(self.providers, WHERE)
        self.graphs = open_graphs(path, self.threads, self.providers or [CPU])
        self.folder = path

    @property
    def device(self) -> torch.device:
        """Where batches are wanted: onnxruntime itself moves them on."""
        return torch.device("cpu")

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Take the execution provider of a device, where none are given."""
        if self.providers is None:
            chosen = providers_for(torch.device(*args, **kwargs))
            for graph in self.graphs.values():
                graph.providers = chosen
        return self

    def save(self, path: Path) -> None:
        """Copy the folder of the graphs to `path`."""
        assert self.folder is not None
        copy_folder(self.folder, path)

    def build(self, labels: Sequence[str] = ()) -> None:
        """Refuse: there is nothing to train.

        Raises
        ------
        ConfigError
            Always.
        """
        raise cannot_train()

    def train(self, mode: bool = True) -> Self:
        """Refuse to be trained.

        Raises
        ------
        ConfigError
            If it is to be.
        """
        if mode:
            raise cannot_train()
        return super().train(False)

    def forward(self, batch: Any) -> Any:
        """Refuse: there is no loss.

        Raises
        ------
        ConfigError
            Always.
        """
        raise cannot_train()
