"""Self-attention of entities that also works where there are none."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from gliner_pipe.errors import ConfigError


def attention(hidden_size: int, n_heads: int) -> nn.MultiheadAttention:
    """Make the weights.

    Raises
    ------
    ConfigError
        If the heads do not divide the width.
    """
    if n_heads < 1 or hidden_size % n_heads:
        raise ConfigError(
            "components.*.model.relation_layer.n_heads",
            f"found {n_heads} with vectors of width {hidden_size}",
            f"a number that divides {hidden_size}",
        )
    return nn.MultiheadAttention(hidden_size, n_heads, batch_first=True)


def attention_weights(layer: nn.MultiheadAttention, entities: Tensor, mask: Tensor) -> Tensor:
    """How much each entity looks at each other one, ``(groups, heads, entities, entities)``.

    A group of padding alone looks at its padding: finite numbers, which the caller masks.
    """
    query, key = _projected(layer, entities, 0), _projected(layer, entities, 1)
    keys = mask | ~mask.any(1, keepdim=True)
    logits = (query * query.shape[-1] ** -0.5) @ key.transpose(2, 3)
    return logits.masked_fill(~keys[:, None, None, :], float("-inf")).softmax(-1)


def attended(layer: nn.MultiheadAttention, entities: Tensor, mask: Tensor) -> Tensor:
    """New vectors of the entities, ``(groups, entities, hidden)``."""
    values = attention_weights(layer, entities, mask) @ _projected(layer, entities, 2)
    out: Tensor = layer.out_proj(values.transpose(1, 2).flatten(2))
    return out


def _projected(layer: nn.MultiheadAttention, entities: Tensor, part: int) -> Tensor:
    """Query (0), key (1) or value (2), ``(groups, heads, entities, width)``."""
    size = layer.embed_dim
    rows = slice(part * size, (part + 1) * size)
    projected = F.linear(entities, layer.in_proj_weight[rows], layer.in_proj_bias[rows])
    return projected.unflatten(2, (layer.num_heads, size // layer.num_heads)).transpose(1, 2)
