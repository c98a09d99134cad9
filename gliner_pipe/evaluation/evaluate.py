"""Predicts on the words of annotated examples and scores the result."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import closing
from time import perf_counter, process_time
from typing import Any, Literal

import numpy as np
from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example

from gliner_pipe.data.annotations import SpanSetter, primary_key
from gliner_pipe.data.gold_classes import gold_classes
from gliner_pipe.data.raw_text import raw_docs
from gliner_pipe.data.records import RECORDS_KEY
from gliner_pipe.data.relations import has_relations
from gliner_pipe.errors import ConfigError, DataError
from gliner_pipe.evaluation.label_sets import (
    component_items,
    component_labels,
    label_names,
    labels_to_predict,
    relations_to_predict,
    set_sampled_labels,
    tasks_to_predict,
    unseen_labels,
)
from gliner_pipe.metrics.alignment import SpanGetter, get_spans, prediction_getter
from gliner_pipe.metrics.base import ExampleScorer, SpanScorer, with_labels, with_places
from gliner_pipe.metrics.classes import ClassScorer
from gliner_pipe.metrics.confusion import ConfusionScorer
from gliner_pipe.metrics.records import RecordScorer
from gliner_pipe.metrics.relations import RelationScorer
from gliner_pipe.metrics.spans import DEFAULT_METRICS, METRICS, ExactScorer, ZeroShotScorer
from gliner_pipe.pipeline.labels import parse_relations
from gliner_pipe.pipeline.overrides import (
    gliner_components,
    override,
    tagging_components,
    thresholded_components,
)
from gliner_pipe.pipeline.stream import annotate

#: Keys of the result that are not scores.
FACTS = (
    "tokens",
    "labels",
    "unasked_labels",
    "left_out",
    "threshold",
    "negatives",
    "thresholds",
    "docs",
    "words",
    "seconds",
    "cpu_seconds",
    "docs_per_second",
    "words_per_second",
)


def evaluate_pipeline(
    nlp: Language,
    examples: Iterable[Example],
    *,
    scorers: Mapping[str, ExampleScorer] | None = None,
    metrics: Sequence[str] = DEFAULT_METRICS,
    labels: Sequence[Any] | None = None,
    relations: Sequence[Any] | None = None,
    classes: Any = None,
    records: Any = None,
    threshold: float | None = None,
    batch_size: int | None = None,
    n_process: int = 1,
    span_getter: SpanGetter | None = None,
    predicted_getter: SpanGetter | None = None,
    overlap_threshold: float = 0.5,
    confusion: bool = False,
    unseen: Sequence[str] | None = None,
    negatives: int | None = None,
    seed: int = 0,
    watch: Callable[[Sequence[Doc]], Any] | None = None,
    tokens: Literal["data", "pipeline"] = "data",
) -> dict[str, Any]:
    """Predict on copies of the examples' words and score the result.

    The pipeline sees only words: no gold spans and, without `negatives`, no gold labels of a document. All documents
    have the same label set, which the result states. With `labels`, these labels are predicted and scored. Without, the
    component predicts its own labels, or all labels of the gold data if it has none; scored are the predicted label
    set, the labels of the gold data and any other label that was predicted. Relations, classes and records are treated
    the same, if the pipeline predicts them and the data has them.

    Parameters
    ----------
    nlp
        The pipeline; any that sets ``doc.spans`` or ``doc.ents``. Its settings are restored in the end.
    examples
        Gold documents in ``example.reference``; the words come from ``example.predicted``.
    scorers
        Scorers by name, in place of those of `metrics`. Span scorers of this package without a fixed label set get
        that of the evaluation.
    metrics
        Some of ``exact``, ``overlap``, ``token`` and ``seqeval``.
    labels
        Labels to predict and to score (strings, or mappings with ``label``, ``description`` and ``threshold``); gold
        and predicted spans of other labels are ignored.
    relations
        Relations to predict and to score, likewise.
    classes, records
        Classifications and records to predict and to score, as in the component's config, or their names.
    threshold
        Minimum score of an entity, for this evaluation.
    batch_size
        Documents per batch; that of the pipeline by default.
    n_process
        Number of processes.
    span_getter
        Where gold spans are read: a group's key, ``"ents"`` or a list. By default those of the ``gliner`` component,
        or ``"gliner"`` without such a component.
    predicted_getter
        Where predicted spans are read; detected by default.
    overlap_threshold
        Minimum Dice overlap of the metric ``overlap``.
    confusion
        Whether to add a confusion matrix of labels, under ``confusion`` (see `ConfusionScorer`).
    unseen
        Labels that were not trained on. They are predicted, too, and scored separately, under ``zero_shot`` (see
        `ZeroShotScorer`).
    negatives
        Predict for each document its gold labels and this many others, sampled from the label set. This reveals the
        gold labels: scores are higher than with the whole label set, and comparable only to scores computed this way.
    seed
        Seed of the sampled labels.
    watch
        Called with the predicted documents, in the order of the examples.
    tokens
        Predict on the words of the ``data``, or on those that the ``pipeline`` makes of the running text, as when it is
        used (see :func:`raw_docs`). Scores on the words of the data do not count what the tokenizer costs.

    Returns
    -------
    dict[str, Any]
        ``tokens`` as given; an entry for each scorer; ``relations`` (see `RelationScorer`) without `scorers`, if the
        pipeline predicts
        relations and the data has gold relations; and ``labels``, ``unasked_labels`` (gold labels that the component
        does not predict, with their number of spans, all missed), ``left_out`` (gold spans outside the label set, by
        label), ``threshold``, ``negatives`` if given, ``docs``, ``words``, ``seconds``, ``docs_per_second`` and
        ``words_per_second`` (wall time of ``nlp.pipe``), and ``cpu_seconds`` (its CPU time in this process).

    Raises
    ------
    DataError
        If there are no examples.
    ConfigError
        If a setting does not fit the pipeline, or a scorer has the name of another entry.
    """
    examples = at_least_one(examples)
    gold_getter = gold_span_getter(nlp) if span_getter is None else span_getter
    guess_getter = prediction_getter(nlp) if predicted_getter is None else predicted_getter
    getters: dict[str, Any] = {"span_getter": gold_getter, "predicted_getter": guess_getter}
    gold_labels = [[span.label_ for span in get_spans(eg.reference, gold_getter)] for eg in examples]
    support = Counter(label for labels_of_doc in gold_labels for label in labels_of_doc)
    added: dict[str, ExampleScorer] = {}
    if confusion:
        added["confusion"] = ConfusionScorer(**getters)
    if unseen is not None:
        added["zero_shot"] = ZeroShotScorer(unseen=list(unseen), **getters)
    _check_names(scorers, metrics, added)
    if scorers is not None:
        scorers = {name: with_places(scorer, gold_getter, guess_getter) for name, scorer in scorers.items()}
    unseen = unseen_labels({**(scorers or {}), **added}, labels)
    label_set = labels_to_predict(nlp, labels, support, unseen, all_gold=negatives is not None)
    relation_set = relations_to_predict(nlp, relations, examples)
    given_tasks = [name for name, one in (("classes", classes), ("records", records)) if one is not None]
    tasks = tasks_to_predict(nlp, classes, records, examples)
    docs = unannotated_docs(nlp, examples, raw=tokens == "pipeline")
    with override(nlp, labels=label_set, relations=relation_set, threshold=threshold, **tasks):
        of_tasks = task_scorers(nlp, examples, given_tasks)
        thresholds = {component.threshold for component in thresholded_components(nlp)}
        predictable = component_labels(nlp)
        predicts_relations = any(component.relations for component in gliner_components(nlp))
        if negatives is not None:
            set_sampled_labels(nlp, docs, gold_labels, component_items(nlp), negatives, seed)
        predicted, speed = _predict(nlp, docs, batch_size, n_process)
    if watch is not None:
        watch(predicted)
    scored = label_names(labels)
    if scored is None:
        found = {span.label_ for doc in predicted for span in get_spans(doc, guess_getter)}
        scored = list(dict.fromkeys([*predictable, *sorted(support), *sorted(found)]))
    if scorers is None:
        scorers = {name: metric_scorer(name, overlap_threshold, **getters) for name in metrics}
        added |= token_tag_scorers(nlp)
        if predicts_relations and _has_relations(examples):
            items = None if relations is None else parse_relations(relations, "relations")
            names = None if items is None else [item.label for item in items]
            added["relations"] = RelationScorer(primary_key(gold_getter), names)
        added |= of_tasks
    pairs = [Example(doc, eg.reference) for doc, eg in zip(predicted, examples, strict=True)]
    chosen = {name: with_labels(scorer, scored) for name, scorer in {**scorers, **added}.items()}
    missed = [label for label in scored if predictable and label not in predictable and label in support]
    return {
        "tokens": tokens,
        **{name: plain(scorer(pairs)) for name, scorer in chosen.items()},
        "labels": scored,
        "unasked_labels": {label: support[label] for label in missed},
        "left_out": {label: count for label, count in sorted(support.items()) if label not in scored},
        "threshold": float(thresholds.pop()) if len(thresholds) == 1 else None,
        **({} if negatives is None else {"negatives": negatives}),
        **speed,
    }


def metric_scorer(name: str, overlap_threshold: float, **options: Any) -> SpanScorer:
    """Return the scorer of a built-in metric, with the options of `SpanScorer`."""
    if name == "overlap":
        options["threshold"] = overlap_threshold
    return METRICS[name](**options)


def default_scorers_for(nlp: Language, examples: Sequence[Example]) -> dict[str, ExampleScorer]:
    """Return the default scorers of training: exact spans, and relations if there are any.

    Parameters
    ----------
    nlp
        The pipeline.
    examples
        Gold documents.

    Returns
    -------
    dict[str, ExampleScorer]
        ``ner``, and ``relations`` if the model predicts relations and the data has gold relations; ``tags`` in place of
        ``ner`` for a ``token_classifier`` of token attributes.
    """
    getter = gold_span_getter(nlp)
    scorers = token_tag_scorers(nlp)
    if not scorers or gliner_components(nlp):
        scorers["ner"] = ExactScorer(getter, prediction_getter(nlp))
    models = [component.gliner for component in gliner_components(nlp)]
    finders = [block for model in models for block in (model.relation_layer, model.relation_finder)]
    if any(block is not None for block in finders) and _has_relations(examples):
        scorers["relations"] = RelationScorer(primary_key(getter))
    return scorers | task_scorers(nlp, examples)


def task_scorers(
    nlp: Language, examples: Sequence[Example], only_own: Collection[str] = ()
) -> dict[str, ExampleScorer]:
    """Return the scorers ``classes`` and ``records``, where the pipeline predicts and the data has them.

    Parameters
    ----------
    nlp
        The pipeline.
    examples
        Gold documents.
    only_own
        ``classes`` or ``records``, to score those of the component only and no others of the data.
    """
    scorers: dict[str, ExampleScorer] = {}
    for component in gliner_components(nlp):
        model = component.gliner
        items = getattr(component, "class_items", ())
        tasks = {item.name: [label.label for label in item.labels] for item in items}
        if getattr(model, "classifier", None) is not None and any(
            gold_classes(example.reference, tasks) for example in examples
        ):
            scorers["classes"] = ClassScorer(tasks, list(tasks) if "classes" in only_own else None)
        if getattr(model, "record_finder", None) is not None and any(
            RECORDS_KEY in example.reference.user_data for example in examples
        ):
            kinds = [item.name for item in getattr(component, "record_items", ())]
            scorers["records"] = RecordScorer(kinds=kinds if "records" in only_own else None)
    return scorers


def gold_span_getter(nlp: Language) -> SpanSetter:
    """Return where the gold spans of a pipeline are read: as its component says, or ``"gliner"``."""
    for component in [*gliner_components(nlp), *tagging_components(nlp)]:
        places: SpanSetter = getattr(component, "gold_spans_key", None) or component.spans_key
        return places
    return "gliner"


def at_least_one(examples: Iterable[Example]) -> list[Example]:
    """Return the examples as a list.

    Raises
    ------
    DataError
        If there are none.
    """
    found = list(examples)
    if not found:
        raise DataError(
            "evaluation data:", "has no document", "at least one", "Check the path and the reader"
        )
    return found


def unannotated_docs(nlp: Language, examples: Iterable[Example], raw: bool = False) -> list[Doc]:
    """Return new documents with the words of the examples, or with the pipeline's own if `raw`, and no annotation."""
    if raw:
        return list(raw_docs(nlp, [eg.predicted for eg in examples]))
    return [
        Doc(
            nlp.vocab,
            words=[token.text for token in eg.predicted],
            spaces=[bool(token.whitespace_) for token in eg.predicted],
        )
        for eg in examples
    ]


