"""Gold classes of a text: ``doc.cats`` with 1.0 for true labels and 0.0 for others, and tasks in the supervision.

The key of a label is ``task=label``. ``doc.cats`` of other tools may have bare labels if a component has one task.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from spacy.tokens import Doc
from spacy.training import Example

from gliner_pipe.data.annotations import set_supervision, supervision
from gliner_pipe.data.classes import cat_key


def set_gold_classes(doc: Doc, classes: Mapping[str, Mapping[str, Any]]) -> None:
    """Write annotated classes to ``doc.cats`` (1.0 for a true label, 0.0 for others), and the tasks to the supervision.

    Parameters
    ----------
    doc
        A reference document.
    classes
        Tasks by name. ``true`` lists the true labels. Optional are ``labels`` (all labels; without them all labels of
        the data or of the component), ``multi_label``, ``description``, ``descriptions`` of labels, and ``examples``.
    """
    for task, stated in classes.items():
        true = set(stated["true"])
        for label in dict.fromkeys([*stated.get("labels", ()), *stated["true"]]):
            doc.cats[cat_key(task, label, alone=False)] = float(label in true)
    about = {
        task: {name: value for name, value in stated.items() if name != "true"}
        for task, stated in classes.items()
    }
    set_supervision(doc, classes=about)


def gold_classes(doc: Doc, tasks: Mapping[str, Sequence[str]] | None = None) -> dict[str, dict[str, float]]:
    """Return the annotated classes of a document.

    Parameters
    ----------
    doc
        A reference document.
    tasks
        Labels of tasks by name. They tell which entries of ``doc.cats`` belong to a task if the document does not; for
        a single task these may be bare labels.

    Returns
    -------
    dict of dict of float
        The value of each label of each annotated task, from 0 to 1. A label that is missing is not annotated.
    """
    tasks = tasks or {}
    cats = doc.cats
    found: dict[str, dict[str, float]] = {}
    for task, stated in supervision(doc).get("classes", {}).items():
        start = cat_key(task, "", alone=False)
        labels = stated.get("labels") or [key[len(start) :] for key in cats if key.startswith(start)]
        values = {label: cats.get(start + label, 0.0) for label in labels}
        if "labels" not in stated:  # whoever named the true labels has looked for all of them
            values = {**dict.fromkeys(tasks.get(task, ()), 0.0), **values}
        found[task] = values
    for task, labels in tasks.items():
        if task in found:
            continue
        values = {label: cats[key] for label in labels if (key := cat_key(task, label, alone=False)) in cats}
        if not values and len(tasks) == 1 and not found:
            values = {label: cats[label] for label in labels if label in cats}
        if values:
            found[task] = values
    return found


def true_labels(values: Mapping[str, float]) -> list[str]:
    """Return the labels that are true, of the values of a task."""
    return [label for label, value in values.items() if value >= 0.5]


def stated_classes(doc: Doc) -> dict[str, dict[str, Any]]:
    """Return the annotated classes of a document in the form that `set_gold_classes` takes."""
    values = gold_classes(doc)
    return {
        task: {"true": true_labels(values[task]), **about}
        for task, about in supervision(doc).get("classes", {}).items()
    }


def count_classes(
    examples: Iterable[Example], tasks: Mapping[str, Sequence[str]] | None = None
) -> dict[str, Counter[str]]:
    """Count the true labels of examples by task; labels that are never true are in it with 0. `tasks` as above."""
    counts: dict[str, Counter[str]] = {}
    for example in examples:
        for task, values in gold_classes(example.reference, tasks).items():
            of_task = counts.setdefault(task, Counter())
            of_task.update(dict.fromkeys(values, 0))
            of_task.update(true_labels(values))
    return counts
