"""DeBERTa-v2 and v3 of `transformers` with a faster attention; imported only where there is such a model."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from transformers.models.deberta_v2 import modeling_deberta_v2 as hf

from gliner_pipe.modeling.layers.cache import Cache
from gliner_pipe.modeling.layers.disentangled_attention import (
    disentangled_attention,
    flash_attention,
    flash_runs,
)
from gliner_pipe.modeling.layers.int8 import Int8Linear
from gliner_pipe.modeling.layers.linear import Linear

Module = TypeVar("Module", bound=nn.Module)


def replace_attention(model: nn.Module) -> int:
    """Exchange the attention of the DeBERTa encoders inside a model; names of weights stay as they are.

    Encoders that are not built as expected (another version of `transformers`, code of their own) keep theirs.

    Parameters
    ----------
    model
        Any model; it is changed in place.

    Returns
    -------
    int
        How many encoders have the fast attention now.
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


def as_kind(kind: type[Module], module: nn.Module) -> Module:
    """Return a `kind` with the weights, hooks and settings of `module`, whose subclass it is."""
    made = kind.__new__(kind)
    made.__setstate__(vars(module).copy())
    return made


#: Modules whose output follows from their input, their weights and nothing else.
_TRANSPARENT = (nn.Linear, nn.Embedding, nn.LayerNorm, Linear, Int8Linear)

#: What follows from weights, or parts of it.
_Tables = tuple[Tensor | None, Tensor | None]
_NO_TABLES: _Tables = (None, None)


def _weights(module: nn.Module) -> tuple[Tensor, ...] | None:
    """Weights that the output of `module` depends on; None where it may depend on more."""
    hooked = module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module)
    if type(module) not in _TRANSPARENT or hooked:
        return None
    own = (*module._parameters.values(), *module._buffers.values())
    return tuple(weight for weight in own if weight is not None)


class _Keeper(nn.Module):
    """Keeps what follows from the weights alone, while no gradients are asked for and until they change.

    Not all optimizers leave a trace on the weights they change (a fused one does not), so that after a run with
    gradients nothing is kept before ``train`` or ``eval`` is called again.
    """

    _kept: Cache[Any, _Tables]
    _learns = False

    def __setstate__(self, state: dict[str, Any]) -> None:  # ``as_kind`` makes all of them by it
        super().__setstate__(state)
        self._kept = Cache(1)

    def _may_keep(self) -> bool:
        if torch.compiler.is_compiling():
            return False
        if torch.is_grad_enabled():
            self._kept.forget()
            self._learns = True
        return not (self._learns or self.training)

    def __getstate__(self) -> dict[str, Any]:
        state = vars(self).copy()
        state.pop("_kept", None)
        return state

    def train(self: Any, mode: bool = True) -> Any:
        self._kept.forget()
        self._learns = False
        return super().train(mode)

    def _apply(self: Any, *args: Any, **kwargs: Any) -> Any:
        self._kept.forget()
        return super()._apply(*args, **kwargs)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._kept.forget()
        super()._load_from_state_dict(*args, **kwargs)


class DisentangledEncoder(_Keeper, hf.DebertaV2Encoder):  # type: ignore[misc]
    """Layers of DeBERTa; distances, masks and their embeddings are made once for all of them."""

    relative_attention: bool
    norm_rel_ebd: list[str]
    rel_embeddings: nn.Module
    LayerNorm: nn.Module
    layer: Any

    def get_rel_embedding(self) -> Any:
        """Embeddings of the distances, ``(2 * span, hidden)``, or None."""
        if not self.relative_attention or "layer_norm" not in self.norm_rel_ebd or not self._may_keep():
            return super().get_rel_embedding()
        parts = [_weights(self.rel_embeddings), _weights(self.LayerNorm)]
        if parts[0] is None or parts[1] is None:
            return super().get_rel_embedding()
        return self._kept.get(
            "embeddings",
            lambda: (hf.DebertaV2Encoder.get_rel_embedding(self), None),
            parts[0] + parts[1],
        )[0]

    def get_rel_pos(self, hidden_states: Any, query_states: Any = None, relative_pos: Any = None) -> Any:
        """Row of the embeddings for each distance ``1 - length .. length - 1``; None where it is that distance."""
        if not self.relative_attention or query_states is not None or relative_pos is not None:
            return super().get_rel_pos(hidden_states, query_states, relative_pos)
        return self.layer[0].attention.self.rows_of_distances(hidden_states.shape[-2], hidden_states.device)

    def get_attention_mask(self, attention_mask: Any) -> Any:
        """Who may see whom, ``(rows, 1, length, length)``; None where nothing is padded."""
        if attention_mask.dim() != 2:
            return super().get_attention_mask(attention_mask)
        real = attention_mask.bool()
        # elsewhere the question would make the host wait for the device
        if real.device.type == "cpu" and not torch.compiler.is_compiling() and bool(real.all()):
            return None
        return real[:, None, :, None] & real[:, None, None, :]


