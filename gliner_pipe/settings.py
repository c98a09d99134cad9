"""The settings of the component that may be changed at run time: labels, thresholds and where results go."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from spacy.tokens import Doc
from spacy.vocab import Vocab

from gliner_pipe.defaults import SETTINGS, check_settings
from gliner_pipe.errors import ConfigError
from gliner_pipe.labels import LabelItem, RelationItem, parse_labels, parse_relations
from gliner_pipe.torch_pipe import TorchPipe


class Adjustable(TorchPipe):
    """A pipe with labels and live settings; base of the component.

    Parameters
    ----------
    vocab, name, model, scorer
        See ``TorchPipe``.
    labels, relations
        What to find.
    settings
        Those of ``SETTINGS`` that are not at their default.

    Attributes
    ----------
    cfg
        The live settings; a change counts from the next document on, and is saved with the pipeline.
    """

    def __init__(
        self,
        vocab: Vocab,
        name: str,
        model: Any,
        scorer: Callable[..., Any] | None,
        labels: Iterable[Any],
        relations: Iterable[Any],
        settings: Mapping[str, Any],
    ) -> None:
        super().__init__(vocab, name, model, scorer)
        self._labels = parse_labels(labels, f"{self._where}.labels")
        self._relations = self._parse_relations(relations, f"{self._where}.relations")
        self.cfg = check_settings({**SETTINGS, **settings}, self._where)
        self._configured = self._current()
        self._warned = False

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the labels."""
        return tuple(item.label for item in self._labels)

    @labels.setter
    def labels(self, labels: Iterable[Any]) -> None:
        self._labels = parse_labels(labels, f"{self._where}.labels")

    @property
    def label_items(self) -> tuple[LabelItem, ...]:
        """The labels with descriptions and thresholds."""
        return self._labels

    @property
    def label_data(self) -> list[str | dict[str, Any]]:
        """The labels as they stand in a config."""
        return [item.to_config() for item in self._labels]

    def add_label(self, label: str, description: str | None = None, threshold: float | None = None) -> int:
        """Add a label; 1 if it is new, 0 if it was there."""
        if label in self.labels:
            return 0
        item = {"label": label, "description": description, "threshold": threshold}
        self._labels += parse_labels([item], f"{self._where}.labels")
        return 1

    @property
    def relations(self) -> tuple[str, ...]:
        """Names of the relations."""
        return tuple(item.label for item in self._relations)

    @relations.setter
    def relations(self, relations: Iterable[Any]) -> None:
        self._relations = self._parse_relations(relations, f"{self._where}.relations")

    @property
    def relation_items(self) -> tuple[RelationItem, ...]:
        """The relations with descriptions, thresholds and the labels of their ends."""
        return self._relations

    @property
    def relation_data(self) -> list[str | dict[str, Any]]:
        """The relations as they stand in a config."""
        return [item.to_config() for item in self._relations]

    @property
    def finds_relations(self) -> bool:
        """Whether the model has what finds relations; True as long as that is not known."""
        return True

    @property
    def threshold(self) -> float:
        """Score that an entity needs."""
        return float(self.cfg["threshold"])

    @threshold.setter
    def threshold(self, value: float) -> None:
        self.cfg = check_settings({**self.cfg, "threshold": value}, self._where)

    @property
    def relation_threshold(self) -> float:
        """Score that a relation needs; that of an entity where nothing else is set."""
        value = self.cfg["relation_threshold"]
        return self.threshold if value is None else float(value)

    @relation_threshold.setter
    def relation_threshold(self, value: float | None) -> None:
        self.cfg = check_settings({**self.cfg, "relation_threshold": value}, self._where)

    @property
    def adjacency_threshold(self) -> float:
        """How strongly two entities must be tied before they are asked how."""
        return float(self.cfg["adjacency_threshold"])

    @adjacency_threshold.setter
    def adjacency_threshold(self, value: float) -> None:
        self.cfg = check_settings({**self.cfg, "adjacency_threshold": value}, self._where)

    @property
    def spans_key(self) -> str:
        """Span group that entities are written to."""
        return str(self.cfg["spans_key"])

    @property
    def gold_spans_key(self) -> str:
        """Span group that gold entities are read from; ``doc.ents`` where a document has no such group."""
        return str(self.cfg["gold_spans_key"] or self.spans_key)

    def labels_of(self, doc: Doc) -> tuple[LabelItem, ...]:
        """Labels that `doc` is asked for: its own, else those of the component."""
        own = doc._.gliner_labels
        if own is not None:
            return parse_labels(own, "doc._.gliner_labels")
        if not self._labels and not self._warned:
            self._warned = True
            warnings.warn(
                f"The component {self.name!r} has no labels, so it finds nothing. Set labels in the config, "
                f"by nlp.get_pipe({self.name!r}).labels = [...] or by doc._.gliner_labels = [...].",
                stacklevel=4,
            )
        return self._labels

    def relations_of(self, doc: Doc) -> tuple[RelationItem, ...]:
        """Relations that `doc` is asked for: its own, else those of the component."""
        own = doc._.gliner_relations
        if own is not None:
            return self._parse_relations(own, "doc._.gliner_relations")
        return self._parse_relations(self._relations, f"{self._where}.relations")

    def limit(self, item: LabelItem) -> float:
        """Score that an entity of this label, or a relation, needs."""
        if item.threshold is not None:
            return item.threshold
        own = self.cfg["relation_threshold"] if isinstance(item, RelationItem) else None
        return self.threshold if own is None else float(own)

    def _parse_relations(self, relations: Iterable[Any], where: str) -> tuple[RelationItem, ...]:
        items = parse_relations(relations, where)
        if items and not self.finds_relations:
            raise ConfigError(
                where,
                f"asks for {items[0].label!r} of a model that has no relation_layer",
                "an empty list, or a model with one",
                "Add a relation_layer to the model and train it",
            )
        return items

    def _current(self) -> dict[str, Any]:
        return {"labels": self.label_data, "relations": self.relation_data, **self.cfg}

    def _restore(self, values: Mapping[str, Any]) -> None:
        self.labels, self.relations = values["labels"], values["relations"]
        settings = {key: value for key, value in values.items() if key not in ("labels", "relations")}
        self.cfg = check_settings(settings, self._where)
