"""Compares the labels of components, training data and validation data before the first step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

from spacy.training import Example

from gliner_pipe.data.checks import CountedExamples, count_places, no_gold
from gliner_pipe.data.label_sets import counted, named, odd_labels
from gliner_pipe.data.task_sets import has_tasks, task_differences
from gliner_pipe.pipeline.labels import parse_labels
from gliner_pipe.training.arguments import TrainOptions
from gliner_pipe.training.datasets import Dataset, documents_of
from gliner_pipe.training.validation import Validation


def check_labels(
    components: Mapping[str, Any],
    datasets: Sequence[Dataset],
    validation: Validation,
    options: TrainOptions,
    warn: Callable[[str], None],
) -> None:
    """Raise an error if labels and data have nothing in common, and warn of differences.

    Parameters
    ----------
    components
        The trained components, by name, with their labels.
    datasets
        The training data.
    validation
        The validation data, and the labels to predict.
    options
        Of the training.
    warn
        Prints a line for the user.

    Raises
    ------
    ConfigError
        If a component and the data have no label in common.
    DataError
        If a dataset has entities, but none where a component reads them.
    """
    trained = [component for component in components.values() if hasattr(component, "label_sets")]
    requested = (
        None
        if validation.labels is None
        else [item.label for item in parse_labels(validation.labels, "labels")]
    )
    several = len(datasets) > 1
    by_place = [
        (f"train.train_data[{number}]" if several else "train.train_data", dataset.documents)
        for number, dataset in enumerate(datasets)
    ]
    for where, examples in [*by_place, ("train.val_data", validation.examples)]:
        _check_gold(where, examples, trained)
    train = documents_of(datasets)
    for component in trained:
        _check_relation_ends(component, warn)
        _check_label_overlap(component, by_place, warn)
        _check_tasks(component, train, warn)
        for line in odd_labels(component.count_labels(train)):
            warn(f"[train.train_data] has {line}")
        for one in component.label_sets(train, validation.examples, requested):
            sets = replace(one, unseen=options.unseen_labels)
            sets.check()
            if sets.noun != "relations" and validation.examples:
                if not sets.dev and not any(has_tasks(example.reference) for example in validation.examples):
                    warn("[train.val_data] has no gold annotations, so nothing can be scored")
                if options.val_data is not None:
                    sets.check_validation("train.val_data" if requested is None else "train.val_data.labels")
            for line in sets.warnings():
                warn(line)


def _check_relation_ends(component: Any, warn: Callable[[str], None]) -> None:
    """Warn of relations between entities whose labels the component does not have."""
    for item in getattr(component, "relation_items", ()):
        for side in ("head", "tail"):
            ends = getattr(item, side)
            if ends and component.labels and not set(ends) & set(component.labels):
                warn(
                    f"[components.{component.name}.relations] has {item.label!r} with a {side} of {named(ends)}, which "
                    f"are not among the labels ({named(component.labels)}), so it is never predicted"
                )


def _check_tasks(component: Any, train: Sequence[Example], warn: Callable[[str], None]) -> None:
    """Warn of classes and records that the component or the training data has alone."""
    if not hasattr(component, "class_items"):
        return
    if isinstance(train, CountedExamples) and not train.gold_counts().with_tasks:
        train = ()  # the data need not be read again
    model = component.gliner
    classes = {item.name: item.names for item in component.class_items}
    records = {item.name: [one.name for one in item.fields] for item in component.record_items}
    for line in task_differences(
        f"components.{component.name}",
        train,
        None if model.classifier is None else classes,
        None if model.record_finder is None else records,
    ):
        warn(line)


def _check_label_overlap(
    component: Any, by_place: Sequence[tuple[str, Sequence[Example]]], warn: Callable[[str], None]
) -> None:
    """Warn of datasets without a common label, if each text is trained with the labels of all datasets."""
    sampling = getattr(component, "cfg", {}).get("label_sampling", {"all_labels": True})
    if len(by_place) < 2 or not sampling.get("all_labels"):
        return
    for (one, first), (other, second) in combinations(by_place, 2):
        labels, others = (component.count_labels(examples) for examples in (first, second))
        if labels and others and not set(labels) & set(others):
            warn(
                f"[{one}] and [{other}] have no label in common ({counted(labels)}; {counted(others)}). "
                f"{component.name!r} trains with all labels in every text, so it learns that the labels of one "
                "dataset are absent in the other"
            )
            return


def _check_gold(where: str, examples: Sequence[Example], components: Sequence[Any]) -> None:
    """Raise an error if data have annotations, but none where a component reads them."""
    elsewhere = count_places(examples)
    if elsewhere and components and not any(component.count_labels(examples) for component in components):
        raise no_gold(where, getattr(components[0], "gold_spans_key", "gliner"), len(examples), elsewhere)
