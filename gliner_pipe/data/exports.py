"""Recognizes what annotation tools write in JSON: Prodigy, doccano, Label Studio, spaCy's tuples and similar records.

A record becomes one :class:`Annotated`: its text, the spans as they are in the file, and relations between these spans.
Nothing is checked against the text here; the reader ``jsonl`` does that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple

from gliner_pipe.data.fields import shown, whole_number
from gliner_pipe.data.files import Place

#: Names of a list of entities, in the order in which they are looked for, and names that other tools use.
ENTITY_NAMES = ("entities", "spans", "ner")
OTHER_ENTITY_NAMES = ("label", "labels", "annotations", "annotation")
#: Names of a text, besides ``text``.
TEXT_NAMES = ("data", "content", "sentence", "document", "raw", "body")
#: Names of the parts of a span.
START_NAMES = ("start", "begin", "start_offset", "start_char", "startOffset", "offset")
END_NAMES = ("end", "stop", "end_offset", "end_char", "endOffset")
LABEL_NAMES = (
    "label",
    "labels",
    "entity_group",
    "tag",
    "type",
    "entity_type",
    "category",
    "entity",
    "class",
)
STATED_NAMES = ("text", "covered_text", "surface", "mention")

#: Fields of tools that are no annotations, by a field that tells the tool.
PRODIGY = (
    "_input_hash",
    "_task_hash",
    "_view_id",
    "_session_id",
    "_annotator_id",
    "_timestamp",
    "_is_binary",
    "answer",
    "meta",
    "tokens",
)
LABEL_STUDIO = ("annotation_id", "annotator", "created_at", "updated_at", "lead_time")
DOCCANO = ("Comments", "comments", "annotation_approver", "approved_by", "metadata", "meta")

_PRODIGY_MARKS = frozenset(("_input_hash", "_task_hash", "_view_id", "answer"))
_LABEL_STUDIO_MARKS = frozenset(("annotation_id", "annotator", "lead_time"))
_DOCCANO_MARKS = frozenset(DOCCANO)
_NO_TEXTS = frozenset((*PRODIGY, *LABEL_STUDIO, *DOCCANO, "id"))
#: Maximum number of records in which the field of the text is looked for.
MOST_RECORDS = 1000

#: Names of the list of records in an object that is a whole file.
WRAPPERS = ("examples", "data", "documents", "records", "items")

#: Answers of annotators to records that are no gold annotations.
REFUSED = ("reject", "ignore")
#: Names of the parts of a span that is a list.
_TRIPLE = ("[0]", "[1]", "[2]")


class RawSpan(NamedTuple):
    """A span as it is in the file; ``parts`` are the names of its start, end and label, after ``name`` in messages."""

    name: str
    parts: tuple[str, str, str]
    start: Any
    end: Any
    labels: Any
    stated: str | None = None
    id: Any = None
    value: Any = None


@dataclass(frozen=True)
class RawLink:
    """A relation; ``head`` and ``tail`` are positions in the list of spans, or None if there is no such span."""

    name: str
    head: int | None
    tail: int | None
    label: Any


@dataclass
class Annotated:
    """A record in one form for all tools."""

    text_name: str
    text: Any
    entity_name: str | None = None
    spans: list[RawSpan] = field(default_factory=list)
    links: list[RawLink] | None = None
    known: tuple[str, ...] = ()


# -- records -----------------------------------------------------------------------------------------------------------


def is_pair(value: Any) -> bool:
    """Whether `value` is ``(text, {"entities": [...]})``, as spaCy's training data, or ``(text, [...])``."""
    if not isinstance(value, (list, tuple)) or len(value) != 2 or not isinstance(value[0], str):
        return False
    if isinstance(value[1], Mapping):
        return any(name in value[1] for name in (*ENTITY_NAMES, "cats", "relations")) or not value[1]
    return isinstance(value[1], (list, tuple)) and all(
        isinstance(item, (list, tuple)) and len(item) == 3 for item in value[1]
    )


