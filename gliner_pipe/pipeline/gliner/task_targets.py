"""Training targets of tasks: which records, relations and classes a text is asked for, and where their values are."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from spacy.tokens import Doc, Span

from gliner_pipe.data.annotations import SpanSetter, Supervision, gold_spans, supervision
from gliner_pipe.data.gold_classes import gold_classes, true_labels
from gliner_pipe.data.records import RECORDS_KEY, get_records
from gliner_pipe.data.relations import gold_links, has_relations
from gliner_pipe.data.task_sampling import TaskSampling
from gliner_pipe.modeling.backbones.base import Window
from gliner_pipe.modeling.batch import TaskTargets
from gliner_pipe.modeling.counters.base import MOST_INSTANCES
from gliner_pipe.modeling.encoders.base import EncoderBatch
from gliner_pipe.modeling.gliner import GLiNER
from gliner_pipe.modeling.task_finders import TaskFinder
from gliner_pipe.modeling.tasks import HEAD_AND_TAIL, Task, TaskField, choice_places
from gliner_pipe.pipeline.gliner.task_settings import ClassesItem, RecordItem
from gliner_pipe.pipeline.word_splitters import ReadWords, Words, locate_gold

UNPLACED = "value of a record or relation that does not align with words, or has none"
ELSEWHERE = "value of a record or relation in another window than its first"
TOO_WIDE = "value of a record or relation wider than max_width"
TOO_MANY = f"record or relation beyond the {MOST_INSTANCES - 1} of its kind that a window can have"
NO_CHOICE = "value of a record that is none of the choices of its field"
NO_FIELD = "value of a record in a field that the component does not have"

#: A value: first and last word (inclusive), or a choice.
Value = tuple[int, int] | str


class Instance(NamedTuple):
    """A gold record or relation, with the values of its fields in words that the model reads."""

    name: str
    values: dict[str, list[Value]]

    @property
    def first(self) -> tuple[int, int]:
        """First word of the values, and -1 if all are choices."""
        return min(
            (one for some in self.values.values() for one in some if not isinstance(one, str)),
            default=(-1, -1),
        )


@dataclass(frozen=True)
class GoldTasks:
    """The gold tasks of a text; None for what nobody looked for.

    Attributes
    ----------
    records, relations
        Their instances, in the order of the text.
    classes
        Value of each label by task.
    by_text
        Whether each occurrence of the words of a value is right.
    unnamed_absent
        Whether a field that a record does not name has no value; otherwise nothing is learned about it.
    """

    records: list[Instance] | None = None
    relations: list[Instance] | None = None
    classes: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    by_text: bool = False
    unnamed_absent: bool = True


@dataclass(frozen=True)
class TaughtTasks:
    """The component's classifications and records, and how tasks are sampled."""

    classes: Sequence[ClassesItem] = ()
    records: Sequence[RecordItem] = ()
    sampling: TaskSampling = field(default_factory=TaskSampling)


class AskedTask(NamedTuple):
    """A task in the prompt of a text.

    Attributes
    ----------
    task
        What the model reads.
    name, fields
        Name of the task and of its fields or labels in the data; the model may read others.
    values
        Value of each label of a classification.
    single
        Whether exactly one label is true.
    """

    task: Task
    name: str
    fields: tuple[str, ...]
    values: tuple[float, ...] = ()
    single: bool = False


def reads_tasks(model: GLiNER) -> bool:
    """Whether a model is trained on tasks."""
    return any(block is not None for _, block in model.task_heads.values())


