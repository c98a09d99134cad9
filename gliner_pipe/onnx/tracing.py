"""Writes a module as an ONNX graph, by the exporter of torch."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gliner_pipe.errors import ConfigError
from gliner_pipe.onnx.graphs import SUFFIX, WHERE
from gliner_pipe.onnx.library import library
from gliner_pipe.onnx.stages import AXES, Stage


class _Aligned(nn.Module):
    """Says which dimensions of the inputs are one and the same, then runs the stage."""

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
        made: tuple[Tensor, ...] = self.module(*inputs)
        return made


def trace(stage: Stage, folder: Path) -> Path:
    """Write one graph into a folder.

    Raises
    ------
    ConfigError
        If the exporter has no way to write the block; its own words are in the message.
    """
    library("onnxscript", WHERE)
    free = torch.export.Dim.DYNAMIC
    shapes = tuple(
        {place: free for place, axis in enumerate(AXES[name]) if axis is not None} for name in stage.inputs
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
                verbose=False,
            )
            assert program is not None
            _name_axes(program, stage)
            program.save(path)
    except Exception as error:  # the exporter raises what torch, sympy and onnxscript raise
        reason = " ".join(str(error.__cause__ or error).split())[:300]
        raise ConfigError(
            f"components.*.model.{stage.block}",
            f"cannot be written as a graph ({reason})",
            do="Keep the pipeline as it is, or train one with another block in this place",
        ) from error
    return path


def _name_axes(program: Any, stage: Stage) -> None:
    """Give the dimensions of the inputs their names."""
    names: dict[str, str] = {}
    for value in program.model.graph.inputs:
        for place, axis in enumerate(AXES[value.name]):
            if axis is not None:
                names[str(value.shape[place])] = axis
    program.rename_axes(names)


@contextmanager
def _quiet() -> Iterator[None]:
    """Show neither the exporter's notes nor warnings about its own workings."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.__trace", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message=r"`isinstance\(treespec, LeafSpec\)`", category=FutureWarning
        )
        warnings.filterwarnings("ignore", message="While compiling, we found certain side effects")
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
