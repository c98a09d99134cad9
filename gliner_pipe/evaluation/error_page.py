"""An evaluation as one HTML page: scores, confused labels, the threshold curve, and the errors in their texts."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise, zip_longest
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example

from gliner_pipe.data.annotations import primary_key, supervision
from gliner_pipe.data.relations import RELATIONS_KEY
from gliner_pipe.evaluation.error_parts import Error, Mark, ShownRecord, places_of, span_of
from gliner_pipe.evaluation.report import all_tables, threshold_tables
from gliner_pipe.evaluation.tables import NumberTable
from gliner_pipe.evaluation.task_errors import NOTHING, TaskErrors
from gliner_pipe.metrics.alignment import SpanGetter, get_scores, paired_spans
from gliner_pipe.metrics.confusion import confuse
from gliner_pipe.metrics.counts import Mention, Pair
from gliner_pipe.metrics.error_kinds import KINDS, matches
from gliner_pipe.metrics.relations import RelationScorer
from gliner_pipe.metrics.token_tags import TokenTagScorer
from gliner_pipe.pipeline.overrides import tagging_components
from gliner_pipe.util.atomic import replace_file
from gliner_pipe.util.colours import LabelColours
from gliner_pipe.util.visible import VISIBLE, visible

#: Maximum number of passages on a page.
MOST_PASSAGES = 400
#: Maximum number of labels in the confusion matrix, the most frequent ones.
MOST_LABELS = 30
#: Maximum number of points of a curve.
MOST_POINTS = 300
#: Characters of text before and after an error, and of a passage with several errors.
CONTEXT, LONGEST = 150, 1500
#: Distance in characters of two entities of a relation that are shown in one passage.
_NEAR = 600


@dataclass
class Passage:
    """A part of a text with errors, and with the entities in it.

    Attributes
    ----------
    document
        Number of the document, from 1 on.
    source
        File and line of the document, if known.
    text
        The whole text.
    start, last
        The part, from character `start` to before `last`.
    errors
        The errors in it.
    marks
        Gold and predicted entities of the whole text.
    records
        Records with errors, in the first part of a document that has errors of records.
    """

    document: int
    source: str
    text: str
    start: int
    last: int
    errors: list[Error]
    marks: tuple[list[Mark], list[Mark]]
    records: list[ShownRecord] = field(default_factory=list)

    def sides(self, colours: LabelColours) -> Iterator[list[dict[str, Any]]]:
        """Yield gold and predicted side: the text in pieces, each with the marks on it, outermost first."""
        for side in self.marks:
            marks = [mark for mark in side if mark.start < self.last and mark.end > self.start]
            marks.sort(key=lambda mark: (mark.start, -mark.end, mark.label))
            edges = {self.start, self.last, *(edge for mark in marks for edge in mark[:2])}
            yield [
                {
                    "text": visible(self.text[here:after]),
                    "marks": [
                        {
                            **mark._asdict(),
                            "hue": colours.hue(mark.label),
                            "first": mark.start == here,
                            "last": mark.end == after,
                        }
                        for mark in marks
                        if mark.start <= here and mark.end >= after
                    ],
                }
                for here, after in pairwise(sorted(edge for edge in edges if self.start <= edge <= self.last))
            ]


class ErrorReader:
    """Finds the errors of documents as the scorers do.

    Parameters
    ----------
    nlp
        The pipeline.
    labels
        The scored labels.
    gold_getter, predicted_getter
        Where spans are read.
    tasks
        Finds the errors of classes and records; None for none.
    """

    def __init__(
        self,
        nlp: Language,
        labels: Sequence[str],
        gold_getter: SpanGetter,
        predicted_getter: SpanGetter,
        tasks: TaskErrors | None = None,
    ) -> None:
        tagged = [one for one in tagging_components(nlp) if one.target != "spans"]
        self.tags = TokenTagScorer(tagged[0].target, gold_getter) if tagged else None
        self.relations = RelationScorer(primary_key(gold_getter))
        self.labels = None if tagged else set(labels)
        self.getters = gold_getter, predicted_getter
        self.tasks = tasks

    def pair(self, example: Example) -> tuple[set[Mention], dict[Mention, float | None]]:
        """Return the gold mentions of a document, and the predicted ones with their scores if they have some."""
        if self.tags is not None:
            gold, tags = self.tags.pair(example)
            return set(gold), dict.fromkeys(tags)
        spans, found = paired_spans(example, *self.getters, "boundaries")
        scores = get_scores(example.predicted, self.getters[1])
        predicted = {one: score for one, score in zip(found, scores, strict=True) if one is not None}
        return {one for one in spans if self._counts(one)}, {
            one: score for one, score in predicted.items() if self._counts(one)
        }

    def _counts(self, mention: Mention) -> bool:
        return self.labels is None or mention[0] in self.labels

    def passages(
        self, number: int, example: Example, gold: set[Mention], predicted: Mapping[Mention, float | None]
    ) -> Iterator[Passage]:
        """Yield the passages of a document that contain errors.

        Parameters
        ----------
        number
            Of the document, from 1 on.
        example
            Gold and predicted document.
        gold, predicted
            What `pair` returns for it.
        """
        text, places = example.reference.text, places_of(example.reference, example.predicted)
        sides: tuple[list[Mark], list[Mark]] = ([], [])
        errors: list[Error] = []
        for match in sorted(matches(gold, predicted.keys()), key=lambda one: one.gold or one.predicted or ()):
            ends = [
                None if one is None else span_of(one[1:], places) for one in (match.gold, match.predicted)
            ]
            for side, one, end in zip(sides, (match.gold, match.predicted), ends, strict=True):
                if one is not None and end is not None:
                    score = predicted.get(one) if side is sides[1] else None
                    side.append(Mark(*end, one[0], match.kind, score))
            known = [end for end in ends if end is not None]
            if match.kind != "correct" and known:
                names = ["" if one is None else one[0] for one in (match.gold, match.predicted)]
                texts = ["" if end is None else text[slice(*end)] for end in ends]
                start, last = min(end[0] for end in known), max(end[1] for end in known)
                errors.append(Error(match.kind, start, last, *names, *texts))
        errors += self._relation_errors(example, text, places)
        of_records: list[Error] = []
        records: list[ShownRecord] = []
        if self.tasks is not None:
            errors += self.tasks.of_classes(example)
            of_records, records = self.tasks.of_records(example, places)
            errors += of_records
        source = str(supervision(example.reference).get("source") or "")
        for start, last, some in _windows(text, errors):
            here, records = (records, []) if any(one in of_records for one in some) else ([], records)
            yield Passage(number, source, text, start, last, some, sides, here)

    def _relation_errors(
        self, example: Example, text: str, places: Sequence[tuple[int, int]]
    ) -> Iterator[Error]:
        """Yield relations that only one side has; with the same entities and another label they are one error."""
        pair = self.relations.pair(example) if RELATIONS_KEY in example.predicted.user_data else None
        if pair is None:
            return
        missed, spurious = pair[0] - pair[1], pair[1] - pair[0]
        for ends in sorted({one[:2] for one in missed | spurious}):
            sides = [sorted(one[2] for one in side if one[:2] == ends) for side in (missed, spurious)]
            head, tail = (span_of(end[:2], places) for end in ends)
            if head is None or tail is None:
                continue
            start, last = min(head[0], tail[0]), max(head[1], tail[1])
            if last - start > _NEAR:
                start, last = head
            for names in zip_longest(*sides, fillvalue=""):
                shown = [
                    f"{text[slice(*head)]} → {name} → {text[slice(*tail)]}" if name else "" for name in names
                ]
                kind = "type" if all(names) else "missed" if names[0] else "spurious"
                yield Error(kind, start, last, *names, *shown)


def write_error_page(
    path: Path,
    nlp: Language,
    examples: Sequence[Example],
    predicted: Sequence[Doc],
    scores: Mapping[str, Any],
    *,
    gold_getter: SpanGetter,
    predicted_getter: SpanGetter,
    name: str = "",
    data: str = "",
    curve: Mapping[str, Any] | None = None,
) -> None:
    """Write the page: one file that needs no other and works without a network.

    Parameters
    ----------
    path
        The file; replaced when everything is written.
    nlp
        The pipeline.
    examples
        Gold documents.
    predicted
        The predicted documents, in the same order.
    scores
        Result of `evaluate_pipeline`.
    gold_getter, predicted_getter
        Where spans are read.
    name, data
        Names of the pipeline and of the data.
    curve
        ``ThresholdSearch.to_dict()``, if there is a threshold.
    """
    colours = LabelColours()
    for label in scores["labels"]:
        colours.hue(label)
    tasks = TaskErrors(scores)
    reader = ErrorReader(nlp, scores["labels"], gold_getter, predicted_getter, tasks)
    pairs = [Example(doc, one.reference) for doc, one in zip(predicted, examples, strict=True)]
    mentions = [reader.pair(pair) for pair in pairs]
    numbered = enumerate(zip(pairs, mentions, strict=True), 1)
    passages = [one for number, (pair, sides) in numbered for one in reader.passages(number, pair, *sides)]
    counts = Counter((error.kind, error.gold or error.predicted) for one in passages for error in one.errors)
    shown = choose(passages, MOST_PASSAGES)
    rest = {
        key: value for key, value in scores.items() if key != "thresholds" and "matrix" not in _keys(value)
    }
    environment = Environment(
        loader=PackageLoader("gliner_pipe.evaluation", "html"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template("page.html").render(
        name=name or f"{nlp.meta['lang']}_{nlp.meta['name']}",
        data=data,
        scores=scores,
        tables=list(map(_table, all_tables(rest))),
        classes=[_rows(name, matrix) for name, matrix in tasks.confusions(pairs).items()],
        confusion=_confusion([(gold, set(found)) for gold, found in mentions]),
        curve=None if curve is None else _curve(curve),
        threshold_tables=[] if curve is None else list(map(_table, threshold_tables(curve))),
        passages=[(one, list(one.sides(colours))) for one in shown],
        total=len(passages),
        documents=len({one.document for one in passages}),
        kinds=[(kind, number) for kind in KINDS[1:] if (number := _sum(counts, 0, kind))],
        labels=[(label, _sum(counts, 1, label)) for label in sorted({label for _, label in counts})],
        hue=colours.hue,
        visible=lambda value: str(value).translate(VISIBLE),
    )
    with replace_file(path) as sibling:
        sibling.write_text(text.lstrip(), encoding="utf-8")


def choose(passages: Sequence[Passage], most: int) -> list[Passage]:
    """Return at most this many passages, in their order, such that rare kinds of errors and rare labels remain.

    Parameters
    ----------
    passages
        All passages.
    most
        Their maximum number.
    """
    if len(passages) <= most:
        return list(passages)
    groups: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for place, passage in enumerate(passages):
        for key in {(error.kind, error.gold or error.predicted) for error in passage.errors}:
            groups[key].append(place)
    chosen: set[int] = set()
    for places in zip_longest(*groups.values()):  # one of each group in turn
        for place in places:
            if place is not None and len(chosen) < most:
                chosen.add(place)
    return [passages[place] for place in sorted(chosen)]


def _windows(text: str, errors: Iterable[Error]) -> Iterator[tuple[int, int, list[Error]]]:
    """Yield parts of a text that show the context of the errors in them."""
    window: tuple[int, int, list[Error]] | None = None
    for error in sorted(errors, key=lambda one: (one.start, one.end)):
        start, last = max(0, error.start - CONTEXT), min(len(text), error.end + CONTEXT)
        while start > 0 and not text[start - 1].isspace() and error.start - start < 2 * CONTEXT:
            start -= 1
        while last < len(text) and not text[last].isspace() and last - error.end < 2 * CONTEXT:
            last += 1
        if window is None or start > window[1] or last - window[0] > LONGEST:
            if window is not None:
                yield window
            window = (start, last, [error])
        else:
            window = (window[0], max(window[1], last), [*window[2], error])
    if window is not None:
        yield window


def _confusion(mentions: Sequence[Pair]) -> dict[str, Any]:
    """Return the rows of the confusion matrix of the most frequent labels, each number with its share of the row."""
    support = Counter(one[0] for pair in mentions for side in pair for one in side)
    order = [label for label, _ in support.most_common(MOST_LABELS)]
    matrix = confuse(mentions, labels=order, none_key=NOTHING)["matrix"]
    return {**_rows("", matrix), "left_out": len(support) - len(order)}


def _rows(name: str, matrix: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
    """Return the rows of a confusion matrix, each number with its share of the row."""
    rows = []
    for label, row in matrix.items():
        total = sum(row.values()) or 1
        cells = [(other, row.get(other), round(100 * row.get(other, 0) / total)) for other in matrix]
        rows.append((label, cells))
    return {"name": name, "rows": rows, "left_out": 0, "nothing": NOTHING}


def _curve(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return the points of precision, recall and F1 in a square of 100 units, y from the top."""
    rows = found["curve"][:: max(1, -(-len(found["curve"]) // MOST_POINTS))]

    def points(key: str) -> str:
        known = [row for row in rows if row[key] is not None]
        return " ".join(f"{100 * row['threshold']:.1f},{100 - 100 * row[key]:.1f}" for row in known)

    lines = [(name, points(key)) for name, key in (("precision", "p"), ("recall", "r"), ("F1", "f"))]
    best = found["best"]["threshold"], found["best"]["f"] or 0.0
    return {"lines": lines, "best": best, "before": found["before"]["threshold"], "metric": found["metric"]}


def _table(item: Any) -> dict[str, Any]:
    """Return a table of the console, or a line of text, as plain data."""
    if not isinstance(item, NumberTable):
        return {"text": str(item)}
    return {
        "text": "",
        "title": item.title or "",
        "caption": item.caption or "",
        "head": [" ".join(head.split()) for head in (item.first, *item.columns)],
        "rows": [(bool(style), [str(name), *map(str, cells)]) for name, cells, style, _ in item.rows],
    }


def _keys(value: Any) -> Iterable[str]:
    return value.keys() if isinstance(value, Mapping) else ()


def _sum(counts: Mapping[tuple[str, str], int], place: int, name: str) -> int:
    return sum(number for key, number in counts.items() if key[place] == name)
