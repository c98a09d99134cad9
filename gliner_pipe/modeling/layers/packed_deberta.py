"""DeBERTa without padding: on a CPU, layers run on the subword tokens of all rows in one list.

Only attention needs rows. The first layer projects each distinct token once, as it does not know positions yet, and the
last layer ends at the tokens whose vectors are wanted.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers.activations import GELUActivation
from transformers.models.deberta_v2 import modeling_deberta_v2 as hf

from gliner_pipe.modeling.layers.deberta import DisentangledAttention, DisentangledEncoder
from gliner_pipe.modeling.layers.disentangled_attention import attend
from gliner_pipe.modeling.layers.linear import Linear, filled, may_leave_out_padding


def runs_packed(model: Any, ids: Tensor) -> bool:
    """Return whether ``packed_vectors`` computes what the model computes: a DeBERTa on a CPU, without gradients.

    It does not call some modules of the model, so these must have no hooks and no other ``forward``.
    """
    is_known = type(model) is hf.DebertaV2Model and type(model.encoder) is DisentangledEncoder
    if not is_known or not may_leave_out_padding(ids) or model.training or torch.is_autocast_enabled("cpu"):
        return False
    only_relative = model.encoder.relative_attention and model.embeddings.position_embeddings is None
    return only_relative and model.encoder.conv is None and not any(map(_is_changed, _not_called(model)))


def packed_vectors(model: Any, ids: Tensor, mask: Tensor, places: Tensor, wanted: Tensor) -> Tensor:
    """Return the vectors of some tokens, after the last layer; requires ``runs_packed``.

    Parameters
    ----------
    model
        A DeBERTa.
    ids, mask
        Subword tokens, and 1 for those that are not padding, ``(rows, tokens)``; padding is on the right.
    places
        Positions in each row, ``(rows, places)``.
    wanted
        False for padding, ``(rows, places)``.

    Returns
    -------
    Tensor
        ``(rows, places, hidden)``; zero for padding.
    """
    rows, n = ids.shape
    real = mask.bool()
    # each list of tokens is as long as a kernel needs, filled up with its first token
    flat = filled(real.flatten().nonzero()[:, 0])
    in_list = (real.flatten().cumsum(0) - 1).clamp(min=0)  # of each position of the rows; any one for padding
    starts = torch.arange(0, rows * n, n)[:, None]
    last = filled((places + starts)[wanted])
    distinct, number = ids.flatten()[flat].unique(return_inverse=True)
    hidden = model.embeddings(input_ids=filled(distinct)[None])[0]
    forbidden = None if bool(real.all()) else ~real[:, None, :]
    encoder = model.encoder
    embeddings, distances = encoder.get_rel_embedding(), encoder.get_rel_pos(ids[..., None])
    source, final = number[in_list], len(encoder.layer) - 1
    for index, layer in enumerate(encoder.layer):
        attention: DisentangledAttention = layer.attention.self
        shape = -1, attention.num_attention_heads, attention.attention_head_size
        query, key, value = (
            # heads first, as ``attend`` needs them: selecting costs no more than this copy
            project(hidden).view(shape).permute(1, 0, 2).index_select(1, source).unflatten(1, (rows, n))
            for project in (attention.query_proj, attention.key_proj, attention.value_proj)
        )
        tables = attention.tables(embeddings, n, distances, query.dtype)
        mixed = attend(query, key, value, *tables, forbidden, attention.scale)
        kept = last if index == final else flat
        mixed = mixed.flatten(1, 2).permute(1, 0, 2).index_select(0, kept).flatten(1)
        if index == 0:
            hidden = hidden.index_select(0, number)
        if index == final:
            hidden = hidden.index_select(0, in_list[kept])
        hidden = layer.attention.output(mixed, hidden)
        hidden = layer.output(_intermediate(layer.intermediate, hidden), hidden)
        source = in_list
    found = hidden.new_zeros(rows, places.shape[1], hidden.shape[1])
    found[wanted] = hidden[: int(wanted.sum())]
    return found


def _not_called(model: Any) -> Iterator[nn.Module]:
    yield model
    yield model.encoder
    for layer in model.encoder.layer:
        yield from (layer, layer.attention, layer.attention.self, layer.intermediate)


def _is_changed(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module))


def _intermediate(module: Any, hidden: Tensor) -> Tensor:
    dense, activation = module.dense, module.intermediate_act_fn
    if type(dense) is Linear and type(activation) is GELUActivation and activation.act is nn.functional.gelu:
        return dense.then_gelu(hidden)
    inner: Tensor = activation(dense(hidden))
    return inner
