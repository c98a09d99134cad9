"""The weight files of checkpoints: which there are, their tensors in parts, and whether they fit a model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor

from gliner_pipe.checkpoints import gliner_assets
from gliner_pipe.errors import CheckpointError, reason_of
from gliner_pipe.modeling.backbones import hf, hf_weights
from gliner_pipe.modeling.gliner import GLiNER
from gliner_pipe.modeling.weights import read_parts, shapes

#: Weight files in order of preference.
WEIGHTS = ("model.safetensors", "model.fp16.safetensors", "model.bf16.safetensors", "pytorch_model.bin")


def weights(folder: Path) -> tuple[dict[str, Tensor], Iterable[dict[str, Tensor]]]:
    """Return the tensors of a checkpoint without data, and an iterable that loads their data in parts."""
    files = next(filter(None, (_files(folder, name) for name in WEIGHTS)), [])
    if not files:
        raise CheckpointError(
            f"{folder}: no weights; allowed: {' or '.join(WEIGHTS)}, or one of them in shards with an index."
        )
    tensors: dict[str, Tensor] = {}
    for path in files:
        tensors |= unpickled(path, "meta") if path.suffix == ".bin" else _shapes(path)
    return tensors, chain.from_iterable(
        [unpickled(path)] if path.suffix == ".bin" else read_parts(path) for path in files
    )


def _files(folder: Path, name: str) -> list[Path]:
    """Return the files of the weights `name`: the file itself, or its shards; none if there are neither."""
    if (folder / name).is_file():
        return [folder / name]
    index = folder / f"{name}.index.json"
    return hf_weights.shards(index) if index.is_file() else []


def _shapes(path: Path) -> dict[str, Tensor]:
    try:
        return shapes(path)
    except SafetensorError as error:
        raise CheckpointError(f"{path}: not a valid safetensors file ({error}). Download it again.") from None


def unpickled(path: Path, device: str = "cpu") -> dict[str, Tensor]:
    """Load a pickle file of tensors; a file that holds anything else, such as code, is refused."""
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # torch raises errors of many kinds for damaged files
        reason = reason_of(error, 200)
        raise CheckpointError(
            f"{path}: holds more than tensors, or is incomplete ({reason}). No code was run. Request the model as "
            "model.safetensors."
        ) from None
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in state.items()
    ):
        raise CheckpointError(
            f"{path}: holds more than named tensors. Request the model as model.safetensors."
        )
    return state


def fit(model: GLiNER, state: Mapping[str, Tensor], folder: Path) -> None:
    """Resize the embeddings to the rows of the checkpoint, and compare shapes."""
    for part, tokenizer, name in gliner_assets.embedded(model):
        embeddings = part.get_input_embeddings()
        (key,) = (k for k, p in model.named_parameters() if p is embeddings.weight)
        rows = len(state[key]) if key in state else embeddings.num_embeddings
        if rows < (ids := hf.n_ids(tokenizer)):
            raise CheckpointError(
                f"{folder}: the tokenizer of the {name} has {ids} tokens, the weights {rows}. "
                "The tokenizer does not belong to these weights."
            )
        if rows != embeddings.num_embeddings:
            part.resize_token_embeddings(rows, mean_resizing=False)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    wrong = [
        f"{name} {tuple(tensor.shape)} instead of {shapes[name]}"
        for name, tensor in state.items()
        if shapes.get(name, tuple(tensor.shape)) != tuple(tensor.shape)
    ]
    if wrong:
        raise CheckpointError(
            f"{folder}: the tensors do not match the blocks. Wrong shape: {hf_weights.listed(wrong)}."
        )


def report(missing: Sequence[str], unexpected: Sequence[str], folder: Path) -> None:
    """Refuse a checkpoint whose tensors do not match the blocks."""
    unexpected = [name for name in unexpected if not name.endswith("position_ids")]
    if missing and any(".lora_" in name or ".base_layer." in name for name in unexpected):
        why = hf_weights.reason("the blocks", missing, unexpected, ())
        raise CheckpointError(f"{folder}: {why}")
    if missing or unexpected:
        raise CheckpointError(
            f"{folder}: the tensors do not match the blocks. Missing: {hf_weights.listed(missing)}. "
            f"Unexpected: {hf_weights.listed(unexpected)}."
        )
