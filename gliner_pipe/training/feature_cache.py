"""Gives the frozen backbones of a training a cache of what they make of each window."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from gliner_pipe.errors import ConfigError
from gliner_pipe.modeling.backbones.base import Backbone, frozen_backbones
from gliner_pipe.modeling.backbones.feature_cache import FeatureCache
from gliner_pipe.training.protocol import TrainableByLoop

WHERE = "train.feature_cache"
#: Share of the free memory that is taken where no size is given.
SHARE = 0.25

_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B\s*", re.IGNORECASE)
_UNITS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}


def parse_bytes(size: str) -> int:
    """Read a size of memory such as ``"2 GB"``.

    Raises
    ------
    ConfigError
        If it is none.
    """
    match = _SIZE.fullmatch(size)
    if match is None or not float(match[1]):
        raise ConfigError(WHERE, f"is {size!r}", 'true, false, null, or a size of memory such as "2 GB"')
    return int(float(match[1]) * (1024 if match[3] else 1000) ** _UNITS[match[2].upper()])


@contextmanager
def cached_features(
    components: Mapping[str, TrainableByLoop], wanted: bool | str | None
) -> Iterator[list[FeatureCache]]:
    """Keep what frozen backbones make of windows, for as long as the context lasts.

    Parameters
    ----------
    components
        The components that learn, with their weights frozen already.
    wanted
        True, or a size of memory, for all frozen backbones; None for those whose windows are the same in every pass
        over the data; False for none.

    Yields
    ------
    list of FeatureCache
        The caches, empty so far.

    Raises
    ------
    ConfigError
        If a cache is asked for and no backbone is frozen.
    """
    backbones: list[Backbone] = []
    for component in components.values():
        if wanted or (wanted is None and getattr(component, "repeats_prompts", False)):
            backbones += frozen_backbones(component.model)
    if wanted and not backbones:
        raise ConfigError(
            WHERE,
            f"is {wanted!r}, and every backbone learns",
            "null, false",
            'Freeze one: freeze = true of the backbone, or freeze_components = ["text_encoder"]',
        )
    most = parse_bytes(wanted) if isinstance(wanted, str) else int(SHARE * _free_memory())
    caches = []
    try:
        for backbone in backbones:
            backbone.features = FeatureCache(most // len(backbones))
            caches.append(backbone.features)
        yield caches
    finally:
        for backbone in backbones:
            backbone.features = None


def _free_memory() -> int:
    import psutil

    return int(psutil.virtual_memory().available)
