"""A faster attention for DeBERTa-v2 and v3 of `transformers`; imported only when such a model is loaded."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.deberta_v2 import modeling_deberta_v2 as hf

from gliner_pipe.modeling.layers.cache import CachingModule, as_kind
from gliner_pipe.modeling.layers.disentangled_attention import (
    disentangled_attention,
    flash_attention,
    flash_runs,
)
from gliner_pipe.modeling.layers.int8 import Int8Linear
from gliner_pipe.modeling.layers.linear import Linear


def replace_attention(model: nn.Module) -> int:
    """Replace the attention of the DeBERTa encoders in a model; weights keep their names.

    Encoders with an unexpected structure (another version of `transformers`, custom code) are left unchanged.

    Parameters
    ----------
    model
        Any model; it is modified in place.

    Returns
    -------
    int
        Number of encoders whose attention was replaced.
    """
    count = 0
    for name, encoder in list(model.named_modules()):
        if type(encoder) is not hf.DebertaV2Encoder or not name or not _is_known(encoder):
            continue
        for layer in encoder.layer:
            layer.attention.self = as_kind(DisentangledAttention, layer.attention.self)
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, as_kind(DisentangledEncoder, encoder))
        count += 1
    return count


def _is_known(encoder: Any) -> bool:
    hooks = ("get_rel_embedding", "get_rel_pos", "get_attention_mask")
    if not all(hasattr(encoder, hook) for hook in hooks) or not hasattr(hf, "make_log_bucket_position"):
        return False
    names = ("hidden_states", "attention_mask", "output_attentions", "query_states")
    expected = {*names, "relative_pos", "rel_embeddings"}
    attentions = [layer.attention.self for layer in encoder.layer]
    return all(
        type(attention) is hf.DisentangledSelfAttention
        and "forward" not in vars(attention)
        and expected == set(inspect.signature(attention.forward).parameters)
        and set(attention.pos_att_type) <= {"c2p", "p2c"}
        for attention in attentions
    )


#: Modules whose output depends on nothing but their input and their weights.
_PURE = (nn.Linear, nn.Embedding, nn.LayerNorm, Linear, Int8Linear)

#: Projected embeddings of distances, for queries to compare with and for keys; None for one not in use.
_Tables = tuple[Tensor | None, Tensor | None]
_NO_TABLES: _Tables = (None, None)


def _weights(module: nn.Module) -> tuple[Tensor, ...] | None:
    """Return the weights that the output of `module` depends on; None if it may depend on anything else."""
    hooked = module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module)
    if type(module) not in _PURE or hooked:
        return None
    own = (*module._parameters.values(), *module._buffers.values())
    return tuple(weight for weight in own if weight is not None)


class _CachesInEvaluation(CachingModule):
    """Caches without gradients and in evaluation mode only.

    A fused optimizer changes weights without raising their version, so after a run with gradients nothing is cached
    until ``train`` or ``eval`` is called.
    """

    _cache_size = 1
    _ran_with_gradients = False

    def _may_cache(self) -> bool:
        if torch.compiler.is_compiling():
            return False
        if torch.is_grad_enabled():
            self._cache.forget()
            self._ran_with_gradients = True
        return not (self._ran_with_gradients or self.training)

    def train(self: Any, mode: bool = True) -> Any:
        self._ran_with_gradients = False
        return super().train(mode)


class DisentangledEncoder(_CachesInEvaluation, hf.DebertaV2Encoder):  # type: ignore[misc]
    """The layers of DeBERTa; distances, their embeddings and masks are computed once for all layers."""

    relative_attention: bool
    norm_rel_ebd: list[str]
    rel_embeddings: nn.Module
    LayerNorm: nn.Module
    layer: Any

    def get_rel_embedding(self) -> Any:
        """Return the embeddings of the distances, ``(2 * span, hidden)``, or None."""
        if not self.relative_attention or "layer_norm" not in self.norm_rel_ebd or not self._may_cache():
            return super().get_rel_embedding()
        embeddings, norm = _weights(self.rel_embeddings), _weights(self.LayerNorm)
        if embeddings is None or norm is None:
            return super().get_rel_embedding()
        return self._cache.get("embeddings", super().get_rel_embedding, embeddings + norm)

    def get_rel_pos(self, hidden_states: Any, query_states: Any = None, relative_pos: Any = None) -> Any:
        """Return the rows of the embeddings for the distances; see ``rows_of_distances``."""
        if not self.relative_attention or query_states is not None or relative_pos is not None:
            return super().get_rel_pos(hidden_states, query_states, relative_pos)
        return self.layer[0].attention.self.rows_of_distances(hidden_states.shape[-2], hidden_states.device)

    def vectors_at(
        self, model: nn.Module, ids: Tensor, mask: Tensor, places: Tensor, wanted: Tensor
    ) -> Tensor | None:
        """Return the vectors of some tokens, see ``packed_vectors``; None where `model` has to be run instead."""
        from gliner_pipe.modeling.layers.packed_deberta import packed_vectors, runs_packed

        return packed_vectors(model, ids, mask, places, wanted) if runs_packed(model, ids) else None

    def get_attention_mask(self, attention_mask: Any) -> Any:
        """Return which query may attend to which key, ``(rows, 1, length, length)``; None without padding."""
        if attention_mask.dim() != 2:
            return super().get_attention_mask(attention_mask)
        real = attention_mask.bool()
        # on a GPU this check would make the host wait for the device
        if real.device.type == "cpu" and not torch.compiler.is_compiling() and bool(real.all()):
            return None
        return real[:, None, :, None] & real[:, None, None, :]


class DisentangledAttention(_CachesInEvaluation, hf.DisentangledSelfAttention):  # type: ignore[misc]
    """The attention of a layer, with the same results as its base class.

    The embeddings of the distances in use are projected once; in evaluation mode without gradients the projections are
    cached until the weights change. Other uses (attention weights as output, queries of another layer) fall back to the
    base class.
    """

    query_proj: nn.Module
    key_proj: nn.Module
    value_proj: nn.Module
    dropout: nn.Dropout
    pos_dropout: nn.Dropout
    num_attention_heads: int
    attention_head_size: int
    pos_att_type: list[str]
    pos_ebd_size: int
    position_buckets: int
    max_relative_positions: int
    share_att_key: bool
    relative_attention: bool

    def rows_of_distances(self, length: int, device: torch.device) -> Tensor | None:
        """Return the row of the embeddings for each distance ``1 - length .. length - 1``; None if consecutive."""
        span, buckets = self.pos_ebd_size, self.position_buckets
        bucketed = buckets > 0 and self.max_relative_positions > 0
        if not torch.compiler.is_compiling() and length <= min(span, buckets // 2 + 1 if bucketed else span):
            return None
        distances = torch.arange(1 - length, length, device=device)
        if bucketed:
            distances = hf.make_log_bucket_position(distances, buckets, self.max_relative_positions)
        return (distances.long() + span).clamp(0, 2 * span - 1)

    def forward(
        self,
        hidden_states: Any,
        attention_mask: Any,
        output_attentions: Any = False,
        query_states: Any = None,
        relative_pos: Any = None,
        rel_embeddings: Any = None,
    ) -> Any:
        """Attend as the base class does; `relative_pos` may be the result of ``rows_of_distances``."""
        rows = relative_pos if relative_pos is None or relative_pos.dim() == 1 else None
        if output_attentions or query_states is not None or rows is not relative_pos:
            if attention_mask is None:
                n = hidden_states.shape[1]
                attention_mask = hidden_states.new_ones(len(hidden_states), 1, n, n)
            relative_pos = relative_pos if rows is None else None
            return super().forward(
                hidden_states, attention_mask, output_attentions, query_states, relative_pos, rel_embeddings
            )
        shape = (*hidden_states.shape[:-1], self.num_attention_heads, self.attention_head_size)
        query, key, value = (
            projection(hidden_states).view(shape)
            for projection in (self.query_proj, self.key_proj, self.value_proj)
        )
        dropout = self.dropout.p if self.training else 0.0
        allowed = None if attention_mask is None else attention_mask.bool()
        if flash_runs(query, dropout):
            buckets, reach, tables = 0, 1, _NO_TABLES
            if self.relative_attention:
                buckets, reach = self.position_buckets, self.max_relative_positions
                tables = self._all_positions(rel_embeddings, query.dtype)
            mixed = flash_attention(query, key, value, *tables, allowed, self.scale, buckets, reach)
            if mixed is not None:
                return mixed, None
        position_key = position_query = None
        if self.relative_attention:
            if rows is None:
                rows = self.rows_of_distances(shape[1], hidden_states.device)
            position_key, position_query = self.tables(rel_embeddings, shape[1], rows, query.dtype)
        mixed = disentangled_attention(
            query, key, value, position_key, position_query, allowed, self.scale, dropout
        )
        return mixed, None

    @property
    def scale(self) -> float:
        """Factor of all products of queries and keys."""
        parts = 1 + ("c2p" in self.pos_att_type) + ("p2c" in self.pos_att_type)
        return 1 / math.sqrt(self.attention_head_size * parts)

    def _all_positions(self, embeddings: Tensor, dtype: torch.dtype) -> _Tables:
        """Return the tables of all distances, for ``flash_attention``."""
        tables = self._cached_tables(embeddings, dtype, self._project)
        if tables is None:
            tables = self._project(self.pos_dropout(embeddings[: 2 * self.pos_ebd_size]))
        return tables

    def tables(self, embeddings: Tensor, length: int, rows: Tensor | None, dtype: torch.dtype) -> _Tables:
        """Return the tables of the distances in use, for ``disentangled_attention``."""
        span = self.pos_ebd_size
        tables = self._cached_tables(embeddings, dtype, self._scaled)
        if tables is None:
            if rows is None:
                return self._scaled(self.pos_dropout(embeddings[span - length + 1 : span + length]))
            embeddings = self.pos_dropout(embeddings[: 2 * span])
            if torch.compiler.is_compiling() or len(rows) < 2 * span:
                return self._scaled(embeddings.index_select(0, rows))
            tables = self._scaled(embeddings)
        key, query = tables
        if rows is None:
            return (
                None if key is None else key[:, span - length : span + length - 1],
                None if query is None else query[:, span - length + 1 : span + length],
            )
        return (
            None if key is None else key.index_select(1, 2 * span - 1 - rows.flip(0)),
            None if query is None else query.index_select(1, rows),
        )

    def _cached_tables(
        self, embeddings: Tensor, dtype: torch.dtype, project: Callable[[Tensor], _Tables]
    ) -> _Tables | None:
        """Return the tables of all distances from `project`, cached for `dtype`; None if they cannot be cached."""
        if not self._may_cache():
            return None
        weights: tuple[Tensor, ...] = (embeddings,)
        for projection in self._projections:
            if projection is not None:
                own = _weights(projection)
                if own is None:
                    return None
                weights += own

        def make() -> _Tables:
            key, query = project(embeddings[: 2 * self.pos_ebd_size])
            return None if key is None else key.contiguous(), None if query is None else query.contiguous()

        return self._cache.get((dtype, project.__name__), make, weights)

    @property
    def _projections(self) -> tuple[nn.Module | None, nn.Module | None]:
        """The projections of keys and queries; None for one not in use."""
        prefix = "" if self.share_att_key else "pos_"
        return (
            getattr(self, f"{prefix}key_proj") if "c2p" in self.pos_att_type else None,
            getattr(self, f"{prefix}query_proj") if "p2c" in self.pos_att_type else None,
        )

    def _scaled(self, embeddings: Tensor) -> _Tables:
        """Project and scale embeddings of distances; the order of the first table is reversed."""
        key, query = self._project(embeddings)
        return (
            None if key is None else key.flip(1) * self.scale,
            None if query is None else query * self.scale,
        )

    def _project(self, embeddings: Tensor) -> _Tables:
        """Project embeddings of distances, ``(distances, hidden)`` to ``(heads, distances, width)``."""
        shape = (-1, self.num_attention_heads, self.attention_head_size)
        key, query = (
            None if projection is None else projection(embeddings).view(shape).transpose(0, 1)
            for projection in self._projections
        )
        return key, query
