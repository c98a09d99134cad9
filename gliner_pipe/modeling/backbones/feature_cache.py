"""A cache of the vectors of a frozen backbone, so that a training step costs no more than its heads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from gliner_pipe.modeling.backbones.base import BackboneOutput, WindowBatch, to_device
from gliner_pipe.modeling.layers.cache import weights_version
from gliner_pipe.modeling.precision import full_precision
from gliner_pipe.util.plurals import number_of


class FeatureCache:
    """The output of a backbone for each window, kept until its weights change.

    The key of a window is its subword tokens, prompt included, with the positions of words and labels. On a CPU each
    window is run alone, so that its vectors do not depend on the batch it first occurs in.

    Parameters
    ----------
    most_bytes
        Memory for the vectors, on the CPU. Windows that do not fit are computed each time.

    Attributes
    ----------
    asked, found
        Number of windows requested, and of those found in the cache.
    bytes
        Memory in use.
    """

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self.asked = self.found = self.bytes = 0
        self._vectors: dict[bytes, tuple[Tensor, Tensor]] = {}
        self._version: tuple[object, ...] = ()

    def __len__(self) -> int:
        return len(self._vectors)

    def read(self, backbone: nn.Module, batch: WindowBatch) -> BackboneOutput:
        """Return the output of `backbone` for a batch, running it for new windows only.

        The cache is bypassed if the backbone is being trained or applies dropout.
        """
        if not _is_constant(backbone):
            output: BackboneOutput = backbone(batch)
            return output
        version = weights_version(backbone.parameters())
        if version != self._version:
            self.clear()
            self._version = version
        keys = _keys(batch)
        known = {key: self._vectors[key] for key in keys if key in self._vectors}
        self.asked += len(keys)
        self.found += sum(key in known for key in keys)
        new = [(key, row) for row, key in enumerate(keys) if key not in known]
        new = list(dict(new).items())  # a window twice in a batch is run once
        alone = batch.input_ids.device.type == "cpu"
        for some in [[one] for one in new] if alone else [new] if new else []:
            rows = _rows(batch, [row for _, row in some])
            with torch.no_grad(), full_precision(backbone):
                words, prompt = backbone(rows)
            n_words, n_labels = rows.word_mask.sum(1).tolist(), rows.prompt_mask.sum(1).tolist()
            for index, (key, _) in enumerate(some):
                vectors = (
                    words[index, : n_words[index]].cpu().clone(),
                    prompt[index, : n_labels[index]].cpu().clone(),
                )
                known[key] = vectors
                size = sum(one.numel() * one.element_size() for one in vectors)
                if self.bytes + size <= self.most_bytes:
                    self._vectors[key] = vectors
                    self.bytes += size
        device = batch.input_ids.device
        return BackboneOutput(
            to_device(pad_sequence([known[key][0] for key in keys], batch_first=True), device),
            to_device(pad_sequence([known[key][1] for key in keys], batch_first=True), device),
        )

    def clear(self) -> None:
        """Remove all vectors."""
        self._vectors.clear()
        self.bytes = 0

    def describe(self) -> str:
        """Return a summary of size and hit rate."""
        share = self.found / self.asked if self.asked else 0.0
        full = "" if len(self) >= self.asked - self.found else "; not all windows fit"
        return (
            f"feature cache: {number_of(len(self), 'window')} in {self.bytes / 1e6:,.0f} MB, "
            f"{share:.0%} of {self.asked:,} requests were hits{full}"
        )


def _is_constant(module: nn.Module) -> bool:
    """Whether the output of a module is reproducible: no weight is trainable, and no layer is in training mode."""
    if any(weight.requires_grad for weight in module.parameters()):
        return False
    return not any(part.training for part in module.modules() if next(part.children(), None) is None)


def _keys(batch: WindowBatch) -> list[bytes]:
    """Return the key of each row of a batch, which does not depend on padding."""
    parts = [
        (batch.input_ids, batch.attention_mask),
        (batch.piece_start, batch.word_mask),
        (batch.piece_count, batch.word_mask),
        (batch.prompt_positions, batch.prompt_mask),
    ]
    device = batch.input_ids.device.type
    precision = str(torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else "").encode()
    columns = [(values.int().cpu(), mask.sum(1).tolist()) for values, mask in parts]
    return [
        precision
        + b"|".join(
            length.to_bytes(4, "little") + values[row, :length].numpy().tobytes()
            for values, lengths in columns
            for length in [int(lengths[row])]
        )
        for row in range(len(batch.input_ids))
    ]


#: The mask of each padded field of a batch.
_PADDED = {
    **dict.fromkeys(("input_ids", "attention_mask"), "attention_mask"),
    **dict.fromkeys(("piece_start", "piece_count", "word_mask"), "word_mask"),
    **dict.fromkeys(("prompt_positions", "prompt_mask"), "prompt_mask"),
}


def _rows(batch: WindowBatch, rows: Sequence[int]) -> WindowBatch:
    """Return some rows of a batch, padded to the longest of them."""
    at = torch.tensor(rows, device=batch.input_ids.device)
    changed = {}
    for name, mask in _PADDED.items():
        longest = int(getattr(batch, mask)[at].sum(1).max())
        changed[name] = getattr(batch, name)[at, :longest]
    return replace(batch, own=batch.own[at], **changed)