def plain(value: Any) -> Any:
    """Convert numpy numbers and tuples inside a result to JSON types."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value


def _check_names(
    scorers: Mapping[str, ExampleScorer] | None, metrics: Sequence[str], added: Iterable[str]
) -> None:
    for name in metrics if scorers is None else ():
        if name not in METRICS:
            raise ConfigError("metrics", f"contains {name!r}", ", ".join(METRICS))
    for name in set(scorers or ()) & {*FACTS, *added}:
        raise ConfigError(f"scorers.{name}", "has the name of another entry of the result", "any other name")


def token_tag_scorers(nlp: Language) -> dict[str, ExampleScorer]:
    """Return the scorer of a ``token_classifier`` of token attributes, under ``tags``; empty without one."""
    taggers = [component for component in tagging_components(nlp) if component.target != "spans"]
    return {"tags": taggers[0].default_scorer()} if taggers else {}


def _has_relations(examples: Iterable[Example]) -> bool:
    """Say whether gold relations are annotated; an empty list is an annotation."""
    return any(has_relations(example.reference) for example in examples)


def _predict(
    nlp: Language, docs: Sequence[Doc], batch_size: int | None, n_process: int
) -> tuple[list[Doc], dict[str, Any]]:
    """Return the predicted documents, and the speed of the pipeline."""
    start, cpu_start = perf_counter(), process_time()
    predicted: list[Doc] = []
    with closing(annotate(nlp, docs, batch_size=batch_size, n_process=n_process)) as results:
        for number, result in enumerate(results, 1):
            if not isinstance(result, Doc):
                result.raise_for(f"document {number}", "Remove it from the data")
            predicted.append(result)
    seconds, cpu_seconds = max(perf_counter() - start, 1e-9), max(process_time() - cpu_start, 1e-9)
    words = sum(len(doc) for doc in predicted)
    return predicted, {
        "docs": len(predicted),
        "words": words,
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "docs_per_second": len(predicted) / seconds,
        "words_per_second": words / seconds,
    }
