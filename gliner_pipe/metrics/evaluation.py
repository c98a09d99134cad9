"""Measure a pipeline on annotated examples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from time import perf_counter
from typing import Any

import numpy as np
from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example

from gliner_pipe.data.annotations import supervision
from gliner_pipe.errors import ConfigError, DataError
from gliner_pipe.labels import parse_labels, parse_relations
from gliner_pipe.metrics.getters import SpanGetter, get_spans, prediction_getter
from gliner_pipe.metrics.relations import make_relations
from gliner_pipe.metrics.spans import METRICS, ExampleScorer, with_labels
from gliner_pipe.overrides import gliner_components, override

#: Keys of the result that are not scores.
FACTS = (
    "labels",
    "unasked_labels",
    "left_out",
    "threshold",
    "docs",
    "words",
    "seconds",
    "docs_per_second",
    "words_per_second",
)


def evaluate_pipeline(
    nlp: Language,
    examples: Iterable[Example],
    *,
    scorers: Mapping[str, ExampleScorer] | None = None,
    metrics: Sequence[str] = tuple(METRICS),
    labels: Sequence[Any] | None = None,
    relations: Sequence[Any] | None = None,
    threshold: float | None = None,
    batch_size: int | None = None,
    n_process: int = 1,
    span_getter: SpanGetter | None = None,
    predicted_getter: SpanGetter | None = None,
    overlap_threshold: float = 0.5,
) -> dict[str, Any]:
    """Predict on copies of the examples' words and score the result.

    The pipeline sees words and nothing else: no gold spans, no gold labels of a document. The label set is
    the same for every document and stated in the result. With `labels`, these are asked for and scored.
    Without, the component is asked for its own labels, or for all labels of the gold data if it has none of
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
        Some of ``exact``, ``overlap`` and ``token``. Fewer of them take less time.
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

    Returns
    -------
    dict[str, Any]
        One entry a scorer, ``relations`` (see `make_relations`) where no scorers are given, the pipeline is
        asked for relations and something is known about those of the data; and ``labels``,
        ``unasked_labels`` (gold labels that the component is not asked for, with their number of spans: all
        missed), ``left_out`` (gold spans outside the label set, by label), ``threshold``, ``docs``,
        ``words``, ``seconds``, ``docs_per_second`` and ``words_per_second`` (wall time of ``nlp.pipe`` alone).

    Raises
    ------
    DataError
        If there are no examples.
    ConfigError
        If a setting does not fit the pipeline, or a scorer has the name of another entry.
    """
    examples = list(examples)
    if not examples:
        raise DataError(
            "evaluation data:", "has no document", "at least one", "Check the path and the reader"
        )
    gold_getter = gold_span_getter(nlp) if span_getter is None else span_getter
    guess_getter = prediction_getter(nlp) if predicted_getter is None else predicted_getter
    support = Counter(span.label_ for eg in examples for span in get_spans(eg.reference, gold_getter))
    _check_names(scorers, metrics)
    ties = _relations_to_ask(nlp, relations, examples)
    with override(nlp, labels=_labels_to_ask(nlp, labels, support), relations=ties, threshold=threshold):
        used_threshold, asked = _threshold(nlp), _own_labels(nlp)
        relates = any(component.relations for component in gliner_components(nlp))
        predicted, seconds = _predict(nlp, examples, batch_size, n_process)
    if labels is None:
        seen = {span.label_ for doc in predicted for span in get_spans(doc, guess_getter)}
        scored = list(dict.fromkeys([*asked, *sorted(support), *sorted(seen)]))
    else:
        scored = [item.label for item in parse_labels(labels, "labels")]
    related: ExampleScorer | None = None
    if scorers is None:
        scorers = default_scorers(gold_getter, guess_getter, None, overlap_threshold, metrics)
        tied = None if relations is None else [item.label for item in parse_relations(relations, "relations")]
        if relates and any("relations" in supervision(eg.reference) for eg in examples):
            key = gold_getter if isinstance(gold_getter, str) else next(iter(gold_getter))
            related = make_relations(key, tied)
    scorers = {name: with_labels(scorer, scored) for name, scorer in scorers.items()}
    pairs = [Example(doc, eg.reference) for doc, eg in zip(predicted, examples, strict=True)]
    words = sum(len(doc) for doc in predicted)
    facts = {
        "labels": scored,
        "unasked_labels": {
            label: support[label] for label in scored if asked and label not in asked and support[label]
        },
        "left_out": {label: count for label, count in sorted(support.items()) if label not in set(scored)},
        "threshold": used_threshold,
        "docs": len(predicted),
        "words": words,
        "seconds": seconds,
        "docs_per_second": len(predicted) / seconds,
        "words_per_second": words / seconds,
    }
    scores = {name: plain(scorer(pairs)) for name, scorer in scorers.items()}
    if related is not None:
        scores["relations"] = plain(related(pairs))
    return {**scores, **facts}


def default_scorers(
    gold_getter: SpanGetter,
    predicted_getter: SpanGetter | None = None,
    labels: Sequence[str] | None = None,
    overlap_threshold: float = 0.5,
    metrics: Sequence[str] = tuple(METRICS),
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
        Some of ``exact``, ``overlap`` and ``token``.

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


def gold_span_getter(nlp: Language) -> str:
    """Say where the gold spans for a pipeline stand: the ``gliner`` component's own key, or ``"gliner"``."""
    for component in gliner_components(nlp):
        return str(getattr(component, "gold_spans_key", None) or component.spans_key)
    return "gliner"


def plain(value: Any) -> Any:
    """Turn numpy numbers and tuples inside a result into what JSON holds."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value


def _check_names(scorers: Mapping[str, ExampleScorer] | None, metrics: Sequence[str]) -> None:
    for name in metrics if scorers is None else ():
        if name not in METRICS:
            raise ConfigError("metrics", f"names {name!r}", ", ".join(METRICS))
    for name in set(scorers or ()) & set(FACTS):
        raise ConfigError(f"scorers.{name}", "has the name of another entry of the result", "any other name")


def _labels_to_ask(
    nlp: Language, labels: Sequence[Any] | None, support: Counter[str]
) -> Sequence[Any] | None:
    """Labels to set on the component; None to leave it alone."""
    if labels is None and gliner_components(nlp) and not _own_labels(nlp):
        return sorted(support) or None
    return labels


def _relations_to_ask(
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


def _own_labels(nlp: Language) -> list[str]:
    return list(dict.fromkeys(label for component in gliner_components(nlp) for label in component.labels))


def _threshold(nlp: Language) -> float | None:
    thresholds = {component.threshold for component in gliner_components(nlp)}
    return float(thresholds.pop()) if len(thresholds) == 1 else None


def _predict(
    nlp: Language, examples: Sequence[Example], batch_size: int | None, n_process: int
) -> tuple[list[Doc], float]:
    """Fresh predicted documents and the seconds that the pipeline took."""
    fresh = [
        Doc(
            nlp.vocab,
            words=[token.text for token in eg.predicted],
            spaces=[bool(token.whitespace_) for token in eg.predicted],
        )
        for eg in examples
    ]
    start = perf_counter()
    predicted = list(nlp.pipe(fresh, batch_size=batch_size or nlp.batch_size, n_process=n_process))
    return predicted, max(perf_counter() - start, 1e-9)