class DisentangledAttention(_Keeper, hf.DisentangledSelfAttention):  # type: ignore[misc]
    """Attention of a layer; the same numbers as those of its base class.

    The embeddings of the distances in use are projected once, and without gradients the projections are kept until the
    weights change. What is not foreseen here (attention weights as output, queries of another layer) goes to the base
    class.
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
        """Row of the embeddings for each distance ``1 - length .. length - 1``; None for rows next to each other."""
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
        """Attend, see the base class; `relative_pos` may be what ``rows_of_distances`` returns."""
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
            mixed = flash_attention(query, key, value, *tables, allowed, self._scale, buckets, reach)
            if mixed is not None:
                return mixed, None
        position_key = position_query = None
        if self.relative_attention:
            if rows is None:
                rows = self.rows_of_distances(shape[1], hidden_states.device)
            position_key, position_query = self._positions(rel_embeddings, shape[1], rows, query.dtype)
        mixed = disentangled_attention(
            query, key, value, position_key, position_query, allowed, self._scale, dropout
        )
        return mixed, None

    @property
    def _scale(self) -> float:
        parts = 1 + ("c2p" in self.pos_att_type) + ("p2c" in self.pos_att_type)
        return 1 / math.sqrt(self.attention_head_size * parts)

    def _all_positions(self, embeddings: Tensor, dtype: torch.dtype) -> _Tables:
        """Tables of ``flash_attention``, of all distances."""
        tables = self._kept_tables(embeddings, dtype, self._project)
        if tables is None:
            tables = self._project(self.pos_dropout(embeddings[: 2 * self.pos_ebd_size]))
        return tables

    def _positions(self, embeddings: Tensor, length: int, rows: Tensor | None, dtype: torch.dtype) -> _Tables:
        """Tables of ``disentangled_attention``, of the distances in use."""
        span = self.pos_ebd_size
        tables = self._kept_tables(embeddings, dtype, self._scaled)
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

    def _kept_tables(
        self, embeddings: Tensor, dtype: torch.dtype, project: Callable[[Tensor], _Tables]
    ) -> _Tables | None:
        """Tables of all distances that `project` makes, as numbers of `dtype`; None where they cannot be kept."""
        if not self._may_keep():
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

        return self._kept.get((dtype, project.__name__), make, weights)

    @property
    def _projections(self) -> tuple[nn.Module | None, nn.Module | None]:
        """Of keys and queries; None for what is not in use."""
        prefix = "" if self.share_att_key else "pos_"
        return (
            getattr(self, f"{prefix}key_proj") if "c2p" in self.pos_att_type else None,
            getattr(self, f"{prefix}query_proj") if "p2c" in self.pos_att_type else None,
        )

    def _scaled(self, embeddings: Tensor) -> _Tables:
        """Project embeddings of distances, times the scale; those of keys come out in reverse order."""
        key, query = self._project(embeddings)
        return (
            None if key is None else key.flip(1) * self._scale,
            None if query is None else query * self._scale,
        )

    def _project(self, embeddings: Tensor) -> _Tables:
        """Project embeddings of distances, ``(distances, hidden)`` to ``(heads, distances, width)``."""
        shape = (-1, self.num_attention_heads, self.attention_head_size)
        key, query = (
            None if projection is None else projection(embeddings).view(shape).transpose(0, 1)
            for projection in self._projections
        )
        return key, query
