"""Dropout whose chance is cheap to draw on a CPU."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

#: Chance is drawn in parts of so many.
PARTS = 1 << 16


def drawn_rate(rate: float) -> float:
    """Return what is really dropped where `rate` is asked for: a number of 1/65536."""
    return round(rate * PARTS) / PARTS


def draw_kept(like: Tensor, rate: float) -> Tensor:
    """Draw which numbers are kept.

    Parameters
    ----------
    like
        Any shape, on any device.
    rate
        Probability, for each number by itself, that it is dropped; on a CPU that of ``drawn_rate``.

    Returns
    -------
    Tensor
        Boolean, of that shape, from torch's generator.

    Notes
    -----
    On a CPU four numbers come from one draw of 64 bits: an eighth of the time of ``bernoulli_``, which draws them one
    by one and takes a tenth of a training step of a small model.
    """
    if like.device.type != "cpu":
        return torch.rand(like.shape, device=like.device) >= rate
    words = torch.empty((like.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    drawn = words.view(torch.int16)[: like.numel()].view(like.shape)
    limit = round(rate * PARTS) - PARTS // 2
    return drawn >= limit if limit < PARTS // 2 else torch.zeros_like(drawn, dtype=torch.bool)


class QuickDropout(nn.Dropout):
    """``nn.Dropout`` that draws as ``draw_kept`` does on a CPU; elsewhere it is that of torch."""

    def forward(self, input: Tensor) -> Tensor:
        """Drop out in training, and scale what is kept so that the mean stays."""
        rate = drawn_rate(self.p)
        if not self.training or rate == 0 or input.device.type != "cpu":
            return super().forward(input)
        kept = draw_kept(input, rate)
        return input * kept * (1 / (1 - rate) if rate < 1 else 0.0)


def quicken(models: Iterable[nn.Module]) -> None:
    """Give the dropout layers of models, pretrained transformers included, cheap chance; weights and names stay.

    Parameters
    ----------
    models
        Changed in place.
    """
    for model in models:
        for module in list(model.modules()):
            for name, child in module.named_children():
                if type(child) is nn.Dropout:
                    quick = QuickDropout(child.p, child.inplace)
                    setattr(module, name, quick.train(child.training))
