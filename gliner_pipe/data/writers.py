"""Writes documents with entities to files in formats that the readers read."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, TextIO

from spacy.tokens import Doc, Span

from gliner_pipe.data.annotations import (
    DEFAULT_SPANS_KEY,
    Supervision,
    gold_spans,
    has_entities_annotated,
    supervision,
    word_places,
)
from gliner_pipe.data.classes import get_classes
from gliner_pipe.data.gold_classes import stated_classes
from gliner_pipe.data.records import RECORDS_KEY, get_records, with_values
from gliner_pipe.util.atomic import written_file
from gliner_pipe.util.file_lock import LOCK, only_writer

_LABEL_FIELDS = (
    "ner_labels",
    "ner_negatives",
    "adds_labels",
    "rel_labels",
    "rel_negatives",
    "ner_descriptions",
    "rel_descriptions",
    "all_occurrences",
)


@dataclass
class WriteReport:
    """Counts of written documents and annotations.

    ``classes`` counts documents with classes, ``skipped`` documents without text. ``labels`` maps labels that the
    format cannot represent to their replacement.
    """

    documents: int = 0
    entities: int = 0
    relations: int = 0
    classes: int = 0
    records: int = 0
    skipped: int = 0
    labels: dict[str, str] = field(default_factory=dict)


def write_gliner_json(
    docs: Iterable[Doc], path: str | Path, *, spans_key: str = DEFAULT_SPANS_KEY
) -> WriteReport:
    """Write the training format of GLiNER, one JSON object on each line; read by ``@readers = "gliner_json"``.

    Parameters
    ----------
    docs
        Documents with entities; whitespace tokens are left out.
    path
        The file; its folder is created, an existing file is replaced.
    spans_key
        Span group of the entities, or ``"ents"``.
    """
    report = WriteReport()
    with _opened(path) as handle:
        for doc in docs:
            places = word_places(doc)
            spans = gold_spans(doc, spans_key)
            kept = [i for i, span in enumerate(spans) if places[span.start] < places[span.end]]
            record: dict[str, Any] = {
                "tokenized_text": [token.text for token in doc if not token.is_space],
                "ner": [_words(spans[i], places) for i in kept],
            }
            if not record["tokenized_text"]:
                report.skipped += 1
                continue
            add_tasks(record, doc, partial(_word_range, places), report)
            _write_line(handle, record, supervision(doc), kept, report)
    return report


def write_jsonl(
    docs: Iterable[Doc], path: str | Path, *, spans_key: str = DEFAULT_SPANS_KEY, scores: bool = True
) -> WriteReport:
    """Write texts with character offsets, one JSON object on each line; read by ``@readers = "jsonl"``.

    Parameters
    ----------
    docs
        Documents with entities.
    path
        The file; its folder is created, an existing file is replaced.
    spans_key
        Span group of the entities, or ``"ents"``.
    scores
        Write the ``"score"`` of each entity, if the span group has scores.
    """
    report = WriteReport()
    with _opened(path) as handle:
        for doc in docs:
            if not doc.text:
                report.skipped += 1
                continue
            spans = gold_spans(doc, spans_key)
            entities: list[dict[str, Any]] = [
                {"start": span.start_char, "end": span.end_char, "label": span.label_, "text": span.text}
                for span in spans
            ]
            for entity, score in zip(entities, _scores(doc, spans_key) if scores else (), strict=False):
                entity["score"] = score
            record = {"text": doc.text, "entities": entities}
            add_tasks(record, doc, partial(character_range, doc), report)
            _write_line(handle, record, supervision(doc), range(len(spans)), report)
    return report


def _write_pair(path: Path, text: bytes, annotations: bytes) -> None:
    """Write a text and its annotations, so that a process that is killed leaves no text with annotations of another.

    Not flushed to the disk one by one: there may be thousands.
    """
    text_file, annotation_file = (path.with_name(path.name + suffix) for suffix in (".txt", ".ann"))
    beside = path.with_name(f".tmp-{path.name}")
    try:
        if text_file.exists() and text_file.read_bytes() != text:
            text_file.unlink()
        for content, file in ((annotations, annotation_file), (text, text_file)):
            beside.write_bytes(content)
            beside.replace(file)
    finally:
        beside.unlink(missing_ok=True)


def write_standoff(
    docs: Iterable[Doc], folder: str | Path, *, spans_key: str = DEFAULT_SPANS_KEY
) -> WriteReport:
    """Write the standoff format of brat, a .txt and an .ann file for each document; read by ``@readers = "standoff"``.

    Files are named after the ``id`` in the supervision of a document, or ``doc-1``, ``doc-2`` and so on.

    Parameters
    ----------
    docs
        Documents with entities.
    folder
        Created if missing; existing files of the same names are replaced.
    spans_key
        Span group of the entities, or ``"ents"``.

    Returns
    -------
    WriteReport
        Its ``labels`` are the labels whose blanks became underscores.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile(dir=folder, prefix="."):
        pass  # a folder that cannot be written to is found before the first document
    report = WriteReport()
    taken: set[str] = set()
    names: dict[str, str] = {}
    with only_writer(folder / LOCK):
        for number, doc in enumerate(docs, start=1):
            if not doc.text:
                report.skipped += 1
                continue
            stated = supervision(doc)
            spans = gold_spans(doc, spans_key)
            name = _file_name(stated.get("id") or f"doc-{number}", taken)
            lines = [_entity_line(i, span, names) for i, span in enumerate(spans, start=1)]
            relations = stated.get("relations") or []
            lines += [
                f"R{i}\t{_safe_label(label, names)} Arg1:T{head + 1} Arg2:T{tail + 1}"
                for i, (head, tail, label) in enumerate(relations, start=1)
            ]
            _write_pair(folder / name, doc.text.encode(), "".join(f"{line}\n" for line in lines).encode())
            report.documents += 1
            report.entities += len(spans)
            report.relations += len(relations)
    report.labels = {label: name for label, name in names.items() if label != name}
    return report


