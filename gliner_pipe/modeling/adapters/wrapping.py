"""Adding, merging, reading and writing adapters with `peft`, which is imported on first use."""

from __future__ import annotations

import copy
import dataclasses
import re
import warnings
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from gliner_pipe.errors import CheckpointError, ConfigError, reason_of
from gliner_pipe.util import optional
from gliner_pipe.util.atomic import replace_file

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
NAME = "default"

#: Unsupported methods: prompts of language models, mixtures that need a task id, and methods that change the weights or
#: the forward pass of the model.
_UNSUPPORTED = (
    *("ADAPTION_PROMPT", "CARTRIDGE", "CPT", "MULTITASK_PROMPT_TUNING", "OSF", "POLY", "PREFIX_TUNING"),
    *("PROMPT_TUNING", "P_TUNING", "SHADOW", "TRAINABLE_TOKENS", "XLORA"),
)
#: Prefixes that `peft` adds to the names of wrapped weights.
_PREFIXES = re.compile(r"(?<![^.])(?:token_adapter|base_layer|original_module)\.")
#: Fields of a configuration that cannot be set by ``options``.
_RESERVED = (
    *("auto_mapping", "base_model_name_or_path", "inference_mode", "peft_type", "peft_version", "revision"),
    *("target_modules", "task_type", "trainable_token_indices"),
)


def library(where: str) -> Any:
    """Return `peft`; see :func:`gliner_pipe.util.optional.library`."""
    return optional.library("peft", where, "peft")


def _config_class(method: str, where: str) -> Any:
    peft = library(where)
    classes = {
        str(kind.value).lower(): config
        for kind, config in peft.mapping.PEFT_TYPE_TO_CONFIG_MAPPING.items()
        if kind.value not in _UNSUPPORTED
    }
    if method.lower() not in classes:
        raise ConfigError(f"{where}.method", f"found {method!r}", ", ".join(sorted(classes)))
    return classes[method.lower()]


def options_of(method: str, where: str) -> set[str]:
    """Return the names of the options in the configuration of a method."""
    return {field.name for field in dataclasses.fields(_config_class(method, where)) if field.init}


def own_targets(method: str, encoder: Any) -> bool:
    """Whether `peft` has the target modules of ``ia3`` for this architecture."""
    if method.lower() != "ia3":
        return False
    known = library("adapter").utils.TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING
    return encoder.config.model_type in known


def peft_config(method: str, where: str, **options: Any) -> Any:
    """Return the configuration of a method.

    Raises
    ------
    ConfigError
        If the method, an option or a value is not supported.
    """
    config_class = _config_class(method, where)
    allowed = options_of(method, where) - set(_RESERVED)
    if unknown := sorted(set(options) - allowed - {"target_modules"}):
        found = f"found {unknown[0]!r}, not an option of {method!r}"
        raise ConfigError(f"{where}.options", found, ", ".join(sorted(allowed)))
    try:
        return config_class(**options)
    except (ValueError, TypeError, AssertionError) as error:
        found = f"has settings that {method!r} does not accept ({reason_of(error)})"
        raise ConfigError(where, found) from error


def wrap(encoder: Any, config: Any, tokens: Mapping[str, Sequence[int]], where: str) -> Any:
    """Freeze an encoder and add an adapter to it.

    Parameters
    ----------
    encoder
        A Hugging Face model; it is modified.
    config
        Configuration of `peft`.
    tokens
        Ids of tokens whose embeddings are trained as well, by the name of the embedding layer. `peft` wraps and saves
        them with any method, though only LoRA has a setting: the attribute of that name is set on the configuration.
    where
        Section, for errors.
    """
    peft = library(where)
    if tokens:
        config.trainable_token_indices = {name: list(ids) for name, ids in tokens.items()}
    try:
        with warnings.catch_warnings():
            # given for each layer of ln_tuning
            warnings.filterwarnings("ignore", message="Unsupported layer type")
            wrapped = peft.get_peft_model(encoder, config)
    except (ValueError, TypeError, AssertionError, RuntimeError) as error:
        method = str(config.peft_type.value).lower()
        raise ConfigError(where, f"{method!r} does not fit the encoder ({reason_of(error)})") from error
    from gliner_pipe.modeling.adapters.trainable_tokens import look_up_rows

    look_up_rows(wrapped)
    return wrapped


def is_wrapped(encoder: Any) -> bool:
    """Whether an encoder has an adapter."""
    return hasattr(encoder, "peft_config") and hasattr(encoder, "get_base_model")


def write(encoder: Any, folder: Path, base: str) -> None:
    """Write configuration and weights of an adapter in the format of `peft`."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    settings = copy.copy(encoder.peft_config[NAME])
    settings.inference_mode, settings.base_model_name_or_path = True, base
    settings.save_pretrained(str(folder))
    state = library("adapter").get_peft_model_state_dict(encoder, save_embedding_layers=False)
    with replace_file(folder / WEIGHTS, follow=False) as file:
        save_file({k: v.detach().cpu().clone().contiguous() for k, v in state.items()}, file)


def base_state(encoder: Any, names: Collection[str]) -> dict[str, Tensor]:
    """Return the tensors of the encoder under an adapter by their original `names`."""
    state = {
        _PREFIXES.sub("", name): tensor for name, tensor in encoder.get_base_model().state_dict().items()
    }
    return {name: state[name].detach().cpu().clone().contiguous() for name in names}


def read_config(folder: Path, where: str) -> Any:
    """Read the configuration of an adapter, with the simplest initialisation, as its weights are loaded afterwards."""
    if not (folder / CONFIG).is_file():
        raise CheckpointError(f"{folder}: {CONFIG} is missing. Save the pipeline again.")
    config = library(where).PeftConfig.from_pretrained(str(folder))
    config.inference_mode, config.base_model_name_or_path = False, None
    if getattr(config, "init_lora_weights", True) not in (True, False):
        config.init_lora_weights = True
    return config


def fill(encoder: Any, folder: Path, where: str) -> None:
    """Load the weights of an adapter.

    Raises
    ------
    CheckpointError
        If they do not fit this adapter.
    """
    from safetensors.torch import load_file

    path = folder / WEIGHTS
    if not path.is_file():
        raise CheckpointError(f"{folder}: {WEIGHTS} is missing. Save the pipeline again.")
    state: dict[str, Tensor] = load_file(path)
    peft = library(where)
    expected = set(peft.get_peft_model_state_dict(encoder, save_embedding_layers=False))
    if set(state) != expected:
        missing, unexpected = sorted(expected - set(state)), sorted(set(state) - expected)
        raise CheckpointError(
            f"{path}: the tensors do not fit the adapter. Missing: {', '.join(missing) or 'none'}. "
            f"Unexpected: {', '.join(unexpected) or 'none'}."
        )
    peft.set_peft_model_state_dict(encoder, state)


def merged(encoder: Any, where: str) -> Any:
    """Merge an adapter into its encoder, which is modified and returned.

    Raises
    ------
    ConfigError
        If the method does not support merging.
    """
    from gliner_pipe.modeling.adapters.trainable_tokens import settle_rows

    method = str(encoder.peft_config[NAME].peft_type.value).lower()
    try:
        settle_rows(encoder)
        plain = encoder.merge_and_unload()
    except (ValueError, NotImplementedError, AttributeError, RuntimeError) as error:
        found = f"{method!r} cannot be merged ({reason_of(error)})"
        do = "For a GLiNER checkpoint, use an adapter that can be merged, such as lora"
        raise ConfigError(f"{where}.save", found, "full, adapter", do) from error
    return plain