def as_record(value: Any) -> Any:
    """Return a pair of text and annotations as one mapping, and anything else unchanged."""
    if not is_pair(value):
        return value
    text, annotations = value
    rest = annotations if isinstance(annotations, Mapping) else {"entities": annotations}
    return {"text": text, **rest}


def unwrapped(place: Place, value: Any) -> Iterator[tuple[Place, Any]]:
    """Yield the records of an object ``{"classes": [...], "annotations": [[text, {"entities": ...}], ...]}``, or of one
    such as ``{"examples": [...]}`` whose other lists are empty.

    Any other value is a record itself.
    """
    if not isinstance(value, Mapping):
        yield place, value
        return
    pairs = value.get("annotations") if "classes" in value else None
    lists = [one for one in value.values() if isinstance(one, list) and one]
    if isinstance(pairs, list) and any(map(is_pair, pairs)):
        yield from ((place, pair) for pair in pairs if pair is not None)
    elif len(lists) == 1 and any(value.get(name) is lists[0] for name in WRAPPERS) and _are_records(lists[0]):
        yield from ((place, record) for record in lists[0])
    else:
        yield place, value


def _are_records(value: list[Any]) -> bool:
    return all(isinstance(one, Mapping) for one in value) and any(map(is_export, value))


def is_task(record: Mapping[str, Any]) -> bool:
    """Whether a record is a task of Label Studio, with its annotations in ``result``."""
    return (
        "data" in record
        and isinstance(record["data"], Mapping)
        and bool({"annotations", "completions", "predictions"} & record.keys())
    )


def is_export(record: Any) -> bool:
    """Whether a record has texts with offsets in a form that only an annotation tool writes."""
    if is_pair(record):
        return True
    if not isinstance(record, Mapping):
        return False
    if is_task(record) or region_field(record) is not None:
        return True
    if isinstance(record.get("text"), str):
        return any(_are_spans(record.get(name)) for name in (*ENTITY_NAMES, *OTHER_ENTITY_NAMES))
    texts = any(isinstance(record.get(name), str) for name in TEXT_NAMES)
    return texts and any(_are_spans(record.get(name)) for name in (*ENTITY_NAMES, *OTHER_ENTITY_NAMES))


def _are_spans(value: Any) -> bool:
    return (
        isinstance(value, (list, tuple))
        and bool(value)
        and all(
            isinstance(item, Mapping) or (isinstance(item, (list, tuple)) and len(item) == 3)
            for item in value
        )
    )


def region_field(record: Mapping[str, Any]) -> str | None:
    """Return the field with regions of Label Studio's JSON_MIN: mappings with start, end, text and labels."""
    for name, value in record.items():
        if (
            isinstance(value, (list, tuple))
            and value
            and all(isinstance(item, Mapping) and {"start", "end", "labels"} <= item.keys() for item in value)
        ):
            return name
    return None


def skipped(record: Mapping[str, Any]) -> str | None:
    """Return why a record is no gold annotation; None if it is one."""
    if record.get("answer") in REFUSED:
        return f"record with the answer {record['answer']!r} (skipped)"
    return "cancelled annotation (skipped)" if record.get("was_cancelled") is True else None


def first_annotation(task: Mapping[str, Any], report: Counter[str]) -> tuple[str, Mapping[str, Any]] | None:
    """Return name and value of the first annotation of a task that was not cancelled, and count the others."""
    if predictions := _listed(task.get("predictions")):
        report["prediction of a task (not gold, ignored)"] += len(predictions)
    key = "annotations" if "annotations" in task else "completions"
    chosen = None
    for position, annotation in enumerate(_listed(task.get(key))):
        if not isinstance(annotation, Mapping):
            continue
        if annotation.get("was_cancelled") or annotation.get("skipped"):
            report["cancelled annotation (skipped)"] += 1
        elif chosen is not None:
            report["annotation of a further annotator (ignored)"] += 1
        else:
            chosen = f"{key}[{position}]", annotation
    return chosen


