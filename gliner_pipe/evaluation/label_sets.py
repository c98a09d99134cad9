"""What a pipeline is asked in an evaluation: one label set for all documents, or one for each."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example

from gliner_pipe.data.annotations import supervision
from gliner_pipe.errors import ConfigError
from gliner_pipe.metrics.base import ExampleScorer
from gliner_pipe.metrics.zero_shot import ZeroShotScorer
from gliner_pipe.pipeline.labels import LabelItem, parse_labels
from gliner_pipe.pipeline.overrides import gliner_components, tagging_components


def fresh_docs(nlp: Language, examples: Iterable[Example]) -> list[Doc]:
    """Documents of the words of examples, and of nothing else."""
    return [
        Doc(
            nlp.vocab,
            words=[token.text for token in eg.predicted],
            spaces=[bool(token.whitespace_) for token in eg.predicted],
        )
        for eg in examples
    ]


def own_items(nlp: Language) -> list[LabelItem]:
    """Labels of a pipeline's ``gliner`` component, with descriptions and thresholds."""
    return [item for component in gliner_components(nlp) for item in component.label_items]


def own_labels(nlp: Language) -> list[str]:
    """Names of the labels of a pipeline's ``gliner`` component, and those that others were trained with."""
    closed = [label for component in tagging_components(nlp) for label in component.labels]
    return list(dict.fromkeys([*(item.label for item in own_items(nlp)), *closed]))


def labels_to_ask(
    nlp: Language,
    labels: Sequence[Any] | None,
    support: Mapping[str, int],
    new: Sequence[str] = (),
    *,
    all_gold: bool = False,
) -> Sequence[Any] | None:
    """Labels to set on the component of a pipeline, for documents that are all asked the same.

    Parameters
    ----------
    nlp
        The pipeline.
    labels
        Labels that were given; they are returned as they are.
    support
        Gold spans by label.
    new
        Labels to ask for beside the component's own.
    all_gold
        Ask for the labels of the gold data beside the component's own.

    Returns
    -------
    list or None
        None to leave the component alone.
    """
    if not gliner_components(nlp) and tagging_components(nlp):
        return None  # a closed label set: what is given says what is scored
    if labels is not None or not gliner_components(nlp):
        return labels
    own = own_items(nlp)
    more = [*(sorted(support) if all_gold or not own else ()), *new]
    known = {item.label for item in own}
    missing = [label for label in dict.fromkeys(more) if label not in known]
    return [*own, *missing] if missing else None


def unseen_of(scorers: Mapping[str, ExampleScorer], labels: Sequence[Any] | None) -> list[str]:
    """Labels that scorers are told were not trained on: they are asked for, too."""
    unseen = [
        label for scorer in scorers.values() if isinstance(scorer, ZeroShotScorer) for label in scorer.unseen
    ]
    if labels is not None:
        given = [item.label for item in parse_labels(labels, "labels")]
        outside = [label for label in unseen if label not in given]
        if outside:
            raise ConfigError(
                "unseen", f"names {outside[0]!r}, which is not among the labels", ", ".join(given)
            )
    return unseen


def relations_to_ask(
    nlp: Language, relations: Sequence[Any] | None, examples: Sequence[Example]
) -> Sequence[Any] | None:
    """Relations to set on the component: without any of its own those of the gold data; None to leave it alone."""
    components = gliner_components(nlp)
    if relations is not None or len(components) != 1 or components[0].relations:
        return relations
    stated = (supervision(example.reference).get("relations", []) for example in examples)
    found = sorted({label for ties in stated for _, _, label in ties})
    component = components[0]
    if not found or component.gliner.relation_layer is None:
        return None
    return found


def ask_sampled(
    nlp: Language,
    docs: Iterable[Doc],
    gold: Iterable[Iterable[str]],
    label_set: Sequence[LabelItem],
    negatives: int,
    seed: int,
) -> None:
    """Set on each document the labels that it is asked for: those it has, and some of the others.

    Parameters
    ----------
    nlp
        The pipeline, for its ``gliner`` component.
    docs
        Their ``doc._.gliner_labels`` are set.
    gold
        Labels that stand in each document.
    label_set
        All labels. A document is asked for none but these, in this order, so that places tell nothing.
    negatives
        How many labels that do not stand in it a document is asked for; all of them if there are fewer.
    seed
        With the text of a document it decides which these are, so that order and number of the other documents do not.

    Raises
    ------
    ConfigError
        If the pipeline has no ``gliner`` component, or the number is below 0.
    """
    if negatives < 0:
        raise ConfigError("negatives", f"is {negatives}", "a number from 0 on")
    if not gliner_components(nlp):
        names = ", ".join(nlp.pipe_names) or "none"
        raise ConfigError(
            "negatives",
            f"is set, but the pipeline has no gliner component (components: {names})",
            "a pipeline with a gliner component",
            "Leave out negatives, or use another pipeline",
        )
    for doc, own in zip(docs, gold, strict=True):
        present = set(own)
        absent = sorted(item.label for item in label_set if item.label not in present)
        rng = random.Random(f"{seed} {doc.text}")
        drawn = set(rng.sample(absent, min(negatives, len(absent))))
        doc._.gliner_labels = [item.to_config() for item in label_set if item.label in present | drawn]
