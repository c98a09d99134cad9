from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from rich.text import Text
from spacy import displacy
from spacy.tokens import Doc, Span, SpanGroup
from spacy.vocab import Vocab

from gliner_pipe.errors import ConfigError
from gliner_pipe.pipeline.records import Entity, entities_of
from gliner_pipe.prediction.rendering import displacy_options, to_html, to_terminal
from gliner_pipe.util.colours import LabelColours

VOCAB = Vocab()


def make_doc(words: list[str], mentions: list[tuple[str, int, int, float]]) -> Doc:
    doc = Doc(VOCAB, words=words)
    spans = [Span(doc, start, end, label=label) for label, start, end, _ in mentions]
    scores = np.array([score for *_, score in mentions], dtype=np.float32)
    doc.spans["gliner"] = SpanGroup(doc, name="gliner", spans=spans, attrs={"scores": scores})
    return doc


def entity(start: int, end: int, label: str, score: float | None = None) -> Entity:
    return Entity(start=start, end=end, label=label, score=score, text="")


def shown(text: str, *entities: Entity) -> str:
    return to_terminal(text, entities, {}).plain


def test_entities_are_sorted_and_scored() -> None:
    doc = make_doc(["New", "York", "City"], [("city", 1, 2, 0.25), ("place", 0, 3, 0.5), ("city", 0, 3, 1.0)])
    doc.set_ents([Span(doc, 0, 3, label="city")])
    found = entities_of(doc, "gliner")
    assert [(e["start"], e["end"], e["label"], e["score"], e["text"]) for e in found] == [
        (0, 13, "city", 1.0, "New York City"),
        (0, 13, "place", 0.5, "New York City"),
        (4, 8, "city", 0.25, "York"),
    ]
    assert all(type(e["score"]) is float for e in found)
    assert entities_of(doc, "ents") == found[:1]


def test_no_scores() -> None:
    doc = Doc(VOCAB, words=["Rome"])
    doc.set_ents([Span(doc, 0, 1, label="city")])
    assert entities_of(doc, "ents")[0]["score"] is None


def test_terminal_brackets() -> None:
    assert shown("Ann met Bo", entity(0, 3, "person", 0.987), entity(8, 10, "dog")) == (
        "[Ann | person 0.99] met [Bo | dog]"
    )
    assert shown("nothing") == "nothing"
    assert shown("") == ""


def test_terminal_nested_and_crossing() -> None:
    assert shown("Bank of Italy", entity(8, 13, "country"), entity(0, 13, "org")) == (
        "[Bank of [Italy | country] | org]"
    )
    assert shown("a b c", entity(0, 3, "x"), entity(2, 5, "y")) == "[a [b | x] c | y]"
    assert shown("a", entity(0, 1, "x"), entity(0, 1, "y")) == "[[a | y] | x]"


def test_terminal_shows_markup_and_control_characters() -> None:
    text = "[bold]a[/bold] :smile: \x1b[31m \x9b \x07"
    assert shown(text, entity(6, 7, "x\x1b]")) == "[bold][a | x␛]][/bold] :smile: ␛[31m \ufffd ␇"


def test_terminal_takes_line_ends_of_windows_for_line_ends() -> None:
    assert shown("Ann\r\nBo\r", entity(0, 3, "x")) == "[Ann | x]\nBo␍"


def test_a_label_keeps_its_style() -> None:
    styles: dict[str, str] = {}
    first = to_terminal("ab", [entity(0, 1, "x"), entity(1, 2, "y")], styles)
    second = to_terminal("ab", [entity(0, 1, "y"), entity(1, 2, "x")], styles)

    def style_of(line: Text, letter: str) -> Any:
        return next(span.style for span in line.spans if line.plain[span.start : span.end] == letter)

    assert style_of(first, "a") == style_of(second, "b") != style_of(first, "b") == style_of(second, "a")


def test_html_escapes_everything() -> None:
    doc = make_doc(["<script>", "&", "Ann"], [("<b>name", 0, 1, 0.5)])
    entities = entities_of(doc, "gliner")
    for style in ("ent", "span"):
        html = to_html(doc, entities, style, title="<i>")  # type: ignore[arg-type]
        assert "<script>" not in html and "<b>" not in html and "<i>" not in html
        assert "&lt;script&gt;" in html and "&lt;b&gt;name 0.50" in html and "&lt;i&gt;" in html


def test_html_styles() -> None:
    flat = make_doc(["Ann", "met", "Bo"], [("person", 0, 1, 0.5)])
    nested = make_doc(["Bank", "of", "Italy"], [("org", 0, 3, 0.5), ("country", 2, 3, 0.25)])
    assert 'class="entities"' in to_html(flat, entities_of(flat, "gliner"))
    assert 'class="spans"' in to_html(flat, entities_of(flat, "gliner"), "span")
    html = to_html(nested, entities_of(nested, "gliner"))
    assert 'class="spans"' in html and "org 0.50" in html and "country 0.25" in html
    with pytest.raises(ConfigError) as error:
        to_html(nested, entities_of(nested, "gliner"), "ent")
    assert error.value.where == "html_style"


def test_html_spans_keep_lines_and_whole_labels() -> None:
    words = ["Ann", "met", "\n", "Bo", "\r\n", "\x1e", "<br>"]
    doc = make_doc(words, [("a very long label", 0, 1, 0.5), ("person", 0, 4, 0.5)])
    html = to_html(doc, entities_of(doc, "gliner"), "span")
    assert html.count("<br>") == 2 and html.index("met") < html.index("<br>") < html.index("Bo")
    assert "\x1e" not in html and "&lt;br&gt;" in html
    assert html.count("white-space: nowrap") == 4  # each label, and the copy that makes room for it


def test_labels_have_the_same_colour_on_every_page() -> None:
    names = [
        "person",
        "city",
        "organization",
        "Organisation",
        "Ort",
        "日付",
        "drug",
        "event",
        "year",
        "company",
    ]
    first, second = LabelColours(), LabelColours()
    hues = {name: first.hue(name) for name in names}
    assert hues["person"] == second.hue("person") and first.light("person") == second.light("person")
    assert len(set(hues.values())) == len(names)
    assert {first.hue(str(number)) for number in range(100)} | set(hues.values()) == {*range(0, 360, 15)}


@pytest.mark.parametrize("style", ["auto", "ent", "span"])
def test_html_of_a_text_without_entities(style: Any) -> None:
    assert "slept" in to_html(make_doc(["slept"], []), [], style)
    assert "<figure" in to_html(make_doc([], []), [], style)


def test_the_options_of_displacy_have_a_colour_for_each_label() -> None:
    labels = ["person", "city", "date", "work of art", "event", "product", "money", "time", "disease"]
    colours = displacy_options(labels)["colors"]
    assert set(colours) == set(labels) and len(set(colours.values())) == len(labels)
    assert displacy_options(["person"])["colors"]["person"] == LabelColours().light("person")
    assert displacy_options(reversed(labels)) == displacy_options(labels)
    assert len(displacy_options(map(str, range(30)))["colors"]) == 30
    doc = make_doc(["Ann", "saw", "Rome"], [("person", 0, 1, 0.9), ("city", 2, 3, 0.9)])
    doc.set_ents(list(doc.spans["gliner"]))
    options = displacy_options(["person", "city"])
    for style in ("ent", "span"):
        html = displacy.render(doc, style=style, options=options, jupyter=False)
        assert all(colour in html for colour in options["colors"].values())
