"""The classifications and kinds of records that annotated data has, in the form of a component's settings."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from spacy.tokens import Doc
from spacy.training import Example

from gliner_pipe.data.annotations import supervision
from gliner_pipe.data.gold_classes import gold_classes, true_labels
from gliner_pipe.data.records import RECORDS_KEY, get_records


def found_tasks(examples: Iterable[Example]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the settings ``classes`` and ``records`` for what occurs in annotated data.

    Parameters
    ----------
    examples
        Examples with gold annotations.

    Returns
    -------
    tuple of dict
        The labels of each task, in the order in which the data name them, and the fields of each kind of records.
    """
    classes: dict[str, dict[str, Any]] = {}
    records: dict[str, dict[str, Any]] = {}
    for example in examples:
        doc = example.reference
        stated: Any = supervision(doc)
        for task, values in gold_classes(doc).items():
            about = stated.get("classes", {}).get(task, {})
            texts = about.get("descriptions", {})
            found = classes.setdefault(task, {"labels": {}})
            for label in values:
                known = found["labels"].get(label)
                found["labels"][label] = known if known is not None else texts.get(label)
            if about.get("multi_label") or len(true_labels(values)) > 1:
                found["multi_label"] = True
            _keep(found, about, "description")
        for kind, about in stated.get("records", {}).items():
            found = records.setdefault(kind, {"fields": {}})
            for one in about.get("fields", ()):
                _add_field(found["fields"], one)
            for name in ("description", "mode", "anchor"):
                _keep(found, about, name)
        for one in get_records(doc):
            fields = records.setdefault(one.name, {"fields": {}})["fields"]
            for name, value in one.fields.items():
                _add_field(fields, {"field": name, "list": isinstance(value, list)})
    for found in classes.values():
        labels = found["labels"].items()
        found["labels"] = [
            label if text is None else {"label": label, "description": text} for label, text in labels
        ]
    for found in records.values():
        found["fields"] = list(found["fields"].values())
    return classes, {kind: found for kind, found in records.items() if found["fields"]}


def has_tasks(doc: Doc) -> bool:
    """Return whether the classes or the records of `doc` are annotated."""
    return bool(gold_classes(doc)) or RECORDS_KEY in doc.user_data


def _keep(found: dict[str, Any], about: dict[str, Any], name: str) -> None:
    """Keep the first value of a setting."""
    if about.get(name) is not None:
        found.setdefault(name, about[name])


def _add_field(fields: dict[str, dict[str, Any]], stated: dict[str, Any]) -> None:
    """Add a field, or what is stated about it here alone."""
    field = fields.setdefault(stated["field"], {"field": stated["field"]})
    _keep(field, stated, "description")
    if stated.get("list"):
        field["list"] = True
    if stated.get("choices"):
        field["choices"] = list(dict.fromkeys([*field.get("choices", ()), *stated["choices"]]))
