"""The optimizer of a training: registered optimizers, parameter groups, and frozen weights."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import torch
from pydantic import Field, TypeAdapter, ValidationError
from torch import nn

from gliner_pipe.errors import ConfigError
from gliner_pipe.modeling.backbones.base import classified_parameters
from gliner_pipe.modeling.backbones.pretrained_encoder import PretrainedEncoder
from gliner_pipe.registry import registry
from gliner_pipe.training.muon import Muon
from gliner_pipe.util.ranges import NonNegative, Number, Positive, Rate

logger = logging.getLogger(__name__)

#: Keys of an entry of ``param_groups``.
GROUP_KEYS = ("selector", "lr", "weight_decay", "freeze")


@dataclass(eq=False)
class OptimizerBlock:
    """An optimizer class with its options; learning rates and weight decay are those of the parameter groups.

    Parameters
    ----------
    optimizer_class
        A subclass of ``torch.optim.Optimizer``.
    options
        Arguments of its constructor.
    """

    optimizer_class: type[torch.optim.Optimizer]
    options: dict[str, Any] = field(default_factory=dict)

    def build(
        self, groups: list[dict[str, Any]], models: Mapping[str, nn.Module] | None = None
    ) -> torch.optim.Optimizer:
        """Return the optimizer for the groups from :func:`parameter_groups`, whose parameters are those of `models`."""
        options = dict(self.options)
        if self.optimizer_class is Muon:
            options["excluded"] = _not_for_muon(models or {}, options.pop("backbone"))
        try:
            return self.optimizer_class(groups, **options)
        except (TypeError, ValueError) as error:
            raise ConfigError(
                "train.optimizer",
                f"has options that {self.optimizer_class.__name__} does not accept ({error})",
                "those of its constructor, without lr and weight_decay",
            ) from error


@registry.optimizers.register("adamw")
def adamw(
    beta1: Rate = 0.9, beta2: Rate = 0.999, eps: Positive = 1e-8, fused: bool | None = None
) -> OptimizerBlock:
    """Adam with decoupled weight decay, the usual choice for transformers.

    Parameters
    ----------
    beta1
        Decay of the running mean of the gradient.
    beta2
        Decay of the running mean of its square.
    eps
        Added to the denominator.
    fused
        Use one kernel for all parameters; by default if torch has one for the device.
    """
    options: dict[str, Any] = {"betas": (beta1, beta2), "eps": eps}
    if fused is not None:
        options["fused"] = fused
    return OptimizerBlock(torch.optim.AdamW, options)


@registry.optimizers.register("sgd")
def sgd(momentum: Rate = 0.9, nesterov: bool = False) -> OptimizerBlock:
    """Stochastic gradient descent with momentum; needs much higher learning rates than ``adamw``.

    Parameters
    ----------
    momentum
        Share of the last update to keep.
    nesterov
        Use Nesterov momentum.
    """
    return OptimizerBlock(torch.optim.SGD, {"momentum": momentum, "nesterov": nesterov})


@registry.optimizers.register("adafactor")
def adafactor(
    beta2_decay: Annotated[Number, Field(le=0)] = -0.8,
    eps: tuple[NonNegative | None, NonNegative] = (1e-15, 1.0),
    clip_threshold: Annotated[Number, Field(ge=1)] = 1.0,
) -> OptimizerBlock:
    """Adafactor: stores one value a row and a column instead of two a weight, for models that barely fit the memory.

    Parameters
    ----------
    beta2_decay
        Exponent of the decay of the running mean of the squared gradient.
    eps
        Minimum of the root mean square of the gradient, and of that of the weights, with which torch multiplies the
        learning rate. At 1 the learning rates are those of the training: weights are rarely larger. At torch's 1e-3
        those of a pretrained matrix would be some 25 times smaller.
    clip_threshold
        Maximum root mean square of an update, as a multiple of the learning rate.

    Notes
    -----
    Source: Shazeer and Stern, "Adafactor" (2018), in the implementation of torch, without relative learning rates.
    """
    options = {"beta2_decay": beta2_decay, "eps": tuple(eps), "d": clip_threshold}
    return OptimizerBlock(torch.optim.Adafactor, options)


@registry.optimizers.register("muon")
def muon(
    backbone: bool = False,
    momentum: Rate = 0.95,
    beta1: Rate = 0.9,
    beta2: Rate = 0.999,
    eps: Positive = 1e-8,
) -> OptimizerBlock:
    """Muon for the matrices of the heads, AdamW for the rest: new heads learn more from each step than with ``adamw``.

    Learning rates and weight decay are those of ``adamw``. A step takes longer by a fixed time for each matrix.

    Parameters
    ----------
    backbone
        Use Muon for the matrices of pretrained transformers, too.
    momentum
        Share of the running mean of the gradient of a matrix to keep.
    beta1, beta2, eps
        Those of ``adamw``, for all other parameters.

    Notes
    -----
    Source: Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024).
    """
    options = {"backbone": backbone, "momentum": momentum, "betas": (beta1, beta2), "eps": eps}
    return OptimizerBlock(Muon, options)


def _not_for_muon(models: Mapping[str, nn.Module], backbone: bool) -> set[int]:
    """Return the ids of the weights of embeddings and, unless wanted, of backbones."""
    modules = (module for model in models.values() for module in model.modules())
    excluded = {id(module.weight) for module in modules if isinstance(module, nn.Embedding)}
    if not backbone:
        excluded |= {id(one) for _, one, in_backbone, _ in classified_parameters(models) if in_backbone}
    return excluded


@registry.optimizers.register("torch")
def torch_optimizer(name: str, **options: Any) -> OptimizerBlock:
    """Any optimizer of ``torch.optim`` by its name; ``optimizer = "NAdam"`` is the short form.

    Parameters
    ----------
    name
        Name of the class.
    options
        Arguments of its constructor, without ``lr`` and ``weight_decay``.
    """
    if name not in _torch_names():
        raise ConfigError("train.optimizer", f"has the name {name!r}", ", ".join(_torch_names()))
    return OptimizerBlock(getattr(torch.optim, name), options)


def _torch_names() -> list[str]:
    return sorted(
        key
        for key, value in vars(torch.optim).items()
        if isinstance(value, type) and issubclass(value, torch.optim.Optimizer) and key != "Optimizer"
    )


def make_optimizer(
    optimizer: OptimizerBlock | str | None,
    groups: list[dict[str, Any]],
    models: Mapping[str, nn.Module] | None = None,
) -> torch.optim.Optimizer:
    """Return the optimizer for the option `optimizer` of a training.

    Parameters
    ----------
    optimizer
        A block, the name of one or of a class of ``torch.optim``; ``"adamw"`` when None. Adam is fused if torch
        supports it: the same update in a sixth of the time.
    groups
        From :func:`parameter_groups`.
    models
        Model of each component; ``muon`` treats their embeddings differently from other matrices.
    """
    block = _block(optimizer)
    if block.optimizer_class is torch.optim.AdamW and "fused" not in block.options:
        try:
            return OptimizerBlock(torch.optim.AdamW, {**block.options, "fused": True}).build(groups)
        except RuntimeError:  # no fused kernel for these devices or types
            pass
    return block.build(groups, models)


def _block(optimizer: OptimizerBlock | str | None) -> OptimizerBlock:
    if isinstance(optimizer, OptimizerBlock):
        return optimizer
    name = optimizer or "adamw"
    if name in _torch_names():
        return torch_optimizer(name)
    known = sorted(registry.optimizers.get_available())
    if name not in known:
        allowed = f"{', '.join(known)}, or a class of torch.optim: {', '.join(_torch_names())}"
        raise ConfigError("train.optimizer", f"is {name!r}", allowed)
    if name == "torch":
        raise ConfigError("train.optimizer", "is 'torch' without a class", '@optimizers = "torch" and a name')
    made: OptimizerBlock = registry.optimizers.get(name)()
    return made


def parameter_groups(
    models: Mapping[str, nn.Module],
    *,
    transformer_lr: float,
    task_lr: float,
    weight_decay: float = 0.01,
    task_weight_decay: float | None = None,
    overrides: Sequence[Mapping[str, Any]] = (),
    warn: Callable[[str], object] = logger.warning,
) -> list[dict[str, Any]]:
    """Group the trained parameters by learning rate and weight decay.

    Parameters of a backbone have the learning rate `transformer_lr`, all others `task_lr`; biases and the
    parameters of normalisation layers have no weight decay. Frozen parameters (``requires_grad = False``) are
    in no group, and a parameter that several modules share is in one.

    Parameters
    ----------
    models
        Model of each component.
    transformer_lr
        Learning rate of the backbones.
    task_lr
        Learning rate of everything else.
    weight_decay
        Weight decay of the backbones.
    task_weight_decay
        Weight decay of everything else; `weight_decay` when None.
    overrides
        Exceptions, e.g. ``[{"selector": "embeddings", "freeze": true}, {"selector": "rnn", "lr": 1e-3}]``:
        the first selector that matches part of a parameter's name sets its ``lr`` or ``weight_decay``, or freezes it.
    warn
        Called with a message for each selector that matches nothing.

    Returns
    -------
    list of dict
        Groups as torch's optimizers take them, each with a ``name`` such as ``"transformer"`` or
        ``"task.no_decay"``.

    Raises
    ------
    ConfigError
        If all parameters are frozen, or an override is invalid.
    """
    decays_by = (weight_decay if task_weight_decay is None else task_weight_decay, weight_decay)
    rules = [_Rule.parse(index, override) for index, override in enumerate(overrides)]
    groups: dict[str, dict[str, Any]] = {}
    for name, parameter, in_backbone, decays in classified_parameters(models):
        rule = next((rule for rule in rules if rule.pattern.search(name)), None)
        if rule is not None:
            rule.matched += 1
            if rule.freeze:
                parameter.requires_grad_(False)
        if not parameter.requires_grad:
            continue
        group = "transformer" if in_backbone else "task"
        settings = {
            "lr": transformer_lr if in_backbone else task_lr,
            "weight_decay": decays_by[in_backbone] if decays else 0.0,
        }
        if rule is not None:
            # with a partial rule, backbone and heads still have different settings
            whole = {"lr", "weight_decay"} <= rule.settings.keys()
            group = rule.pattern.pattern if whole else f"{group}.{rule.pattern.pattern}"
            settings.update(rule.settings)
        group += "" if decays else ".no_decay"
        groups.setdefault(group, {"params": [], "name": group, **settings})["params"].append(parameter)
    for rule in rules:
        if not rule.matched:
            parts = ", ".join(
                dict.fromkeys(".".join(name.split(".")[:3]) for name, *_ in classified_parameters(models))
            )
            warn(
                f"warning: [train.param_groups.{rule.index}] the selector {rule.pattern.pattern!r} matches no "
                f"parameter of {parts}"
            )
    if not groups:
        raise ConfigError(
            "train.nlp", "has no parameter to train: all are frozen", do="Unfreeze some of them"
        )
    # a saved state of an optimizer is loaded by the order of its groups
    return [groups[name] for name in sorted(groups)]


_RATE = TypeAdapter(NonNegative)


@dataclass
class _Rule:
    index: int
    pattern: re.Pattern[str]
    settings: dict[str, float]
    freeze: bool
    matched: int = 0

    @classmethod
    def parse(cls, index: int, override: Mapping[str, Any]) -> _Rule:
        where = f"train.param_groups.{index}"
        unknown = sorted(set(override) - set(GROUP_KEYS))
        if unknown or not isinstance(override.get("selector"), str):
            found = f"has the unknown key {unknown[0]!r}" if unknown else "has no selector"
            raise ConfigError(where, found, ", ".join(GROUP_KEYS))
        try:
            pattern = re.compile(override["selector"])
        except re.error as error:
            raise ConfigError(where, f"has an invalid regular expression as selector ({error})") from error
        settings = {key: override[key] for key in ("lr", "weight_decay") if key in override}
        for key, value in settings.items():
            try:
                settings[key] = _RATE.validate_python(value)
            except ValidationError:
                raise ConfigError(f"{where}.{key}", f"is {value!r}", "a number of at least 0") from None
        return cls(index, pattern, settings, bool(override.get("freeze", False)))


#: Paths of the encoders of a model by their names in GLiNER; only what is pretrained in them is frozen.
ENCODERS = {"text_encoder": "encoder.backbone", "labels_encoder": "encoder.label_encoder"}


def freeze(models: Mapping[str, nn.Module], names: Sequence[str]) -> list[nn.Module]:
    """Freeze parts of the models.

    Of ``text_encoder`` and ``labels_encoder`` the pretrained weights are frozen: new layers, such as a projection or an
    adapter, are trained.

    Parameters
    ----------
    models
        Model of each component.
    names
        Components of the pipeline; parts of their models by dotted path, e.g. ``"encoder.backbone"`` or ``"span_rep"``;
        or ``text_encoder``, ``labels_encoder`` and ``decoder``.

    Returns
    -------
    list of Module
        The frozen parts, which must stay in evaluation mode, without dropout.

    Raises
    ------
    ConfigError
        If no model has the part, the part has no weights, or it is an encoder with an adapter.
    """
    parts = dict(_named_parts(models))
    frozen: list[nn.Module] = []
    for name in names:
        if not parts.get(name):
            shallow = [path for path in parts if path.count(".") < 2]
            raise ConfigError(
                "train.freeze_components", f"contains {name!r}, which no model has", ", ".join(shallow)
            )
        for module in parts[name]:
            if name not in {*models, *ENCODERS} and any(map(_has_adapter, module.modules())):
                raise ConfigError(
                    "train.freeze_components",
                    f"contains {name!r}, whose adapter would be frozen too",
                    do="Remove it: under an adapter the encoder is frozen, and only the adapter is trained",
                )
            for part in _pretrained(module) if name in ENCODERS else [module]:
                part.requires_grad_(False)
                frozen.append(part)
    return frozen


def _pretrained(module: nn.Module) -> list[nn.Module]:
    """Return the pretrained encoders in a backbone or label encoder; under an adapter they are frozen already."""
    holders = [part for part in module.modules() if isinstance(part, PretrainedEncoder)]
    return [holder.encoder for holder in holders if not holder.has_adapter] if holders else [module]


def _named_parts(models: Mapping[str, nn.Module]) -> Iterator[tuple[str, list[nn.Module]]]:
    """Yield the names of all parts with weights, and the modules of each name."""
    found: dict[str, list[nn.Module]] = {name: [model] for name, model in models.items()}
    for component, model in models.items():
        modules = {path: module for path, module in model.named_modules() if path and _has_weights(module)}
        for name, path in ENCODERS.items():
            if path in modules:
                found.setdefault(name, []).append(modules[path])
        for path, module in modules.items():
            found.setdefault(path, []).append(module)
            found.setdefault(f"{component}.{path}", []).append(module)
    yield from found.items()


def _has_adapter(module: nn.Module) -> bool:
    return isinstance(module, PretrainedEncoder) and module.has_adapter


def _has_weights(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None
