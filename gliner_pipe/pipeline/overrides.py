"""Labels, relations, threshold, device and precision of a pipeline's component, set for the length of a block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from spacy.language import Language

from gliner_pipe.errors import ConfigError
from gliner_pipe.modeling.precision import PRECISION_SETTINGS
from gliner_pipe.pipeline.labels import LabelItem, parse_labels, parse_relations


def gliner_components(nlp: Language) -> list[Any]:
    """Return the components of a pipeline whose factory is ``gliner``, disabled ones left out."""
    return [pipe for name, pipe in nlp.pipeline if nlp.get_pipe_meta(name).factory == "gliner"]


def tagging_components(nlp: Language) -> list[Any]:
    """Return the components of a pipeline whose factory is ``token_classifier``, disabled ones left out."""
    return [pipe for name, pipe in nlp.pipeline if nlp.get_pipe_meta(name).factory == "token_classifier"]


def thresholded_components(nlp: Language) -> list[Any]:
    """Return the components of a pipeline that hold spans against a threshold."""
    return [*gliner_components(nlp), *(one for one in tagging_components(nlp) if one.target == "spans")]


@contextmanager
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
) -> Iterator[None]:
    """Change settings of the ``gliner`` component and put them back when the block ends.

    A ``token_classifier`` has a threshold, a device and a precision, too, but its labels are those it was trained with.

    Parameters
    ----------
    nlp
        The pipeline.
    labels
        Labels to ask for, as in the component's config. A plain string keeps the description and the
        threshold that the component has for it.
    relations
        Relations to ask for, likewise.
    threshold
        Least score of an entity, from 0 to 1. Thresholds of single labels stay as they are.
    device
        Where the model runs, e.g. ``"cpu"`` or ``"cuda:0"``.
    dtype, quantize, compile
        How exactly, and how fast, its text encoder runs, as in the component's config; ``"none"`` for a `quantize` of
        null.

    Raises
    ------
    ConfigError
        If a value cannot be, or the pipeline has not exactly one component that takes it.
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
                component.labels = _with_own_items(component.label_items, parse_labels(labels, "labels"))
            if relations is not None:
                stack.callback(setattr, component, "relations", component.relation_items)
                given_relations = parse_relations(relations, "relations")
                component.relations = _with_own_items(component.relation_items, given_relations)
            if threshold is not None:
                if not 0 <= threshold <= 1:
                    raise ConfigError("threshold", f"is {threshold}", "a number from 0 to 1")
                stack.callback(setattr, component, "threshold", component.threshold)
                component.threshold = threshold
            if device is not None:
                stack.callback(_move, component, component.cfg["device"])
                _move(component, device)
            for name in PRECISION_SETTINGS:
                if precision[name] is not None:
                    stack.callback(_put_back, component, name, component.cfg[name])
                    setattr(component, name, None if precision[name] == "none" else precision[name])
        yield


def the_component(nlp: Language, given: Sequence[str]) -> Any:
    """Return the one component that takes the settings of these names; without one, the first name is complained of."""
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


def _with_own_items(own: Sequence[LabelItem], given: Sequence[LabelItem]) -> list[LabelItem]:
    known = {item.label: item for item in own}
    return [known.get(item.label, item) if item.to_config() == item.label else item for item in given]


def _put_back(component: Any, name: str, value: Any) -> None:
    component.cfg = {**component.cfg, name: value}


def _move(component: Any, device: str) -> None:
    before = component.cfg
    component.cfg = {**before, "device": device}
    try:
        component.network.to(component.device)
    except (RuntimeError, AssertionError) as error:  # torch raises these for unknown and for missing devices
        component.cfg = before
        raise ConfigError(
            "device", f"is {device!r}, which cannot be used ({error})", "auto, cpu, cuda, cuda:0 ..."
        ) from error
