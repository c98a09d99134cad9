"""Compares a pipeline at two precisions: scores, entities, relations and speed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from statistics import median
from typing import Any

from rich.console import RenderableType
from rich.text import Text
from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example

from gliner_pipe.data.relations import get_relations
from gliner_pipe.data.token_targets import read_values
from gliner_pipe.errors import ConfigError
from gliner_pipe.evaluation.evaluate import at_least_one, evaluate_pipeline
from gliner_pipe.evaluation.label_sets import component_labels
from gliner_pipe.evaluation.report import LABEL_SUMMARIES, percent
from gliner_pipe.evaluation.tables import NumberTable
from gliner_pipe.metrics.alignment import SpanGetter, get_scores, get_spans, prediction_getter
from gliner_pipe.modeling.precision import Precision
from gliner_pipe.pipeline.overrides import tagging_components, the_component
from gliner_pipe.util.plurals import number_of

#: Maximum number of documents in the timed rounds.
TIMED_DOCS = 200

#: Predicted entities or relations of one document, with their scores if any.
_Found = dict[tuple[Any, ...], float | None]


def compare_precision(
    nlp: Language,
    examples: Sequence[Example],
    reference: Precision | str,
    *,
    rounds: int = 3,
    **options: Any,
) -> dict[str, Any]:
    """Score a pipeline at its precision and at a reference precision, and compare the results.

    Parameters
    ----------
    nlp
        The pipeline, with one ``gliner`` or ``token_classifier`` component. Its settings are restored in the end.
    examples
        Gold documents.
    reference
        The reference precision: ``"fp32"``, ``"int8"``, ``"bf16+int8"`` ...
    rounds
        How often each precision is timed, alternating, on at most 200 of the documents, in this process.
    **options
        Options of `evaluate_pipeline`.

    Returns
    -------
    dict[str, Any]
        The result of `evaluate_pipeline` at the pipeline's own precision, and ``comparison``:

        - ``precision`` and ``reference``: short forms of both;
        - ``scores``: for each scorer and row ``p``, ``r`` and ``f``, each a list of the score, the reference score and
          their difference;
        - ``entities`` (and ``relations``, if there are any): ``found`` and ``reference``, their numbers; ``added`` and
          ``lost``, how many only one of both predicts; ``changed``, the sum of these; ``largest_score_difference`` and
          ``mean_score_difference`` (absolute) of those that both predict;
        - ``cpu``: process CPU ``seconds`` and ``reference_seconds``, medians of the rounds, ``speedup`` (median of
          their ratios), ``rounds`` and ``docs``.

    Raises
    ------
    ConfigError
        If the pipeline has no such component, or both precisions are equal.
    """
    component = the_component(nlp, ["compare"])
    here = Precision.of(component.cfg)
    there = Precision.parse(reference, "compare") if isinstance(reference, str) else reference
    if str(here) == str(there):
        raise ConfigError(
            "compare",
            f"is {str(there)!r}, the pipeline's own precision",
            "another precision",
            "Set --dtype or --quantize",
        )
    examples = at_least_one(examples)
    docs: list[Doc] = []
    reference_docs: list[Doc] = []
    scores = evaluate_pipeline(nlp, examples, watch=docs.extend, **options)
    with _running_in(component, there):
        reference_scores = evaluate_pipeline(nlp, examples, watch=reference_docs.extend, **options)
    entities_of = _entity_reader(nlp, options.get("predicted_getter") or prediction_getter(nlp))
    relations = [list(map(_relations, some)) for some in (docs, reference_docs)]
    comparison = {
        "precision": str(here),
        "reference": str(there),
        "scores": _score_differences(scores, reference_scores),
        "entities": _differences(*(list(map(entities_of, some)) for some in (docs, reference_docs))),
        **({"relations": _differences(*relations)} if any(map(any, relations)) else {}),
        "cpu": _times(nlp, component, there, examples, rounds, _timed_options(nlp, options, scores)),
    }
    return {**scores, "comparison": comparison}


@contextmanager
def _running_in(component: Any, precision: Precision) -> Iterator[None]:
    before = Precision.of(component.cfg)
    component.cfg = {**component.cfg, **precision._asdict()}
    try:
        component.place()
        yield
    finally:
        component.cfg = {**component.cfg, **before._asdict()}
        component.place()


def _timed_options(nlp: Language, options: Mapping[str, Any], scores: Mapping[str, Any]) -> dict[str, Any]:
    """Return options that give a sample of the documents the same label set as all documents."""
    timed = {**options, "n_process": 1}
    if options.get("labels") is None and not component_labels(nlp) and not tagging_components(nlp):
        timed["labels"] = scores["labels"]
    return timed


def _times(
    nlp: Language,
    component: Any,
    there: Precision,
    examples: Sequence[Example],
    rounds: int,
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """Measure the process CPU time of both precisions, alternating."""
    sample = examples[:: -(-len(examples) // TIMED_DOCS)]
    here = Precision.of(component.cfg)
    seconds: dict[Precision, list[float]] = {here: [], there: []}
    for _ in range(rounds):
        for precision, taken in seconds.items():
            with _running_in(component, precision):
                evaluate_pipeline(nlp, sample[:2], **options)  # warm up
                taken.append(evaluate_pipeline(nlp, sample, **options)["cpu_seconds"])
    pairs = list(zip(seconds[here], seconds[there], strict=True))
    return {
        "seconds": median(seconds[here]),
        "reference_seconds": median(seconds[there]),
        "speedup": median(other / mine for mine, other in pairs),
        "rounds": rounds,
        "docs": len(sample),
    }


def _entity_reader(nlp: Language, getter: SpanGetter) -> Callable[[Doc], _Found]:
    """Return a function that reads the entities of a document, or its token tags if a component sets these."""
    targets = [component.target for component in tagging_components(nlp) if component.target != "spans"]

    def read(doc: Doc) -> _Found:
        if targets:
            tags = enumerate(read_values(doc, targets[0], None))
            return {(value, place): None for place, value in tags if value is not None}
        spans = zip(get_spans(doc, getter), get_scores(doc, getter), strict=True)
        return {(span.label_, span.start, span.end): score for span, score in spans}

    return read


def _relations(doc: Doc) -> _Found:
    return {
        (one.label, one.head.start, one.head.end, one.tail.start, one.tail.end): one.score
        for one in get_relations(doc)
    }


def _differences(mine: Sequence[_Found], others: Sequence[_Found]) -> dict[str, Any]:
    """Count what only one of both predicts, and measure the score differences of the rest."""
    docs = list(zip(mine, others, strict=True))
    added = sum(len(left.keys() - right.keys()) for left, right in docs)
    lost = sum(len(right.keys() - left.keys()) for left, right in docs)
    pairs = ((left[one], right[one]) for left, right in docs for one in left.keys() & right.keys())
    apart = [abs(one - other) for one, other in pairs if one is not None and other is not None]
    return {
        "found": sum(map(len, mine)),
        "reference": sum(map(len, others)),
        "added": added,
        "lost": lost,
        "changed": added + lost,
        "largest_score_difference": max(apart) if apart else None,
        "mean_score_difference": sum(apart) / len(apart) if apart else None,
    }


def _score_differences(mine: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
    """Return the rows with ``p``, ``r`` and ``f`` by scorer; nested scores are named ``scorer.part``."""
    found: dict[str, Any] = {}
    for name, scorer in mine.items():
        if not isinstance(scorer, Mapping) or not isinstance(others.get(name), Mapping):
            continue
        rows = {
            row: {key: _difference(value[key], others[name].get(row, {}).get(key)) for key in "prf"}
            for row, value in scorer.items()
            if isinstance(value, Mapping) and value.keys() >= set("prf")
        }
        if rows:
            found[name] = rows
        parts = _score_differences(scorer, others[name])
        found |= {f"{name}.{part}": value for part, value in parts.items()}
    return found


def _difference(one: float | None, other: float | None) -> list[float | None]:
    return [one, other, None if one is None or other is None else one - other]


def comparison_tables(comparison: Mapping[str, Any]) -> Iterator[RenderableType]:
    """Yield a table for each scorer, then the changes, then the speed.

    Parameters
    ----------
    comparison
        ``comparison`` in the result of `compare_precision`.
    """
    here, there = comparison["precision"], comparison["reference"]
    for scorer, rows in comparison["scores"].items():
        columns = [f"{part}\n{column}" for part in ("P", "R", "F1") for column in (here, there, "+/-")]
        table = NumberTable(f"{scorer}: {here} and {there}", "label", columns)
        for row, values in rows.items():
            cells = [percent(value, sign=at == 2) for key in "prf" for at, value in enumerate(values[key])]
            table.add_row(row, *cells, style="bold" if row in LABEL_SUMMARIES else "")
        yield table
    for kind in ("entities", "relations"):
        if kind in comparison:
            yield Text(_changes(kind, comparison[kind], here, there))
    cpu = comparison["cpu"]
    yield Text(
        f"{here} takes {cpu['seconds']:.2f} CPU seconds, {there} {cpu['reference_seconds']:.2f} for "
        f"{number_of(cpu['docs'], 'document')}: {cpu['speedup']:.2f} times as fast (median of {cpu['rounds']} "
        "alternating rounds)"
    )


def _changes(kind: str, found: Mapping[str, Any], here: str, there: str) -> str:
    text = (
        f"{kind}: {found['found']} in {here}, {found['reference']} in {there}; "
        f"{found['changed']} changed ({found['added']} added, {found['lost']} lost)"
    )
    if found["largest_score_difference"] is None:
        return text
    largest, mean = found["largest_score_difference"], found["mean_score_difference"]
    return f"{text}; scores differ by {largest:.4f} at most, {mean:.5f} on average"
