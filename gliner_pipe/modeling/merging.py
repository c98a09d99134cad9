"""Adapters of whole models: what is written of them, and how they are merged."""

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


def holders(model: nn.Module) -> Iterator[PretrainedEncoder]:
    """Yield the parts of a model that hold an encoder with an adapter."""
    for module in model.modules():
        if isinstance(module, PretrainedEncoder) and module.has_adapter:
            yield module


def merged(model: _Module, *, all_of_them: bool = True) -> _Module:
    """Return a model like this one with plain encoders; this one, its training too, stays as it is.

    All other weights are shared.

    Parameters
    ----------
    model
        A GLiNER model.
    all_of_them
        False: only the adapters that are saved merged now.
    """
    made: dict[int, nn.Module] = {}
    for holder in holders(model):
        if all_of_them or holder.form == "merged":
            twin = _twin(holder)
            twin.encoder = _plain(holder)
            made[id(holder)] = twin
    return replaced(model, made) if made else model


def own_weights(model: _Module) -> _Module:
    """Return the model without the encoders that have an adapter: these are saved apart from it."""
    made: dict[int, nn.Module] = {}
    for holder in holders(model):
        made[id(holder)] = twin = _twin(holder)
        twin.encoder = None
    return replaced(model, made) if made else model


def _plain(holder: PretrainedEncoder) -> Any:
    """Copy an encoder with its adapter merged."""
    if holder.quantization is not None:
        raise ConfigError(
            f"{holder.section.rpartition('.')[0]}.quantization",
            f"found {holder.quantization!r}, into which an adapter cannot be merged",
            "None",
            "Save the pipeline, load it with quantization = null, and merge then",
        )
    return wrapping.merged(copy.deepcopy(holder.encoder), holder.adapter_section)


def _twin(module: _Module) -> _Module:
    """Copy a module, but share its weights and parts."""
    twin = copy.copy(module)
    twin._modules = dict(module._modules)
    return twin


def replaced(module: _Module, made: Mapping[int, nn.Module]) -> Any:
    """Copy what lies on the way to the parts that are replaced, and share the rest."""
    if id(module) in made:
        return made[id(module)]
    children = {
        name: child if child is None else replaced(child, made) for name, child in module._modules.items()
    }
    if all(child is module._modules[name] for name, child in children.items()):
        return module
    twin = _twin(module)
    twin._modules = children
    return twin


def merge_adapters(component: Any) -> None:
    """Add the adapters of a component to the weights of its encoders, for good.

    What was one matrix and an adapter is one matrix again: faster, and free of `peft`. Take it for a pipeline that is
    to be shipped; all weights learn if it is trained further.

    Parameters
    ----------
    component
        A component, or its model.

    Raises
    ------
    ConfigError
        When there is no adapter, or its method cannot be merged; nothing has been changed then.
    """
    model = getattr(component, "network", component)
    found = list(holders(model))
    if not found:
        raise ConfigError("components.*.model", "has no adapter", "a model with one")
    for holder, encoder in zip(found, list(map(_plain, found)), strict=True):
        holder.encoder = encoder.requires_grad_(not holder.freeze)
        holder.encoder_changed()
    _renew(component)


def add_adapters(component: Any, adapter: Adapter, label_adapter: Adapter | None = None) -> None:
    """Put adapters on the encoders of a component that has weights already.

    Parameters
    ----------
    component
        A ``gliner`` component, or its model.
    adapter
        For the text encoder.
    label_adapter
        For the label encoder of a bi-encoder, which is left as it is when not given.
    """
    model = getattr(component, "network", component)
    tokens = getattr(model.encoder, "new_tokens", ())
    parts = [("backbone", adapter, tokens), ("label_encoder", label_adapter, ())]
    for name, block, new in parts:
        if block is None:
            continue
        part = getattr(model.encoder, name, nn.Module())
        holder = next((module for module in part.modules() if isinstance(module, PretrainedEncoder)), None)
        where = f"components.*.model.encoder.{name}"
        if holder is None or holder.freeze or holder.has_adapter:
            found = (
                "has no encoder for" if holder is None else "is frozen, or has one already, and cannot take"
            )
            raise ConfigError(where, f"{found} an adapter", "one encoder that learns")
        if block.save == "adapter":
            found = "found 'adapter' for an encoder whose weights were trained here"
            raise ConfigError(f"{where}.adapter.save", found, "full, merged")
        holder.adapt(block, new)
        holder.encoder_changed()
    _renew(component)


def _renew(component: Any) -> None:
    if hasattr(component, "replace_model"):
        component.replace_model(component.network)  # its optimizer knows the parameters of before
