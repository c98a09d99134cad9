"""What an evaluation predicts, labels, relations, classes and records: one set for all documents, or one for each."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example

from gliner_pipe.data.checks import count_relations
from gliner_pipe.data.task_sets import found_tasks
from gliner_pipe.errors import ConfigError
from gliner_pipe.metrics.base import ExampleScorer
from gliner_pipe.metrics.spans import ZeroShotScorer
from gliner_pipe.pipeline.labels import LabelItem, parse_labels
from gliner_pipe.pipeline.overrides import gliner_components, tagging_components


def component_items(nlp: Language) -> list[LabelItem]:
    """Return the labels of the ``gliner`` component, with descriptions and thresholds."""
    return [item for component in gliner_components(nlp) for item in component.label_items]


def component_labels(nlp: Language) -> list[str]:
    """Return the label names of the ``gliner`` component, and those that a ``token_classifier`` was trained with."""
    trained = [label for component in tagging_components(nlp) for label in component.labels]
    return list(dict.fromkeys([*(item.label for item in component_items(nlp)), *trained]))


def label_names(labels: Sequence[Any] | None) -> list[str] | None:
    """Return the names of labels as given in a config; None for None."""
    return None if labels is None else [item.label for item in parse_labels(labels, "labels")]


def labels_to_predict(
    nlp: Language,
    labels: Sequence[Any] | None,
    support: Mapping[str, int],
    more: Sequence[str] = (),
    *,
    all_gold: bool = False,
) -> Sequence[Any] | None:
    """Return the labels to set on the ``gliner`` component, the same for all documents.

    Parameters
    ----------
    nlp
        The pipeline.
    labels
        Labels given by the caller; returned unchanged.
    support
        Gold spans by label. Without labels of its own, the component predicts these labels.
    more
        Labels to predict in addition to the component's own.
    all_gold
        Whether to add the labels of the gold data even if the component has labels.

    Returns
    -------
    list or None
        None to leave the component unchanged. A ``token_classifier`` has a closed label set and is never changed.
    """
    if not gliner_components(nlp):
        return None if tagging_components(nlp) else labels
    if labels is not None:
        return labels
    own = component_items(nlp)
    known = {item.label for item in own}
    wanted = [*(sorted(support) if all_gold or not own else ()), *more]
    missing = [label for label in dict.fromkeys(wanted) if label not in known]
    return [*own, *missing] if missing else None


def relations_to_predict(
    nlp: Language, relations: Sequence[Any] | None, examples: Sequence[Example]
) -> Sequence[Any] | None:
    """Return the relations to set on the component: those given, or those of the gold data if it has none.

    Returns
    -------
    list or None
        None to leave the component unchanged.
    """
    components = gliner_components(nlp)
    if relations is not None or len(components) != 1 or components[0].relations:
        return relations
    found = sorted(count_relations(examples))
    model = components[0].gliner
    finds = model.relation_layer is not None or model.relation_finder is not None
    return found if found and finds else None


def tasks_to_predict(
    nlp: Language, classes: Any, records: Any, examples: Sequence[Example]
) -> dict[str, Any]:
    """Return ``classes`` and ``records`` to set on the component: those given, or those of the data if it has none.

    Returns
    -------
    dict
        None for what stays as it is.
    """
    given = {"classes": classes, "records": records}
    components = gliner_components(nlp)
    if len(components) != 1:
        return given
    component, model = components[0], components[0].gliner
    blocks = {"classes": model.classifier, "records": model.record_finder}
    open_tasks = [
        name
        for name, block in blocks.items()
        if given[name] is None and block is not None and not getattr(component, name)
    ]
    if open_tasks:
        found = dict(zip(given, found_tasks(examples), strict=True))
        given |= {name: found[name] for name in open_tasks if found[name]}
    return given


def unseen_labels(scorers: Mapping[str, ExampleScorer], labels: Sequence[Any] | None) -> list[str]:
    """Return the unseen labels of zero-shot scorers, which are predicted, too.

    Raises
    ------
    ConfigError
        If `labels` are given without one of them.
    """
    zero_shot = [scorer for scorer in scorers.values() if isinstance(scorer, ZeroShotScorer)]
    unseen = [label for scorer in zero_shot for label in scorer.unseen]
    given = label_names(labels)
    for label in unseen:
        if given is not None and label not in given:
            raise ConfigError("unseen", f"contains {label!r}, which is not in labels", ", ".join(given))
    return unseen


def set_sampled_labels(
    nlp: Language,
    docs: Iterable[Doc],
    gold: Iterable[Iterable[str]],
    label_set: Sequence[LabelItem],
    negatives: int,
    seed: int,
) -> None:
    """Set ``doc._.gliner_labels`` of each document to its gold labels and a sample of the others.

    Parameters
    ----------
    nlp
        The pipeline with a ``gliner`` component.
    docs
        The documents to predict on.
    gold
        Gold labels of each document.
    label_set
        All labels. A document gets only labels of this set, in this order, so that their positions reveal nothing.
    negatives
        Number of labels to sample for each document from those that it does not have; all of them if there are fewer.
    seed
        Seed of the sample, combined with the text: the sample of a document does not depend on other documents.

    Raises
    ------
    ConfigError
        If `negatives` is below 0, or the pipeline has no ``gliner`` component.
    """
    if negatives < 0:
        raise ConfigError("negatives", f"is {negatives}", "a number from 0 on")
    if not gliner_components(nlp):
        names = ", ".join(nlp.pipe_names) or "none"
        raise ConfigError(
            "negatives",
            f"is set, but the pipeline has no gliner component (components: {names})",
            "a pipeline with a gliner component",
        )
    for doc, labels in zip(docs, gold, strict=True):
        present = set(labels)
        absent = sorted(item.label for item in label_set if item.label not in present)
        rng = random.Random(f"{seed} {doc.text}")
        sampled = set(rng.sample(absent, min(negatives, len(absent))))
        doc._.gliner_labels = [item.to_config() for item in label_set if item.label in present | sampled]
