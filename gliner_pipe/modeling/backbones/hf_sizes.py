"""Whether weights can belong to the configuration of a Hugging Face model, before memory is allocated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from gliner_pipe.errors import CheckpointError, reason_of
from gliner_pipe.util import consent

#: Largest values of a model of `transformers`: no model comes near them.
MOST = {
    "hidden_size": 1 << 16,
    "num_hidden_layers": 1 << 12,
    "num_attention_heads": 1 << 12,
    "num_key_value_heads": 1 << 12,
    "intermediate_size": 1 << 20,
    "vocab_size": 1 << 24,
    "max_position_embeddings": 1 << 26,
    "num_labels": 1 << 20,
}
#: Bytes of a tensor in a file that does not say how many it holds: fewer than most have.
_TENSOR = 256
#: A model may have so many times the numbers of its weights (parts that are not stored), and so many more.
TIMES, MORE = 3, 1 << 24


def check_ranges(config: Any, where: object) -> None:
    """Check that the sizes of a configuration are whole numbers in the ranges of real models.

    Raises
    ------
    CheckpointError
        If one is not.
    """
    for key, most in MOST.items():
        value = getattr(config, key, None)
        if value is None or isinstance(value, (list, tuple)):
            continue
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
            raise CheckpointError(
                f"{where}: has {key} = {str(value)[:40]}; allowed: a whole number from 1 to {most:,}. {_DO}"
            )


def check(config: Any, where: object, held: int, tensors: int, kind: Any = None) -> None:
    """Check that a model can be built from a configuration, and that it is not much larger than its weights.

    It is built without memory for weights.

    Parameters
    ----------
    config
        Hugging Face configuration.
    where
        File or section, for errors.
    held
        How many numbers the weights have, or bytes.
    tensors
        How many tensors the weights have; no model has more layers.
    kind
        ``AutoModel`` or another class with ``from_config``.

    Raises
    ------
    CheckpointError
        If it cannot, or is larger.
    """
    from transformers import AutoModel

    check_ranges(config, where)
    if (
        (layers := getattr(config, "num_hidden_layers", None) or 0)
        and isinstance(layers, int)
        and layers > tensors
    ):
        raise CheckpointError(
            f"{where}: has num_hidden_layers = {layers}, and weights of {tensors} tensors. {_DO}"
        )
    if getattr(config, "auto_map", None):
        return  # code that comes with the model may need real tensors
    try:
        with torch.device("meta"):
            model = (AutoModel if kind is None else kind).from_config(config)
    except ImportError:  # of an attention that is replaced later
        return
    except Exception as error:  # each class has checks of its own, or fails where a size does not fit another
        consent.refuse(error, where, "model")
        raise CheckpointError(
            f"{where}: no model can be built from it ({reason_of(error, 200)}). {_DO}"
        ) from None
    needed = sum(one.numel() for one in (*model.parameters(), *model.buffers()))
    if needed > TIMES * held + MORE:
        raise CheckpointError(
            f"{where}: describes a model of {needed:,} numbers, and the weights hold {held:,}. {_DO}"
        )


_DO = "Correct it, or download the model again."


def check_folder(config: Any, folder: Path, kind: Any = None) -> None:
    """Check the configuration of a model in a folder beside its weights; not without files of weights."""
    held = tensors = 0
    for path in (path for pattern in ("*.safetensors", "*.bin") for path in folder.glob(pattern)):
        held += path.stat().st_size  # at least one byte a number
        if path.suffix == ".bin":
            tensors += 1 + path.stat().st_size // _TENSOR
        else:
            with safe_open(path, framework="pt") as file:
                tensors += len(file.keys())
    if held:
        check(config, folder / "config.json", held, tensors, kind)
