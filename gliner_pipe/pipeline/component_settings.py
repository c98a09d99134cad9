"""The settings that all components share, and how a factory takes them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from inspect import Parameter
from typing import Annotated, Any, Literal, TypeVar

import torch
from pydantic import AfterValidator, BaseModel, ConfigDict

from gliner_pipe.errors import ConfigError
from gliner_pipe.util.ranges import Count, Positive

_Factory = TypeVar("_Factory", bound=Callable[..., Any])

DEVICES = "auto, cpu, cuda, cuda:0 ..., mps"


def _device(name: str) -> str:
    """Check that torch knows the device name; whether this machine has it is checked when the model moves there."""
    try:
        known = name == "auto" or torch.device(name).type != "cpu" or torch.device(name).index in (None, 0)
    except RuntimeError:
        known = False
    if not known:
        raise ConfigError("", f"found {name!r}", DEVICES)
    return name


class Settings(BaseModel):
    """Settings of every component; each can be changed at run time.

    ``batch_size``: documents buffered by ``pipe``; null for 16 times that of ``nlp.pipe``. ``dtype``, ``quantize``,
    ``compile``: see ``PRECISION_SETTINGS``. For ``spacy train`` only: ``task_lr_ratio``, the learning rate of
    everything but the backbone, as a multiple of the optimizer's; ``max_learn_rate``, the maximum of the optimizer's,
    because spaCy's default of 0.001 destroys a pretrained backbone; null for no limit.
    """

    model_config = ConfigDict(strict=True)

    overwrite_ents: bool = False
    alignment_mode: Literal["strict", "contract", "expand"] = "expand"
    batch_size: Count | None = None
    device: Annotated[str, AfterValidator(_device)] = "auto"
    dtype: Any = None
    quantize: Any = None
    compile: Any = False
    task_lr_ratio: Positive = 4.0
    max_learn_rate: Positive | None = 1e-4


def takes_settings(kind: type[Settings]) -> Callable[[_Factory], _Factory]:
    """Give a factory with ``**settings`` one parameter per field of `kind`: spaCy reads its signature.

    The parameters accept any value, since the component itself checks them and names the section in its errors.
    """

    def decorate(factory: _Factory) -> _Factory:
        signature = inspect.signature(factory)
        own = [item for item in signature.parameters.values() if item.kind is not Parameter.VAR_KEYWORD]
        fields = [Parameter(name, Parameter.KEYWORD_ONLY, annotation=Any) for name in kind.model_fields]
        factory.__signature__ = signature.replace(parameters=[*own, *fields])  # type: ignore[attr-defined]
        return factory

    return decorate
