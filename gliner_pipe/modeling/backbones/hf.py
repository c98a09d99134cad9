"""Finding and loading Hugging Face models; `transformers` is imported on first use."""

from __future__ import annotations

import copy
import importlib.util
import json
import logging
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from gliner_pipe.errors import CheckpointError, ConfigError, GlinerPipeError, reason_of
from gliner_pipe.modeling.backbones import hf_sizes, hf_weights, word_spaces
from gliner_pipe.modeling.layers.cache import evaluating
from gliner_pipe.modeling.layers.linear import take_linears
from gliner_pipe.util import consent
from gliner_pipe.util.listing import names_in
from gliner_pipe.util.thread_lock import LOADING

logger = logging.getLogger(__name__)


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
    with suppress(OSError):  # a name too long for a path
        if path.is_dir():
            return path
    if name.isidentifier() and (spec := importlib.util.find_spec(name)) and spec.submodule_search_locations:
        for root in map(Path, spec.submodule_search_locations):
            for found in [root, root / "model", *sorted(p.parent for p in root.glob(f"*/{marker}"))]:
                if (found / marker).is_file():
                    return found
    return None


def source_of(name: str, where: str, marker: str | None = "config.json") -> str:
    """Return the argument for ``from_pretrained``: the folder that `name` refers to, or the hub id itself.

    Parameters
    ----------
    name
        A folder, the name of an installed package, or a hub id.
    where
        Section or option, for errors.
    marker
        A file that the folder must contain; None for any folder.

    Raises
    ------
    ConfigError
        If a folder does not contain a model, or `name` is not a valid hub id.
    CheckpointError
        If files of sharded weights are missing.
    """
    folder = locate(name)
    if folder is not None:
        if marker is not None and not (folder / marker).is_file():
            found = f"found {name!r}, a folder without {marker} (it contains {names_in(folder)})"
            raise ConfigError(where, found, _ALLOWED)
        hf_weights.check_index(folder)
        return str(folder)
    if name.count("/") > 1 or not _HUB_NAME.fullmatch(name):
        raise ConfigError(where, f"found {name!r}, which is no folder", _ALLOWED, "Check the path")
    return name


_ALLOWED = "a folder with a Hugging Face model, an installed package that contains one, a hub id"
#: Names that may be those of a model on the hub: no paths, also not those of Windows.
_HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w.-]+)?")


def config_of(settings: Mapping[str, Any], where: str, kind: str | None = None) -> Any:
    """Return the Hugging Face configuration with the given settings, without asking the hub.

    Parameters
    ----------
    settings
        Content of a ``config.json``. Settings of dtypes are left out, since weights are loaded as fp32 or as the block
        says, and so is what names code, or cuts the work without another result.
    where
        Section or option, for errors.
    kind
        Model type of settings without one.

    Raises
    ------
    ConfigError
        If they are not those of a model of `transformers`.
    """
    from transformers import AutoConfig

    left_out = ("dtype", "torch_dtype", "auto_map", "chunk_size_feed_forward")
    settings = {
        key: value
        for key, value in settings.items()
        if key not in left_out and not str(key).endswith("attn_implementation")
    }
    model_type = settings.pop("model_type", None) or kind
    try:
        return AutoConfig.for_model(model_type, **settings)
    except Exception as error:  # each class of configurations has checks of its own
        found = f"cannot be read as the configuration of a {model_type!r} ({reason_of(error)})"
        raise ConfigError(where, found, "the content of the config.json of an encoder", _SPELLING) from None


_SPELLING = "Check model_type and the other keys"


