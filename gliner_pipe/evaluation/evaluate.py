"""Measure a pipeline on annotated examples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from time import perf_counter, process_time
from typing import Any

import numpy as np
from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example

from gliner_pipe.data.annotations import SpanSetter, supervision
from gliner_pipe.errors import ConfigError, DataError
from gliner_pipe.evaluation.label_sets import (
    ask_sampled,
    fresh_docs,
    labels_to_ask,
    own_items,
    own_labels,
    relations_to_ask,
    unseen_of,
)
from gliner_pipe.metrics.alignment import SpanGetter, get_spans, prediction_getter
from gliner_pipe.metrics.base import ExampleScorer, with_labels
from gliner_pipe.metrics.confusion import make_confusion
from gliner_pipe.metrics.relations import make_relations
from gliner_pipe.metrics.spans import DEFAULT_METRICS, METRICS
from gliner_pipe.metrics.zero_shot import make_zero_shot
from gliner_pipe.pipeline.labels import parse_labels, parse_relations
from gliner_pipe.pipeline.overrides import (
    gliner_components,
    override,
    tagging_components,
    thresholded_components,
)
from gliner_pipe.pipeline.stream import annotate

#: Keys of the result that are not scores.
FACTS = (
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
) -> dict[str, Any]:
    """Predict on copies of the examples' words and score the result.

    The pipeline sees words and nothing else: no gold spans, and unless `negatives` is given no gold labels of a
    document. The label set is the same for every document and stated in the result. With `labels`, these are asked for
    and scored. Without, the component is asked for its own labels, or for all labels of the gold data if it has none of
    its own; scored are the labels asked for, those of the gold data and any others that were predicted. Relations
    are treated likewise, where the pipeline finds some and the data says something about them.

    Parameters
    ----------
    nlp
        The pipeline; any that writes ``doc.spans`` or ``doc.ents``. Its settings are as before in the end.
    examples
        Gold documents as ``example.reference``; the words come from ``example.predicted``.
    scorers
        Scorers by name; those of `metrics` when not given. Scorers of this package that state no labels get
        the label set in force.
    metrics
        Some of ``exact``, ``overlap``, ``token`` and ``seqeval``. Fewer of them take less time.
    labels
        Labels to ask for and to score (strings, or mappings with ``label``, ``description`` and
        ``threshold``); gold and predicted spans of others are left out.
    relations
        Relations to ask for and to score, likewise.
    threshold
        Least score of an entity, for this evaluation.
    batch_size
        Documents a batch; that of the pipeline when not given.
    n_process
        Processes.
    span_getter
        Where gold spans stand: a group's key, ``"ents"`` or a list. The ``gliner`` component's own when not
        given, ``"gliner"`` without such a component.
    predicted_getter
        Where the pipeline writes its spans; found out when not given.
    overlap_threshold
        Least Dice overlap of the built-in overlap score.
    confusion
        Also count which labels are taken for which others, under ``confusion`` (see `make_confusion`).
    unseen
        Labels that were not trained on. They are asked for, too, and scored apart from the others, under ``zero_shot``
        (see `make_zero_shot`).
    negatives
        Ask each document for the labels that it has and for as many others, drawn from the label set. The gold labels
        are given away, so the scores are higher than those of the whole label set: a question that others put, too, and
        an easier one.
    seed
        Of what is drawn.
    watch
        Called with the documents as predicted, in the order of the examples.

    Returns
    -------
    dict[str, Any]
        One entry a scorer, ``relations`` (see `make_relations`) where no scorers are given, the pipeline is
        asked for relations and something is known about those of the data; and ``labels``,
        ``unasked_labels`` (gold labels that the component is not asked for, with their number of spans: all
        missed), ``left_out`` (gold spans outside the label set, by label), ``threshold``, ``negatives`` where given,
        ``docs``, ``words``, ``seconds``, ``docs_per_second`` and ``words_per_second`` (wall time of ``nlp.pipe``
        alone), and ``cpu_seconds`` (CPU time of this process in it).

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
    support = Counter(span.label_ for eg in examples for span in get_spans(eg.reference, gold_getter))
    extra = _extra_scorers(gold_getter, guess_getter, confusion, unseen)
    _check_names(scorers, metrics, extra)
    new = unseen_of({**(scorers or {}), **extra}, labels)
    asking = labels_to_ask(nlp, labels, support, new, all_gold=negatives is not None)
    ties = relations_to_ask(nlp, relations, examples)
    docs = fresh_docs(nlp, examples)
    with override(nlp, labels=asking, relations=ties, threshold=threshold):
        used_threshold, asked = _threshold(nlp), own_labels(nlp)
        relates = any(component.relations for component in gliner_components(nlp))
        if negatives is not None:
            gold = ({span.label_ for span in get_spans(eg.reference, gold_getter)} for eg in examples)
            ask_sampled(nlp, docs, gold, own_items(nlp), negatives, seed)
        predicted, seconds, cpu_seconds = _predict(nlp, docs, batch_size, n_process)
    if watch is not None:
        watch(predicted)
    scored = _scored_labels(labels, asked, support, predicted, guess_getter)
    if scorers is None:
        scorers = default_scorers(gold_getter, guess_getter, None, overlap_threshold, metrics)
        extra |= token_scorers(nlp)
        if relates and states_relations(examples):
            extra["relations"] = _relation_scorer(gold_getter, relations)
    pairs = [Example(doc, eg.reference) for doc, eg in zip(predicted, examples, strict=True)]
    chosen = {name: with_labels(scorer, scored) for name, scorer in {**scorers, **extra}.items()}
    return {
        **{name: plain(scorer(pairs)) for name, scorer in chosen.items()},
        **_label_facts(scored, asked, support),
        "threshold": used_threshold,
        **({} if negatives is None else {"negatives": negatives}),
        **_speed_facts(predicted, seconds, cpu_seconds),
    }


