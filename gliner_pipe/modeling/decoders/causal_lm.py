"""Causal language models for generated labels: loading, and a trie for closed label sets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from gliner_pipe.errors import ConfigError
from gliner_pipe.modeling.backbones import hf
from gliner_pipe.util import consent
from gliner_pipe.util.thread_lock import LOADING

_ALLOWED = "a folder with a causal language model, an installed package that holds one, a hub id"


@LOADING.held
def load_pretrained(name: str, where: str, trust_remote_code: bool) -> tuple[Any, Any]:
    """Language model with its weights, and tokenizer, of a hub id, a folder or an installed package.

    Raises
    ------
    ConfigError
        When they cannot be had, or the model is not causal; the hub's own words are in the message.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = hf.source_of(name, where)
    trusted = trust_remote_code or consent.is_given()
    try:
        # a label starts like a word within a text, as in GLiNER
        tokenizer = AutoTokenizer.from_pretrained(
            source, use_fast=True, add_prefix_space=True, trust_remote_code=trusted
        )
        with hf.quiet():
            model = AutoModelForCausalLM.from_pretrained(
                source, trust_remote_code=trusted, dtype=torch.float32
            )
    except (OSError, ValueError, ImportError) as error:
        consent.refuse(error, name, where)
        reason = " ".join(str(error).split())[:300]
        raise ConfigError(
            where,
            f"{name!r} cannot be loaded ({reason})",
            _ALLOWED,
            "Offline, download the model first and give its folder",
        ) from error
    if not _is_causal(model):
        raise ConfigError(
            where,
            f"{name!r} reads text in both directions and cannot write",
            _ALLOWED,
            "Take a decoder model",
        )
    return _finished(model, tokenizer)


@LOADING.held
def load_saved(folder: Path, where: str, trust_remote_code: bool) -> tuple[Any, Any]:
    """Language model with weights still to be filled in, and tokenizer, from a saved folder: no network.

    Raises
    ------
    ConfigError
        When the folder holds no language model.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    if not (folder / "config.json").is_file():  # what is no folder would be asked for at the hub
        raise ConfigError(where, f"{folder} holds no config.json", _ALLOWED, "Save the pipeline again")
    trusted = trust_remote_code or consent.is_given()
    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": trusted}
    try:
        config = AutoConfig.from_pretrained(folder, **local)
        tokenizer = AutoTokenizer.from_pretrained(folder, use_fast=True, **local)
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=trusted, dtype=torch.float32)
    except (OSError, ValueError, ImportError) as error:
        consent.refuse(error, folder, where)
        reason = " ".join(str(error).split())[:300]
        raise ConfigError(where, f"{folder} cannot be loaded ({reason})", _ALLOWED) from error
    return _finished(model, tokenizer)


def _finished(model: Any, tokenizer: Any) -> tuple[Any, Any]:
    from transformers import GenerationConfig

    # checkpoints bring habits of their own (sampling, penalties); how labels are written is said by the block alone
    model.generation_config = GenerationConfig()
    if getattr(tokenizer, "is_fast", False):  # else its first call would set them, while other threads read
        tokenizer.backend_tokenizer.no_truncation()
        tokenizer.backend_tokenizer.no_padding()
    return model, tokenizer


def _is_causal(model: Any) -> bool:
    """Whether what comes later changes nothing before."""
    model.eval()
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([[0, 1], [0, 2]])).logits[:, 0]
    return torch.allclose(logits[0], logits[1], rtol=1e-3, atol=1e-4)


def end_of_label(model: Any, tokenizer: Any, where: str) -> int:
    """Id of the piece that ends a label.

    Raises
    ------
    ConfigError
        When neither tokenizer nor model name one.
    """
    end = tokenizer.eos_token_id
    if end is None:
        end = getattr(model.config, "eos_token_id", None)
    if isinstance(end, list):
        end = end[0] if end else None
    if end is None:
        raise ConfigError(
            where, "has a tokenizer without an end-of-sequence token", "models that can end a text"
        )
    return int(end)


def chunks(sizes: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Cut rows into chunks of like size, shortest first.

    Parameters
    ----------
    sizes
        Of each row.
    budget
        Rows times the largest of their sizes is at most so many, unless a single row is larger.

    Yields
    ------
    list of int
        Indices of the rows of a chunk.
    """
    chunk: list[int] = []
    for row in sorted(range(len(sizes)), key=lambda row: sizes[row]):
        if chunk and (len(chunk) + 1) * sizes[row] > budget:
            yield chunk
            chunk = []
        chunk.append(row)
    if chunk:
        yield chunk


class LabelTrie:
    """Says which piece may follow which, so that a language model can write nothing but the given labels.

    Parameters
    ----------
    labels
        Each label with its pieces. Of labels with equal pieces the first is known.
    end
        The piece that ends every label.
    """

    def __init__(self, labels: Iterable[tuple[str, Sequence[int]]], end: int) -> None:
        self.end = end
        self._labels: dict[tuple[int, ...], str] = {}
        self._root: dict[int, Any] = {}
        for label, pieces in labels:
            self._labels.setdefault(tuple(pieces), label)
            node = self._root
            for piece in (*pieces, end):
                node = node.setdefault(piece, {})

    def __len__(self) -> int:
        """Count the labels that can be told apart."""
        return len(self._labels)

    @property
    def depth(self) -> int:
        """Pieces of the longest label, its end included."""
        return 1 + max(map(len, self._labels), default=0)

    def allowed(self, prefix: Sequence[int]) -> list[int]:
        """Pieces that may follow `prefix`; the end alone once a label is whole."""
        node = self._root
        for piece in prefix:
            node = node.get(piece, {})
        return list(node) or [self.end]

    def label(self, pieces: Sequence[int]) -> str | None:
        """Give the label of these pieces (without the end), as it was written; None when there is none."""
        return self._labels.get(tuple(pieces))