def read_tasks(
    model: GLiNER,
    doc: Doc,
    key: SpanSetter,
    taught: TaughtTasks,
    words: Words,
    read: ReadWords,
    dropped: Counter[str],
) -> GoldTasks:
    """Return the gold tasks of a document that a model can learn; `dropped` counts values without words."""
    stated = supervision(doc)

    def located(values: Mapping[str, Sequence[Span | str]]) -> dict[str, list[Value]]:
        found: dict[str, list[Value]] = {}
        for name, some in values.items():
            spans = [one for one in some if isinstance(one, Span)]
            unread: Counter[str] = Counter()
            places = locate_gold(spans, words, read, unread)
            dropped[UNPLACED] += unread.total()
            found[name] = [place for place in places if place is not None]
            found[name] += [one for one in some if isinstance(one, str)]
        return found

    records: list[Instance] | None = None
    relations: list[Instance] | None = None
    if model.record_finder is not None and RECORDS_KEY in doc.user_data:
        known = {item.name: {one.name for one in item.fields} for item in taught.records}
        every: list[Instance] = []
        for one in get_records(doc):
            values = {name: _listed(value) for name, value in one.fields.items()}
            asked = {name: some for name, some in values.items() if name in known.get(one.name, values)}
            dropped[NO_FIELD] += sum(map(len, values.values())) - sum(map(len, asked.values()))
            every.append(Instance(one.name, located(asked)))
        records = every
    if model.relation_finder is not None:
        links = [
            Instance(label, located({"head": [head], "tail": [tail]}))
            for head, tail, label in _relations(doc, key, stated) or ()
        ]
        relations = links if has_relations(doc) else None
    classes: Mapping[str, Mapping[str, float]] = {}
    if model.classifier is not None:
        classes = gold_classes(
            doc, {item.name: [one.label for one in item.labels] for item in taught.classes}
        )
    by_text = bool(stated.get("all_occurrences", False))
    absent = taught.sampling.unnamed_fields == "absent"
    return GoldTasks(_in_order(records), _in_order(relations), classes, by_text, absent)


def _in_order(instances: list[Instance] | None) -> list[Instance] | None:
    """Return instances in the order of their first words."""
    return None if instances is None else sorted(instances, key=lambda one: one.first)


def _listed(value: Any) -> list[Span | str]:
    return [] if value is None else list(value) if isinstance(value, (list, tuple)) else [value]


def _relations(doc: Doc, key: SpanSetter, stated: Supervision) -> list[tuple[Span, Span, str]]:
    links = gold_links(doc, key)
    if links is not None:
        return [(one.head, one.tail, one.label) for one in links]
    spans = gold_spans(doc, key)
    return [(spans[head], spans[tail], label) for head, tail, label in stated.get("relations", ())]


# -- sampling ----------------------------------------------------------------------------------------------------------


def sample_tasks(
    gold: GoldTasks,
    stated: Supervision,
    relations: Sequence[str],
    definitions: Mapping[str, str],
    taught: TaughtTasks,
    has_labels: bool,
    rng: random.Random,
) -> list[AskedTask]:
    """Choose the tasks in the prompt of a text: records, then relations, then classes, as in prediction.

    Parameters
    ----------
    gold
        Gold tasks of the text.
    stated
        Other annotations of the text.
    relations
        Relation labels that were sampled for the text.
    definitions
        Descriptions of the component's relations.
    taught
        The component's tasks, and how they are sampled.
    has_labels
        Whether the prompt has entity labels.
    rng
        The only source of chance.
    """
    sampling = taught.sampling
    asked = _records(gold, stated, taught, rng) if gold.records is not None else []
    of_text = {**definitions, **stated.get("rel_descriptions", {})}
    for label in relations:
        ends = HEAD_AND_TAIL[::-1] if rng.random() < sampling.swap_ends else HEAD_AND_TAIL
        text = of_text.get(label) if rng.random() >= sampling.drop_descriptions else None
        text = None if text == label else text
        names = tuple(end.name for end in ends)
        asked.append(AskedTask(Task("relation", label, ends, text), label, names))
    asked += [_classes(task, values, stated, taught, rng) for task, values in gold.classes.items() if values]
    # relations were sampled already
    droppable = [one for one in asked if one.task.kind != "relation"]
    left = {id(one) for one in droppable if rng.random() < sampling.drop_tasks}
    if droppable and not has_labels and len(left) == len(asked):
        left.discard(id(rng.choice(droppable)))
    kept = [one for one in asked if id(one) not in left]
    order = {"record": 0, "relation": 1, "classes": 2}
    return sorted(sampling.ordered(kept, rng), key=lambda one: order[one.task.kind])


