"""Predictions of a document as JSON values, and the view of them that server, pages and notebooks share."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cache
from html import escape
from importlib.resources import files
from typing import Any

from spacy.tokens import Doc, Span

from gliner_pipe.data.classes import CLASSES_KEY, cat_key, get_classes
from gliner_pipe.data.records import RECORDS_KEY, get_records, with_values
from gliner_pipe.data.relations import RELATIONS_KEY
from gliner_pipe.metrics.alignment import SpanGetter
from gliner_pipe.pipeline.records import Entity, entities_of, relation_dicts

#: Decimal places of scores. Two batches may differ by 1e-7 in a score.
DECIMALS = 4


def found_in(doc: Doc, entities: list[Entity]) -> dict[str, Any]:
    """Return what was found in a document as JSON values.

    Parameters
    ----------
    doc
        A document with predictions.
    entities
        Its entities, as ``entities_of`` returns them.

    Returns
    -------
    dict
        ``entities``, and ``relations``, ``classes`` and ``records`` if the pipeline predicts them, as in an answer of
        the server.
    """
    fields: dict[str, Any] = {"entities": entities}
    if RELATIONS_KEY in doc.user_data:
        fields["relations"] = relation_dicts(doc, entities)
    if CLASSES_KEY in doc.user_data:
        fields["classes"] = _classes(doc)
    if RECORDS_KEY in doc.user_data:
        fields["records"] = [
            {"name": one.name, "score": one.score, "fields": with_values(one, _place)}
            for one in get_records(doc)
        ]
    rounded: dict[str, Any] = _rounded(fields)
    return rounded


@cache
def _part(name: str) -> str:
    return files("gliner_pipe.prediction").joinpath(f"page/{name}").read_text("utf-8")


def with_view(page: str) -> str:
    """Return a page with style and script of the view in place of the comments that name them."""
    return page.replace("/* view.css */\n", _part("view.css")).replace("// view.js\n", _part("view.js"))


#: The page loads nothing, and texts and labels cannot add to it.
_HEAD = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>{title}</title>
<style>
/* view.css */
body { padding-top: 1.25rem; }
</style>
<script>
"use strict";
// view.js
</script>
</head>
<body>
<noscript>This page needs JavaScript.</noscript>
"""
_FIGURE = """<figure>{title}<div></div><script type="application/json">{data}</script><script>{{
  const figure = document.currentScript.parentElement, data = JSON.parse(figure.querySelector("script").textContent);
  show_found(figure.querySelector("div"), data.found, data.text);
}}</script></figure>
"""


def view_head(title: str) -> str:
    """Return the start of a page of views; its end is ``HTML_TAIL``."""
    return with_view(_HEAD).replace("{title}", escape(title))


def view_figure(text: str, found: Mapping[str, Any], title: str = "") -> str:
    """Return the view of a text as a part of a page.

    Parameters
    ----------
    text
        The text.
    found
        What was found, as `found_in` returns it.
    title
        Heading of the text.
    """
    data = json.dumps({"text": text, "found": found}).replace("<", "\\u003c")  # no text ends the script
    return _FIGURE.format(title=f"<figcaption>{escape(title)}</figcaption>" if title else "", data=data)


class View:
    """Shows documents with what was found in them, as the last value of a notebook's cell.

    Entities are drawn in the text, nested ones too, relations as arcs, classes as bars and records as cards. The view
    is a frame of its own that can reach neither the notebook nor the network.

    Parameters
    ----------
    docs
        A document with predictions, or several.
    span_getter
        Where spans are stored: the key of a span group, ``"ents"``, or a list of these; all groups by default.
    height
        Height of the frame in pixels.

    Examples
    --------
    ::

        View(nlp("Ada Lovelace met Charles Babbage in London."))
    """

    def __init__(self, docs: Doc | Iterable[Doc], span_getter: SpanGetter = "*", height: int = 420) -> None:
        self.docs = [docs] if isinstance(docs, Doc) else list(docs)
        self.span_getter, self.height = span_getter, height

    def html(self) -> str:
        """Return the page."""
        figures = [
            view_figure(doc.text, found_in(doc, entities_of(doc, self.span_getter))) for doc in self.docs
        ]
        return view_head("Predictions") + "".join(figures) + "</body>\n</html>\n"

    def _repr_html_(self) -> str:
        return (
            f'<iframe sandbox="allow-scripts" srcdoc="{escape(self.html())}" '
            f'style="width: 100%; height: {int(self.height)}px; border: 0"></iframe>'
        )


def _classes(doc: Doc) -> dict[str, dict[str, Any]]:
    """Return the chosen label and the scores of all labels of each classification."""
    chosen, cats = get_classes(doc), doc.cats
    found = {}
    for task, label in chosen.items():
        start = "" if len(chosen) == 1 else cat_key(task, "", alone=False)
        scores = {key[len(start) :]: score for key, score in cats.items() if key.startswith(start)}
        found[task] = {"chosen": label, "scores": scores}
    return found


def _place(span: Span) -> dict[str, Any]:
    return {"start": span.start_char, "end": span.end_char, "text": span.text}


def _rounded(value: Any) -> Any:
    """Return JSON values with all scores rounded."""
    if isinstance(value, float):
        return round(value, DECIMALS)
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    return [_rounded(one) for one in value] if isinstance(value, (list, tuple)) else value
