"""The option ``feature_cache``: a cache of the output of frozen backbones for the duration of a training."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from gliner_pipe.errors import ConfigError
from gliner_pipe.modeling.backbones.base import Backbone, frozen_backbones
from gliner_pipe.modeling.backbones.feature_cache import FeatureCache
from gliner_pipe.training.protocol import TrainableByLoop

WHERE = "train.feature_cache"
#: Share of the free memory for the cache if no size is given.
SHARE = 0.25

_SIZE = re.compile(r"\s*(\d{1,15}(?:\.\d{1,15})?)\s*([KMGT]?)(i?)B\s*", re.IGNORECASE)
_UNITS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}


def parse_bytes(size: str) -> int:
    """Read a size of memory such as ``"2 GB"``.

    Raises
    ------
    ConfigError
        If `size` is not a size of memory.
    """
    match = _SIZE.fullmatch(size)
    if match is None or not float(match[1]):
        raise ConfigError(WHERE, f"is {size!r}", 'true, false, null, or a size of memory such as "2 GB"')
    return int(float(match[1]) * (1024 if match[3] else 1000) ** _UNITS[match[2].upper()])


@contextmanager
def cached_features(
    components: Mapping[str, TrainableByLoop], wanted: bool | str | None
) -> Iterator[list[FeatureCache]]:
    """Cache the output of frozen backbones for each window, while the context lasts.

    Parameters
    ----------
    components
        The trained components, after freezing.
    wanted
        True, or a size of memory, for all frozen backbones; None for those whose windows are the same in every pass
        over the data; False for none.

    Yields
    ------
    list of FeatureCache
        The caches, still empty.

    Raises
    ------
    ConfigError
        If `wanted` is set, but no backbone is frozen.
    """
    backbones: list[Backbone] = []
    for component in components.values():
        if wanted or (wanted is None and getattr(component, "repeats_prompts", False)):
            backbones += frozen_backbones(component.model)
    if wanted and not backbones:
        raise ConfigError(
            WHERE,
            f"is {wanted!r}, but no backbone is frozen",
            "null, false",
            'Freeze a backbone with freeze = true in its section, or freeze_components = ["text_encoder"]',
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