def _records(
    gold: GoldTasks, stated: Supervision, taught: TaughtTasks, rng: random.Random
) -> list[AskedTask]:
    """Return the kinds of records that were looked for, with the fields of the component or else of the data.

    A text that names no kind has no records of any kind of the component.
    """
    sampling, items = taught.sampling, {item.name: item for item in taught.records}
    kinds: dict[str, Mapping[str, Any]] = dict(stated.get("records") or {key: {} for key in items})
    kinds |= {one.name: {} for one in gold.records or () if one.name not in kinds}
    asked = []
    for name, about in kinds.items():
        item = items.get(name)
        if item is not None:
            fields, task = [one.field for one in item.fields], item.task
        else:
            fields = [_field(one) for one in about.get("fields", ())]
            seen = dict.fromkeys(key for one in gold.records or () if one.name == name for key in one.values)
            fields += [TaskField(key) for key in seen if key not in {one.name for one in fields}]
            task = Task(
                "record", name, (), about.get("description"), (), about.get("mode"), about.get("anchor")
            )
        if not fields:
            continue
        anchor = [one for one in fields if one.name == task.anchor]
        others = [one for one in fields if one.name != task.anchor]
        others = sampling.some(others, sampling.drop_fields, rng) if others else others
        fields = sampling.ordered([*anchor, *others], rng)
        names = tuple(one.name for one in fields)
        shown = _named(fields, "field", sampling, rng)
        anchors = dict(zip(names, (one.name for one in shown), strict=True))
        task = task._replace(fields=tuple(shown), anchor=anchors.get(task.anchor or ""))
        asked.append(AskedTask(task, name, names))
    return asked


def _field(about: Mapping[str, Any]) -> TaskField:
    choices, several = tuple(about.get("choices", ())), about.get("list", False)
    return TaskField(about["field"], about.get("description"), choices, several)


def _classes(
    name: str, values: Mapping[str, float], stated: Supervision, taught: TaughtTasks, rng: random.Random
) -> AskedTask:
    """Return a classification with some of its labels."""
    sampling = taught.sampling
    item = next((one for one in taught.classes if one.name == name), None)
    about = stated.get("classes", {}).get(name, {})
    several = about.get("multi_label", item.multi_label if item is not None else False)
    single = not several and len(true_labels(values)) == 1
    values = dict(values)
    if single and item is not None and "labels" not in about:  # the others are absent
        values = {**{one.label: 0.0 for one in item.labels}, **values}
    labels = sampling.labels(values, rng)
    texts = {} if item is None else {one.label: one.description for one in item.labels}
    texts |= about.get("descriptions", {})
    examples = about.get("examples", [] if item is None else item.examples)
    fields = _named([TaskField(label, texts.get(label)) for label in labels], "label", sampling, rng)
    shown = dict(zip(labels, (one.name for one in fields), strict=True))
    some = tuple((text, shown[label]) for text, label in examples if label in shown)
    if rng.random() < sampling.drop_examples:
        some = ()
    description = about.get("description", None if item is None else item.description)
    if rng.random() < sampling.drop_descriptions:
        description = None
    task = Task("classes", name, tuple(fields), description, some)
    return AskedTask(task, name, tuple(labels), tuple(values[label] for label in labels), single)


def _named(
    fields: Sequence[TaskField], noun: str, sampling: TaskSampling, rng: random.Random
) -> list[TaskField]:
    """Return fields without descriptions, or with descriptions in place of names, or as they are."""
    hides, drops = rng.random() < sampling.hide_names, rng.random() < sampling.drop_descriptions
    if hides and all(one.description for one in fields):
        return [one._replace(name=f"{noun} {number}") for number, one in enumerate(fields, start=1)]
    return [one._replace(description=None) for one in fields] if drops else list(fields)


# -- targets -----------------------------------------------------------------------------------------------------------


