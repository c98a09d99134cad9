"""Classes of a document: scores in ``doc.cats``, and the chosen labels in ``doc._.classes``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from spacy.tokens import Doc

from gliner_pipe.data.annotations import install

#: Key of the chosen labels in ``doc.user_data``: a mapping from each task to a label, a list of labels or None.
CLASSES_KEY = "gliner_pipe.classes"

#: The attribute of ``doc._``.
EXTENSION = "classes"

#: The label of a task, or its labels where it may have several.
Chosen = str | list[str] | None


class Classified(NamedTuple):
    """A classification of a text: the name of the task, the score of each label, and the chosen ones."""

    task: str
    scores: dict[str, float]
    chosen: Chosen


def cat_key(task: str, label: str, alone: bool) -> str:
    """Return the key of a label in ``doc.cats``: the label itself, or ``task=label`` if a document has several tasks.

    Parameters
    ----------
    task, label
        Their names.
    alone
        Whether the document has no other task.
    """
    return label if alone else f"{task}={label}"


def install_extension() -> None:
    """Register ``doc._.classes`` unless the name is taken."""
    install(Doc, EXTENSION, getter=get_classes, setter=set_classes)


def get_classes(doc: Doc) -> dict[str, Chosen]:
    """Return the chosen label of each task of `doc`, or a list of labels for a task that may have several."""
    return dict(doc.user_data.get(CLASSES_KEY, {}))


def set_classes(doc: Doc, classes: Mapping[str, Chosen] | None) -> None:
    """Replace the chosen labels of `doc`; None removes them."""
    if classes is None:
        doc.user_data.pop(CLASSES_KEY, None)
    else:
        doc.user_data[CLASSES_KEY] = dict(classes)


def write_classes(doc: Doc, found: Sequence[Classified]) -> None:
    """Write the score of each label to ``doc.cats``, and the chosen labels to ``doc._.classes``."""
    cats = doc.cats
    for item in found:
        for label, score in item.scores.items():
            cats[cat_key(item.task, label, len(found) == 1)] = score
    doc.cats = cats
    set_classes(doc, {item.task: item.chosen for item in found})
