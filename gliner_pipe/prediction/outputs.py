"""Writes predictions as terminal text, JSON Lines, standoff files or an HTML page, one at a time."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.text import Text
from spacy.tokens import Doc

from gliner_pipe.data import writers
from gliner_pipe.data.annotations import set_supervision
from gliner_pipe.data.classes import get_classes
from gliner_pipe.data.records import get_records
from gliner_pipe.errors import ConfigError
from gliner_pipe.pipeline.records import Entity, other_relations, relations_of
from gliner_pipe.prediction.chunks import Found, json_fields
from gliner_pipe.prediction.rendering import (
    HTML_TAIL,
    HtmlStyle,
    html_head,
    relation_line,
    task_lines,
    to_html,
    to_terminal,
)
from gliner_pipe.prediction.texts import TextItem
from gliner_pipe.prediction.view import found_in, view_figure, view_head
from gliner_pipe.util.atomic import written_file
from gliner_pipe.util.colours import LabelColours
from gliner_pipe.util.console import console_note, show

#: A text, its document, and its entities.
Prediction = tuple[TextItem, Doc, list[Entity]]

logger = logging.getLogger("gliner_pipe")

#: The span group that the standoff writer reads.
_STANDOFF = "gliner_pipe.standoff"

FORMATS = ("terminal", "jsonl", "standoff", "html")


def write(
    predictions: Iterable[Prediction], format: str, output: Path | None = None, html_style: HtmlStyle = "auto"
) -> int:
    """Write a stream of predictions.

    Parameters
    ----------
    predictions
        The predictions; none is kept in memory.
    format
        One of `FORMATS`.
    output
        File (a folder for ``standoff``), with its parents created; standard output by default. An existing file is
        replaced when everything is written.
    html_style
        ``auto`` for the view that the server shows, too, or a style of `to_html`.

    Returns
    -------
    int
        Number of texts.

    Raises
    ------
    ConfigError
        If the format is unknown, or ``standoff`` has no output folder.
    """
    if format not in FORMATS:
        raise ConfigError("format", f"is {format!r}", ", ".join(FORMATS))
    count = 0

    def counted() -> Iterator[Prediction]:
        nonlocal count
        for count, prediction in enumerate(predictions, 1):  # noqa: B007 (the result)
            yield prediction

    if format == "standoff":
        if output is None:
            raise ConfigError(
                "output", "is not set", "a folder, for the format standoff", "Add --output FOLDER"
            )
        _write_standoff(counted(), output)
        return count
    with _opened(output) as stream:
        if format == "jsonl":
            _write_jsonl(counted(), stream)
        elif format == "html":
            _write_html(counted(), stream, html_style)
        else:
            _write_terminal(counted(), stream)
    return count


def _write_jsonl(predictions: Iterable[Prediction], stream: TextIO) -> None:
    """Write one object per line: ``text``, the fields of `json_fields`, and ``meta``."""
    escape = not _is_utf8(stream)
    for item, doc, entities in predictions:
        record = {"text": item.text, **json_fields(Found.of(doc, entities)), "meta": item.meta}
        stream.write(json.dumps(record, ensure_ascii=escape) + "\n")
        stream.flush()


class _PipedConsole(Console):
    """A console that raises the error of a pipe that its reader has closed; rich would end with code 1."""

    def on_broken_pipe(self) -> None:
        """Raise the error again."""
        raise


def _write_terminal(predictions: Iterable[Prediction], stream: TextIO) -> None:
    """Write texts with their entities in brackets, and one line per relation, classification and record; in colour on a
    terminal, unless NO_COLOR is set.
    """
    console = _PipedConsole(
        file=stream,
        color_system=None if os.environ.get("NO_COLOR") else "auto",
        highlight=False,
        markup=False,
        emoji=False,
    )
    styles: dict[str, str] = {}
    for item, doc, entities in predictions:
        if "file" in item.meta:
            show(Text(f"{item.meta['file']}:", "bold underline"), console)
        show(to_terminal(item.text, entities, styles), console)
        for relation in relations_of(doc, entities) or ():
            show(relation_line(relation, entities), console)
        for line in task_lines(doc, entities):
            show(Text(f"  {line}"), console)


def _write_html(predictions: Iterable[Prediction], stream: TextIO, style: HtmlStyle) -> None:
    """Write one page with one view, or displaCy figure, per text, readable whatever the encoding of the stream."""

    def parts() -> Iterator[str]:
        yield view_head("Predictions") if style == "auto" else html_head("Entities")
        colours = LabelColours()
        for item, doc, entities in predictions:
            title = item.meta.get("file", "")
            if style == "auto":
                yield view_figure(doc.text, found_in(doc, entities), title)
            else:
                yield to_html(doc, entities, style, title, colours)
        yield HTML_TAIL

    for part in parts():
        stream.write(part if _is_utf8(stream) else part.encode("ascii", "xmlcharrefreplace").decode())


def _is_utf8(stream: TextIO) -> bool:
    return (stream.encoding or "").lower().replace("-", "") == "utf8"


def _write_standoff(predictions: Iterable[Prediction], folder: Path) -> None:
    """Write a ``.txt`` and a BRAT ``.ann`` file for each non-empty text, named after its file or line.

    The format stores no scores and allows no blanks in labels: a warning lists the labels that were changed. Another
    one counts what the format cannot hold.
    """
    left_out = Counter[str]()

    def docs() -> Iterator[Doc]:
        for item, doc, entities in predictions:
            left_out["relations of spans that are no entities"] += len(other_relations(doc, entities))
            left_out["classifications"] += len(get_classes(doc))
            left_out["records"] += len(get_records(doc))
            relations = relations_of(doc, entities) or []
            set_supervision(doc, id=item.name, relations=[list(relation[:3]) for relation in relations])
            doc.spans[_STANDOFF] = [doc.char_span(e["start"], e["end"], label=e["label"]) for e in entities]
            yield doc

    report = writers.write_standoff(docs(), folder, spans_key=_STANDOFF)
    if report.labels:
        changed = ", ".join(f"{old!r} to {new!r}" for old, new in report.labels.items())
        logger.warning("%s: labels were changed for the standoff format: %s", folder, changed)
    if counts := ", ".join(f"{number} {what}" for what, number in left_out.items() if number):
        logger.warning("%s: not written, as the standoff format cannot hold them: %s", folder, counts)


@contextmanager
def _opened(output: Path | None) -> Iterator[TextIO]:
    if output is None:
        yield sys.stdout
        return
    try:
        with _file(output) as stream:
            yield stream
    except BaseException as error:
        if not isinstance(error, Exception):  # Ctrl-C, or another signal
            console_note(f"nothing was written to {output}", stderr=True)
        raise


@contextmanager
def _file(output: Path) -> Iterator[TextIO]:
    try:
        with written_file(output) as path, path.open("w", encoding="utf-8") as stream:
            yield stream
    except OSError as error:
        if error.filename is None:  # a full device
            error.filename = str(output)
        raise