def default_scorers(
    gold_getter: SpanGetter,
    predicted_getter: SpanGetter | None = None,
    labels: Sequence[str] | None = None,
    overlap_threshold: float = 0.5,
    metrics: Sequence[str] = DEFAULT_METRICS,
) -> dict[str, ExampleScorer]:
    """Make the built-in scorers.

    Parameters
    ----------
    gold_getter
        Where gold spans stand.
    predicted_getter
        Where predicted spans stand, if elsewhere.
    labels
        The fixed set of labels.
    overlap_threshold
        Least Dice overlap of the overlap score.
    metrics
        Some of ``exact``, ``overlap``, ``token`` and ``seqeval``.

    Returns
    -------
    dict[str, ExampleScorer]
        The scorers by metric.
    """
    scorers = {}
    for name in metrics:
        extra = {"threshold": overlap_threshold} if name == "overlap" else {}
        scorers[name] = METRICS[name](
            span_getter=gold_getter, predicted_getter=predicted_getter, labels=labels, **extra
        )
    return scorers


def default_scorers_for(nlp: Language, examples: Iterable[Example]) -> dict[str, ExampleScorer]:
    """Make the scorers of a training that names none: exact spans, and relations where there are some to be found.

    Parameters
    ----------
    nlp
        The pipeline.
    examples
        Gold documents.

    Returns
    -------
    dict[str, ExampleScorer]
        ``ner``, and ``relations`` if the model of the pipeline finds relations and the data says something about them;
        ``tags`` in place of ``ner`` for a ``token_classifier`` that tags tokens.
    """
    getter = gold_span_getter(nlp)
    scorers = token_scorers(nlp)
    if not scorers or gliner_components(nlp):
        scorers["ner"] = METRICS["exact"](span_getter=getter, predicted_getter=prediction_getter(nlp))
    finds = any(component.gliner.relation_layer is not None for component in gliner_components(nlp))
    if finds and states_relations(examples):
        scorers["relations"] = make_relations(getter)
    return scorers


def token_scorers(nlp: Language) -> dict[str, ExampleScorer]:
    """Make the scorer of a ``token_classifier`` that tags tokens, under ``tags``; nothing without such a component."""
    taggers = [component for component in tagging_components(nlp) if component.target != "spans"]
    return {"tags": taggers[0].default_scorer()} if taggers else {}