def task_targets(
    windows: Sequence[Window],
    inputs: EncoderBatch,
    gold: Sequence[GoldTasks],
    asked: Sequence[Sequence[AskedTask]],
    texts: Sequence[Sequence[str]],
    model: GLiNER,
    dropped: Counter[str],
) -> TaskTargets | None:
    """Return the targets of a batch; None if no text has a task.

    Parameters
    ----------
    windows
        The rows.
    inputs
        The rows, padded, before words were marked as unknown.
    gold, asked
        Gold tasks of each text, and those in its prompt.
    texts
        Words of each text.
    model
        The blocks.
    dropped
        Counts values that cannot be targets.
    """
    if not any(asked):
        return None
    rows = _Rows(model, dropped)
    for row, window in enumerate(windows):
        for number, one in enumerate(asked[window.text]):
            if one.task.kind != "classes":
                rows.add_instances(row, number, window, one, gold[window.text], texts[window.text])
    labels, weights, values, single = _class_targets(windows, asked)
    return TaskTargets(
        labels=_long(labels, 5),
        weights=torch.tensor(weights),
        values=_padded(values, 0.0),
        value_mask=_padded([[1.0] * len(some) for some in values], 0.0) > 0,
        single=torch.tensor(single, dtype=torch.bool),
        counts=_long(rows.counts, 3),
        columns=_long(rows.columns, 5),
        places=_long(rows.places, 2),
        spans=_long(list(dict.fromkeys(rows.spans)), 4),
        choices=_padded(rows.choices, -1.0).long() if rows.choices else None,
        chosen=_padded(rows.chosen, 0.0) > 0 if rows.choices else None,
        outside=inputs.windows.unknown,
        unnamed=_long(rows.unnamed, 4) if rows.unnamed else None,
    )


class _Rows:
    """Collects the queries of records and relations, row by row, and their gold values."""

    def __init__(self, model: GLiNER, dropped: Counter[str]) -> None:
        self.max_width, self.dropped = model.max_width, dropped
        self.finders: dict[str, TaskFinder | None] = {
            "record": model.record_finder,
            "relation": model.relation_finder,
        }
        self.counts: list[tuple[int, ...]] = []
        self.columns: list[tuple[int, ...]] = []
        self.places: list[tuple[int, ...]] = []
        self.spans: list[tuple[int, ...]] = []
        self.unnamed: list[tuple[int, ...]] = []
        self.choices: list[list[int]] = []
        self.chosen: list[list[float]] = []
        self._in_row: Counter[int] = Counter()

    def add_instances(
        self, row: int, number: int, window: Window, one: AskedTask, gold: GoldTasks, words: Sequence[str]
    ) -> None:
        """Add the instances of a task in a window.

        Of a finder that counts them, those whose first word it owns; of others all that it sees, which their own
        windows teach as well.
        """
        every = gold.records if one.task.kind == "record" else gold.relations
        finder = self.finders[one.task.kind]
        counted = finder is None or finder.needs_counter
        here = []
        for instance in every or ():
            first = max(instance.first[0], 0)
            owned = window.own_start <= first < window.own_stop
            if instance.name != one.name or not (owned or not counted):
                continue
            lost = self.dropped if owned else Counter[str]()
            values = {name: self._inside(some, window, lost) for name, some in instance.values.items()}
            unnamed = list[Value]() if gold.unnamed_absent else None
            kept = [values.get(name, unnamed) for name in one.fields]
            if any(kept) and (one.task.kind == "record" or all(kept)):
                here.append(kept)
        if counted:
            self.dropped[TOO_MANY] += max(0, len(here) - MOST_INSTANCES + 1)
            here = here[: MOST_INSTANCES - 1]
        elif finder is not None:
            for reason, n_lost in finder.not_found(one.task, here):
                self.dropped[reason] += n_lost
        self.counts.append((row, number, len(here)))
        places = choice_places(_tasks_of(window))
        for slot, instance_values in enumerate(here):
            for at, (field_, some) in enumerate(zip(one.task.fields, instance_values, strict=True)):
                column = (row, number, slot, at)
                if some is None:
                    self.unnamed.append(column)
                    continue
                if field_.choices:
                    self._add_choices(column, field_, some, places[number, at])
                else:
                    self._add_spans(column, some, window, words if gold.by_text else ())

    def _inside(self, values: Sequence[Value], window: Window, lost: Counter[str]) -> list[Value]:
        """Return the values that are whole in a window and not too wide; `lost` counts the others."""
        kept: list[Value] = []
        for value in values:
            if isinstance(value, str):
                kept.append(value)
            elif not (window.start <= value[0] and value[1] < window.stop):
                lost[ELSEWHERE] += 1
            elif self.max_width is not None and value[1] - value[0] >= self.max_width:
                lost[TOO_WIDE] += 1
            else:
                kept.append(value)
        return kept

    def _add_choices(
        self, column: tuple[int, ...], field_: TaskField, values: Sequence[Value], places: list[int]
    ) -> None:
        self.dropped[NO_CHOICE] += sum(value not in field_.choices for value in values)
        self.columns.append((*column, len(self.choices)))
        self.choices.append(list(places))
        self.chosen.append([float(choice in values) for choice in field_.choices])

    def _add_spans(
        self, column: tuple[int, ...], values: Sequence[Value], window: Window, words: Sequence[str]
    ) -> None:
        """Add a query for spans; with the `words` of the text, all occurrences of a value are right."""
        row = column[0]
        order = self._in_row[row]
        self._in_row[row] += 1
        self.columns.append((*column, -1))
        self.places.append((row, order))
        for value in values:
            if isinstance(value, str):
                self.dropped[NO_CHOICE] += 1
                continue
            for start, end in _occurrences(value, words, window) if words else [value]:
                self.spans.append((row, start - window.first, end - start, order))


