"""Writes one graph of a model as an ONNX file, and quantises it to int8."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gliner_pipe.errors import ConfigError, reason_of
from gliner_pipe.onnx.graphs import AXES, Stage
from gliner_pipe.onnx.session import SUFFIX, library

#: Operators whose weights may be quantised.
QUANTIZED = ("MatMul", "Gemm")


class _Aligned(nn.Module):
    """States which dimensions of the inputs are equal, then runs the stage."""

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self.module = stage.module
        self.axes = [AXES[name] for name in stage.inputs]

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        sizes: dict[str, Any] = {}
        for tensor, axes in zip(inputs, self.axes, strict=True):
            for axis, size in zip(axes, tensor.shape, strict=True):
                if axis is not None:
                    torch._check(sizes.setdefault(axis, size) == size)
        outputs: tuple[Tensor, ...] = self.module(*inputs)
        return outputs


def trace(stage: Stage, folder: Path, opset: int | None = None) -> Path:
    """Write one graph into a folder.

    Parameters
    ----------
    stage
        The graph.
    folder
        Where the file is written, under the name of the stage.
    opset
        Version of the operators; that of torch's exporter if None.

    Raises
    ------
    ConfigError
        If torch's exporter cannot export the block, with the reason it gives.
    """
    library("onnxscript")
    shapes = tuple(
        {place: axis for place, axis in enumerate(AXES[name]) if axis is not None} for name in stage.inputs
    )
    path = folder / f"{stage.name}{SUFFIX}"
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                _Aligned(stage).eval(),
                tuple(stage.inputs.values()),
                input_names=list(stage.inputs),
                output_names=list(stage.outputs),
                dynamic_shapes=(shapes,),
                dynamo=True,
                opset_version=opset,
                verbose=False,
            )
            assert program is not None
            program.save(path)
    except Exception as error:  # the exporter raises what torch, sympy and onnxscript raise
        reason = reason_of(error.__cause__ or error)
        raise ConfigError(
            f"components.*.model.{stage.block}",
            f"cannot be exported ({reason})",
            do="Keep the pipeline as it is, or train one with another block",
        ) from error
    return path


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide the exporter's notes and its warnings about its own implementation."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.__trace", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message=r"`isinstance\(treespec, LeafSpec\)`", category=FutureWarning
        )
        warnings.filterwarnings(
            "ignore", message="# The axis name", category=UserWarning
        )  # of several inputs
        warnings.filterwarnings("ignore", message="While compiling, we found certain side effects")
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def quantize(path: Path) -> int:
    """Quantise the matrix products of the encoder in a graph, in place; heads and embeddings stay as they are.

    Weights are quantised once, per column; activations are quantised dynamically.

    Returns
    -------
    int
        Number of 8-bit products.
    """
    onnx, quantization = library("onnx"), library("onnxruntime.quantization")
    graph = onnx.load(path).graph
    excluded = [node.name for node in graph.node if node.op_type in QUANTIZED and not _in_encoder(node)]
    target = path.with_name(f"int8-{path.name}")
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # onnxruntime logs advice to the root logger
    try:
        quantization.quantize_dynamic(
            path,
            target,
            op_types_to_quantize=list(QUANTIZED),
            per_channel=True,
            weight_type=quantization.QuantType.QInt8,
            nodes_to_exclude=excluded,
            extra_options={"MatMulConstBOnly": True},
        )
    finally:
        root.setLevel(level)
    target.replace(path)
    return sum(node.op_type == "MatMulInteger" for node in onnx.load(path).graph.node)


def _in_encoder(node: Any) -> bool:
    """Return whether a node belongs to a pretrained encoder; the exporter records the module of a node."""
    scopes = next(
        (item.value for item in node.metadata_props if item.key == "pkg.torch.onnx.name_scopes"), ""
    )
    return ".backbone." in scopes or ".embedder." in scopes or "embedder.encoder" in scopes
