"""Overrides labels, relations, threshold, device and precision of a pipeline's component, for a time or for good."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from spacy.language import Language

from gliner_pipe.errors import ConfigError
from gliner_pipe.modeling.precision import PRECISION_SETTINGS
from gliner_pipe.pipeline.labels import check_threshold, parse_labels, parse_relations, with_own_items


def gliner_components(nlp: Language) -> list[Any]:
    """Return the enabled ``gliner`` components of a pipeline."""
    return _components(nlp, "gliner")


def tagging_components(nlp: Language) -> list[Any]:
    """Return the enabled ``token_classifier`` components of a pipeline."""
    return _components(nlp, "token_classifier")


def _components(nlp: Language, factory: str) -> list[Any]:
    return [pipe for name, pipe in nlp.pipeline if nlp.get_pipe_meta(name).factory == factory]


def thresholded_components(nlp: Language) -> list[Any]:
    """Return the components of a pipeline that have a threshold for spans."""
    return [*gliner_components(nlp), *(one for one in tagging_components(nlp) if one.target == "spans")]


def override(
    nlp: Language,
    *,
    labels: Sequence[Any] | None = None,
    relations: Sequence[Any] | None = None,
    threshold: float | None = None,
    device: str | None = None,
    dtype: str | None = None,
    quantize: str | None = None,
    compile: bool | None = None,
) -> ExitStack:
    """Change settings of the ``gliner`` component, and return the context that restores them at its end.

    A context that is never entered, or that ends with the process, restores nothing.

    A ``token_classifier`` also has threshold, device and precision, but its labels are fixed by its training.

    Parameters
    ----------
    nlp
        The pipeline.
    labels
        Labels to find, as in the component's config. A plain string keeps the component's description and threshold
        for that label.
    relations
        Relations to find, likewise.
    threshold
        Minimum score of an entity, from 0 to 1. Thresholds of single labels do not change.
    device
        Device of the model, e.g. ``"cpu"`` or ``"cuda:0"``.
    dtype, quantize, compile
        Precision of inference, as in the component's config; ``"none"`` for a `quantize` of null.

    Raises
    ------
    ConfigError
        If a value is not allowed, or the pipeline does not have exactly one component with these settings.
    """
    values = {"labels": labels, "relations": relations, "threshold": threshold, "device": device}
    precision = {"dtype": dtype, "quantize": quantize, "compile": compile}
    values |= precision
    given = [name for name, value in values.items() if value is not None]
    with ExitStack() as stack:
        if given:
            component = the_component(nlp, given)
            if labels is not None:
                stack.callback(setattr, component, "labels", component.label_items)
                component.labels = with_own_items(component.label_items, parse_labels(labels, "labels"))
            if relations is not None:
                stack.callback(setattr, component, "relations", component.relation_items)
                given_relations = parse_relations(relations, "relations")
                component.relations = with_own_items(component.relation_items, given_relations)
            if threshold is not None:
                check_threshold(threshold, "threshold")
                stack.callback(setattr, component, "threshold", component.threshold)
                component.threshold = threshold
            if device is not None:
                stack.callback(_move, component, component.cfg["device"])
                _move(component, device)
            for name in PRECISION_SETTINGS:
                if precision[name] is not None:
                    stack.callback(_restore, component, name, component.cfg[name])
                    setattr(component, name, None if precision[name] == "none" else precision[name])
        return stack.pop_all()


def the_component(nlp: Language, given: Sequence[str]) -> Any:
    """Return the one component that has these settings.

    Raises
    ------
    ConfigError
        With the first of the settings, if the pipeline does not have exactly one such component.
    """
    components = gliner_components(nlp)
    if not components and not {"labels", "relations"} & set(given):
        components = tagging_components(nlp)
    if len(components) == 1:
        return components[0]
    setting = given[0]
    names = ", ".join(nlp.pipe_names) or "none"
    if components:
        raise ConfigError(
            setting,
            f"cannot be set for {len(components)} gliner components at once (components: {names})",
            "a pipeline with one gliner component",
            "Disable the others, or set it in the pipeline's config",
        )
    raise ConfigError(
        setting,
        f"is set, but the pipeline has no gliner component (components: {names})",
        "a pipeline with a gliner component",
        f"Leave out {setting}, or use another pipeline",
    )


def _restore(component: Any, name: str, value: Any) -> None:
    component.cfg = {**component.cfg, name: value}
    component.place()


def _move(component: Any, device: str) -> None:
    before = component.cfg
    try:
        component.cfg = {**before, "device": device}
        component.network.to(component.device)
    # torch raises one of the first two for a device that is missing
    except (RuntimeError, AssertionError, ConfigError) as error:
        component.cfg = before
        raise ConfigError(
            "device", f"is {device!r}, which cannot be used ({error})", "auto, cpu, cuda, cuda:0 ..."
        ) from error
