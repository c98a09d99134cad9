"""Vectors of a frozen backbone, kept: heads then train at the speed of heads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from gliner_pipe.modeling.layers.cache import weights_version
from gliner_pipe.modeling.precision import full_precision

if TYPE_CHECKING:
    from gliner_pipe.modeling.backbones.base import Backbone, BackboneOutput, WindowBatch


class FeatureCache:
    """What a backbone made of each window, as long as its weights stay.

    A window is known by its pieces, prompt included, and by where its words and labels stand in them. On a CPU each is
    read by itself, so that what is kept does not depend on the batch in which a window was first met.

    Parameters
    ----------
    most_bytes
        Memory for the vectors, on the CPU. Windows that find no room are read anew each time.

    Attributes
    ----------
    asked, found
        Windows that were asked for, and those of them that had been read before.
    bytes
        Memory in use.
    """

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self.asked = self.found = self.bytes = 0
        self._kept: dict[bytes, tuple[Tensor, Tensor]] = {}
        self._made_by: tuple[object, ...] = ()

    def __len__(self) -> int:
        return len(self._kept)

    def read(self, backbone: Backbone, batch: WindowBatch) -> BackboneOutput:
        """Return what `backbone` makes of a batch, running it for what is new only.

        A backbone that learns, or that drops out, is run as if there were no cache.
        """
        from gliner_pipe.modeling.backbones.base import BackboneOutput

        if not is_still(backbone):
            output: BackboneOutput = backbone(batch)
            return output
        self._forget_the_outdated(backbone)
        keys = _keys(batch)
        known = {key: self._kept[key] for key in keys if key in self._kept}
        self.asked += len(keys)
        self.found += sum(key in known for key in keys)
        new = [(key, row) for row, key in enumerate(keys) if key not in known]
        new = list(dict(new).items())  # twice in one batch is once
        alone = batch.input_ids.device.type == "cpu"
        for some in [[one] for one in new] if alone else [new] if new else []:
            rows = _rows(batch, [row for _, row in some])
            with torch.no_grad(), full_precision(backbone):
                words, prompt = backbone(rows)
            n_words, n_labels = rows.word_mask.sum(1).tolist(), rows.prompt_mask.sum(1).tolist()
            for index, (key, _) in enumerate(some):
                made = (
                    words[index, : n_words[index]].cpu().clone(),
                    prompt[index, : n_labels[index]].cpu().clone(),
                )
                known[key] = made
                size = sum(one.numel() * one.element_size() for one in made)
                if self.bytes + size <= self.most_bytes:
                    self._kept[key] = made
                    self.bytes += size
        device = batch.input_ids.device
        return BackboneOutput(
            pad_sequence([known[key][0] for key in keys], batch_first=True).to(device, non_blocking=True),
            pad_sequence([known[key][1] for key in keys], batch_first=True).to(device, non_blocking=True),
        )

    def clear(self) -> None:
        """Forget all vectors."""
        self._kept.clear()
        self.bytes = 0

    def describe(self) -> str:
        """Say what is kept, and what it was good for."""
        share = self.found / self.asked if self.asked else 0.0
        full = "" if len(self) >= self.asked - self.found else "; not all had room"
        return (
            f"feature cache: {len(self):,} windows in {self.bytes / 1e6:,.0f} MB, "
            f"{share:.0%} of {self.asked:,} came from it{full}"
        )

    def _forget_the_outdated(self, backbone: Backbone) -> None:
        now = weights_version(backbone.parameters())
        if now != self._made_by:
            self.clear()
            self._made_by = now


def is_still(module: nn.Module) -> bool:
    """Whether a module gives the same for the same: no weight learns, and no layer is in training mode."""
    if any(weight.requires_grad for weight in module.parameters()):
        return False
    return not any(part.training for part in module.modules() if next(part.children(), None) is None)


def frozen_backbones(model: nn.Module) -> list[Backbone]:
    """Return the backbones of `model` whose weights all stay, the outer ones where one stands on another."""
    from gliner_pipe.modeling.backbones.base import Backbone

    found: list[Backbone] = []
    inside: set[nn.Module] = set()
    for module in model.modules():  # the outer ones come first
        if isinstance(module, Backbone) and module not in inside:
            weights = list(module.parameters())
            if weights and not any(weight.requires_grad for weight in weights):
                found.append(module)
                inside.update(module.modules())
    return found


def _keys(batch: WindowBatch) -> list[bytes]:
    """What tells the rows of a batch from others, whatever they are padded to."""
    parts = [
        (batch.input_ids, batch.attention_mask),
        (batch.piece_start, batch.word_mask),
        (batch.piece_count, batch.word_mask),
        (batch.prompt_positions, batch.prompt_mask),
    ]
    device = batch.input_ids.device.type
    precision = str(torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else "").encode()
    columns = [(numbers.int().cpu(), mask.sum(1).tolist()) for numbers, mask in parts]
    return [
        precision
        + b"|".join(
            length.to_bytes(4, "little") + numbers[row, :length].numpy().tobytes()
            for numbers, lengths in columns
            for length in [int(lengths[row])]
        )
        for row in range(len(batch.input_ids))
    ]


#: By what the fields of a batch are padded.
_PADDED = {
    **dict.fromkeys(("input_ids", "attention_mask"), "attention_mask"),
    **dict.fromkeys(("piece_start", "piece_count", "word_mask"), "word_mask"),
    **dict.fromkeys(("prompt_positions", "prompt_mask"), "prompt_mask"),
}


def _rows(batch: WindowBatch, rows: Sequence[int]) -> WindowBatch:
    """Some rows of a batch, padded to the longest of them."""
    at = torch.tensor(rows, device=batch.input_ids.device)
    changed = {}
    for name, mask in _PADDED.items():
        longest = int(getattr(batch, mask)[at].sum(1).max())
        changed[name] = getattr(batch, name)[at, :longest]
    return replace(batch, own=batch.own[at], **changed)
