"""The three counters of GLiNER2, which differ in how the state of an instance becomes a query."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gliner_pipe.modeling.counters.base import Counter
from gliner_pipe.modeling.layers.linear import Linear, mlp
from gliner_pipe.registry import registry
from gliner_pipe.util.ranges import Share


@registry.counters.register("count_lstm")
class CountLstm(Counter):
    """A query is a two-layer network over the state of its instance and the vector of its field.

    Notes
    -----
    Source: GLiNER2's ``count_lstm``.
    """

    def build(self, hidden_size: int) -> None:
        """Create the weights for vectors of this width."""
        super().build(hidden_size)
        self.projector = mlp(2 * hidden_size, 4 * hidden_size, hidden_size)

    def project(self, states: Tensor, fields: Tensor, mask: Tensor | None) -> Tensor:
        """Map the states of the instances to queries."""
        queries: Tensor = self.projector(torch.cat([states, fields[:, None].expand_as(states)], -1))
        return queries


#: Width, attention heads and layers of the small transformer in `CountLstmV2`.
WIDTH, N_HEADS, N_LAYERS = 128, 4, 2


@registry.counters.register("count_lstm_v2")
class CountLstmV2(Counter):
    """The fields of an instance attend to each other before they become queries, in a small transformer.

    The query of an entity label therefore depends on the labels beside it, also apart from the prompt.

    Parameters
    ----------
    dropout
        Dropout rate of the transformer.

    Notes
    -----
    Source: GLiNER2's ``count_lstm_v2``.
    """

    def __init__(self, dropout: Share = 0.1) -> None:
        super().__init__()
        self.dropout = dropout

    def build(self, hidden_size: int) -> None:
        """Create the weights for vectors of this width."""
        super().build(hidden_size)
        self.in_projector = Linear(hidden_size, WIDTH)
        self.layers = nn.ModuleList(_FieldAttention(self.dropout) for _ in range(N_LAYERS))
        self.out_projector = mlp(hidden_size + WIDTH, *[hidden_size] * 3)

    def project(self, states: Tensor, fields: Tensor, mask: Tensor | None) -> Tensor:
        """Map the states of the instances to queries."""
        states = states + fields[:, None]
        rows, slots = states.shape[:2]
        seen = (
            None if mask is None else _seen(mask)[:, None, None].expand(-1, slots, -1, -1, -1).flatten(0, 1)
        )
        hidden = self.in_projector(states).flatten(0, 1)
        for layer in self.layers:
            hidden = layer(hidden, seen)
        queries: Tensor = self.out_projector(torch.cat([hidden.unflatten(0, (rows, slots)), states], -1))
        return queries


def _seen(mask: Tensor) -> Tensor:
    """Return which fields attention reads, ``(rows, 1, fields)``: all of a row without any, whose output is unused."""
    return (mask | ~mask.any(1, keepdim=True))[:, None]


class _FieldAttention(nn.Module):
    """A transformer layer over the fields, normalized after each part."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.in_proj, self.out_proj = Linear(WIDTH, 3 * WIDTH), Linear(WIDTH, WIDTH)
        self.linear1, self.linear2 = Linear(WIDTH, 2 * WIDTH), Linear(2 * WIDTH, WIDTH)
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.drop = nn.Dropout(dropout)

    def forward(self, inputs: Tensor, seen: Tensor | None) -> Tensor:
        """Map ``(instances, fields, width)``; `seen` is ``(instances, 1, 1, fields)``, False for padding."""
        parts = self.in_proj(inputs).unflatten(2, (3, N_HEADS, -1)).permute(2, 0, 3, 1, 4)
        rate = self.drop.p if self.training else 0.0
        query, key, value = parts.unbind(0)
        read = F.scaled_dot_product_attention(query, key, value, attn_mask=seen, dropout_p=rate)
        hidden = self.norm1(inputs + self.drop(self.out_proj(read.transpose(1, 2).flatten(2))))
        inner = self.drop(self.linear1(hidden).relu())
        made: Tensor = self.norm2(hidden + self.drop(self.linear2(inner)))
        return made


#: Number of experts of `CountLstmMoe`.
N_EXPERTS = 4


@registry.counters.register("count_lstm_moe")
class CountLstmMoe(Counter):
    """A query is a weighted sum of four two-layer networks over the state of its instance.

    Parameters
    ----------
    dropout
        Dropout rate of the hidden layers.

    Notes
    -----
    Source: GLiNER2's ``count_lstm_moe``.
    """

    def __init__(self, dropout: Share = 0.1) -> None:
        super().__init__()
        self.dropout = dropout

    def build(self, hidden_size: int) -> None:
        """Create the weights for vectors of this width."""
        super().build(hidden_size)
        inner = 2 * hidden_size
        self.w1 = nn.Parameter(torch.empty(N_EXPERTS, hidden_size, inner))
        self.b1 = nn.Parameter(torch.zeros(N_EXPERTS, inner))
        self.w2 = nn.Parameter(torch.empty(N_EXPERTS, inner, hidden_size))
        self.b2 = nn.Parameter(torch.zeros(N_EXPERTS, hidden_size))
        for weight in (self.w1, self.w2):
            nn.init.xavier_uniform_(weight)
        self.router = nn.Sequential(
            Linear(hidden_size, hidden_size), nn.GELU(), Linear(hidden_size, N_EXPERTS)
        )
        self.drop = nn.Dropout(self.dropout)

    def project(self, states: Tensor, fields: Tensor, mask: Tensor | None) -> Tensor:
        """Map the states of the instances to queries."""
        shares = self.router(states).softmax(-1)
        queries = torch.zeros_like(states)
        for share, w1, b1, w2, b2 in zip(shares.unbind(-1), self.w1, self.b1, self.w2, self.b2, strict=True):
            inner = self.drop(F.gelu(states @ w1 + b1))
            queries = queries + share[..., None] * (inner @ w2 + b2)
        return queries
