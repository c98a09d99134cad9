"""Finding and loading Hugging Face models; `transformers` is imported on first use."""

from __future__ import annotations

import copy
import importlib.util
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from gliner_pipe.errors import CheckpointError, ConfigError
from gliner_pipe.modeling.backbones import word_spaces
from gliner_pipe.modeling.layers.linear import take_linears
from gliner_pipe.util import consent
from gliner_pipe.util.atomic import inside
from gliner_pipe.util.thread_lock import LOADING


def locate(name: str, marker: str = "config.json") -> Path | None:
    """Return the model folder that `name` refers to: a path, or a folder in an installed package.

    Parameters
    ----------
    name
        A folder, the name of an installed package, or a hub id.
    marker
        A file that every model folder contains.

    Returns
    -------
    Path or None
        None if `name` can only be a hub id.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if name.isidentifier() and (spec := importlib.util.find_spec(name)) and spec.submodule_search_locations:
        for root in map(Path, spec.submodule_search_locations):
            for found in [root, root / "model", *sorted(p.parent for p in root.glob(f"*/{marker}"))]:
                if (found / marker).is_file():
                    return found
    return None


def source_of(name: str, where: str) -> str:
    """Return the argument for ``from_pretrained``: the folder that `name` refers to, or the hub id itself.

    Raises
    ------
    ConfigError
        If a folder does not contain a model, or `name` is not a valid hub id.
    """
    folder = locate(name)
    if folder is not None:
        if not (folder / "config.json").is_file():
            found = ", ".join(sorted(p.name for p in folder.iterdir())[:8]) or "nothing"
            raise ConfigError(
                where, f"found {name!r}, a folder without config.json (it contains {found})", _ALLOWED
            )
        check_index(folder)
        return str(folder)
    if name.count("/") > 1 or name.startswith((".", "/", "~")) or not name.strip():
        raise ConfigError(where, f"found {name!r}, which is no folder", _ALLOWED, "Check the path")
    return name


def check_index(folder: Path) -> None:
    """Check that the weight files listed in the index of a folder are inside the folder.

    Raises
    ------
    CheckpointError
        If one is not, or the index cannot be read.
    """
    for file in folder.glob("*.index.json"):
        try:
            names = set(json.loads(file.read_text(encoding="utf8"))["weight_map"].values())
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise CheckpointError(f"{file}: not an index of weight files ({error}).") from None
        for name in names:
            inside(folder, name, file)


_ALLOWED = "a folder with a Hugging Face model, an installed package that contains one, a hub id"


@contextmanager
def quiet() -> Iterator[None]:
    """Hide the progress bars of `transformers` inside the context."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


@LOADING.held
def load_pretrained(
    name: str,
    where: str,
    trust_remote_code: bool,
    attn_implementation: str = "auto",
    words: bool = True,
    **options: Any,
) -> tuple[Any, Any]:
    """Load a model with its weights, and its tokenizer, from a hub id, a folder or an installed package.

    The tokenizer reads separate `words`, or running text.

    Raises
    ------
    ConfigError
        If that fails, with the error of the hub.
    """
    from transformers import AutoModel

    source = source_of(name, where)
    trusted = trust_remote_code or consent.is_given()
    options |= _attention_option(attn_implementation, trusted, where)
    try:
        tokenizer = tokenizer_of(source, trusted, words)
        with quiet():
            model = AutoModel.from_pretrained(source, trust_remote_code=trusted, **options)
    except (OSError, ValueError, ImportError) as error:
        consent.refuse(error, name, where)
        reason = " ".join(str(error).split())[:300]
        raise ConfigError(
            where,
            f"{name!r} cannot be loaded ({reason})",
            _ALLOWED,
            "Without network, download the model before and set its folder",
        ) from error
    return _ready(model, tokenizer, where, attn_implementation)


@LOADING.held
def tokenizer_of(source: str, trust_remote_code: bool, words: bool = True) -> Any:
    """Return the tokenizer of a hub id or folder.

    Parameters
    ----------
    source
        Hub id or folder.
    trust_remote_code
        Consent to run Python code that comes with the tokenizer.
    words
        Whether it reads text as separate words: each then has the subword tokens that it has in running text, see
        :mod:`gliner_pipe.modeling.backbones.word_spaces`.
    """
    from transformers import AutoTokenizer

    options: dict[str, Any] = {"use_fast": True, "trust_remote_code": trust_remote_code}
    tokenizer = AutoTokenizer.from_pretrained(source, **options)
    if words and not word_spaces.are_read(tokenizer):
        other = AutoTokenizer.from_pretrained(source, add_prefix_space=True, **options)
        if word_spaces.are_read(other, like=tokenizer):  # a tokenizer class with this option
            return other
        word_spaces.add(tokenizer, source)
    return tokenizer


@LOADING.held
def load_saved(
    folder: Path, where: str, trust_remote_code: bool, attn_implementation: str = "auto", **options: Any
) -> tuple[Any, Any]:
    """Build a model without weights, and its tokenizer, from a saved folder, without network."""
    from transformers import AutoConfig, AutoModel

    trusted = trust_remote_code or consent.is_given()
    options |= _attention_option(attn_implementation, trusted, where)
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=trusted)
        tokenizer = saved_tokenizer(folder, trusted)
        model = AutoModel.from_config(config, trust_remote_code=trusted, **options)
    except ValueError as error:
        consent.refuse(error, folder, where)
        raise
    return _ready(model, tokenizer, where, attn_implementation)


