"""Small layers that several blocks share."""

from __future__ import annotations

from torch import nn

from gliner_pipe.modeling.layers.linear import Linear


def projection(in_size: int, out_size: int, dropout: float) -> nn.Sequential:
    """Two linear layers with a hidden layer of four times the output: GLiNER's projection layer.

    Parameters
    ----------
    in_size, out_size
        Widths.
    dropout
        Share of the hidden layer that is dropped in training.
    """
    return nn.Sequential(
        Linear(in_size, out_size * 4), nn.ReLU(), nn.Dropout(dropout), Linear(out_size * 4, out_size)
    )
