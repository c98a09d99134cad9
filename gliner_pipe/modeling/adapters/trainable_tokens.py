"""Embeddings of single pieces that learn beside a frozen table; imported where `peft` is."""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.trainable_tokens.layer import TrainableTokensLayer
from peft.utils.other import TrainableTokensWrapper
from torch import Tensor, nn


class TokenRows(TrainableTokensLayer):  # type: ignore[misc]
    """Looks the pieces that learn up in a table of their own.

    What it stands for copies the whole table, 0.4 GB in DeBERTa, in each pass; the numbers are the same.
    """

    def forward_adapters(self, x: Tensor, active_adapters: Any, *args: Any, **kwargs: Any) -> Tensor:
        """Return the vectors of pieces `x`, ``(rows, pieces, hidden)``."""
        table = self.base_layer
        names = list(active_adapters)
        plain = (
            isinstance(table, nn.Embedding) and table.max_norm is None and not hasattr(table, "embed_scale")
        )
        if not plain or len(names) != 1 or self.merged or self.disable_adapters:
            return super().forward_adapters(x, active_adapters, *args, **kwargs)
        ids = torch.tensor(self.token_indices[names[0]], device=x.device)
        learnt = self.trainable_tokens_delta[names[0]].to(table.weight)
        is_learnt = x[..., None] == ids
        place = is_learnt.long().argmax(-1)
        return torch.where(is_learnt.any(-1, keepdim=True), learnt[place], table(x))


def look_up_rows(encoder: nn.Module) -> None:
    """Let the layers that `peft` has just made for single pieces look these up."""
    modules: list[Any] = list(encoder.modules())
    for module in modules:
        if type(module) is TrainableTokensLayer and module.tied_adapter is None:
            module.__class__ = TokenRows  # an object of ours; no method of peft's class is changed


def settle_rows(encoder: nn.Module) -> None:
    """Write the rows that were learnt into the table, and put this back where it was.

    Most methods of `peft` cannot take such a layer off themselves.
    """
    for name, module in list(encoder.named_modules()):
        if not isinstance(module, TrainableTokensWrapper):
            continue
        parent, _, last = name.rpartition(".")
        table = module.unload_and_optionally_merge_module(merge=True, safe_merge=False, adapter_names=None)
        setattr(encoder.get_submodule(parent), last, table)
