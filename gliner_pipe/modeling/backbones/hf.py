"""Finds and loads Hugging Face models; `transformers` is imported on first use only."""

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
from gliner_pipe.modeling.layers.linear import take_linears
from gliner_pipe.util import consent
from gliner_pipe.util.atomic import inside
from gliner_pipe.util.thread_lock import LOADING


def locate(name: str, marker: str = "config.json") -> Path | None:
    """Folder that `name` stands for: a path, or an installed package that holds a model.

    Parameters
    ----------
    name
        A folder, the name of an installed package, or a hub id.
    marker
        A file that tells a model folder.

    Returns
    -------
    Path or None
        None when `name` can only be a hub id.
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
    """Argument for ``from_pretrained``: the folder `name` stands for, or the hub id itself.

    Raises
    ------
    ConfigError
        When a folder holds no model, or `name` can be no hub id.
    """
    folder = locate(name)
    if folder is not None:
        if not (folder / "config.json").is_file():
            found = ", ".join(sorted(p.name for p in folder.iterdir())[:8]) or "nothing"
            raise ConfigError(where, f"{name!r} is a folder without config.json (it holds {found})", _ALLOWED)
        check_index(folder)
        return str(folder)
    if name.count("/") > 1 or name.startswith((".", "/", "~")) or not name.strip():
        raise ConfigError(where, f"found {name!r}, which is no folder", _ALLOWED, "Check the path")
    return name


def check_index(folder: Path) -> None:
    """Refuse a folder whose list of weight files names one that lies elsewhere.

    Raises
    ------
    CheckpointError
        If there is such a list, or one that cannot be read.
    """
    for file in folder.glob("*.index.json"):
        try:
            names = set(json.loads(file.read_text(encoding="utf8"))["weight_map"].values())
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise CheckpointError(f"{file}: is no list of weight files ({error}).") from None
        for name in names:
            inside(folder, name, file)


_ALLOWED = "a folder with a Hugging Face model, an installed package that holds one, a hub id"


@contextmanager
def quiet() -> Iterator[None]:
    """Show no progress bars of `transformers` meanwhile."""
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
    name: str, where: str, trust_remote_code: bool, attn_implementation: str = "auto", **options: Any
) -> tuple[Any, Any]:
    """Model with its weights, and tokenizer, of a hub id, a folder or an installed package.

    Raises
    ------
    ConfigError
        When they cannot be had; the hub's own words are in the message.
    """
    from transformers import AutoModel

    source = source_of(name, where)
    trusted = trust_remote_code or consent.is_given()
    options |= _attention_option(attn_implementation, trusted, where)
    try:
        tokenizer = tokenizer_of(source, trusted)
        with quiet():
            model = AutoModel.from_pretrained(source, trust_remote_code=trusted, **options)
    except (OSError, ValueError, ImportError) as error:
        consent.refuse(error, name, where)
        reason = " ".join(str(error).split())[:300]
        raise ConfigError(
            where,
            f"{name!r} cannot be loaded ({reason})",
            _ALLOWED,
            "Offline, download the model first and give its folder",
        ) from error
    return _ready(model, tokenizer, where, attn_implementation)


@LOADING.held
def tokenizer_of(source: str, trust_remote_code: bool) -> Any:
    """Tokenizer of a hub id or folder, for texts that come as words.

    Byte-level tokenizers (RoBERTa, ModernBERT) read the blank before a word as part of it: they get one before each.
    """
    from transformers import AutoTokenizer

    options: dict[str, Any] = {"use_fast": True, "trust_remote_code": trust_remote_code}
    tokenizer = AutoTokenizer.from_pretrained(source, **options)
    before = getattr(getattr(tokenizer, "backend_tokenizer", None), "pre_tokenizer", None)
    if "ByteLevel(add_prefix_space=False" in repr(before):
        tokenizer = AutoTokenizer.from_pretrained(source, add_prefix_space=True, **options)
    return tokenizer


@LOADING.held
def load_saved(
    folder: Path, where: str, trust_remote_code: bool, attn_implementation: str = "auto", **options: Any
) -> tuple[Any, Any]:
    """Model with weights still to be filled in, and tokenizer, from a folder that ``save`` wrote: no network."""
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
    if "/" in attn_implementation and not trusted:  # transformers takes it for a repository of compiled code
        where = f"{where.rpartition('.')[0]}.attn_implementation"
        found = f"is {attn_implementation!r}, which stands for code on a hub that runs with consent only"
        raise ConfigError(where, found, "auto, eager, sdpa, flash_attention_2", consent.HOW)
    return {} if attn_implementation == "auto" else {"attn_implementation": attn_implementation}


def _ready(model: Any, tokenizer: Any, where: str, attn_implementation: str) -> tuple[Any, Any]:
    model, tokenizer = checked(model, tokenizer, where)
    if attn_implementation == "auto" and getattr(model.config, "model_type", None) == "deberta-v2":
        from gliner_pipe.modeling.layers.deberta import replace_attention

        replace_attention(model)
    take_linears(model)
    return model, tokenizer


def follow_device(model: Any, device: torch.device) -> None:
    """Let a model with an ``auto`` attention run that of flash-attn where it can, and `sdpa` again where it cannot.

    It can on a CUDA device, with weights of 16 bits, where the package is installed and the model knows it. Padded
    positions are then not computed.
    """
    kind = getattr(model.config, "_attn_implementation", None)
    if kind not in ("sdpa", FLASH) or not hasattr(model, "set_attn_implementation"):
        return
    if kind == "sdpa" and device.type != "cuda":
        return
    wanted = FLASH if _flash_runs(model, device) else "sdpa"
    if wanted != kind:
        model.set_attn_implementation(wanted)


#: Name that `transformers` has for flash-attn.
FLASH = "flash_attention_2"


def _flash_runs(model: Any, device: torch.device) -> bool:
    supported = getattr(model, "_supports_flash_attn", False) or getattr(
        model, "_supports_flash_attn_2", False
    )
    short = next(model.parameters()).dtype in (torch.float16, torch.bfloat16)
    return bool(
        supported and short and device.type == "cuda" and importlib.util.find_spec("flash_attn") is not None
    )


@LOADING.held
def saved_tokenizer(folder: Path, trust_remote_code: bool) -> Any:
    """Tokenizer from a folder that ``save`` wrote: no network."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, use_fast=True, trust_remote_code=trust_remote_code)