@contextmanager
def _opened(path: str | Path) -> Iterator[TextIO]:
    with written_file(path) as file, file.open("w", encoding="utf-8", newline="\n") as handle:
        yield handle


def add_tasks(
    record: dict[str, Any],
    doc: Doc,
    place: Callable[[int, int], list[int]],
    report: WriteReport | None = None,
) -> None:
    """Add the classes and the records of a document, gold or predicted, to a record for a file.

    Parameters
    ----------
    record
        The fields of the document. Its entities are removed if nobody looked for any.
    doc
        The document.
    place
        Returns the position to write for the tokens from start to end (exclusive).
    report
        Counts what was added.
    """
    stated = supervision(doc)
    if not has_entities_annotated(doc):
        record.pop("entities", None)
        record.pop("ner", None)
    if classes := written_classes(doc):
        record["classes"] = classes
    kinds: dict[str, Any] = {
        kind: {"items": [], **about} for kind, about in stated.get("records", {}).items()
    }
    if RECORDS_KEY in doc.user_data:
        found = get_records(doc)
        for one in found:
            values = with_values(one, lambda span: place(span.start, span.end))
            kinds.setdefault(one.name, {"items": []})["items"].append(values)
        record["records"] = {
            kind: about if len(about) > 1 else about["items"] for kind, about in kinds.items()
        }
    if "links" in stated:
        record["links"] = [[*place(*link[:2]), *place(*link[2:4]), link[4]] for link in stated["links"]]
    if report is not None:
        report.classes += bool(classes)
        report.records += sum(len(kind["items"]) for kind in kinds.values())


def written_classes(doc: Doc) -> dict[str, Any]:
    """Return the classes of a document for a file: those that were annotated, else those that were predicted."""
    found: dict[str, Any] = {}
    for task, about in stated_classes(doc).items():
        true = about.pop("true")
        found[task] = {"label": true if about.get("multi_label") or len(true) != 1 else true[0], **about}
    for task, chosen in get_classes(doc).items():
        if task not in found and chosen is not None:
            found[task] = {"label": chosen}
    return found


def character_range(doc: Doc, start: int, end: int) -> list[int]:
    """Return the characters of the tokens from `start` to `end` (exclusive)."""
    span = doc[start:end]
    return [span.start_char, span.end_char]


def _word_range(places: Sequence[int], start: int, end: int) -> list[int]:
    """Return the words of the tokens from `start` to `end` (exclusive), both inclusive."""
    return [places[start], places[end] - 1]


def _write_line(
    handle: Any, record: dict[str, Any], stated: Supervision, kept: Iterable[int], report: WriteReport
) -> None:
    """Add the supervision to `record` and write it; `kept` are the indices of the written entities."""
    positions = {old: new for new, old in enumerate(kept)}
    fields: dict[str, Any] = dict(stated)
    if "relations" in fields:
        record["relations"] = [
            [positions[head], positions[tail], label]
            for head, tail, label in fields["relations"]
            if head in positions and tail in positions
        ]
    record.update({name: fields[name] for name in ("id", *_LABEL_FIELDS) if name in fields})
    handle.write(json.dumps(record, ensure_ascii=False) + "\n")
    report.documents += 1
    report.entities += len(positions)
    report.relations += len(record.get("relations", []))


def _words(span: Span, places: list[int]) -> list[Any]:
    return [places[span.start], places[span.end] - 1, span.label_]


def _scores(doc: Doc, spans_key: str) -> list[float]:
    if spans_key == "ents" or spans_key not in doc.spans:
        return []
    values = doc.spans[spans_key].attrs.get("scores")
    return [] if values is None else [round(float(value), 6) for value in values]


def _file_name(wanted: str, taken: set[str]) -> str:
    """Return a file name that is not a path, hidden, in use, or of more bytes than systems allow."""
    base = re.sub(r"[^\w.-]+", "_", wanted).lstrip(".").encode()[:150].decode("utf-8", "ignore")
    name = base = base or "doc"
    number = 1
    while name.lower() in taken:
        number += 1
        name = f"{base}-{number}"
    taken.add(name.lower())
    return name


def _safe_label(label: str, names: dict[str, str]) -> str:
    """Return `label` without blanks, distinct from those of all other labels."""
    if label not in names:
        name = base = re.sub(r"\s+", "_", label.strip()) or "_"
        number = 1
        while name in names.values():
            number += 1
            name = f"{base}_{number}"
        names[label] = name
    return names[label]


def _entity_line(number: int, span: Span, names: dict[str, str]) -> str:
    """Return a T line; an entity across several lines has a range for each of them."""
    parts = [
        (span.start_char + match.start(), span.start_char + match.end(), match[0])
        for match in re.finditer(r"[^\r\n]*[^\r\n\s][^\r\n]*", span.text)
    ] or [(span.start_char, span.end_char, " ")]
    ranges = ";".join(f"{start} {end}" for start, end, _ in parts)
    text = " ".join(part for _, _, part in parts)
    return f"T{number}\t{_safe_label(span.label_, names)} {ranges}\t{text}"
