"""Adapters of whole models: merging them, adding them, and leaving them out of the weights file."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from torch import nn

from gliner_pipe.errors import ConfigError
from gliner_pipe.modeling.adapters import wrapping
from gliner_pipe.modeling.adapters.base import Adapter
from gliner_pipe.modeling.backbones.pretrained_encoder import PretrainedEncoder

_Module = TypeVar("_Module", bound=nn.Module)


def adapted_encoders(model: nn.Module) -> Iterator[PretrainedEncoder]:
    """Yield the encoders of a model that have an adapter."""
    for module in model.modules():
        if isinstance(module, PretrainedEncoder) and module.has_adapter:
            yield module


def merged(model: _Module, *, all_of_them: bool = True) -> _Module:
    """Return a copy of the model with adapters merged; the model is not modified, and all other weights are shared.

    Parameters
    ----------
    model
        Any model.
    all_of_them
        False to merge only the adapters that are saved merged at present.
    """
    parts = {
        id(part): _copy_with(part, encoder=_plain(part))
        for part in adapted_encoders(model)
        if all_of_them or part.form == "merged"
    }
    return replaced(model, parts) if parts else model


def own_weights(model: _Module) -> _Module:
    """Return a copy of the model without the encoders that have an adapter, which are saved separately."""
    parts = {id(part): _copy_with(part, encoder=None) for part in adapted_encoders(model)}
    return replaced(model, parts) if parts else model


def _plain(part: PretrainedEncoder) -> Any:
    """Return a copy of an encoder with its adapter merged."""
    if part.quantization is not None:
        raise ConfigError(
            f"{part.section.rpartition('.')[0]}.quantization",
            f"found {part.quantization!r}, into which an adapter cannot be merged",
            "None",
            "Save the pipeline, load it with quantization = null, and merge then",
        )
    return wrapping.merged(copy.deepcopy(part.encoder), part.adapter_section)


def _copy_with(module: _Module, **children: nn.Module | None) -> _Module:
    """Return a copy of a module with other `children`; all else is shared."""
    copied = copy.copy(module)
    copied._modules = module._modules | children
    return copied


def replaced(module: _Module, parts: Mapping[int, nn.Module]) -> Any:
    """Return a copy of a module with modules in it replaced, by their ``id``; all else is shared."""
    if id(module) in parts:
        return parts[id(module)]
    children = {
        name: child if child is None else replaced(child, parts) for name, child in module._modules.items()
    }
    if all(child is module._modules[name] for name, child in children.items()):
        return module
    return _copy_with(module, **children)


def merge_adapters(component: Any) -> None:
    """Merge the adapters of a component into its encoders permanently.

    The component is then faster and does not need `peft`; use it before shipping a pipeline. Further training updates
    all weights.

    Parameters
    ----------
    component
        A component, or its model.

    Raises
    ------
    ConfigError
        If there is no adapter, or its method cannot be merged; the component is then not modified.
    """
    model = getattr(component, "network", component)
    parts = list(adapted_encoders(model))
    if not parts:
        raise ConfigError("components.*.model", "has no adapter", "a model with one")
    for part, encoder in zip(parts, list(map(_plain, parts)), strict=True):
        part.encoder = encoder.requires_grad_(not part.freeze)
        part.encoder_changed()
    _renew(component)


def add_adapters(component: Any, adapter: Adapter, label_adapter: Adapter | None = None) -> None:
    """Add adapters to the encoders of a component that is already trained or loaded.

    Parameters
    ----------
    component
        A ``gliner`` component, or its model.
    adapter
        For the text encoder.
    label_adapter
        For the label encoder of a bi-encoder; None to leave that unchanged.
    """
    model = getattr(component, "network", component)
    tokens = getattr(model.encoder, "new_tokens", ())
    for name, block, new in (("backbone", adapter, tokens), ("label_encoder", label_adapter, ())):
        if block is None:
            continue
        modules = getattr(model.encoder, name, nn.Module()).modules()
        part = next((module for module in modules if isinstance(module, PretrainedEncoder)), None)
        where = f"components.*.model.encoder.{name}"
        if part is None or part.freeze or part.has_adapter:
            found = "has no encoder to adapt" if part is None else "is frozen or already has an adapter"
            raise ConfigError(where, found, "one trainable encoder without an adapter")
        if block.save == "adapter":
            found = "found 'adapter' for an encoder whose weights may have been trained"
            raise ConfigError(f"{where}.adapter.save", found, "full, merged")
        part.adapt(block, new)
        part.encoder_changed()
    _renew(component)


def _renew(component: Any) -> None:
    if hasattr(component, "replace_model"):
        component.replace_model(component.network)  # its optimizer holds the parameters of before
