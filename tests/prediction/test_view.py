"""What was found in a document as JSON values, and its view in a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import spacy
from spacy.tokens import Doc

import gliner_pipe
from gliner_pipe.data.classes import Classified, write_classes
from gliner_pipe.data.records import Record, set_records
from gliner_pipe.data.relations import Relation, set_relations
from gliner_pipe.pipeline.records import entities_of
from gliner_pipe.prediction.outputs import write
from gliner_pipe.prediction.texts import TextItem
from gliner_pipe.prediction.view import _classes, found_in, view_figure, view_head


def test_scores_of_classes_are_those_of_their_task() -> None:
    one = Classified("tone", {"good": 0.75, "a=b": 0.25}, "good")
    other = Classified("x=y", {"good": 0.5}, ["good"])
    for found in ([one], [other], [one, other]):
        doc = spacy.blank("en")("Ada")
        write_classes(doc, found)
        assert _classes(doc) == {item.task: {"chosen": item.chosen, "scores": item.scores} for item in found}


TEXT = "Ann </script><script>alert(1)</script> of <b>Acme</b> 🙂 met Bo."
EVIL = "<img src=x onerror=alert(2)>{0}"


def make_doc() -> Doc:
    doc = spacy.blank("en")(TEXT)

    def span(text: str, label: str) -> Any:
        start = TEXT.index(text)
        return doc.char_span(start, start + len(text), label=label, alignment_mode="expand")

    doc.spans["gliner"] = [span("Ann", EVIL), span("Bo", "person"), span("🙂 met Bo", "clause")]
    doc.spans["gliner"].attrs["scores"] = [0.9, 0.8, 0.7]
    set_relations(doc, [Relation(span("Ann", EVIL), span("Bo", "person"), EVIL, 0.75)])
    write_classes(doc, [Classified(EVIL, {EVIL: 0.75, "b": 0.25}, EVIL)])
    set_records(doc, [Record(EVIL, {EVIL: span("Ann", EVIL), "none": None}, 0.9)])
    return doc


def test_the_page_of_predictions_shows_everything_as_text(browser: Any, tmp_path: Path) -> None:
    doc = make_doc()
    item = TextItem(TEXT, "text", "text", {"file": EVIL})
    write([(item, doc, entities_of(doc, "gliner"))] * 2, "html", tmp_path / "page.html")
    page = browser.new_page()
    faults: list[str] = []
    page.on("dialog", lambda dialog: faults.append(dialog.message) or dialog.dismiss())
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("request", lambda request: faults.append(request.url) if "page.html" not in request.url else None)
    page.goto((tmp_path / "page.html").as_uri())
    assert page.locator("figure").count() == 2
    figure = page.locator("figure").first
    assert figure.locator("figcaption").inner_text() == EVIL
    marks = figure.locator(".text mark").evaluate_all(
        "marks => marks.map(mark => [mark.title, mark.querySelectorAll('mark').length])"
    )
    assert marks == [[f"{EVIL} 0.90", 0], ["clause 0.70", 1], ["person 0.80", 0]]
    shown = figure.locator(".text").evaluate(
        "node => { for (const small of node.querySelectorAll('small')) small.remove(); return node.textContent; }"
    )
    assert shown == TEXT
    assert figure.locator("svg path").count() == 2 and figure.locator(".bar").count() == 2
    assert figure.locator(".card dt").all_inner_texts() == [EVIL, "none"]
    assert faults == []


def test_a_notebook_shows_a_document_in_a_frame_of_its_own(browser: Any) -> None:
    doc = make_doc()
    page = browser.new_page()
    page.set_content(gliner_pipe.View(doc, "gliner")._repr_html_())
    frame = page.frame_locator("iframe")
    assert frame.locator(".text mark").count() == len(found_in(doc, entities_of(doc, "gliner"))["entities"])
    assert page.locator("iframe").get_attribute("sandbox") == "allow-scripts"


def test_a_page_is_readable_in_any_encoding() -> None:
    assert (view_head("Predictions") + view_figure(TEXT, found_in(make_doc(), []))).isascii()


def test_styles_of_displacy_remain(tmp_path: Path) -> None:
    doc = make_doc()
    write([(TextItem.of(TEXT, 1), doc, entities_of(doc, "gliner"))], "html", tmp_path / "a.html", "span")
    assert 'class="spans"' in (tmp_path / "a.html").read_text()
