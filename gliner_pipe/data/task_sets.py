"""The classifications and kinds of records that annotated data has, in the form of a component's settings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from spacy.tokens import Doc
from spacy.training import Example

from gliner_pipe.data.annotations import supervision
from gliner_pipe.data.gold_classes import count_classes, gold_classes, true_labels
from gliner_pipe.data.label_sets import alike, counted, named
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


def task_differences(
    where: str,
    examples: Sequence[Example],
    classes: Mapping[str, Sequence[str]] | None,
    records: Mapping[str, Sequence[str]] | None,
) -> Iterator[str]:
    """Yield a line for each difference between the tasks of a component and those of its training data.

    Parameters
    ----------
    where
        Section of the component.
    examples
        The training data.
    classes, records
        Labels of each classification and fields of each kind of records of the component; None if its model cannot
        learn them.
    """
    labels = count_classes(examples, classes)
    texts = Counter(task for example in examples for task in gold_classes(example.reference, classes))
    yield from _differences(f"{where}.classes", classes, labels, texts, "classification")
    fields, kinds = _count_fields(examples)
    yield from _differences(f"{where}.records", records, fields, kinds, "kind of records")


def _differences(
    where: str,
    own: Mapping[str, Sequence[str]] | None,
    data: Mapping[str, Mapping[str, int]],
    texts: Mapping[str, int],
    noun: str,
) -> Iterator[str]:
    if own is None:
        if texts:
            block = "classifier" if noun == "classification" else "record_finder"
            yield f"the training data has a {noun} that is not learned, as the model has no {block}: {counted(texts)}"
        return
    if not own:
        return
    learned = "learned, but not predicted by default after training"
    if strange := {name: number for name, number in texts.items() if name not in own}:
        yield f"[{where}] lacks a {noun} of the training data, which is {learned}: {counted(strange)}"
    if absent := [name for name in own if name not in data]:
        yield f"[{where}] has a {noun} that the training data does not name: {named(absent)}"
    part = "label" if noun == "classification" else "field"
    effect = learned if part == "label" else "not learned"
    for name in own:
        counts = data.get(name, {})
        if strange := {one: number for one, number in counts.items() if number and one not in own[name]}:
            similar = alike(strange, own[name])
            hint = (
                f" (like {named(f'{one} and {other}' for one, other in similar.items())})" if similar else ""
            )
            yield f"[{where}.{name}] lacks a {part} of the training data, which is {effect}: {counted(strange)}{hint}"
        absent = [one for one in own[name] if not counts.get(one)]
        if absent and any(counts.values()):
            yield f"[{where}.{name}] has a {part} that no training text has: {named(absent)}"


def _count_fields(examples: Iterable[Example]) -> tuple[dict[str, Counter[str]], Counter[str]]:
    """Return the number of values by kind and field, and the number of texts in which a kind is annotated."""
    fields: dict[str, Counter[str]] = {}
    texts: Counter[str] = Counter()
    for example in examples:
        doc = example.reference
        records = get_records(doc)
        kinds = {*supervision(doc).get("records", {}), *(one.name for one in records)}
        texts.update(kinds)
        for kind in kinds:
            fields.setdefault(kind, Counter())
        for one in records:
            fields[one.name].update(name for name, value in one.fields.items() if value)
    return fields, texts


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
