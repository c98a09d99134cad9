"""Errors of classes and records, for the error page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any, NamedTuple

from spacy.tokens import Span
from spacy.training import Example

from gliner_pipe.data.annotations import supervision
from gliner_pipe.data.classes import cat_key
from gliner_pipe.data.records import RECORDS_KEY, Record, get_records, with_values
from gliner_pipe.evaluation.error_parts import Error, FieldRow, ShownRecord, span_of
from gliner_pipe.metrics.alignment import common_edges
from gliner_pipe.metrics.classes import ClassScorer
from gliner_pipe.metrics.records import normal

#: Name of the row of spurious labels and spans, and of the column of missed ones.
NOTHING = "(nothing)"
#: Characters at the start of a text in which an error of its classes is shown.
_START = 60


class _Value(NamedTuple):
    """A value of a field: its text, and first and last character (exclusive) in the text if it has a place."""

    text: str
    place: tuple[int, int] | None

    @property
    def key(self) -> str:
        """What equal values have in common, as the scorer compares them."""
        return normal(self.text)


#: A record as values by field.
_Fields = dict[str, list[_Value]]


class TaskErrors:
    """Finds the errors of classes and records in documents, as the scorers do.

    Parameters
    ----------
    scores
        Result of `evaluate_pipeline`: its entries ``classes`` and ``records`` say what is scored.
    """

    def __init__(self, scores: Mapping[str, Any]) -> None:
        of_classes = scores.get("classes", {}).get("tasks", {})
        tasks = {task: list(found["labels"]) for task, found in of_classes.items()}
        self.classes = ClassScorer(tasks, list(tasks)) if tasks else None
        self.kinds = {*scores.get("records", {}).get("records", ())} - {"micro", "macro"}

    def confusions(self, examples: Sequence[Example]) -> dict[str, dict[str, dict[str, int]]]:
        """Return for each task the number of texts by gold and predicted label.

        A text with several labels counts its right ones, and its others as missed and as spurious.
        """
        if self.classes is None:
            return {}
        counts: dict[str, Counter[tuple[str, str]]] = {}
        for example in examples:
            for task, (gold, predicted) in self.classes.pairs(example).items():
                of_task = counts.setdefault(task, Counter())
                of_task.update((label, label) for label in gold & predicted)
                of_task.update(_unequal(gold, predicted))
        found = {}
        for task, of_task in counts.items():
            seen = {label for pair in of_task for label in pair}
            names = [one for one in (self.classes.tasks or {}).get(task, ()) if one in seen]
            names += [NOTHING] if NOTHING in seen else []
            found[task] = {row: {column: of_task[row, column] for column in names} for row in names}
        return found

    def of_classes(self, example: Example) -> Iterator[Error]:
        """Yield the errors of the classes of a document, at the start of its text."""
        if self.classes is None:
            return
        last = min(len(example.reference.text), _START)
        for task, (gold, predicted) in self.classes.pairs(example).items():
            for pair in _unequal(gold, predicted):
                names = ["" if one == NOTHING else cat_key(task, one, alone=False) for one in pair]
                kind = "type" if all(names) else "missed" if names[0] else "spurious"
                yield Error(kind, 0, last, *names, *("text" if name else "" for name in names))

    def of_records(
        self, example: Example, places: Sequence[tuple[int, int]]
    ) -> tuple[list[Error], list[ShownRecord]]:
        """Return the errors of the values of records of a document, and the records that have some.

        Parameters
        ----------
        example
            Gold and predicted document.
        places
            Start and end in the text of each unit of ``common_edges``.
        """
        errors: list[Error] = []
        shown: list[ShownRecord] = []
        if RECORDS_KEY not in example.reference.user_data:
            return errors, shown
        edges = common_edges(example.reference, example.predicted)
        asked = supervision(example.reference).get("records")
        docs = example.reference, example.predicted
        sides = [
            [
                (one.name, _fields(one, _placed(of_side, places)))
                for one in get_records(doc)
                if one.name in self.kinds and (doc is docs[0] or asked is None or one.name in asked)
            ]
            for doc, of_side in zip(docs, edges, strict=True)
        ]
        for kind in dict.fromkeys(name for side in sides for name, _ in side):
            gold, predicted = ([fields for name, fields in side if name == kind] for side in sides)
            for pair in _aligned(gold, predicted):
                rows = [_row(name, *of_field) for name, of_field in _by_field(*pair)]
                if all(row.right for row in rows):
                    continue
                shown.append(ShownRecord(kind, rows))
                values = [one for side in pair for some in side.values() for one in some]
                start = min((one.place for one in values if one.place is not None), default=(0, 0))
                for name, of_field in _by_field(*pair):
                    errors += _value_errors(f"{kind}.{name}", *of_field, start)
        return errors, shown


def _unequal(gold: set[str], predicted: set[str]) -> Iterator[tuple[str, str]]:
    """Yield gold and predicted label of each error; one for another if a text has one of both."""
    missed, spurious = sorted(gold - predicted), sorted(predicted - gold)
    if len(gold) == len(predicted) == 1:
        yield from zip(missed, spurious, strict=True)
        return
    yield from ((label, NOTHING) for label in missed)
    yield from ((NOTHING, label) for label in spurious)


def _placed(edges: Sequence[int], places: Sequence[tuple[int, int]]) -> Callable[[Span], _Value]:
    return lambda span: _Value(span.text, span_of((edges[span.start], edges[span.end]), places))


def _fields(record: Record, place: Callable[[Span], _Value]) -> _Fields:
    """Return the values of a record by field."""
    found: _Fields = {}
    for name, value in with_values(record, place).items():
        some = value if isinstance(value, list) else [value]
        found[name] = [_Value(one, None) if isinstance(one, str) else one for one in some if one is not None]
    return found


def _aligned(gold: Sequence[_Fields], predicted: Sequence[_Fields]) -> Iterator[tuple[_Fields, _Fields]]:
    """Yield gold and predicted records in pairs, those with most values in common first; the rest alone."""

    def keys(fields: _Fields) -> set[tuple[str, str]]:
        return {(name, one.key) for name, some in fields.items() for one in some}

    known, guessed = [keys(one) for one in gold], [keys(one) for one in predicted]
    alike = {
        (here, there): len(one & other)
        for here, one in enumerate(known)
        for there, other in enumerate(guessed)
        if one & other
    }
    left, right = set(range(len(gold))), set(range(len(predicted)))
    for here, there in sorted(alike, key=lambda pair: (-alike[pair], pair)):
        if here in left and there in right:
            left.remove(here)
            right.remove(there)
            yield gold[here], predicted[there]
    for one, other in zip_longest(sorted(left), sorted(right)):
        yield {} if one is None else gold[one], {} if other is None else predicted[other]


def _by_field(gold: _Fields, predicted: _Fields) -> Iterable[tuple[str, tuple[list[_Value], list[_Value]]]]:
    """Yield the values of both sides by field."""
    return [(name, (gold.get(name, []), predicted.get(name, []))) for name in {**gold, **predicted}]


def _row(name: str, gold: Sequence[_Value], predicted: Sequence[_Value]) -> FieldRow:
    here, there = (", ".join(one.text for one in side) for side in (gold, predicted))
    return FieldRow(name, here, there, {one.key for one in gold} == {one.key for one in predicted})


def _value_errors(
    label: str, gold: Sequence[_Value], predicted: Sequence[_Value], start: tuple[int, int]
) -> Iterator[Error]:
    """Yield the differences of a field; values that overlap are one error of their boundaries."""
    missed = [one for one in gold if one.key not in {other.key for other in predicted}]
    spurious = [one for one in predicted if one.key not in {other.key for other in gold}]
    for one in missed:
        other = next((two for two in spurious if _overlap(one, two)), None)
        if other is not None:
            spurious.remove(other)
        kind = "missed" if other is None else "boundary"
        ends = [two.place for two in (one, other) if two is not None and two.place is not None] or [start]
        names = label, "" if other is None else label
        texts = one.text, "" if other is None else other.text
        yield Error(kind, min(end[0] for end in ends), max(end[1] for end in ends), *names, *texts)
    for one in spurious:
        yield Error("spurious", *(one.place or start), "", label, "", one.text)


def _overlap(one: _Value, other: _Value) -> bool:
    if one.place is None or other.place is None:
        return False
    return one.place[0] < other.place[1] and other.place[0] < one.place[1]
