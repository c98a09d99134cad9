"""Trainable embeddings of single tokens in a frozen table; imported only together with `peft`."""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.trainable_tokens.layer import TrainableTokensLayer
from peft.utils.other import TrainableTokensWrapper
from torch import Tensor, nn


class TokenRows(TrainableTokensLayer):  # type: ignore[misc]
    """Looks up the trainable tokens in a table of their own.

    The layer of `peft` copies the whole table, 0.4 GB in DeBERTa, in each pass; the results are the same.
    """

    def forward_adapters(self, x: Tensor, active_adapters: Any, *args: Any, **kwargs: Any) -> Tensor:
        """Return the vectors of subword tokens `x`, ``(rows, tokens, hidden)``."""
        table = self.base_layer
        names = list(active_adapters)
        plain = (
            isinstance(table, nn.Embedding) and table.max_norm is None and not hasattr(table, "embed_scale")
        )
        if not plain or len(names) != 1 or self.merged or self.disable_adapters:
            return super().forward_adapters(x, active_adapters, *args, **kwargs)
        ids = torch.tensor(self.token_indices[names[0]], device=x.device)
        trained = self.trainable_tokens_delta[names[0]].to(table.weight)
        is_trained = x[..., None] == ids
        place = is_trained.long().argmax(-1)
        return torch.where(is_trained.any(-1, keepdim=True), trained[place], table(x))


def look_up_rows(encoder: nn.Module) -> None:
    """Replace the layers of `peft` for trainable tokens by :class:`TokenRows`."""
    modules: list[Any] = list(encoder.modules())
    for module in modules:
        if type(module) is TrainableTokensLayer and module.tied_adapter is None:
            module.__class__ = TokenRows


def settle_rows(encoder: nn.Module) -> None:
    """Merge the trained rows into their tables and remove the wrappers, which most methods of `peft` do not."""
    for name, module in list(encoder.named_modules()):
        if not isinstance(module, TrainableTokensWrapper):
            continue
        parent, _, last = name.rpartition(".")
        table = module.unload_and_optionally_merge_module(merge=True, safe_merge=False, adapter_names=None)
        setattr(encoder.get_submodule(parent), last, table)
