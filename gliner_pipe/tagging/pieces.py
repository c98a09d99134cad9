"""Targets for every piece of a word, not only for the first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from gliner_pipe.backbones._stacked import Stacked
from gliner_pipe.backbones.dense import Dense
from gliner_pipe.backbones.windows import IntArray, Window
from gliner_pipe.decoders.tags_base import TagDecoder
from gliner_pipe.errors import ConfigError
from gliner_pipe.model.token_classifier import TokenClassifier


def by_pieces(
    model: TokenClassifier, windows: Sequence[Window], gold: Sequence[Tensor]
) -> tuple[list[Window], list[Tensor]]:
    """Make a word of each piece: the first has the tag of the word, the others are inside of what the word is in.

    Parameters
    ----------
    model
        With weights.
    windows
        Of the texts.
    gold
        Tags of the words of each text, ``(words, chains)``.

    Raises
    ------
    ConfigError
        If the backbone lets words see one another once more: they must be words then.
    """
    backbone = model.encoder.backbone
    if isinstance(backbone, Stacked) and not isinstance(backbone, Dense):
        raise ConfigError(
            "components.*.model.decoder.all_pieces",
            f"found True over {type(backbone).__name__}, which reads whole words",
            "False, or a transformer alone",
        )
    units = [np.ones(len(tags), np.int64) for tags in gold]
    for window in windows:  # a word without pieces keeps its place
        own = slice(window.own_start - window.start, window.own_stop - window.start)
        units[window.text][window.own_start : window.own_stop] = np.maximum(window.counts[own], 1)
    made = []
    for window in windows:
        firsts = np.concatenate([[0], np.cumsum(units[window.text])])
        counts = np.repeat(np.minimum(window.counts, 1), np.maximum(window.counts, 1))
        start, stop, own_start, own_stop = (
            int(firsts[word]) for word in (window.start, window.stop, window.own_start, window.own_stop)
        )
        made.append(
            replace(window, start=start, stop=stop, own_start=own_start, own_stop=own_stop, counts=counts)
        )
    return made, [_spread(model.decoder, tags, some) for tags, some in zip(gold, units, strict=True)]


def _spread(decoder: TagDecoder, tags: Tensor, units: IntArray) -> Tensor:
    """Return the tags of pieces."""
    times = torch.from_numpy(units)
    spread = tags.repeat_interleave(times, 0)
    inside = torch.arange(len(decoder.tags))
    for place, prefix in enumerate(decoder.tables.prefixes):
        if prefix == "B":  # in all schemes with B, the I of a label comes next
            inside[place] = place + 1
    later = torch.ones(len(spread), dtype=torch.bool)
    later[times.cumsum(0) - times] = False
    known = spread >= 0
    return torch.where(later[:, None] & known, inside[spread.clamp(min=0)], spread)