def rust_copy(tokenizer: Any, *, padded: bool = False, limit: int | None = None) -> Any:
    """Return a copy of the Rust tokenizer inside a fast tokenizer whose settings nobody changes.

    A fast tokenizer sets truncation and padding of the one inside it at each call. Threads cannot share that, and it
    belongs to whoever else calls it.

    Parameters
    ----------
    tokenizer
        A fast tokenizer; it is left as it is.
    padded
        Fill texts up to the longest, on the right.
    limit
        Pieces after which texts are cut off, special ones included; None for no limit.
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
    """Options of ``from_pretrained`` for weights of 8 bits (``int8``) or 4 (``nf4``, ``fp4``), by bitsandbytes.

    Raises
    ------
    ConfigError
        Without a CUDA device, or without bitsandbytes.
    """
    if not torch.cuda.is_available():
        do = "With None, a pipeline that was trained so loads here as well: its encoder is read in full"
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


def checked(model: Any, tokenizer: Any, where: str) -> tuple[Any, Any]:
    """Refuse what windows cannot be cut for: slow tokenizers, and models without an encoder."""
    if not getattr(tokenizer, "is_fast", False):
        raise ConfigError(
            where,
            f"has the tokenizer {type(tokenizer).__name__}, which maps no pieces to words",
            "models with a fast tokenizer (tokenizer.json)",
        )
    if getattr(model.config, "is_encoder_decoder", False):
        model = model.get_encoder()
    return model, tokenizer


def grow_embeddings(model: Any, n_tokens: int) -> None:
    """Make room for new tokens, each close to the mean of the old ones: a vector the layers above know how to read."""
    old = model.get_input_embeddings().weight.detach().clone()
    if n_tokens <= len(old):
        return
    model.resize_token_embeddings(n_tokens, mean_resizing=False)
    new = model.get_input_embeddings().weight
    with torch.no_grad():
        noise = torch.randn(len(new) - len(old), old.shape[1], dtype=old.dtype)
        new[len(old) :] = old.mean(0) + 0.01 * old.std(0) * noise


def max_positions(config: Any, tokenizer: Any) -> int | None:
    """Pieces that the model can take at once; None when its positions are relative and know no end."""
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
    """Special pieces that the tokenizer puts before and after a sequence, e.g. ``([CLS], [SEP])``."""
    bare = tokenizer(["a"], is_split_into_words=True, add_special_tokens=False)["input_ids"]
    full = tokenizer(["a"], is_split_into_words=True)["input_ids"]
    for start in range(len(full) - len(bare) + 1):
        if full[start : start + len(bare)] == bare:
            return full[:start], full[start + len(bare) :]
    raise ValueError(f"{type(tokenizer).__name__} changes the pieces when it adds special ones")