def _attention_option(attn_implementation: str, trusted: bool, where: str) -> dict[str, str]:
    if "/" in attn_implementation and not trusted:  # transformers would load compiled code from a hub
        where = f"{where.rpartition('.')[0]}.attn_implementation"
        found = f"found {attn_implementation!r}, code on a hub that needs consent to run"
        raise ConfigError(where, found, "auto, eager, sdpa, flash_attention_2", consent.HOW)
    return {} if attn_implementation == "auto" else {"attn_implementation": attn_implementation}


def _ready(model: Any, tokenizer: Any, where: str, attn_implementation: str) -> tuple[Any, Any]:
    """Check a model and its tokenizer, and replace layers by faster ones."""
    if not getattr(tokenizer, "is_fast", False):
        raise ConfigError(
            where,
            f"has the tokenizer {type(tokenizer).__name__}, which cannot map subword tokens to words",
            "models with a fast tokenizer (tokenizer.json)",
        )
    if getattr(model.config, "is_encoder_decoder", False):
        model = model.get_encoder()
    if attn_implementation == "auto" and getattr(model.config, "model_type", None) == "deberta-v2":
        from gliner_pipe.modeling.layers.deberta import replace_attention

        replace_attention(model)
    take_linears(model)
    return model, tokenizer


@LOADING.held
def saved_tokenizer(folder: Path, trust_remote_code: bool) -> Any:
    """Return the tokenizer of a saved folder, without network."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, use_fast=True, trust_remote_code=trust_remote_code)
    word_spaces.restore(tokenizer, str(folder))
    return tokenizer


def rust_copy(tokenizer: Any, *, padded: bool = False, limit: int | None = None) -> Any:
    """Return a copy of the Rust tokenizer inside a fast tokenizer, with fixed settings.

    A fast tokenizer changes truncation and padding of its Rust tokenizer at each call, so that threads cannot share it.

    Parameters
    ----------
    tokenizer
        A fast tokenizer; it is not modified.
    padded
        Pad texts to the longest, on the right.
    limit
        Largest number of subword tokens of a text, with special tokens; longer texts are truncated. None for no limit.
    """
    rust = copy.deepcopy(tokenizer.backend_tokenizer)
    rust.no_truncation()
    rust.no_padding()
    if limit is not None:
        rust.enable_truncation(limit, direction=tokenizer.truncation_side)
    if padded:
        pad = {"pad_id": tokenizer.pad_token_id or 0, "pad_token": tokenizer.pad_token or "[PAD]"}
        rust.enable_padding(direction="right", pad_type_id=tokenizer.pad_token_type_id, **pad)
    return rust


def quantized(kind: str, where: str) -> dict[str, Any]:
    """Return the options of ``from_pretrained`` for 8-bit (``int8``) or 4-bit (``nf4``, ``fp4``) weights.

    Raises
    ------
    ConfigError
        Without a CUDA device, or without bitsandbytes.
    """
    if not torch.cuda.is_available():
        do = "Set None to load such a pipeline here; its encoder is then not quantised"
        raise ConfigError(where, f"found {kind!r} on a machine without a CUDA device", "None", do)
    if importlib.util.find_spec("bitsandbytes") is None:
        do = "Run pip install bitsandbytes"
        raise ConfigError(where, f"found {kind!r}, which needs the package bitsandbytes", "None", do)
    from transformers import BitsAndBytesConfig

    if kind == "int8":
        settings = BitsAndBytesConfig(load_in_8bit=True)
    else:
        settings = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type=kind, bnb_4bit_compute_dtype=torch.bfloat16
        )
    return {"quantization_config": settings, "device_map": {"": torch.cuda.current_device()}}


def grow_embeddings(model: Any, n_tokens: int) -> None:
    """Add embeddings of new tokens, each close to the mean of the others, which is in the range of pretraining."""
    old = model.get_input_embeddings().weight.detach().clone()
    if n_tokens <= len(old):
        return
    model.resize_token_embeddings(n_tokens, mean_resizing=False)
    new = model.get_input_embeddings().weight
    with torch.no_grad():
        noise = torch.randn(len(new) - len(old), old.shape[1], dtype=old.dtype)
        new[len(old) :] = old.mean(0) + 0.01 * old.std(0) * noise


def max_positions(config: Any, tokenizer: Any) -> int | None:
    """Return the largest number of subword tokens of an input; None if positions are relative and without limit."""
    kind = getattr(config, "model_type", "")
    if kind in ("t5", "mt5", "umt5") or (
        kind in ("deberta-v2", "deberta") and not config.position_biased_input
    ):
        return None
    limit = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
    if limit is not None and kind in (
        "roberta",
        "xlm-roberta",
        "camembert",
        "mpnet",
        "longformer",
        "xlm-roberta-xl",
    ):
        limit -= (config.pad_token_id or 0) + 1  # positions start after the padding id
    by_tokenizer = getattr(tokenizer, "model_max_length", None)
    if by_tokenizer and by_tokenizer < 10**6:
        limit = by_tokenizer if limit is None else min(limit, by_tokenizer)
    return limit


def special_pieces(tokenizer: Any) -> tuple[list[int], list[int]]:
    """Return the special tokens that the tokenizer adds before and after a sequence, e.g. ``([CLS], [SEP])``."""
    bare = tokenizer(["a"], is_split_into_words=True, add_special_tokens=False)["input_ids"]
    full = tokenizer(["a"], is_split_into_words=True)["input_ids"]
    for start in range(len(full) - len(bare) + 1):
        if full[start : start + len(bare)] == bare:
            return full[:start], full[start + len(bare) :]
    raise ValueError(f"{type(tokenizer).__name__} does not add special tokens around an unchanged sequence")
