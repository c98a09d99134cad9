"""Overrides what a pipeline's component finds, its threshold, device and precision, for a time or for good."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from spacy.language import Language

from gliner_pipe.errors import ConfigError
from gliner_pipe.modeling.precision import PRECISION_SETTINGS
from gliner_pipe.pipeline.config_errors import did_you_mean
from gliner_pipe.pipeline.gliner.task_settings import parse_classes, parse_records
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
    classes: Any = None,
    records: Any = None,
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
    classes, records
        Classifications and records to find, as in the component's config; or names of some that it has, as a list or
        as ``"tone,topics"``. A text in braces or brackets is JSON.
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
    tasks = {"classes": classes, "records": records}
    values = {"labels": labels, "relations": relations, **tasks, "threshold": threshold, "device": device}
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
            for name, own, parse in (
                ("classes", "class_items", parse_classes),
                ("records", "record_items", parse_records),
            ):
                if tasks[name] is not None:
                    before = getattr(component, own)
                    stack.callback(setattr, component, name, before)
                    setattr(component, name, _asked_tasks(tasks[name], before, parse, name))
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
    if not components and not {"labels", "relations", "classes", "records"} & set(given):
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


def _asked_tasks(
    given: Any, own: Sequence[Any], parse: Callable[[Any, str], Sequence[Any]], where: str
) -> Any:
    """Return classifications or records: those given, or those of the component that are given by name."""
    if isinstance(given, str):
        if given.lstrip()[:1] in ("{", "["):
            try:
                given = json.loads(given)
            except json.JSONDecodeError as error:
                allowed = """e.g. '{"tone": ["good", "bad"]}'"""
                raise ConfigError(where, f"is not JSON ({error})", allowed, "Use double quotes") from error
        else:
            given = [name.strip() for name in given.split(",") if name.strip()]
    if not isinstance(given, (list, tuple)):
        return parse(given, where)
    known = {item.name: item for item in own}
    for name in given:
        if isinstance(name, str) and name not in known:
            allowed = f"{', '.join(known) or 'none, as the component has none'}; or a JSON mapping"
            raise ConfigError(where, f"names {name!r}", allowed, did_you_mean(name, list(known)))
    return parse([known[one] if isinstance(one, str) else one for one in given], where)


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
