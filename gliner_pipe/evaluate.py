"""Score a pipeline on annotated data: ``python -m gliner_pipe.evaluate --help``."""

if __name__ == "__main__":  # before the imports below, which --help does not need
    from gliner_pipe.cli.commands import start

    start("evaluate")

import json
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example

from gliner_pipe.cli.application import Cli
from gliner_pipe.cli.options import command_line
from gliner_pipe.data.annotations import SpanSetter, supervision
from gliner_pipe.data.checks import count_labels, refuse_no_gold
from gliner_pipe.data.detect import ReaderLike, reader_of_path, reader_of_records
from gliner_pipe.data.label_sets import alike, counted, named
from gliner_pipe.data.readers.json_records import are_records
from gliner_pipe.data.token_targets import SPANS
from gliner_pipe.errors import ConfigError, DataError
from gliner_pipe.evaluation.candidates import scores_ignore_threshold
from gliner_pipe.evaluation.compare import compare_precision, comparison_tables
from gliner_pipe.evaluation.evaluate import evaluate_pipeline, gold_span_getter, token_tag_scorers
from gliner_pipe.evaluation.label_sets import component_labels
from gliner_pipe.evaluation.report import all_tables
from gliner_pipe.evaluation.thresholds import apply_thresholds
from gliner_pipe.evaluation.thresholds import find_threshold as search_threshold
from gliner_pipe.metrics.alignment import SpanGetter, check_getter, check_places, get_spans, prediction_getter
from gliner_pipe.metrics.spans import METRICS
from gliner_pipe.modeling.block import described
from gliner_pipe.pipeline.build import pipeline_of
from gliner_pipe.pipeline.labels import parse_labels, split_labels
from gliner_pipe.pipeline.overrides import gliner_components, override, tagging_components
from gliner_pipe.pipeline.reports import reporting
from gliner_pipe.registry import registry
from gliner_pipe.util.atomic import save_pipeline, write_json
from gliner_pipe.util.console import console_note, says_what_is_unwritten
from gliner_pipe.util.ranges import Amount, Count, Integer, Number, Processes, Seed

logger = logging.getLogger("gliner_pipe")
#: Names of the words that scores are measured on.
MEASURED_ON = {
    "data": "the words of the data",
    "pipeline": "the pipeline's own words of the running text",
}

app = Cli()


