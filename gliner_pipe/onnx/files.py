"""The folder of a model that is written as graphs."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from gliner_pipe.encoders.base import Encoder
from gliner_pipe.errors import CheckpointError, ConfigError
from gliner_pipe.onnx.graphs import SUFFIX, WHERE, Graph
from gliner_pipe.onnx.stages import MODEL

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