@LOADING.held
def load_pretrained(
    name: str,
    where: str,
    trust_remote_code: bool,
    attn_implementation: str = "auto",
    words: bool = True,
    settings: Mapping[str, Any] | None = None,
    **options: Any,
) -> tuple[Any, Any]:
    """Load a model with its weights, and its tokenizer, from a hub id, a folder or an installed package.

    Parameters
    ----------
    name
        A folder, the name of an installed package, or a hub id.
    where
        Section or option, for errors.
    trust_remote_code
        Run code that comes with the model.
    attn_implementation
        ``auto``, or a name in `transformers`.
    words
        Whether the tokenizer reads separate words, or running text.
    settings
        Configuration in place of that of the model.
    options
        Arguments of ``from_pretrained``; the dtype is fp32 by default.

    Raises
    ------
    ConfigError
        If that fails, with the error of the hub.
    CheckpointError
        If weights are missing or do not fit the configuration.
    """
    from transformers import AutoModel

    if settings is not None:
        options["config"] = config_of(settings, where)
    source = source_of(name, where, None if settings is not None else "config.json")
    trusted = trust_remote_code or consent.is_given()
    options |= {"dtype": torch.float32, **options, "trust_remote_code": trusted}
    options |= _attention_option(attn_implementation, trusted, where)
    try:
        if settings is None:  # read first, as its absence tells most
            stated = stated_attention(config_dict(source))
            _attention_option(stated if attn_implementation == "auto" else "auto", trusted, where)
        tokenizer = tokenizer_of(source, trusted, words)
        model = load_weights(AutoModel, source, name, where, options)
    except GlinerPipeError:
        raise
    except hf_weights.FAILURES as error:
        raise unloadable(error, name, where, _ALLOWED) from error
    if (extra := missing_rows(model, tokenizer)) > 0:
        logger.warning(
            "%s: its tokenizer has %d tokens more than its embeddings have rows; they get new vectors.",
            name,
            extra,
        )
    return _ready(model, tokenizer, where, attn_implementation)


def missing_rows(model: Any, tokenizer: Any) -> int:
    """Return how many tokens of a tokenizer have no embedding in a model; 0 or less if all have."""
    return n_ids(tokenizer) - len(model.get_input_embeddings().weight)


def n_ids(tokenizer: Any) -> int:
    """Return how many rows embeddings need for a tokenizer, whose numbers may have gaps."""
    return max(len(tokenizer), 1 + max(tokenizer.get_vocab().values(), default=0))


def unloadable(error: Exception, name: object, where: str, allowed: str) -> ConfigError:
    """Return the error for a model that `transformers` cannot load.

    Raises
    ------
    ConfigError
        If the model contains code and the user has not consented to run it.
    """
    consent.refuse(error, name, where)
    reason = reason_of(error)
    do = "Without network, download the model before and set its folder"
    return ConfigError(where, f"{name!r} cannot be loaded ({reason})", allowed, do)


def load_weights(kind: Any, source: str, name: str, where: str, options: dict[str, Any], **how: Any) -> Any:
    """Return ``hf_weights.load``, with another attention if that of the model's own files cannot run here.

    Raises
    ------
    ConfigError
        If an attention that cannot run was chosen in `options`, by the user.
    """
    if Path(source).is_dir():
        hf_sizes.check_folder(_config_of(source, options), Path(source), kind)
    try:
        return hf_weights.load(kind, source, name, **how, **options)
    except (ImportError, ValueError) as error:
        reason, chosen = reason_of(error, 200), options.get("attn_implementation")
        if isinstance(error, GlinerPipeError) or not re.search("attn|attention", reason, re.IGNORECASE):
            raise
        if chosen is not None:
            where = f"{where.rpartition('.')[0]}.attn_implementation"
            found = f"found {chosen!r}, which cannot run here ({reason})"
            raise ConfigError(where, found, _ATTENTION, "Set auto for the fastest that can") from None
        config = _config_of(source, options)
        for instead in ("sdpa", "eager"):
            config._attn_implementation = instead
            try:
                model = hf_weights.load(kind, source, name, **how, **{**options, "config": config})
            except (ImportError, ValueError):
                continue
            _report_attention(where, reason, instead)
            return model
        raise


def _config_of(source: str, options: Mapping[str, Any]) -> Any:
    """Return the configuration among the arguments of ``from_pretrained``, or else that of a folder or hub id."""
    from transformers import AutoConfig

    trusted = {"trust_remote_code": options["trust_remote_code"]}
    return options.get("config") or AutoConfig.from_pretrained(source, **trusted)


_ATTENTION = "auto, eager, sdpa, flash_attention_2"


