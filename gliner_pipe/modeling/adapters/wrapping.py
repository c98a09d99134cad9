"""Adds, reads and writes adapters of encoders through ``peft``, which is imported on first use."""

from __future__ import annotations

import copy
import dataclasses
import importlib
import re
import warnings
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from gliner_pipe.errors import CheckpointError, ConfigError
from gliner_pipe.util.atomic import replace_file

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
NAME = "default"

#: Methods that are no weights in linear layers: prompts of language models, mixtures that are told a task, methods
#: that change the base or take the model's own forward.
_OTHERS = (
    "ADAPTION_PROMPT",
    "CARTRIDGE",
    "CPT",
    "MULTITASK_PROMPT_TUNING",
    "OSF",
    "POLY",
    "PREFIX_TUNING",
    "PROMPT_TUNING",
    "P_TUNING",
    "SHADOW",
    "TRAINABLE_TOKENS",
    "XLORA",
)
#: What `peft` puts before the names of weights that it wraps.
_OUTER = re.compile(r"(?<![^.])(?:token_adapter|base_layer|original_module)\.")
#: Fields of a configuration that are not for users to set.
_RESERVED = (
    "auto_mapping",
    "base_model_name_or_path",
    "inference_mode",
    "peft_type",
    "peft_version",
    "revision",
    "target_modules",
    "task_type",
    "trainable_token_indices",
)


def library(where: str) -> Any:
    """Return `peft`.

    Raises
    ------
    ConfigError
        When it is not installed.
    """
    try:
        return importlib.import_module("peft")
    except ImportError as error:
        raise ConfigError(
            where,
            f"needs the package peft, which cannot be imported ({error})",
            do='Run pip install "gliner_pipe[peft]"',
        ) from error


def _config_class(method: str, where: str) -> Any:
    peft = library(where)
    classes = {
        str(kind.value).lower(): made
        for kind, made in peft.mapping.PEFT_TYPE_TO_CONFIG_MAPPING.items()
        if kind.value not in _OTHERS
    }
    if method.lower() not in classes:
        raise ConfigError(f"{where}.method", f"found {method!r}", ", ".join(sorted(classes)))
    return classes[method.lower()]


def _fields(method: str, where: str) -> list[str]:
    return [field.name for field in dataclasses.fields(_config_class(method, where)) if field.init]


def takes(method: str, option: str, where: str) -> bool:
    """Whether the configuration of a method has this option."""
    return option in _fields(method, where)


def own_targets(method: str, encoder: Any) -> bool:
    """Whether `peft` knows which layers of this architecture the authors of ``ia3`` would adapt."""
    if method.lower() != "ia3":
        return False
    known = library("adapter").utils.TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING
    return encoder.config.model_type in known


def peft_config(method: str, where: str, **options: Any) -> Any:
    """Make the configuration of a method.

    Raises
    ------
    ConfigError
        For a method or an option that is not there, with those that are, and for values that cannot be.
    """
    made = _config_class(method, where)
    known = set(_fields(method, where))
    unknown = sorted(set(options) - (known - set(_RESERVED)) - {"target_modules"})
    if unknown:
        allowed = ", ".join(sorted(known - set(_RESERVED)))
        raise ConfigError(
            f"{where}.options", f"found {unknown[0]!r}, which {method!r} does not have", allowed
        )
    try:
        return made(**options)
    except (ValueError, TypeError, AssertionError) as error:
        raise ConfigError(where, f"has settings that {method!r} cannot have ({_reason(error)})") from error


