"""Entities and relations of texts as dictionaries: the methods of the component for Python, named as in GLiNER."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from spacy.tokens import Doc
from spacy.util import raise_error

from gliner_pipe.errors import ConfigError
from gliner_pipe.pipeline.gliner.session import Session
from gliner_pipe.pipeline.labels import as_items, parse_labels, parse_relations, with_own_items
from gliner_pipe.pipeline.records import Entity, RelationDict, entities_of, relation_dicts

#: Labels of a call: a list as in the config, or a mapping from labels to descriptions or to the other fields.
Labels: TypeAlias = Iterable[Any] | Mapping[str, Any]


class TextPredictions:
    """Methods that predict on texts and return dictionaries; of a pipeline only this component runs.

    Labels and settings of a call are for that call alone: the component does not change, so that threads may ask for
    different ones. All use the engine of ``nlp.pipe`` and find what it finds.
    """

    def predict_entities(
        self,
        text: str,
        labels: Labels | None = None,
        threshold: float | None = None,
        *,
        flat_ner: bool | None = None,
        multi_label: bool | None = None,
    ) -> list[Entity]:
        """Return the entities of one text, sorted by start.

        Parameters
        ----------
        text
            The text.
        labels
            Labels to find: ``["person", "city"]``, ``{"person": "name of a human being", "city": None}``, or items as
            in the config. A plain label that the component has keeps its description there. The component's own when
            None.
        threshold
            Minimum score of an entity; the component's own when None.
        flat_ner, multi_label
            Whether entities must not overlap, and whether a span may have several labels; as configured when None.

        Returns
        -------
        list of Entity
            Dictionaries with ``start`` and ``end`` (characters), ``text``, ``label`` and ``score``.

        Raises
        ------
        ConfigError
            If a value is not allowed.
        NotInitializedError
            If the component has no weights.
        """
        return self.batch_predict_entities(
            [text], labels, threshold, flat_ner=flat_ner, multi_label=multi_label
        )[0]

    def batch_predict_entities(
        self,
        texts: Iterable[str],
        labels: Labels | None = None,
        threshold: float | None = None,
        *,
        flat_ner: bool | None = None,
        multi_label: bool | None = None,
        batch_size: int = 64,
    ) -> list[list[Entity]]:
        """Return the entities of each text, in order; ``inference`` is the same method.

        All texts and results are held in memory; use ``nlp.pipe`` for a stream.

        Parameters
        ----------
        texts
            The texts.
        batch_size
            As for ``pipe``; it never changes a score.
        labels, threshold, flat_ner, multi_label
            As for ``predict_entities``.
        """
        settings = {"threshold": threshold, "flat_ner": flat_ner, "multi_label": multi_label}
        component = _with(self, settings, labels=labels)
        return [entities_of(doc, component.spans_key) for doc in _annotated(component, texts, batch_size)]

    inference = batch_predict_entities

    def predict_relations(
        self,
        text: str,
        labels: Labels | None = None,
        relations: Labels | None = None,
        threshold: float | None = None,
        *,
        relation_threshold: float | None = None,
        adjacency_threshold: float | None = None,
        flat_ner: bool | None = None,
        multi_label: bool | None = None,
    ) -> tuple[list[Entity], list[RelationDict]]:
        """Return the entities of one text, and the relations between them.

        Parameters
        ----------
        relations
            Relations to find, in the forms of `labels`; the component's own when None.
        relation_threshold, adjacency_threshold
            Minimum scores of a relation, and of a pair before it is classified; as configured when None.
        text, labels, threshold, flat_ner, multi_label
            As for ``predict_entities``.

        Returns
        -------
        tuple
            Entities as from ``predict_entities``, and relations: dictionaries with ``head`` and ``tail`` (entities),
            ``relation`` and ``score``.

        Raises
        ------
        ConfigError
            If a value is not allowed, or the model has no relation layer.
        NotInitializedError
            If the component has no weights.
        """
        settings = {
            "threshold": threshold,
            "relation_threshold": relation_threshold,
            "adjacency_threshold": adjacency_threshold,
            "flat_ner": flat_ner,
            "multi_label": multi_label,
        }
        component = _with(self, settings, labels=labels, relations=relations)
        if not component.finds_relations:
            raise ConfigError("predict_relations", "has a model without relation_layer", "a model with one")
        (doc,) = _annotated(component, [text], 1)
        entities = entities_of(doc, component.spans_key)
        return entities, relation_dicts(doc, entities)

    def session(
        self,
        labels: Labels | None = None,
        threshold: float | None = None,
        *,
        flat_ner: bool | None = None,
        multi_label: bool | None = None,
    ) -> Session:
        """Start a session: text is fed piece by piece, and entities are returned as they become certain.

        Parameters
        ----------
        labels, threshold, flat_ner, multi_label
            As for ``predict_entities``; they hold for the whole session.

        Raises
        ------
        ConfigError
            If the model does not read from left to right (GLiNER's streaming models do), or a value is not allowed.
        NotInitializedError
            If the component has no weights.
        """
        settings = {"threshold": threshold, "flat_ner": flat_ner, "multi_label": multi_label}
        return Session(_with(self, settings, labels=labels))


def _with(
    own: Any,
    settings: Mapping[str, float | bool | None],
    *,
    labels: Labels | None,
    relations: Labels | None = None,
) -> Any:
    """Return a copy of a component that shares its weights, and has other labels and settings."""
    own.load()
    other = copy.copy(own)
    other.set_error_handler(raise_error)
    given = {name: value for name, value in settings.items() if value is not None}
    other.cfg = {**own.cfg, **given, "annotate_ents": False}
    if labels is not None:
        other.labels = with_own_items(own.label_items, parse_labels(as_items(labels), "labels"))
    if relations is not None:
        items = parse_relations(as_items(relations), "relations")
        other.relations = with_own_items(own.relation_items, items)
    return other


def _annotated(component: Any, texts: Iterable[str], batch_size: int) -> list[Doc]:
    if isinstance(texts, str):
        found = f"found the text {texts[:40]!r}"
        raise ConfigError("texts", found, "a list of texts", "Call predict_entities for a single one")
    return list(component.pipe(map(component.make_doc, texts), batch_size=batch_size))
