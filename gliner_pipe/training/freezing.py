"""Parts of a pipeline that keep their weights while the rest learns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from torch import nn

from gliner_pipe.errors import ConfigError

#: Parts of a model by the names that GLiNER has for them.
PARTS = {"text_encoder": "encoder.backbone", "labels_encoder": "encoder.label_encoder"}

WHERE = "train.freeze_components"


def freeze(models: Mapping[str, nn.Module], names: Sequence[str]) -> list[nn.Module]:
    """Keep the weights of parts of the models as they are.

    Parameters
    ----------
    models
        One torch module a component of the pipeline.
    names
        Components of the pipeline; parts of their models by dotted path, e.g. ``"encoder.backbone"`` or ``"span_rep"``;
        or ``text_encoder``, ``labels_encoder`` and ``decoder``.

    Returns
    -------
    list of Module
        The frozen parts: they are to stay in evaluation mode, without dropout.

    Raises
    ------
    ConfigError
        If no model has such a part, or it has no weights.
    """
    parts = dict(_parts(models))
    frozen: list[nn.Module] = []
    for name in names:
        if not parts.get(name):
            shallow = [path for path in parts if path.count(".") < 2]
            raise ConfigError(WHERE, f"names {name!r}, which no model here has", ", ".join(shallow))
        for module in parts[name]:
            module.requires_grad_(False)
            frozen.append(module)
    return frozen


def _parts(models: Mapping[str, nn.Module]) -> Iterator[tuple[str, list[nn.Module]]]:
    """Yield all names of parts with weights, and the modules that have the name."""
    found: dict[str, list[nn.Module]] = {name: [model] for name, model in models.items()}
    for component, model in models.items():
        modules = {path: module for path, module in model.named_modules() if path and _weighs(module)}
        for name, path in PARTS.items():
            if path in modules:
                found.setdefault(name, []).append(modules[path])
        for path, module in modules.items():
            found.setdefault(path, []).append(module)
            found.setdefault(f"{component}.{path}", []).append(module)
    yield from found.items()


def _weighs(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None