def _listed(value: Any) -> Sequence[Any]:
    """Return a list or tuple, and an empty one for anything else."""
    return value if isinstance(value, (list, tuple)) else ()


def text_field(records: Iterable[Any], default: str = "text") -> str:
    """Return the field of the text of a file.

    It is the one that the regions of tasks name, else `default`, else the one that contains the texts that the spans
    state, else one with a usual name, else the only text.

    Parameters
    ----------
    records
        The records of the file, of which the first :data:`MOST_RECORDS` are read.
    default
        The usual name.
    """
    targets: Counter[str] = Counter()
    common: set[str] | None = None
    first: Mapping[str, Any] = {}
    for record in islice(map(as_record, records), MOST_RECORDS):
        if not isinstance(record, Mapping):
            continue
        task = is_task(record)
        data = record["data"] if task else record
        if not task and default in data:
            return default
        first = first or data
        if task:
            targets.update(
                name
                for name in (item.get("to_name") for item in _results(record))
                if isinstance(name, str) and isinstance(data.get(name), str)
            )
        if stated := list(_stated_texts(record)):
            texts = {name: value for name, value in data.items() if isinstance(value, str)}
            fits = {name for name, text in texts.items() if all(_in_text(part, text) for part in stated)}
            common = fits if common is None else common & fits
    if targets:
        return default if default in targets else targets.most_common(1)[0][0]
    candidates = [name for name, value in first.items() if isinstance(value, str) and name not in _NO_TEXTS]
    fitting = [name for name in candidates if common is None or name in common]
    usual = [name for name in (default, *TEXT_NAMES) if name in fitting]
    if common is not None and len(fitting) == 1:
        return fitting[0]
    return usual[0] if usual else candidates[0] if len(candidates) == 1 else default


def _in_text(part: str, text: str) -> bool:
    return part in text or " ".join(part.replace("\\n", " ").split()) in " ".join(text.split())


def _stated_texts(record: Mapping[str, Any]) -> Iterator[str]:
    """Yield the texts that the spans of a record state."""
    items: list[Any]
    if is_task(record):
        items = [item.get("value") for item in _results(record)]
    else:
        names = (region_field(record), *ENTITY_NAMES, *OTHER_ENTITY_NAMES)
        items = next((list(record[name]) for name in names if name and _are_spans(record.get(name))), [])
    for item in items:
        parts = item if isinstance(item, Mapping) else {}
        yield from (parts[name] for name in STATED_NAMES if isinstance(parts.get(name), str) and parts[name])


