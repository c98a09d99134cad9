"""Mix of all layers of a transformer, with weights that depend on the text."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class LayerFusion(nn.Module):
    """Squeeze-and-excitation over layers, as GLiNER's ``fuse_layers``.

    Parameters
    ----------
    n_layers
        Layers to mix, embeddings not counted.
    hidden_size
        Width of the layers and of the result.
    """

    def __init__(self, n_layers: int, hidden_size: int) -> None:
        super().__init__()
        self.squeeze = nn.Linear(hidden_size, 1)
        self.W1 = nn.Linear(n_layers, n_layers // 2)
        self.W2 = nn.Linear(n_layers // 2, n_layers)
        self.output_projection = nn.Linear(hidden_size, hidden_size)

    def forward(self, layers: Sequence[Tensor], mask: Tensor) -> Tensor:
        """Mix `layers`, each ``(rows, pieces, hidden)``; padding (`mask` 0) has no say in the weights."""
        stacked = torch.stack(list(layers), dim=1)
        weight = mask[:, None, :].to(stacked.dtype)
        squeezed = (self.squeeze(stacked).squeeze(-1) * weight).sum(-1) / weight.sum(-1)
        gates = torch.sigmoid(self.W2(torch.relu(self.W1(squeezed))))
        return self.output_projection((stacked * gates[:, :, None, None]).sum(1))