def wrap(encoder: Any, config: Any, tokens: Mapping[str, Sequence[int]], where: str) -> Any:
    """Freeze an encoder and put an adapter on it.

    Parameters
    ----------
    encoder
        A Hugging Face model; it is changed.
    config
        Of `peft`.
    tokens
        Pieces whose embeddings learn too, by the name of the embedding layer. Most methods have no setting for it,
        though `peft` wraps and saves the rows with any method: the name that LoRA gives it is set on the object.
    where
        Section that errors name.
    """
    peft = library(where)
    if tokens:
        config.trainable_token_indices = {name: list(pieces) for name, pieces in tokens.items()}
    try:
        with warnings.catch_warnings():
            # said of every layer of ln_tuning, whose layers they are
            warnings.filterwarnings("ignore", message="Unsupported layer type")
            wrapped = peft.get_peft_model(encoder, config)
    except (ValueError, TypeError, AssertionError, RuntimeError) as error:
        method = str(config.peft_type.value).lower()
        raise ConfigError(where, f"{method!r} does not fit the encoder ({_reason(error)})") from error
    from gliner_pipe.modeling.adapters.trainable_tokens import look_up_rows

    look_up_rows(wrapped)
    return wrapped


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def is_wrapped(encoder: Any) -> bool:
    """Whether an encoder has an adapter."""
    return hasattr(encoder, "peft_config") and hasattr(encoder, "get_base_model")


def write(encoder: Any, folder: Path, base: str) -> None:
    """Write an adapter as `peft` does: its configuration and its weights."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    settings = copy.copy(encoder.peft_config[NAME])
    settings.inference_mode, settings.base_model_name_or_path = True, base
    settings.save_pretrained(str(folder))
    state = library("adapter").get_peft_model_state_dict(encoder, save_embedding_layers=False)
    with replace_file(folder / WEIGHTS, follow=False) as file:
        save_file({k: v.detach().cpu().clone().contiguous() for k, v in state.items()}, file)


def base_state(encoder: Any, names: Collection[str]) -> dict[str, Tensor]:
    """Tensors of the encoder under an adapter, by the `names` that they had before."""
    state = {_OUTER.sub("", name): tensor for name, tensor in encoder.get_base_model().state_dict().items()}
    return {name: state[name].detach().cpu().clone().contiguous() for name in names}


def read_config(folder: Path, where: str) -> Any:
    """Read the configuration of an adapter; its weights are to be filled in, so they start in the simplest way."""
    if not (folder / CONFIG).is_file():
        raise CheckpointError(f"{folder}: no {CONFIG}. The folder is not whole: save the pipeline again.")
    config = library(where).PeftConfig.from_pretrained(str(folder))
    config.inference_mode, config.base_model_name_or_path = False, None
    if getattr(config, "init_lora_weights", True) not in (True, False):
        config.init_lora_weights = True
    return config


def fill(encoder: Any, folder: Path, where: str) -> None:
    """Fill in the weights of an adapter.

    Raises
    ------
    CheckpointError
        When they are not those of this adapter.
    """
    from safetensors.torch import load_file

    path = folder / WEIGHTS
    if not path.is_file():
        raise CheckpointError(f"{folder}: no {WEIGHTS}. The folder is not whole: save the pipeline again.")
    state: dict[str, Tensor] = load_file(path)
    peft = library(where)
    expected = set(peft.get_peft_model_state_dict(encoder, save_embedding_layers=False))
    if set(state) != expected:
        missing, unexpected = sorted(expected - set(state)), sorted(set(state) - expected)
        raise CheckpointError(
            f"{path}: the tensors are not those of the adapter. Missing: {', '.join(missing) or 'none'}. "
            f"Unexpected: {', '.join(unexpected) or 'none'}."
        )
    peft.set_peft_model_state_dict(encoder, state)


def merged(encoder: Any, where: str) -> Any:
    """Add an adapter to the weights of its encoder, which is changed, and return that.

    Raises
    ------
    ConfigError
        When the method cannot be merged.
    """
    from gliner_pipe.modeling.adapters.trainable_tokens import settle_rows

    method = str(encoder.peft_config[NAME].peft_type.value).lower()
    try:
        settle_rows(encoder)
        plain = encoder.merge_and_unload()
    except (ValueError, NotImplementedError, AttributeError, RuntimeError) as error:
        raise ConfigError(
            f"{where}.save",
            f"{method!r} cannot be merged ({_reason(error)})",
            "full, adapter",
            "For a GLiNER checkpoint, take an adapter that can be merged, such as lora",
        ) from error
    return plain