@app.command(name="evaluate", registry=registry)
@says_what_is_unwritten("output", "html", "save")
def evaluate(
    *,
    pipeline: Any,
    data: Any,
    reader: str = "auto",
    labels: str | list[Any] | None = None,
    relations: str | list[Any] | None = None,
    classes: str | dict[str, Any] | list[Any] | None = None,
    records: str | dict[str, Any] | list[Any] | None = None,
    threshold: Number | None = None,
    metrics: str | list[str] | dict[str, Any] = "exact,overlap,token",
    overlap_threshold: Number = 0.5,
    confusion: bool = False,
    unseen: str | list[str] | None = None,
    negatives: Amount | None = None,
    find_threshold: bool = False,
    per_label: bool = False,
    threshold_metric: str = "exact",
    threshold_steps: Integer | None = None,
    save: Path | None = None,
    span_getter: str | list[str] | None = None,
    predicted_getter: str | list[str] | None = None,
    tokens: Literal["data", "pipeline", "both"] = "data",
    output: Path | None = None,
    html: Path | None = None,
    batch_size: Count | None = None,
    n_process: Processes = 1,
    device: str | None = None,
    dtype: str | None = None,
    quantize: str | None = None,
    compile: bool | None = None,
    compare: str | None = None,
    seed: Seed = 0,
    show: bool = True,
    trust_remote_code: bool = False,
) -> dict[str, Any]:
    """Score a pipeline on annotated data.

    Parameters
    ----------
    pipeline
        Folder or package of a spaCy pipeline, or an ``[nlp]`` section.
    data
        File, folder or pattern of annotated data. In a config also a reader, in Python also a list of examples.
    reader
        Name of a reader, such as ``gliner_json`` or ``conll``; ``spacy`` for .spacy files; ``auto`` to detect it by
        file name and content.
    labels
        Labels to predict and to score: ``person,organization``, or a JSON list if a label contains a comma. By
        default the component's own labels, or all labels of the data if it has none.
    relations
        Relations to predict and to score, in the same form.
    classes
        Classifications to predict and to score, as in the component's config: ``{"tone": ["good", "bad"]}``; or names
        of some of its own, ``tone,topics``.
    records
        Records to predict and to score, likewise: ``{"product": ["name", "price"]}``.
    threshold
        Minimum score of an entity, from 0 to 1.
    metrics
        Any of ``exact,overlap,token,seqeval,errors``; in a config also a section of named scorers.
    overlap_threshold
        Minimum Dice overlap of a span that the overlap metric counts as correct.
    confusion
        Also compute the confusion matrix of labels.
    unseen
        Labels that were not trained on, in the form of ``labels``. They are predicted and scored separately.
    negatives
        Number of labels to predict in each document besides those it contains. Easier than predicting all labels.
    find_threshold
        First search the threshold with the best F1 on the data, set it on the pipeline and score with it.
    per_label
        With `find_threshold`: search one threshold per label too.
    threshold_metric
        With `find_threshold`: ``exact``, ``overlap`` or ``token``.
    threshold_steps
        With `find_threshold`: number of thresholds to try; by default all that make a difference.
    save
        With `find_threshold`: folder for the pipeline with its new thresholds.
    span_getter
        Source of gold spans: the key of a span group, or ``ents``. By default the component's own.
    predicted_getter
        Source of predicted spans. By default detected from the pipeline.
    tokens
        Words to predict on: those of the ``data``, those that the ``pipeline`` makes of the running text, as when it is
        used, or ``both``. Data of words have no text; theirs are joined as running text usually is.
    output
        JSON file for the scores.
    html
        HTML file for the scores, the confused labels, the threshold curve and the errors in their texts.
    batch_size
        Texts per batch.
    n_process
        Number of processes.
    device
        Device of the model, e.g. ``cpu`` or ``cuda:0``.
    dtype
        Precision of the model: ``fp32``, ``bf16`` or ``fp16``.
    quantize
        ``int8`` to quantize the linear layers of the text encoder, ``none`` not to.
    compile
        Whether torch compiles the text encoder.
    compare
        Also run at another precision, such as ``fp32``, ``int8`` or ``bf16+int8``, and report the differences.
    seed
        Seed of the labels that ``negatives`` draws.
    show
        Whether to print the score tables.
    trust_remote_code
        Consent to run Python code that comes with the pipeline's models. Read that code first.

    Returns
    -------
    dict[str, Any]
        See `evaluate_pipeline`; with `find_threshold` also ``thresholds``, see `ThresholdSearch`, and with `compare`
        ``comparison``, see `compare_precision`. With ``tokens = "both"`` also ``on_text``, the scores on the pipeline's
        own tokens.
    """
    _check_search(
        find_threshold,
        threshold,
        per_label=per_label,
        save=save,
        threshold_steps=threshold_steps,
        threshold_metric=None if threshold_metric == "exact" else threshold_metric,
    )
    if html is not None and compare is not None:
        raise ConfigError("html", "is set together with compare", "one of the two", "Remove one")
    name = str(pipeline) if isinstance(pipeline, (str, Path)) else ""
    pipeline = pipeline_of(pipeline, trust_remote_code)
    gold_getter = gold_span_getter(pipeline) if span_getter is None else span_getter
    check_places(gold_getter, "span_getter")
    names = [] if isinstance(metrics, Mapping) else _metric_names(metrics)
    asked = split_labels(labels)
    examples = read_examples(data, pipeline, reader=reader, span_setter=gold_getter)
    _check_gold(pipeline, examples, gold_getter)
    guess_getter = prediction_getter(pipeline) if predicted_getter is None else predicted_getter
    check_getter(pipeline, guess_getter, "predicted_getter")
    docs: list[Doc] = []
    found: dict[str, Any] = {}
    precision: dict[str, Any] = {"dtype": dtype, "quantize": quantize, "compile": compile}
    tell = partial(console_note, stderr=True) if show else (lambda _: None)
    with override(pipeline, device=device, **precision), reporting(pipeline, tell):
        if find_threshold:
            search = {"per_label": per_label, "metric": threshold_metric, "steps": threshold_steps}
            search |= {"span_getter": gold_getter, "overlap_threshold": overlap_threshold}
            found = _set_thresholds(pipeline, examples, labels=asked, batch_size=batch_size, **search)
        options: dict[str, Any] = {
            "scorers": metrics if isinstance(metrics, Mapping) else None,
            "metrics": names,
            "labels": asked,
            "relations": split_labels(relations),
            "classes": classes,
            "records": records,
            "threshold": threshold,
            "batch_size": batch_size,
            "n_process": n_process,
            "span_getter": gold_getter,
            "predicted_getter": predicted_getter,
            "overlap_threshold": overlap_threshold,
            "confusion": confusion,
            "unseen": split_labels(unseen, "unseen"),
            "negatives": negatives,
            "seed": seed,
            "tokens": "data" if tokens == "both" else tokens,
        }
        if compare is not None:
            scores = compare_precision(pipeline, examples, compare, **options)
        else:
            scores = evaluate_pipeline(pipeline, examples, **options, watch=docs.extend)
            predicted = Counter(span.label_ for doc in docs for span in get_spans(doc, guess_getter))
            _warn_of_labels(pipeline, count_labels(examples, gold_getter), predicted, asked)
        if tokens == "both":
            scores["on_text"] = evaluate_pipeline(pipeline, examples, **{**options, "tokens": "pipeline"})
        curve = found.get("thresholds")
        if html is not None and curve is None and negatives is None:
            curve = _curve(pipeline, examples, asked, gold_getter, batch_size)
    scores |= found
    if save is not None:
        save_pipeline(pipeline, save)
    if output is not None:
        write_json(output, scores)
    if html is not None:
        from gliner_pipe.evaluation.error_page import write_error_page

        places: dict[str, Any] = {"gold_getter": gold_getter, "predicted_getter": guess_getter}
        of = str(data) if isinstance(data, (str, Path)) else ""
        write_error_page(html, pipeline, examples, docs, scores, name=name, data=of, curve=curve, **places)
    if show:
        _print(scores)
        written = {"scores": output, "errors": html, "pipeline with the new thresholds": save}
        for what, path in written.items():
            if path is not None:
                console_note(f"{what}: {path}")
    return scores