def states_relations(examples: Iterable[Example]) -> bool:
    """Say whether anything is known about relations in gold documents; that there are none is knowledge."""
    return any("relations" in supervision(example.reference) for example in examples)


def gold_span_getter(nlp: Language) -> SpanSetter:
    """Say where the gold spans for a pipeline stand: its component's own places, or ``"gliner"``."""
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


def plain(value: Any) -> Any:
    """Turn numpy numbers and tuples inside a result into what JSON holds."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value


def _extra_scorers(
    gold_getter: SpanGetter, guess_getter: SpanGetter, confusion: bool, unseen: Sequence[str] | None
) -> dict[str, ExampleScorer]:
    """Scorers that are asked for by options of their own."""
    getters: dict[str, Any] = {"span_getter": gold_getter, "predicted_getter": guess_getter}
    scorers: dict[str, ExampleScorer] = {}
    if confusion:
        scorers["confusion"] = make_confusion(**getters)
    if unseen is not None:
        scorers["zero_shot"] = make_zero_shot(list(unseen), **getters)
    return scorers


def _check_names(
    scorers: Mapping[str, ExampleScorer] | None, metrics: Sequence[str], extra: Iterable[str]
) -> None:
    for name in metrics if scorers is None else ():
        if name not in METRICS:
            raise ConfigError("metrics", f"names {name!r}", ", ".join(METRICS))
    for name in set(scorers or ()) & {*FACTS, *extra}:
        raise ConfigError(f"scorers.{name}", "has the name of another entry of the result", "any other name")


def _relation_scorer(gold_getter: SpanGetter, relations: Sequence[Any] | None) -> ExampleScorer:
    labels = None if relations is None else [item.label for item in parse_relations(relations, "relations")]
    return make_relations(gold_getter if isinstance(gold_getter, str) else next(iter(gold_getter)), labels)


def _threshold(nlp: Language) -> float | None:
    thresholds = {component.threshold for component in thresholded_components(nlp)}
    return float(thresholds.pop()) if len(thresholds) == 1 else None


def _predict(
    nlp: Language, docs: Sequence[Doc], batch_size: int | None, n_process: int
) -> tuple[list[Doc], float, float]:
    """Predicted documents, and the seconds that the pipeline took: of wall time, and of CPU time of this process."""
    start, cpu_start = perf_counter(), process_time()
    predicted: list[Doc] = []
    with closing(annotate(nlp, docs, batch_size=batch_size, n_process=n_process)) as results:
        for number, result in enumerate(results, 1):
            if not isinstance(result, Doc):
                result.raise_for(f"document {number}", "Take it out of the data")
            predicted.append(result)
    return predicted, max(perf_counter() - start, 1e-9), max(process_time() - cpu_start, 1e-9)


def _scored_labels(
    labels: Sequence[Any] | None,
    asked: Sequence[str],
    support: Mapping[str, int],
    predicted: Iterable[Doc],
    guess_getter: SpanGetter,
) -> list[str]:
    """The label set: as given, else all that was asked for, stands in the gold data or was predicted."""
    if labels is not None:
        return [item.label for item in parse_labels(labels, "labels")]
    seen = {span.label_ for doc in predicted for span in get_spans(doc, guess_getter)}
    return list(dict.fromkeys([*asked, *sorted(support), *sorted(seen)]))


def _label_facts(scored: Sequence[str], asked: Sequence[str], support: Mapping[str, int]) -> dict[str, Any]:
    """What the scores are about, and which gold spans could not be found or were left out."""
    known = set(scored)
    return {
        "labels": list(scored),
        "unasked_labels": {
            label: support[label] for label in scored if asked and label not in asked and label in support
        },
        "left_out": {label: count for label, count in sorted(support.items()) if label not in known},
    }


def _speed_facts(predicted: Sequence[Doc], seconds: float, cpu_seconds: float) -> dict[str, Any]:
    words = sum(len(doc) for doc in predicted)
    return {
        "docs": len(predicted),
        "words": words,
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "docs_per_second": len(predicted) / seconds,
        "words_per_second": words / seconds,
    }
