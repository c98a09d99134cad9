"""A tagger, run by onnxruntime."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gliner_pipe.encoders.base import EncoderBatch
from gliner_pipe.errors import CheckpointError
from gliner_pipe.model.batch import LossTerms
from gliner_pipe.model.token_classifier import LABELS, TaggingBatch, TokenClassifier
from gliner_pipe.onnx import stages
from gliner_pipe.onnx.files import WHERE, cannot_train, copy_folder, load_without_weights, open_graphs
from gliner_pipe.onnx.graphs import CPU, Graph, check_providers, check_threads, providers_for
from gliner_pipe.registry import registry

#: Weights of the decoder: the scores of steps from tag to tag.
DECODER = "decoder.safetensors"


@registry.architectures.register("gliner_pipe.ONNXTokenClassifier.v1")
class OnnxTokenClassifier(TokenClassifier):
    """Runs the graph of an exported tagger; the decoder chooses the tags as ever.

    ``python -m gliner_pipe.export --onnx`` writes pipelines with this block. It needs ``onnxruntime``, and cannot be
    trained.

    Parameters
    ----------
    model
        The blocks that were exported.
    threads, providers
        As in ``gliner_pipe.ONNX.v1``.
    """

    def __init__(
        self, model: TokenClassifier, threads: int | None = None, providers: list[str] | None = None
    ) -> None:
        super().__init__(model.encoder, model.decoder)
        check_threads(threads, WHERE)
        self.threads = threads
        self.providers = providers
        self.folder: Path | None = None
        self.graphs: dict[str, Graph] = {}
        self.eval()

    @property
    def device(self) -> torch.device:
        """Where batches are wanted: onnxruntime itself moves them on."""
        return torch.device("cpu")

    def to(self, *args: Any, **kwargs: Any) -> OnnxTokenClassifier:
        """Take the execution provider of a device, where none are given."""
        if self.providers is None:
            for graph in self.graphs.values():
                graph.providers = providers_for(torch.device(*args, **kwargs))
        return self

    def build(self, labels: Sequence[str]) -> None:
        """Refuse: there is nothing to train.

        Raises
        ------
        ConfigError
            Always.
        """
        raise cannot_train()

    def save(self, path: Path) -> None:
        """Copy the graph, labels and decoder into the folder `path`."""
        assert self.folder is not None
        copy_folder(self.folder, path)

    def load(self, path: Path) -> None:
        """Take the graph, labels and decoder of a folder.

        Raises
        ------
        CheckpointError
            When one is missing.
        """
        from safetensors.torch import load_model

        if self.providers is not None:
            check_providers(self.providers, WHERE)
        self.graphs = open_graphs(path, self.threads, self.providers or [CPU])
        for name in (LABELS, DECODER):
            if not (path / name).is_file():
                raise CheckpointError(
                    f"{path}: no {name}. The folder is not whole: export the pipeline again."
                )
        load_without_weights(self.encoder, path / "encoder")
        self.labels = tuple(json.loads((path / LABELS).read_text(encoding="utf8")))
        self.decoder.build(self.encoder.output_size, self.labels)
        load_model(self.decoder, str(path / DECODER))
        self.folder = path
        self._made = True
        self.eval()

    def emissions(self, inputs: EncoderBatch) -> Tensor:
        """Score the words of windows, ``(rows, words, chains, tags)``."""
        return self.graphs[stages.MODEL].run(vars(inputs.windows))["emissions"]

    def train(self, mode: bool = True) -> OnnxTokenClassifier:
        """Refuse to be trained.

        Raises
        ------
        ConfigError
            If it is to be.
        """
        if mode:
            raise cannot_train()
        super().train(False)
        return self

    def forward(self, batch: TaggingBatch) -> LossTerms:
        """Refuse: there is no loss.

        Raises
        ------
        ConfigError
            Always.
        """
        raise cannot_train()


def save_decoder(model: TokenClassifier, path: Path) -> None:
    """Write what a tagger needs beside its graph."""
    from safetensors.torch import save_model

    (path / LABELS).write_text(json.dumps(model.labels, ensure_ascii=False), encoding="utf8")
    save_model(model.decoder, str(path / DECODER))
