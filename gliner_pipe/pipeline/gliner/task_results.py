"""Relations and records of a document, from what the model finds in place of tasks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import numpy.typing as npt
from spacy.tokens import Doc

from gliner_pipe.modeling.decoders.span import Candidate
from gliner_pipe.modeling.instances import Instance, Matches
from gliner_pipe.modeling.task_finders import CHOICE
from gliner_pipe.modeling.tasks import HEAD_AND_TAIL
from gliner_pipe.pipeline.annotate import (
    NOT_MATCHING_VALUE,
    Entity,
    FoundField,
    FoundRecord,
    FoundValue,
    Link,
)
from gliner_pipe.pipeline.gliner.task_settings import FieldItem, RecordItem
from gliner_pipe.pipeline.labels import RelationItem
from gliner_pipe.pipeline.word_splitters import ReadWords, Words
from gliner_pipe.util.patterns import Pattern

UNTYPED_END = "relation whose head or tail is no entity of the types that the relation allows"
SAME_END = "relation whose head and tail are the same entity"


def field_limits(
    records: Sequence[RecordItem],
    relations: Sequence[RelationItem],
    limit: Callable[[FieldItem | RelationItem], float],
) -> npt.NDArray[np.float64]:
    """Return the threshold of each field of records and of each end of relations, ``(tasks, fields)``.

    It is infinite where a task has fewer fields.
    """
    rows = [[limit(field) for field in item.fields] for item in records]
    rows += [[limit(item)] * len(HEAD_AND_TAIL) for item in relations]
    limits = np.full((len(rows), max(map(len, rows), default=0)), np.inf)
    for row, values in zip(limits, rows, strict=True):
        row[: len(values)] = values
    return limits


def value_places(doc: Doc, words: Words, read: ReadWords) -> Callable[[Candidate], tuple[int, int]]:
    """Return a function that gives first and last character (exclusive) of a value in the text of a document."""
    offsets = words.offsets
    if offsets is None:
        offsets = [(token.idx, token.idx + len(token)) for token in doc]

    def places(value: Candidate) -> tuple[int, int]:
        return offsets[read.number(value.start)][0], offsets[read.number(value.end)][1]

    return places


def pattern_check(
    records: Sequence[RecordItem], doc: Doc, words: Words, read: ReadWords, report: Counter[str]
) -> Matches | None:
    """Return a function that says whether the text of a value matches the pattern of its field; None without patterns.

    `report` counts those that do not match.
    """
    patterns = {
        (task, number): Pattern(field.pattern)
        for task, item in enumerate(records)
        for number, field in enumerate(item.fields)
        if field.pattern is not None and not field.choices
    }
    if not patterns:
        return None
    text, places = doc.text, value_places(doc, words, read)

    def matches(task: int, field: int, value: Candidate) -> bool:
        pattern = patterns.get((task, field))
        if pattern is None:
            return True
        start, end = places(value)
        right = pattern.fullmatch(text[start:end].strip())
        report[NOT_MATCHING_VALUE] += not right
        return right

    return matches


def found_records(
    instances: Iterable[Instance], items: Sequence[RecordItem], read: ReadWords
) -> list[FoundRecord]:
    """Return the records among `instances`, in words of the document; `items` are the first tasks of the query."""
    found = []
    for task, values in instances:
        if task >= len(items):
            continue
        fields = []
        for field, some in zip(items[task].fields, values, strict=True):
            named = [
                FoundValue(field.choices[start], None, score)
                if end == CHOICE
                else FoundValue(read.number(start), read.number(end), score)
                for start, end, _, score in some
            ]
            pattern = None if field.pattern is None else Pattern(field.pattern)
            fields.append(FoundField(field.name, field.is_list, pattern, named))
        found.append(FoundRecord(items[task].name, fields))
    return found


def relation_links(
    instances: Iterable[Instance],
    items: Sequence[RelationItem],
    first_task: int,
    entities: Sequence[Entity],
    read: ReadWords,
    report: Counter[str],
) -> tuple[list[Link], list[Entity]]:
    """Return the relations among `instances`, and their ends that are no entities.

    An end is the entity with its words. If the relation names types, that has to be of one of them, and else it is the
    best entity of these types that shares words with it; without one the relation is left out. If it names none, other
    ends stay as they are, labelled ``head`` and ``tail``. The score of a relation is the lower one of its ends.

    Parameters
    ----------
    instances
        Relations and records.
    items
        The relations, in the order of their tasks.
    first_task
        Number of the first of these tasks.
    entities
        Entities of the document, in its words.
    read
        The words that the model read.
    report
        Counts relations that are left out.

    Returns
    -------
    tuple
        Relations, whose ends are positions among the entities and after them the other ends; and these.
    """
    snap = _Snapping(entities)
    links, others = list[Link](), list[Entity]()
    for task, values in instances:
        if not 0 <= task - first_task < len(items):
            continue
        item = items[task - first_task]
        places: list[int] = []
        for (value,), name, allowed in zip(
            values, [field.name for field in HEAD_AND_TAIL], (item.head, item.tail), strict=True
        ):
            start, end = read.number(value.start), read.number(value.end)
            place = snap.place(start, end, allowed)
            if place is None and allowed is None:
                place = snap.added(Entity(start, end, name, value.score), others)
            if place is not None:
                places.append(place)
        if len(places) < 2:
            report[UNTYPED_END] += 1
            continue
        head, tail = (value for (value,) in values)
        itself = head[:2] == tail[:2]
        if places[0] == places[1] and not itself:
            report[SAME_END] += 1
            continue
        links.append(Link(places[0], places[1], item.label, min(head.score, tail.score), itself))
    return links, others


class _Snapping:
    """Finds the entity that an end of a relation stands for."""

    def __init__(self, entities: Sequence[Entity]) -> None:
        self.entities = entities
        self.by_words: dict[tuple[int, int], list[int]] = {}
        for place, entity in enumerate(entities):
            self.by_words.setdefault(entity[:2], []).append(place)
        self.added_places: dict[tuple[int, int, str], int] = {}
        self._at_word: dict[int, list[int]] | None = None

    def place(self, start: int, end: int, allowed: Sequence[str] | None) -> int | None:
        """Return the position of the entity of the words `start` to `end`, or of one of the allowed labels there."""
        here = self._best(self.by_words.get((start, end), ()), allowed)
        if here is not None or allowed is None:
            return here
        if self._at_word is None:
            self._at_word = {}
            for place, entity in enumerate(self.entities):
                for word in range(entity.start, entity.end + 1):
                    self._at_word.setdefault(word, []).append(place)
        around = (place for word in range(start, end + 1) for place in self._at_word.get(word, ()))
        return self._best(around, allowed)

    def added(self, end: Entity, others: list[Entity]) -> int:
        """Return the position of an end that is no entity; it is added to `others` unless it is there."""
        key = end.start, end.end, end.label
        if key not in self.added_places:
            self.added_places[key] = len(self.entities) + len(others)
            others.append(end)
        return self.added_places[key]

    def _best(self, places: Iterable[int], allowed: Sequence[str] | None) -> int | None:
        right = (place for place in places if allowed is None or self.entities[place].label in allowed)
        return max(right, key=lambda place: self.entities[place].score, default=None)
