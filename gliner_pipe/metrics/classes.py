"""Accuracy, precision, recall and F1 of the classes of texts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spacy.tokens import Doc
from spacy.training import Example

from gliner_pipe.data.annotations import supervision
from gliner_pipe.data.classes import CLASSES_KEY, Chosen, cat_key, get_classes
from gliner_pipe.data.gold_classes import gold_classes, true_labels
from gliner_pipe.metrics.counts import score_mentions
from gliner_pipe.registry import registry

#: The gold and the predicted labels of a text in one task.
LabelPair = tuple[set[str], set[str]]


def score_classes(texts: Sequence[LabelPair], labels: Sequence[str] | None = None) -> dict[str, Any]:
    """Score the labels of texts in one task.

    Parameters
    ----------
    texts
        Gold and predicted labels of each text.
    labels
        Labels that get a row even if no text has them.

    Returns
    -------
    dict[str, Any]
        ``labels`` with a row for each label, ``micro`` (all labels together), ``macro`` (mean over the labels that
        occur in the gold data), ``accuracy`` (share of texts with exactly the gold labels; None without texts) and
        ``examples``, the number of texts.
    """
    known = dict.fromkeys(labels or ())
    known |= dict.fromkeys(sorted({label for pair in texts for side in pair for label in side}))
    pairs = [tuple({(label, 0, 0) for label in side} for side in pair) for pair in texts]
    rows = score_mentions(pairs, labels=list(known), micro_key="", macro_key=" ")  # type: ignore[arg-type]
    micro, macro = rows.pop(""), rows.pop(" ")
    right = sum(gold == predicted for gold, predicted in texts)
    return {
        "micro": micro,
        "macro": macro,
        "accuracy": right / len(texts) if texts else None,
        "labels": rows,
        "examples": len(texts),
    }


@registry.scorers.register("gliner_pipe.classes")
@dataclass(eq=False)
class ClassScorer:
    """Compares the chosen labels of texts with their gold labels, task by task.

    Predictions are read from ``doc._.classes``, or else from ``doc.cats``, where a probability from 0.5 on counts. The
    result has ``all`` (the labels of all tasks together), ``tasks`` with the result of `score_classes` for each task,
    and the number of ``examples`` with a gold class and of those ``skipped``. A task that nobody annotated in a text is
    not scored there.

    Parameters
    ----------
    tasks
        Labels by task; for a single task the gold ``doc.cats`` may then have bare labels, as spaCy writes them. By
        default the tasks of the gold documents.
    names
        The only tasks to score; all by default.
    """

    tasks: Mapping[str, Sequence[str]] | None = None
    names: Sequence[str] | None = None

    def __call__(self, examples: Iterable[Example], **_: Any) -> dict[str, Any]:
        """Score the examples."""
        found: dict[str, list[LabelPair]] = {}
        number = skipped = 0
        for example in examples:
            pairs = self.pairs(example)
            number, skipped = number + bool(pairs), skipped + (not pairs)
            for task, pair in pairs.items():
                found.setdefault(task, []).append(pair)
        every = [
            tuple({cat_key(task, label, alone=False) for label in side} for side in pair)
            for task, pairs_of_task in found.items()
            for pair in pairs_of_task
        ]
        together = score_classes(every)  # type: ignore[arg-type]
        return {
            "all": {name: together[name] for name in ("micro", "macro", "accuracy")},
            "tasks": {task: score_classes(pairs) for task, pairs in found.items()},
            "examples": number,
            "skipped": skipped,
        }

    def pairs(self, example: Example) -> dict[str, LabelPair]:
        """Return the gold and the predicted labels of each annotated task."""
        stated = supervision(example.reference).get("classes", {})
        predicted = _predicted(example.predicted, self.tasks)
        found = {}
        for task, values in gold_classes(example.reference, self.tasks).items():
            if self.names is not None and task not in self.names:
                continue
            gold = set(true_labels(values))
            guesses = predicted.get(task, set())
            if len(gold) != 1 or stated.get(task, {}).get("multi_label"):
                guesses = guesses & values.keys()  # a label that is not annotated may be right
            found[task] = gold, guesses
        return found


def _predicted(doc: Doc, tasks: Mapping[str, Sequence[str]] | None) -> dict[str, set[str]]:
    """Return the predicted labels by task."""
    if CLASSES_KEY in doc.user_data:
        return {task: _listed(chosen) for task, chosen in get_classes(doc).items()}
    found = {task: set(true_labels(values)) for task, values in gold_classes(doc, tasks).items()}
    for key, score in doc.cats.items():  # of another component
        task, mark, label = key.partition("=")
        if mark and task not in found and score >= 0.5:
            found.setdefault(task, set()).add(label)
    return found


def _listed(chosen: Chosen) -> set[str]:
    return set() if chosen is None else {chosen} if isinstance(chosen, str) else set(chosen)


def score_component_classes(examples: Sequence[Example]) -> dict[str, Any]:
    """Score classes under spaCy's names, for ``nlp.evaluate`` and ``spacy train``.

    Parameters
    ----------
    examples
        Gold and predicted documents.

    Returns
    -------
    dict[str, Any]
        ``cats_micro_p``, ``_r`` and ``_f``, ``cats_macro_p`` and so on over the labels of all tasks, ``cats_accuracy``
        and ``cats_f_per_type``. Empty if no classes were predicted, or no gold classes are known.
    """
    if not any(CLASSES_KEY in example.predicted.user_data for example in examples):
        return {}
    asked = {
        task: _labels(example.predicted, task)
        for example in examples
        for task in get_classes(example.predicted)
    }
    scores = ClassScorer(asked)(examples)
    if not scores["examples"]:
        return {}
    found = {
        f"cats_{name}_{metric}": scores["all"][name][metric]
        for name in ("micro", "macro")
        for metric in "prf"
    }
    rows = {
        cat_key(task, label, alone=False): {metric: row[metric] for metric in "prf"}
        for task, of_task in scores["tasks"].items()
        for label, row in of_task["labels"].items()
    }
    return {**found, "cats_accuracy": scores["all"]["accuracy"], "cats_f_per_type": rows}


def _labels(doc: Doc, task: str) -> list[str]:
    """Return the labels of a task of a predicted document."""
    if len(get_classes(doc)) == 1:
        return list(doc.cats)
    start = cat_key(task, "", alone=False)
    return [key[len(start) :] for key in doc.cats if key.startswith(start)]
