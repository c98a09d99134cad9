"""Causal language models for label generation: loading, and a trie for closed label sets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from gliner_pipe.errors import ConfigError, GlinerPipeError, reason_of
from gliner_pipe.modeling.backbones import hf, hf_weights
from gliner_pipe.util import consent
from gliner_pipe.util.thread_lock import LOADING

_ALLOWED = "a folder or installed package with a causal language model, or a hub id"


@LOADING.held
def load_pretrained(
    name: str, where: str, trust_remote_code: bool, settings: Mapping[str, Any] | None = None
) -> tuple[Any, Any]:
    """Load a language model with its weights, and its tokenizer, from a hub id, a folder or an installed package.

    Parameters
    ----------
    name
        A folder, the name of an installed package, or a hub id.
    where
        Section or option, for errors.
    trust_remote_code
        Run code that comes with the model.
    settings
        Configuration in place of that of the model.

    Raises
    ------
    ConfigError
        If they cannot be loaded, with the hub's own message, or if the model is not causal.
    CheckpointError
        If weights are missing or do not fit the configuration.
    """
    from transformers import AutoModelForCausalLM

    options: dict[str, Any] = {"dtype": torch.float32}
    if settings is not None:
        options["config"] = hf.config_of(settings, where, "gpt2")
    source = hf.source_of(name, where, None if settings is not None else "config.json")
    trusted = options["trust_remote_code"] = trust_remote_code or consent.is_given()
    try:
        if settings is None:
            hf.config_dict(source)  # read first, as its absence tells most
        # a label is tokenized like a word inside a text, as in GLiNER
        tokenizer = hf.read_tokenizer(source, trusted, add_prefix_space=True)
        refuse = partial(_refuse, name, where)
        model = hf.load_weights(AutoModelForCausalLM, source, name, where, options, refuse=refuse)
    except GlinerPipeError:
        raise
    except hf_weights.FAILURES as error:
        raise hf.unloadable(error, name, where, _ALLOWED) from error
    if not hf.is_causal(model):
        found = f"{name!r} is bidirectional and cannot generate text"
        raise ConfigError(where, found, _ALLOWED, "Use a decoder model")
    return _prepared(model, tokenizer)


def _refuse(name: str, where: str, reason: str) -> ConfigError:
    return ConfigError(where, f"{name!r} is not a trained language model: it {reason}", _ALLOWED)


@LOADING.held
def load_saved(folder: Path, where: str, trust_remote_code: bool) -> tuple[Any, Any]:
    """Load a language model without its weights, and its tokenizer, from a saved folder; no network access.

    Raises
    ------
    ConfigError
        If the folder holds no language model.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    if not (folder / "config.json").is_file():  # transformers would otherwise look it up on the hub
        raise ConfigError(where, f"{folder} has no config.json", _ALLOWED, "Save the pipeline again")
    trusted = trust_remote_code or consent.is_given()
    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": trusted}
    try:
        config = AutoConfig.from_pretrained(folder, **local)
        tokenizer = hf.read_tokenizer(folder, trusted)
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=trusted, dtype=torch.float32)
    except GlinerPipeError:
        raise
    except (OSError, ValueError, ImportError) as error:
        consent.refuse(error, folder, where)
        reason = reason_of(error)
        raise ConfigError(where, f"{folder} cannot be loaded ({reason})", _ALLOWED) from error
    return _prepared(model, tokenizer)


def _prepared(model: Any, tokenizer: Any) -> tuple[Any, Any]:
    from transformers import GenerationConfig

    # ignore the checkpoint's generation settings (sampling, penalties): the block alone defines generation
    model.generation_config = GenerationConfig()
    if getattr(tokenizer, "is_fast", False):
        # set here, as the first call would change it while other threads read
        tokenizer.backend_tokenizer.no_truncation()
        tokenizer.backend_tokenizer.no_padding()
    return model, tokenizer


def end_of_label(model: Any, tokenizer: Any, where: str) -> int:
    """Return the id of the end-of-sequence token, which ends a label.

    Raises
    ------
    ConfigError
        If neither tokenizer nor model defines one.
    """
    end = tokenizer.eos_token_id
    if end is None:
        end = getattr(model.config, "eos_token_id", None)
    if isinstance(end, list):
        end = end[0] if end else None
    if end is None:
        found = "has a tokenizer without an end-of-sequence token"
        raise ConfigError(where, found, "models with an end-of-sequence token")
    return int(end)


def chunks(sizes: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Split rows into chunks of similar size, shortest first.

    Parameters
    ----------
    sizes
        Size of each row.
    budget
        Maximum of rows times largest size in a chunk; a single larger row is a chunk of its own.

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
    """Trie of token ids that restricts a language model to the given labels.

    Parameters
    ----------
    labels
        Each label with its token ids. Of labels with equal token ids the first is kept.
    end
        Id of the end-of-sequence token.
    """

    def __init__(self, labels: Iterable[tuple[str, Sequence[int]]], end: int) -> None:
        self.end = end
        self._labels: dict[tuple[int, ...], str] = {}
        self._root: dict[int, Any] = {}
        for label, tokens in labels:
            self._labels.setdefault(tuple(tokens), label)
            node = self._root
            for token in (*tokens, end):
                node = node.setdefault(token, {})

    def __len__(self) -> int:
        """Count the labels with distinct token ids."""
        return len(self._labels)

    @property
    def depth(self) -> int:
        """Number of tokens of the longest label, including its end."""
        return 1 + max(map(len, self._labels), default=0)

    def allowed(self, prefix: Sequence[int]) -> list[int]:
        """Return the tokens that may follow `prefix`; only the end once a label is complete."""
        node = self._root
        for token in prefix:
            node = node.get(token, {})
        return list(node) or [self.end]

    def label(self, tokens: Sequence[int]) -> str | None:
        """Return the label of these token ids (without the end); None if there is none."""
        return self._labels.get(tuple(tokens))
