"""Turns the settings of a request into those of a document."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from spacy.language import Language
from spacy.tokens import Doc

from gliner_pipe.errors import ConfigError
from gliner_pipe.pipeline.labels import parse_labels, parse_relations, with_own_items
from gliner_pipe.pipeline.overrides import gliner_components
from gliner_pipe.serving.messages import Asked, PredictRequest, TextItem

#: Fields of a request that a document takes as they are.
_TASKS = ("classes", "records")


@dataclass(frozen=True)
class DocumentSettings:
    """Values of ``doc._.gliner_labels`` and the like; None for those of the pipeline."""

    labels: Any = None
    relations: Any = None
    classes: Any = None
    records: Any = None

    def maker(self, nlp: Language, text: str) -> Callable[[], Doc]:
        """Return the function that makes the document of a text."""

        def make() -> Doc:
            doc = nlp.make_doc(text)
            for name, value in vars(self).items():
                if value is not None:
                    setattr(doc._, f"gliner_{name}", value)
            return doc

        return make


def settings_of(nlp: Language, asked: Asked) -> DocumentSettings:
    """Check the settings of a request or of one of its texts, and return those of the document.

    Raises
    ------
    ConfigError
        If a value is not allowed, or the pipeline does not have it.
    """
    given = [name for name in Asked.model_fields if getattr(asked, name) is not None]
    if not given:
        return DocumentSettings()
    components = gliner_components(nlp)
    if not components:
        do = "Leave it out: labels and thresholds of this pipeline are fixed"
        raise ConfigError(given[0], "is set, but the pipeline has no gliner component", do=do)
    for name in given:
        if name not in ("threshold", "relation_threshold"):
            _refuse_patterns(getattr(asked, name), name)
    component = components[0]
    tasks = {name: getattr(asked, name) for name in _TASKS}
    for name in _TASKS:
        if tasks[name] is not None and not Doc.has_extension(f"gliner_{name}"):
            raise ConfigError(name, "is set, but the model predicts none", do="Leave it out")
    labels = _items(asked.labels, asked.threshold, component.label_items, parse_labels, "labels")
    relations = _items(
        asked.relations, asked.relation_threshold, component.relation_items, parse_relations, "relations"
    )
    if relations and not component.finds_relations:
        raise ConfigError("relations", "is set, but the model predicts none", do="Leave it out")
    return DocumentSettings(labels, relations, **tasks)


def _items(
    given: Sequence[Any] | None,
    threshold: float | None,
    own: Sequence[Any],
    parse: Callable[[Sequence[Any], str], Sequence[Any]],
    name: str,
) -> tuple[Any, ...] | None:
    """Return labels or relations with their thresholds; None for those of the component."""
    if given is None and threshold is None:
        return None
    items = own if given is None else with_own_items(own, parse(given, name))
    return tuple(
        item if threshold is None or item.threshold is not None else replace(item, threshold=threshold)
        for item in items
    )


def _refuse_patterns(value: Any, where: str) -> None:
    """Refuse regular expressions of clients: one may take seconds, in which other requests wait."""
    todo = [value]
    while todo:
        one = todo.pop()
        if isinstance(one, dict):
            if "pattern" in one:
                do = "Set it in the config of the pipeline"
                raise ConfigError(where, "has a pattern, which a request cannot set", do=do)
            todo += one.values()
        elif isinstance(one, list):
            todo += one


def texts_of(request: PredictRequest) -> list[tuple[str, str | int | None, Asked]]:
    """Return text, id and settings of each text of a request; texts without settings of their own share those of it."""
    common = Asked(**{name: getattr(request, name) for name in Asked.model_fields})
    found: list[tuple[str, str | int | None, Asked]] = []
    for item in request.texts:
        if isinstance(item, TextItem):
            own = {name: getattr(item, name) for name in Asked.model_fields}
            own = {name: value for name, value in own.items() if value is not None}
            found.append((item.text, item.id, common.model_copy(update=own) if own else common))
        else:
            found.append((item, None, common))
    return found
