"""Entities and relations of a document as coloured terminal text and HTML."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from itertools import pairwise
from typing import Any, Literal

from rich.text import Text
from spacy import displacy
from spacy.tokens import Doc

from gliner_pipe.data.classes import cat_key, get_classes
from gliner_pipe.data.records import get_records
from gliner_pipe.errors import ConfigError
from gliner_pipe.pipeline.records import Entity, RelationRecord, other_relations
from gliner_pipe.util.colours import LabelColours
from gliner_pipe.util.visible import VISIBLE, visible

#: Styles of the labels in a terminal, assigned in order of first appearance.
TERMINAL_STYLES = ("cyan", "magenta", "green", "yellow", "blue", "red", "bright_cyan", "bright_magenta")
#: Stands for a line break in text for displaCy, which turns line breaks into spaces; texts hold no such character, as
#: control characters are replaced.
_BREAK = "\x1e"
#: displaCy's templates of the style ``span``, in which a label stays on one line: an invisible copy makes the first
#: word of the span as wide as the label, so that no label covers another.
_LABEL = "padding: 2px 3px; font-size: 0.7em; line-height: 1; white-space: nowrap"
_BAR = "background: {bg}; top: {top_offset}px; height: 4px; left: -1px; width: calc(100% + 2px); position: absolute"
_SPAN_TEMPLATES = {
    "span": '<span style="font-weight: bold; display: inline-block; vertical-align: top; position: relative; '
    'height: {total_height}px">{text}{span_slices}{span_starts}</span> ',
    "slice": f'<span style="{_BAR}"></span>',
    "start": f'<span style="{_BAR}"><span style="{_LABEL}; background: {{bg}}; color: #000; top: -0.5em; '
    'position: absolute; border-radius: 3px">{label}{kb_link}</span></span>'
    f'<span aria-hidden="true" style="{_LABEL}; display: block; height: 0; padding-block: 0; visibility: hidden">'
    "{label}</span>",
}

HtmlStyle = Literal["auto", "span", "ent"]


def relation_line(relation: RelationRecord, entities: Sequence[Entity]) -> Text:
    """Return a relation as one line: ``Ann --[works for 0.98]-> Acme``."""
    head, tail = (
        " ".join(entities[place]["text"].translate(VISIBLE).split())
        for place in (relation.head, relation.tail)
    )
    label = relation.label.translate(VISIBLE).replace("\n", " ")
    return Text(f"  {head} --[{label} {relation.score:.2f}]-> {tail}")


def task_lines(doc: Doc, entities: Sequence[Entity]) -> list[str]:
    """Return the relations of spans that are no entities, the classes and the records of a document, a line for each.

    ``Ann --[works for 0.98]-> Acme``, ``tone: good 0.91``, ``product: name = lamp 0.98, colours = red 0.9 | blue 0.7``.
    """
    others = other_relations(doc, entities)
    lines = [f"{one.head.text} --[{one.label} {one.score:.2f}]-> {one.tail.text}" for one in others]
    classes = get_classes(doc)
    for task, chosen in classes.items():
        names = [chosen] if isinstance(chosen, str) else chosen or []
        keys = [(name, cat_key(task, name, len(classes) == 1)) for name in names]
        lines.append(
            f"{task}: " + (", ".join(f"{name} {doc.cats.get(key, 1.0):.2f}" for name, key in keys) or "-")
        )
    for record in get_records(doc):
        parts = [
            f"{field} = {_shown(value, record.scores.get(field))}"
            for field, value in record.fields.items()
            if value
        ]
        lines.append(f"{record.name}: {', '.join(parts)}")
    return [" ".join(line.translate(VISIBLE).split()) for line in lines]


def _shown(value: Any, score: Any) -> str:
    """Return a value of a record, or several, with their scores if these are known."""
    if isinstance(value, list):
        scores = score if isinstance(score, list) else [None] * len(value)
        return " | ".join(map(_shown, value, scores))
    text = value if isinstance(value, str) else value.text
    return text if score is None else f"{text} {score:.2f}"


def to_terminal(text: str, entities: Sequence[Entity], styles: dict[str, str]) -> Text:
    """Return a text with its entities in brackets with label and score, nested ones included: ``[Ann | person 0.98]``.

    Parameters
    ----------
    text
        The text.
    entities
        Its entities, in any order.
    styles
        Style of each label; new labels are added, so that a label has the same colour in all texts.

    Returns
    -------
    Text
        Text for a ``rich`` console; markup and control characters in `text` and labels are printed literally.
    """
    for entity in entities:
        styles.setdefault(entity["label"], TERMINAL_STYLES[len(styles) % len(TERMINAL_STYLES)])
    opens = sorted(entities, key=lambda e: (e["start"], -e["end"], e["label"]))
    # the entity opened last is closed first
    closes = [entity for _, entity in sorted(enumerate(opens), key=lambda item: (item[1]["end"], -item[0]))]
    edges = sorted({0, len(text), *(e["start"] for e in entities), *(e["end"] for e in entities)})
    line = Text()
    for here, after in zip(edges, [*edges[1:], edges[-1]], strict=True):
        while closes and closes[0]["end"] == here:
            line.append(" | " + _caption(closes[0]) + "]", f"dim {styles[closes.pop(0)['label']]}")
        while opens and opens[0]["start"] == here:
            line.append("[", f"dim {styles[opens.pop(0)['label']]}")
        around = [e for e in entities if e["start"] <= here and e["end"] >= after > here]
        inner = min(around, key=lambda e: e["end"] - e["start"], default=None)
        line.append(visible(text[here:after]), f"bold {styles[inner['label']]}" if inner else "")
    return line


def to_html(
    doc: Doc,
    entities: Sequence[Entity],
    style: HtmlStyle = "auto",
    title: str = "",
    colours: LabelColours | None = None,
) -> str:
    """Render one document with displaCy, as a fragment of a page; its classes and records are a list below the text.

    Parameters
    ----------
    doc
        The document.
    entities
        Its entities.
    style
        ``"ent"`` (labels inside the running text), ``"span"`` (lines below the tokens, which can show overlapping
        entities), or ``"auto"``: ``"ent"`` unless entities overlap.
    title
        Heading of the document.
    colours
        Colours of the labels, for the same ones in all documents of a page.

    Returns
    -------
    str
        HTML with escaped texts and labels.

    Raises
    ------
    ConfigError
        If the style is ``"ent"`` and entities overlap.
    """
    overlapping = _overlap(entities)
    if style == "ent" and overlapping:
        raise ConfigError(
            "html_style", "is 'ent', but entities overlap", "span, auto", "Use --html-style span"
        )
    captions = [escape(_caption(entity)) for entity in entities]
    pairs = list(zip(captions, entities, strict=True))
    known = LabelColours() if colours is None else colours
    # displaCy looks a colour up by the upper-cased label
    shown = {caption.upper(): known.light(entity["label"]) for caption, entity in pairs}
    options: dict[str, Any] = {"colors": shown}
    parsed: dict[str, Any] = {"title": escape(title) or None, "settings": {}}
    if style == "span" or overlapping:
        lines = [visible(token.text) for token in doc]
        options["template"] = _SPAN_TEMPLATES
        kind, parsed["tokens"] = "span", [line.replace("\n", _BREAK) for line in lines]
        parsed["spans"] = [
            {**_token_range(doc, entity), "label": caption, "kb_id": "", "kb_url": "#"}
            for caption, entity in pairs
        ]
    else:
        kind, parsed["text"] = "ent", doc.text
        parsed["ents"] = [{"start": e["start"], "end": e["end"], "label": caption} for caption, e in pairs]
    html = displacy.render(parsed, style=kind, manual=True, jupyter=False, options=options)
    html = html.replace(_BREAK, "<br>")
    items = "".join(f"<li>{escape(line)}</li>\n" for line in task_lines(doc, entities))
    below = f"\n<ul>\n{items}</ul>" if items else ""
    return f'<figure style="margin-bottom: 3rem">\n{html}{below}\n</figure>\n'


def displacy_options(labels: Iterable[str], spans_key: str = "gliner") -> dict[str, Any]:
    """Return the options of displaCy for labels of one's own, which it shows all in grey otherwise.

    Parameters
    ----------
    labels
        The labels, e.g. those of the component; their order does not matter. Each has a colour that is the same in
        every run, and up to 24 have different ones.
    spans_key
        Span group that the style ``"span"`` shows.

    Examples
    --------
    >>> list(displacy_options(["person", "city"])["colors"])
    ['city', 'person']
    """
    known = LabelColours()
    return {"spans_key": spans_key, "colors": {label: known.light(label) for label in sorted(set(labels))}}


def html_head(title: str) -> str:
    """Return the start of a page."""
    font = "font: 16px/1.5 -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif"
    return (
        f'<!DOCTYPE html>\n<html>\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n</head>\n'
        f'<body style="{font}; padding: 3rem 2rem">\n'
    )


#: The end of a page.
HTML_TAIL = "</body>\n</html>\n"


def _caption(entity: Entity) -> str:
    label = entity["label"].translate(VISIBLE).replace("\n", " ")
    return label if entity["score"] is None else f"{label} {entity['score']:.2f}"


def _overlap(entities: Iterable[Entity]) -> bool:
    ordered = sorted(entities, key=lambda entity: (entity["start"], entity["end"]))
    return any(one["end"] > other["start"] for one, other in pairwise(ordered))


def _token_range(doc: Doc, entity: Entity) -> dict[str, int]:
    span = doc.char_span(entity["start"], entity["end"], alignment_mode="expand")
    return {"start": entity["start"], "end": entity["end"], "start_token": span.start, "end_token": span.end}