def _curve(
    pipeline: Language, examples: Sequence[Example], labels: Any, getter: SpanGetter, batch_size: int | None
) -> dict[str, Any] | None:
    """Return the search of a threshold if one run of the pipeline gives it, else None."""
    components = gliner_components(pipeline)
    gold = count_labels(examples, getter)
    asked = None if labels is None else {item.label for item in parse_labels(labels, "labels")}
    if (
        len(components) != 1
        or not scores_ignore_threshold(components[0])
        or not (set(gold) & (asked or set(gold)))
    ):
        return None
    found = search_threshold(pipeline, examples, labels=labels, span_getter=getter, batch_size=batch_size)
    return found.to_dict()


def read_examples(
    data: Any, nlp: Language, *, reader: str = "auto", span_setter: SpanSetter = "gliner"
) -> list[Example]:
    """Read annotated data.

    Parameters
    ----------
    data
        A path or pattern; a list of records; a reader, which is called with the pipeline; or examples, which are
        returned unchanged.
    nlp
        Provides vocabulary and tokenizer.
    reader
        Name of a reader, or ``"auto"``.
    span_setter
        Target of the reader's gold spans.

    Returns
    -------
    list[Example]
        The examples.

    Raises
    ------
    DataError
        If the data cannot be read, or ``"auto"`` cannot detect the format.
    """
    if are_records(data):
        data = reader_of_records(data)
    if callable(data):
        return list(data(nlp))
    if not isinstance(data, (str, Path)):
        examples = list(data) if isinstance(data, Iterable) else [data]
        if any(not isinstance(one, Example) for one in examples):
            allowed = "a path, a list of records or of spaCy Examples, or a reader"
            raise ConfigError("data", f"is {described(data)}", allowed)
        return examples
    return list(_reader(data, reader, span_setter)(nlp))


