"""Weights of models on disk."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from gliner_pipe.adapters.models import own_weights
from gliner_pipe.errors import CheckpointError

WEIGHTS = "model.safetensors"


def write_weights(model: nn.Module, path: Path) -> None:
    """Write all weights but those of encoders with an adapter, which are saved apart, into the folder `path`."""
    from safetensors.torch import save_model

    save_model(own_weights(model), str(path / WEIGHTS))


def check_weights(path: Path) -> None:
    """Refuse a folder without weights.

    Raises
    ------
    CheckpointError
        If there are none.
    """
    if not (path / WEIGHTS).is_file():
        raise CheckpointError(f"{path}: no {WEIGHTS}. The folder is not whole: save the pipeline again.")


def fill_weights(model: nn.Module, path: Path) -> None:
    """Fill the weights that ``write_weights`` wrote into a model that is made already.

    Raises
    ------
    CheckpointError
        When the weights are not those of these blocks, with the names that differ.
    """
    from safetensors.torch import load_model

    try:
        load_model(own_weights(model), str(path / WEIGHTS), strict=True)
    except RuntimeError as error:
        raise CheckpointError(
            f"{path / WEIGHTS} does not fit the blocks of the config: {' '.join(str(error).split())}"
        ) from None