def _tasks_of(window: Window) -> tuple[Task, ...]:
    prompt: Any = window.prompt
    tasks: tuple[Task, ...] = prompt.query.tasks
    return tasks


def _occurrences(value: tuple[int, int], words: Sequence[str], window: Window) -> list[tuple[int, int]]:
    """Return where the words of a value occur in a window, whatever their case."""
    size = value[1] - value[0] + 1
    wanted = [word.lower() for word in words[value[0] : value[1] + 1]]
    return [
        (start, start + size - 1)
        for start in range(window.start, window.stop - size + 1)
        if [word.lower() for word in words[start : start + size]] == wanted
    ]


def _class_targets(
    windows: Sequence[Window], asked: Sequence[Sequence[AskedTask]]
) -> tuple[list[tuple[int, ...]], list[float], list[Sequence[float]], list[bool]]:
    """Return the labels of classifications in each row with their weights, and the values of each classification."""
    sizes: Counter[int] = Counter()
    for window in windows:
        sizes[window.text] += window.own_stop - window.own_start
    groups: dict[tuple[int, int], int] = {}
    labels: list[tuple[int, ...]] = []
    weights: list[float] = []
    values: list[Sequence[float]] = []
    single: list[bool] = []
    for row, window in enumerate(windows):
        share = (window.own_stop - window.own_start) / max(1, sizes[window.text])
        for number, one in enumerate(asked[window.text]):
            if one.task.kind != "classes":
                continue
            key = window.text, number
            if key not in groups:
                groups[key] = len(groups)
                values.append(one.values)
                single.append(one.single)
            labels += [(row, number, at, groups[key], at) for at in range(len(one.fields))]
            weights += [share] * len(one.fields)
    return labels, weights, values, single


def _long(rows: Sequence[tuple[int, ...]], width: int) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.long).view(-1, width)


def _padded(rows: Sequence[Sequence[float]], value: float) -> torch.Tensor:
    """Return rows of different lengths as one matrix."""
    made = torch.full((len(rows), max(map(len, rows), default=0)), value)
    for number, row in enumerate(rows):
        made[number, : len(row)] = torch.tensor(row, dtype=torch.float32)
    return made