def _reader(data: str | Path, name: str, span_setter: SpanSetter) -> ReaderLike:
    try:
        return reader_of_path(data, validation=True, name=name, span_setter=span_setter)
    except ConfigError as error:
        if error.where != "train.val_data":
            raise
        do = "Name the file of a split"
        raise DataError(str(data), error.found, error.allowed, do) from None


def _check_search(find_threshold: bool, threshold: float | None, **options: Any) -> None:
    """Refuse options that need `find_threshold`, or exclude it."""
    if find_threshold and threshold is not None:
        raise ConfigError("threshold", f"is {threshold}, and find_threshold is set", "one of the two")
    given = [name for name, value in options.items() if value is not None and value is not False]
    if given and not find_threshold:
        raise ConfigError(given[0], "is set without find_threshold", "with find_threshold", "Add it")


def _check_gold(nlp: Language, examples: Sequence[Example], getter: SpanGetter) -> None:
    """Refuse data whose entities are all in other span groups; warn about data that cannot be scored."""
    for component in tagging_components(nlp):
        if component.target != SPANS:
            gold = component.count_labels(examples)
            if not set(gold) & set(component.labels):
                _warn_of_no_score(f"has the tags {named(component.labels)}", component.labels, gold)
            return
    refuse_no_gold("evaluation data", getter, examples)
    others = ("classes", "records", "relations", "links")
    if not count_labels(examples, getter) and not any(
        eg.reference.cats or not supervision(eg.reference).keys().isdisjoint(others) for eg in examples
    ):
        logger.warning("warning: the evaluation data has no gold entities: nothing can be scored")


def _warn_of_labels(
    nlp: Language, gold: Counter[str], found: Counter[str], asked: Sequence[Any] | None
) -> None:
    """Warn why all scores of entities are 0: none was predicted, or only labels that the data does not have."""
    if not gold or set(gold) & set(found):
        return
    known = component_labels(nlp) if asked is None else [item.label for item in parse_labels(asked, "labels")]
    if found:
        _warn_of_no_score(f"predicted {counted(found)}", found, gold)
    elif known and not set(known) & set(gold):
        _warn_of_no_score(f"predicted no entities; its labels are {named(known)}", known, gold)
    elif not token_tag_scorers(nlp):
        logger.warning("warning: the pipeline predicted no entities: all their scores are 0")


def _warn_of_no_score(theirs: str, labels: Iterable[str], gold: Counter[str]) -> None:
    same = json.dumps(alike(gold, labels), ensure_ascii=False)
    logger.warning(
        "warning: the pipeline %s; the data has %s: no label in common, every score is 0. Pass the labels of the data "
        "with --labels if the pipeline accepts any labels%s",
        theirs,
        counted(gold) or "no annotations",
        "" if same == "{}" else f", or set label_map = {same} in the reader's section",
    )


def _set_thresholds(pipeline: Language, examples: Sequence[Example], **options: Any) -> dict[str, Any]:
    """Search thresholds, set them on the pipeline and return a report."""
    found = search_threshold(pipeline, examples, **options)
    not_stored = apply_thresholds(pipeline, found)
    return {"thresholds": {**found.to_dict(), "not_stored": not_stored}}


def _print(scores: Mapping[str, Any]) -> None:
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 200
    console.print(f"Measured on {MEASURED_ON[scores['tokens']]}")
    for table in all_tables(scores):
        console.print(table)
    for table in comparison_tables(scores["comparison"]) if "comparison" in scores else ():
        console.print(table)
    if "on_text" in scores:
        _print(scores["on_text"])


def _metric_names(metrics: str | Sequence[str]) -> list[str]:
    names = metrics.split(",") if isinstance(metrics, str) else metrics
    chosen = [name.strip() for name in names if name.strip()]
    if not chosen:
        raise ConfigError("metrics", "names no metric", ", ".join(METRICS))
    return chosen


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; the arguments of the process by default."""
    command_line("evaluate", app, evaluate, argv)
