"""What the component ``gliner`` looks for: labels, relations, classes and records, its own or those of a document."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar, cast

from spacy.tokens import Doc

from gliner_pipe.errors import ConfigError
from gliner_pipe.modeling.gliner import GLiNER
from gliner_pipe.modeling.layers.cache import Cache
from gliner_pipe.modeling.tasks import Task
from gliner_pipe.pipeline.base import TorchPipe
from gliner_pipe.pipeline.gliner.class_choice import ClassChoice, needs_choice
from gliner_pipe.pipeline.gliner.class_rules import parse_rules
from gliner_pipe.pipeline.gliner.label_parser import LabelParser
from gliner_pipe.pipeline.gliner.task_settings import (
    ClassesItem,
    FieldItem,
    RecordItem,
    parse_classes,
    parse_records,
    relation_task,
)
from gliner_pipe.pipeline.labels import LabelItem, RelationItem, parse_labels, parse_relations

#: Settings that say what is looked for.
FOUND = ("labels", "relations", "classes", "records")
_Task = TypeVar("_Task", ClassesItem, RecordItem)


class LabelledPipe(TorchPipe):
    """A component whose labels, relations, classes and records can be changed at any time."""

    _parser: LabelParser
    _labels: tuple[LabelItem, ...]
    _relations: tuple[RelationItem, ...]
    _classes: tuple[ClassesItem, ...]
    _records: tuple[RecordItem, ...]
    _choices: Cache[tuple[tuple[ClassesItem, ...], str], ClassChoice]
    _warned: bool

    # -- labels and other settings -------------------------------------------------------------------------

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the labels."""
        return tuple(item.label for item in self._labels)

    @labels.setter
    def labels(self, labels: Iterable[Any]) -> None:
        self._labels = self._parser.parse(labels, f"{self._where}.labels")

    @property
    def label_items(self) -> tuple[LabelItem, ...]:
        """The labels with descriptions and thresholds."""
        return self._labels

    @property
    def label_data(self) -> list[str | dict[str, Any]]:
        """The labels in the form of a config."""
        return [item.to_config() for item in self._labels]

    def add_label(
        self,
        label: str,
        description: str | None = None,
        threshold: float | None = None,
        pattern: str | None = None,
    ) -> int:
        """Add a label; returns 1 if it is new, 0 if it exists."""
        if label in self.labels:
            return 0
        item = {"label": label, "description": description, "threshold": threshold, "pattern": pattern}
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
        """The relations with descriptions, thresholds and the entity labels allowed at either end."""
        return self._relations

    @property
    def relation_data(self) -> list[str | dict[str, Any]]:
        """The relations in the form of a config."""
        return [item.to_config() for item in self._relations]

    def _parse_relations(self, relations: Iterable[Any], where: str) -> tuple[RelationItem, ...]:
        items = parse_relations(relations, where)
        if items and not self.finds_relations:
            raise ConfigError(
                where,
                f"names the relation {items[0].label!r} for a model without relation_layer and relation_finder",
                "an empty list, or a model with one",
                "Add a relation_layer to the model and train it",
            )
        return items

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classifications."""
        return tuple(item.name for item in self._classes)

    @classes.setter
    def classes(self, classes: Any) -> None:
        items = parse_classes(classes, f"{self._where}.classes")
        self._classes = self._supported("classes", items, f"{self._where}.classes")

    @property
    def class_items(self) -> tuple[ClassesItem, ...]:
        """The classifications with labels, descriptions and thresholds."""
        return self._classes

    @property
    def class_data(self) -> dict[str, Any]:
        """The classifications in the form of a config."""
        return {item.name: item.to_config() for item in self._classes}

    @property
    def class_rules(self) -> list[Any]:
        """What the labels of classifications must have in common, in the form of a config."""
        return list(self.cfg["class_rules"])

    @class_rules.setter
    def class_rules(self, rules: Sequence[Any]) -> None:
        before = self.cfg["class_rules"]
        self.cfg["class_rules"] = list(rules) if isinstance(rules, tuple) else rules
        try:
            self.check_class_rules()
        except ConfigError:
            self.cfg["class_rules"] = before
            raise

    def check_class_rules(self) -> None:
        """Check the rules between classes; if there are no classes yet, only their form.

        Raises
        ------
        ConfigError
            If a rule has another form or names what does not exist, or if no choice of labels obeys all rules.
        """
        where = f"{self._where}.class_rules"
        rules = parse_rules(self.cfg["class_rules"], self._classes, where, all_names=bool(self._classes))
        if rules and ClassChoice(self._classes, rules, where).violated:
            found = "holds rules that contradict each other or the numbers of labels"
            raise ConfigError(where, found, "rules that some choice of labels obeys")

    def choice_of(self, items: tuple[ClassesItem, ...]) -> ClassChoice | None:
        """Return what chooses labels together; None if each can be chosen by its score.

        A rule that names a task or label which is not among these is left out.
        """
        given = self.cfg["class_rules"]
        if not items or not (given or needs_choice(items)):
            return None

        def made() -> ClassChoice:
            where = f"{self._where}.class_rules"
            return ClassChoice(items, parse_rules(given, items, where, all_names=False), where)

        return self._choices.get((items, repr(given)), made)

    @property
    def records(self) -> tuple[str, ...]:
        """Names of the records."""
        return tuple(item.name for item in self._records)

    @records.setter
    def records(self, records: Any) -> None:
        items = parse_records(records, f"{self._where}.records")
        self._records = self._supported("record", items, f"{self._where}.records")

    @property
    def record_items(self) -> tuple[RecordItem, ...]:
        """The records with fields, descriptions, thresholds and patterns."""
        return self._records

    @property
    def record_data(self) -> dict[str, Any]:
        """The records in the form of a config."""
        return {item.name: item.to_config() for item in self._records}

    def _supported(self, kind: str, items: tuple[_Task, ...], where: str) -> tuple[_Task, ...]:
        """Return tasks of a kind.

        Raises
        ------
        ConfigError
            If the model does not predict them; not while a checkpoint given by name is not loaded yet.
        """
        if items and isinstance(self.model, GLiNER) and (head := self.model.task_heads[kind])[1] is None:
            found = f"names {items[0].name!r} for a model without {head[0]}"
            do = f"Add a {head[0]} to the model and train it"
            raise ConfigError(where, found, "an empty mapping, or a model with one", do)
        return items

    @property
    def relation_threshold(self) -> float:
        """Minimum score of a relation; that of an entity if not set."""
        value = self.cfg["relation_threshold"]
        return self.threshold if value is None else float(value)

    @relation_threshold.setter
    def relation_threshold(self, value: float | None) -> None:
        self.cfg["relation_threshold"] = value

    @property
    def adjacency_threshold(self) -> float:
        """Minimum adjacency score before a pair's relation is classified."""
        return float(self.cfg["adjacency_threshold"])

    @adjacency_threshold.setter
    def adjacency_threshold(self, value: float) -> None:
        self.cfg["adjacency_threshold"] = value

    def limit(self, item: LabelItem | FieldItem) -> float:
        """Return the minimum score of an entity with this label, of a relation, or of a value of a field."""
        if item.threshold is not None:
            return item.threshold
        return self.relation_threshold if isinstance(item, RelationItem) else self.threshold

    @property
    def decoding(self) -> dict[str, Any]:
        """Options of ``Decoder.decode``; those that not every decoder has only if they are set."""
        options = {"flat": self.cfg["flat_ner"], "multi_label": self.cfg["multi_label"]}
        if self.cfg["prefer"] != "score":
            options["prefer"] = self.cfg["prefer"]
        if self.cfg["partial_overlaps"]:
            options["partial_overlaps"] = True
        return options

    @property
    def spans_key(self) -> str:
        """Span group that entities are written to."""
        return str(self.cfg["spans_key"])

    @property
    def gold_spans_key(self) -> str:
        """Span group that gold entities are read from; ``doc.ents`` where a document has no such group."""
        return str(self.cfg["gold_spans_key"] or self.spans_key)

    def current_settings(self) -> dict[str, Any]:
        """Return the current settings, labels included, as JSON values."""
        tasks = {"classes": self.class_data, "records": self.record_data}
        return {"labels": self.label_data, "relations": self.relation_data, **tasks, **self.cfg}

    def restore_settings(self, values: Mapping[str, Any]) -> None:
        """Set what ``current_settings`` returned."""
        for name in FOUND:
            setattr(self, name, values[name])
        self.cfg = {key: value for key, value in values.items() if key not in FOUND}

    # -- model ---------------------------------------------------------------------------------------------

    @property
    def gliner(self) -> GLiNER:
        """The blocks; a checkpoint given by name is loaded on first use."""
        return cast(GLiNER, self.network)

    @property
    def max_width(self) -> int | None:
        """Maximum number of words in an entity; None for no limit."""
        return self.gliner.max_width

    @property
    def finds_relations(self) -> bool:
        """Whether the model finds relations; True while a checkpoint given by name is not loaded yet."""
        if not isinstance(self.model, GLiNER):
            return True
        return self.model.relation_layer is not None or self.model.relation_finder is not None

    # -- of a document ------------------------------------------------------------------------------------

    def labels_of(self, doc: Doc) -> tuple[LabelItem, ...]:
        """Return the labels to find in `doc`: its own, else those of the component."""
        own = doc._.gliner_labels
        if own is not None:
            return self._parser.parse(own, "doc._.gliner_labels")
        if not self._labels and not self._warned and not self.tasks_of(doc):
            self._warned = True
            warnings.warn(
                f"The component {self.name!r} has no labels, so it finds nothing. Set labels in the config, "
                f"by nlp.get_pipe({self.name!r}).labels = [...] or by doc._.gliner_labels = [...].",
                stacklevel=4,
            )
        return self._labels

    def relations_of(self, doc: Doc) -> tuple[RelationItem, ...]:
        """Return the relations to find in `doc`: its own, else those of the component."""
        own = doc._.gliner_relations
        if own is not None:
            return self._parse_relations(own, "doc._.gliner_relations")
        if not self._relations:
            return ()
        return self._parse_relations(self._relations, f"{self._where}.relations")

    def classes_of(self, doc: Doc) -> tuple[ClassesItem, ...]:
        """Return the classifications of `doc`: its own, else those of the component."""
        own = doc._.gliner_classes
        if own is None:
            return self._supported("classes", self._classes, f"{self._where}.classes")
        return self._supported("classes", parse_classes(own, "doc._.gliner_classes"), "doc._.gliner_classes")

    def records_of(self, doc: Doc) -> tuple[RecordItem, ...]:
        """Return the records to find in `doc`: its own, else those of the component."""
        own = doc._.gliner_records
        if own is None:
            return self._supported("record", self._records, f"{self._where}.records")
        return self._supported("record", parse_records(own, "doc._.gliner_records"), "doc._.gliner_records")

    def tasks_of(self, doc: Doc) -> tuple[Task, ...]:
        """Return what the model reads as tasks: records, relations and classes of `doc`."""
        relations = self.relations_of(doc) if self.gliner.relation_finder is not None else ()
        return (
            *(item.task for item in self.records_of(doc)),
            *map(relation_task, relations),
            *(item.task for item in self.classes_of(doc)),
        )
