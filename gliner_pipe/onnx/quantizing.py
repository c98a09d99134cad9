"""Weights of 8 bits for the products of an encoder."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from gliner_pipe.onnx.graphs import WHERE
from gliner_pipe.onnx.library import library

#: Operators whose weights may be quantised.
OPERATORS = ("MatMul", "Gemm")


def quantize(path: Path) -> int:
    """Quantise the products of the encoder in a graph, in place; heads and embeddings stay as they are.

    The weights are quantised once, by column; what they are multiplied with is quantised as it comes.

    Returns
    -------
    int
        How many products there are of 8 bits.
    """
    onnx, quantization = library("onnx", WHERE), library("onnxruntime.quantization", WHERE)
    graph = onnx.load(path).graph
    kept = [node.name for node in graph.node if node.op_type in OPERATORS and not _of_encoder(node)]
    target = path.with_name(f"int8-{path.name}")
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # onnxruntime warns of what it advises by the root logger
    try:
        quantization.quantize_dynamic(
            path,
            target,
            op_types_to_quantize=list(OPERATORS),
            per_channel=True,
            weight_type=quantization.QuantType.QInt8,
            nodes_to_exclude=kept,
            extra_options={"MatMulConstBOnly": True},
        )
    finally:
        root.setLevel(level)
    target.replace(path)
    return sum(node.op_type == "MatMulInteger" for node in onnx.load(path).graph.node)


def _of_encoder(node: Any) -> bool:
    """Whether a node stems from a pretrained encoder; the exporter writes down which module it was in."""
    scopes = next(
        (item.value for item in node.metadata_props if item.key == "pkg.torch.onnx.name_scopes"), ""
    )
    return ".backbone." in scopes or ".embedder." in scopes or "embedder.encoder" in scopes