def _report_attention(where: str, reason: str, instead: str) -> None:
    logger.warning(
        "[%s] The attention of this model cannot run here (%s); %s is used instead.", where, reason, instead
    )


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
    tokenizer = read_tokenizer(source, trust_remote_code)
    if words and not word_spaces.are_read(tokenizer):
        other = read_tokenizer(source, trust_remote_code, add_prefix_space=True)
        if word_spaces.are_read(other, like=tokenizer):  # a tokenizer class with this option
            return other
        word_spaces.add(tokenizer, source)
    return tokenizer


@LOADING.held
def read_tokenizer(source: str | Path, trust_remote_code: bool, **options: Any) -> Any:
    """Return the tokenizer of a hub id or folder.

    Raises
    ------
    CheckpointError
        If there is none: `transformers` 5 then makes one that only knows special tokens.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    _check_ids(Path(source) / "tokenizer.json")
    options = {"use_fast": True, "trust_remote_code": trust_remote_code, **options}
    try:
        try:
            tokenizer = AutoTokenizer.from_pretrained(source, **options)
        except ValueError as error:
            if "TokenizersBackend" not in str(error):
                raise
            # the name of this class in files that transformers 5 writes, unknown to version 4
            tokenizer = PreTrainedTokenizerFast.from_pretrained(source, **options)
    except hf_weights.FAILURES as error:
        consent.refuse(error, source, "model")
        raise CheckpointError(_no_tokenizer(source, reason_of(error, 160))) from None
    limit = getattr(tokenizer, "model_max_length", 1)
    if isinstance(limit, bool) or not isinstance(limit, (int, float)) or not limit >= 1:
        raise CheckpointError(
            f"{source}: its tokenizer_config.json has model_max_length = {limit!r}; allowed: a whole number from 1 on."
        )
    if (rust := getattr(tokenizer, "backend_tokenizer", None)) is not None:
        try:
            rust.encode(_UNUSUAL)
        except Exception as error:  # the package tokenizers raises nothing more special
            raise CheckpointError(_no_tokenizer(source, reason_of(error, 160))) from None
    if len(tokenizer) < _FEW_TOKENS and not {*tokenizer.get_vocab()} - {*tokenizer.all_special_tokens, "▁"}:
        raise CheckpointError(_no_tokenizer(source, "it only has special tokens"))
    return tokenizer


def _check_ids(path: Path) -> None:
    """Refuse a tokenizer with a token of a huge number: each number below it would take memory."""
    try:
        content = path.read_bytes()
        found = json.loads(content) if _HUGE.search(content) else {}
        vocabulary = found.get("model", {}).get("vocab", {})
        ids = [*(vocabulary.values() if isinstance(vocabulary, dict) else ())]
        ids += [token.get("id") for token in found.get("added_tokens", ())]
    except (OSError, ValueError, AttributeError, TypeError, RecursionError):
        return  # what reads the file afterwards has the error
    huge = [number for number in ids if isinstance(number, int) and number > hf_sizes.MOST["vocab_size"]]
    if huge:
        raise CheckpointError(
            f"{path}: has a token with the number {huge[0]}; allowed: numbers below {hf_sizes.MOST['vocab_size']:,}. "
            "Download the tokenizer again."
        )


#: A number of eight digits or more as a value of a JSON object.
_HUGE = re.compile(rb'":\s*\d{8}')
#: A text with characters that few vocabularies have: it fails if there is no token for what is unknown.
_UNUSUAL = "a \u0ca0 \ue000 \U0001f9ff"
#: A tokenizer with fewer tokens may have special tokens only.
_FEW_TOKENS = 512
#: Files of tokenizers, of which a model has one or more.
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
    "vocab.json",
    "*.model",
    "*.tiktoken",
)


def has_tokenizer(folder: Path) -> bool:
    """Return whether a folder contains files of a tokenizer."""
    return any(next(folder.glob(pattern), None) is not None for pattern in TOKENIZER_FILES)


def _no_tokenizer(source: str | Path, why: str) -> str:
    """Return in one line that there is no tokenizer, where it was looked for, and what to do."""
    from huggingface_hub import constants

    do = "Copy tokenizer.json and tokenizer_config.json of the model into its folder"
    if Path(source).is_dir():
        found = "its files do not make one" if has_tokenizer(Path(source)) else "there is no tokenizer.json"
        return f"{source}: no tokenizer in this folder, {found} ({why}). {do}."
    offline = " only, since HF_HUB_OFFLINE is set," if constants.HF_HUB_OFFLINE else ", and on the hub"
    return (
        f"{str(source)!r}: no tokenizer, looked for in the hub's cache {constants.HF_HUB_CACHE}{offline} ({why}). "
        f"{do}, or download the model while there is a network."
    )


@LOADING.held
def load_saved(
    folder: Path, where: str, trust_remote_code: bool, attn_implementation: str = "auto", **options: Any
) -> tuple[Any, Any]:
    """Build a model without weights, and its tokenizer, from a saved folder, without network.

    An attention that cannot run here is replaced by that of ``auto``, with a warning: the results are the same.
    """
    from transformers import AutoConfig, AutoModel

    trusted = trust_remote_code or consent.is_given()
    options = {"dtype": torch.float32, **options, "trust_remote_code": trusted}
    asked = _attention_option(attn_implementation, trusted, where)
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=trusted)
        hf_sizes.check_ranges(config, folder / "config.json")
        tokenizer = saved_tokenizer(folder, trusted)
        try:
            model = AutoModel.from_config(copy.deepcopy(config), **options, **asked)
        except (ImportError, ValueError) as error:
            if not asked:
                raise
            model = AutoModel.from_config(config, **options)
            attn_implementation = "auto"
            _report_attention(where, reason_of(error, 200), attn_implementation)
    except ValueError as error:
        consent.refuse(error, folder, where)
        raise
    return _ready(model, tokenizer, where, attn_implementation)


def _attention_option(attn_implementation: str, trusted: bool, where: str) -> dict[str, str]:
    if "/" in attn_implementation and not trusted:  # transformers would load compiled code from a hub
        where = f"{where.rpartition('.')[0]}.attn_implementation"
        found = f"found {attn_implementation!r}, code on a hub that needs consent to run"
        raise ConfigError(where, found, _ATTENTION, consent.HOW)
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


def config_dict(source: str) -> dict[str, Any]:
    """Return the content of the ``config.json`` of a folder or hub id."""
    from transformers import PretrainedConfig

    content: dict[str, Any] = PretrainedConfig.get_config_dict(source)[0]
    return content


def stated_attention(settings: Mapping[str, Any]) -> str:
    """Return the attention that the content of a ``config.json`` asks for, ``auto`` if it asks for none."""
    found = settings.get("_attn_implementation") or settings.get("attn_implementation")
    return found if isinstance(found, str) else "auto"


@LOADING.held
def saved_tokenizer(folder: Path, trust_remote_code: bool) -> Any:
    """Return the tokenizer of a saved folder, without network."""
    tokenizer = read_tokenizer(folder, trust_remote_code)
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


def is_causal(model: Any) -> bool:
    """Whether later tokens do not affect earlier ones."""
    ids = torch.tensor([[0, 1], [0, 2]], device=next(model.parameters()).device)
    with evaluating(model), torch.inference_mode():
        first = model(input_ids=ids)[0][:, 0]
    return torch.allclose(first[0], first[1], rtol=1e-3, atol=1e-4)


def special_pieces(tokenizer: Any) -> tuple[list[int], list[int]]:
    """Return the special tokens that the tokenizer adds before and after a sequence, e.g. ``([CLS], [SEP])``."""
    bare = tokenizer(["a"], is_split_into_words=True, add_special_tokens=False)["input_ids"]
    full = tokenizer(["a"], is_split_into_words=True)["input_ids"]
    for start in range(len(full) - len(bare) + 1):
        if full[start : start + len(bare)] == bare:
            return full[:start], full[start + len(bare) :]
    raise ValueError(f"{type(tokenizer).__name__} does not add special tokens around an unchanged sequence")