def _results(task: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the results of the annotation of a task that is read."""
    chosen = first_annotation(task, Counter())
    results = chosen[1].get("result") if chosen else None
    return [item for item in results if isinstance(item, Mapping)] if isinstance(results, list) else []


# -- spans -------------------------------------------------------------------------------------------------------------


def task_record(
    place: Place, task: Mapping[str, Any], text_name: str, report: Counter[str]
) -> Annotated | None:
    """Return the annotated text of a task of Label Studio; None without a usable annotation."""
    for key in ("annotations", "completions"):
        if not isinstance(task.get(key) or [], (list, tuple)):
            raise place.error(key, f"is {shown(task[key])}", "a list", "Write [] for none")
    chosen = first_annotation(task, report)
    if chosen is None:
        return None
    name, annotation = chosen
    data = task["data"]
    if text_name not in data:
        what = f"is missing (fields: {', '.join(map(str, data)) or 'none'})"
        raise place.error(f"data.{text_name}", what, "a text", 'Set fields = {"text": ...}')
    found = Annotated(f"data.{text_name}", data[text_name], f"{name}.result", known=tuple(task))
    results = annotation.get("result") or []
    if not isinstance(results, list) or not all(isinstance(item, Mapping) for item in results):
        raise place.error(f"{name}.result", f"is {shown(results)}", "a list of objects")
    relations: list[tuple[str, Mapping[str, Any]]] = []
    for position, item in enumerate(results):
        where = f"{name}.result[{position}]"
        if item.get("type") == "relation":
            relations.append((where, item))
            continue
        span = _region(where, item)
        if span is None:
            report[f"annotation of the type {item.get('type')!r} (ignored)"] += 1
        elif (other := item.get("to_name")) != text_name and isinstance(other, str) and other in data:
            report[f"entity in the field {other!r} (ignored)"] += 1
        else:
            found.spans.append(span)
    if relations:
        found.links = [link for where, item in relations for link in _links(where, item, found, {}, report)]
    return found


def _region(where: str, item: Mapping[str, Any]) -> RawSpan | None:
    """Return a region of Label Studio; None if it is no part of a text."""
    value = item.get("value")
    if not isinstance(value, Mapping):
        return None
    offsets = value.get("globalOffsets", value)  # HTML: places in the displayed text
    kind = item.get("type")
    labels = value.get(kind) if isinstance(kind, str) and kind in value else value.get("labels")
    if not isinstance(offsets, Mapping) or not {"start", "end"} <= offsets.keys():
        return None
    if kind not in (None, "labels", "hypertextlabels"):
        return None
    stated = value.get("text")
    return RawSpan(
        f"{where}.value",
        (".start", ".end", ".labels"),
        offsets["start"],
        offsets["end"],
        labels or [],
        stated if isinstance(stated, str) else None,
        item.get("id"),
        item,
    )


def raw_spans(place: Place, name: str, value: Any, report: Counter[str]) -> list[RawSpan]:
    """Return the spans of a list, or of a mapping from span groups to lists.

    Raises
    ------
    DataError
        `value` is neither, or an item is no span.
    """
    if not isinstance(value, (list, tuple)):
        if not isinstance(value, Mapping) or not all(
            isinstance(one, (list, tuple)) for one in value.values()
        ):
            raise place.error(name, f"is {shown(value)}", "a list", "Write [] for none")
        if len(value) > 1:
            report[f"span groups read as one: {', '.join(map(str, value))}"] += 1
        return [
            span for key, group in value.items() for span in raw_spans(place, f"{name}.{key}", group, report)
        ]
    spans: list[RawSpan] = []
    for position, item in enumerate(value):
        where = f"{name}[{position}]"
        if isinstance(item, (list, tuple)) and len(item) == 3:
            spans.append(RawSpan(where, _TRIPLE, *item))
        elif isinstance(item, Mapping):
            spans += _mapped(place, where, item)
        else:
            raise place.error(where, f"is {shown(item)}", "[start, end, label]")
    return spans


def _mapped(place: Place, where: str, item: Mapping[str, Any]) -> Iterator[RawSpan]:
    """Yield the span of a mapping, or those of its ``points``, whose end is inclusive."""
    label = next((key for key in LABEL_NAMES if item.get(key) is not None), None)
    points = item.get("points")
    if isinstance(points, (list, tuple)) and label is not None:
        for position, point in enumerate(points):
            if isinstance(point, Mapping):
                yield from _mapped(place, f"{where}.points[{position}]", {**point, "label": item[label]})
        return
    start = next((key for key in START_NAMES if key in item), None)
    end = next((key for key in END_NAMES if key in item), None)
    missing = [name for name, key in (("start", start), ("label", label)) if key is None]
    if end is None and "length" not in item:
        missing.insert(1 if start is None else 0, "end")
    if start is None or label is None or missing:
        raise place.error(where, f"lacks {', '.join(missing)}", '{"start": 0, "end": 4, "label": "person"}')
    first = item[start]
    last = item[end] if end is not None else item["length"]
    if (
        end is None
        and (begin := whole_number(first)) is not None
        and (size := whole_number(last)) is not None
    ):
        last = begin + size
    stated = next((item[key] for key in STATED_NAMES if isinstance(item.get(key), str)), None)
    parts = (f".{start}", f".{end or 'length'}", f".{label}")
    yield RawSpan(where, parts, first, last, item[label], stated, item.get("id"), item)


# -- relations ---------------------------------------------------------------------------------------------------------


def raw_links(
    place: Place, name: str, value: Any, found: Annotated, record: Mapping[str, Any], report: Counter[str]
) -> list[RawLink]:
    """Return the relations of a list of mappings, between the spans of `found`.

    Raises
    ------
    DataError
        `value` is no list of mappings.
    """
    links: list[RawLink] = []
    for position, item in enumerate(value):
        if not isinstance(item, Mapping):
            raise place.error(f"{name}[{position}]", f"is {shown(item)}", "a mapping, as the others are")
        links += _links(f"{name}[{position}]", item, found, record, report)
    return links


def _links(
    where: str, item: Mapping[str, Any], found: Annotated, record: Mapping[str, Any], report: Counter[str]
) -> Iterator[RawLink]:
    """Yield the relations of one mapping: one for each label, and both directions if it has two."""
    names = ("label", "labels", "type") if item.get("type") != "relation" else ("labels", "label")
    label = next((item[key] for key in names if item.get(key)), None)
    labels = list(label) if isinstance(label, (list, tuple)) else [label]
    ends = _end(item, "head", found, record), _end(item, "tail", found, record)
    if not labels or labels == [None]:
        report["relation without label (dropped)"] += 1
        return
    direction = item.get("direction")
    for one in labels:
        if direction != "left":
            yield RawLink(where, *ends, one)
        if direction in ("left", "bi"):
            yield RawLink(where, *ends[::-1], one)


def _end(item: Mapping[str, Any], side: str, found: Annotated, record: Mapping[str, Any]) -> int | None:
    """Return the position of the span at one end of a relation."""
    spans = found.spans
    head = side == "head"
    number = item.get("head") if head else item.get("child", item.get("tail"))
    identifier = item.get("from_id" if head else "to_id", number if isinstance(number, str) else None)
    if identifier is not None:
        return next((i for i, span in enumerate(spans) if str(span.id) == str(identifier)), None)
    stated = item.get("head_span" if head else "child_span")
    if isinstance(stated, Mapping):
        ends = [
            i
            for i, span in enumerate(spans)
            if (span.start, span.end) == (stated.get("start"), stated.get("end"))
        ]
        same = [i for i in ends if stated.get("label") in (None, spans[i].labels)]
        return next(iter(same or ends), None)
    if type(number) is not int:
        return None
    if "child" not in item:
        return number if 0 <= number < len(spans) else None
    return next((i for i, span in enumerate(spans) if _has_token(span, number, record)), None)


def _has_token(span: RawSpan, number: int, record: Mapping[str, Any]) -> bool:
    """Whether a span contains the token with this number, by its numbers of tokens or by the offsets of the token."""
    value = span.value if isinstance(span.value, Mapping) else {}
    first, last = value.get("token_start"), value.get("token_end")
    if type(first) is int and type(last) is int:
        return first <= number <= last
    tokens = _listed(record.get("tokens"))
    token = next((one for one in tokens if isinstance(one, Mapping) and one.get("id") == number), {})
    start = token.get("start")
    if not type(start) is type(span.start) is type(span.end) is int:
        return False
    return bool(span.start <= start < span.end)


def tool_fields(record: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the fields of the tool that wrote a record that are no annotations."""
    if not _PRODIGY_MARKS.isdisjoint(record):
        return PRODIGY
    if not _LABEL_STUDIO_MARKS.isdisjoint(record):
        return LABEL_STUDIO
    return () if _DOCCANO_MARKS.isdisjoint(record) else DOCCANO
