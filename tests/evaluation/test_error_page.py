"""The page of an evaluation: errors in their texts, bounded, escaped, and without anything from outside the file."""

from __future__ import annotations

from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import spacy
from spacy.language import Language
from spacy.tokens import Doc, Span
from spacy.training import Example

from gliner_pipe.data.annotations import set_supervision
from gliner_pipe.data.classes import Classified, write_classes
from gliner_pipe.data.gold_classes import set_gold_classes
from gliner_pipe.data.records import Record, set_records
from gliner_pipe.data.relations import Relation, set_relations
from gliner_pipe.evaluation.error_page import LONGEST, ErrorReader, Passage, choose, write_error_page
from gliner_pipe.evaluation.evaluate import evaluate_pipeline
from gliner_pipe.evaluation.task_errors import TaskErrors
from gliner_pipe.metrics.classes import ClassScorer
from gliner_pipe.metrics.error_kinds import KINDS
from gliner_pipe.metrics.records import RecordScorer
from gliner_pipe.util.colours import LabelColours

LABELS = ["person", "city", "org"]
#: Elements of HTML without an end tag.
VOID = {"meta", "input", "br", "link", "img"}

Mentions = list[tuple[str, int, int]]


@pytest.fixture(scope="module")
def blank() -> Language:
    return spacy.blank("en")


def annotated(nlp: Language, words: list[str], mentions: Mentions, spaces: list[bool] | None = None) -> Doc:
    doc = Doc(nlp.vocab, words=words, spaces=spaces)
    doc.spans["gliner"] = [Span(doc, start, end, label) for label, start, end in mentions]
    return doc


def example(nlp: Language, text: str, predicted: Mentions, gold: Mentions) -> Example:
    return Example(annotated(nlp, text.split(), predicted), annotated(nlp, text.split(), gold))


def passages(nlp: Language, *examples: Example) -> list[Passage]:
    reader = ErrorReader(nlp, LABELS, "gliner", "gliner")
    return [
        one
        for number, pair in enumerate(examples, 1)
        for one in reader.passages(number, pair, *reader.pair(pair))
    ]


def shown(passage: Passage, side: int) -> str:
    """Write marks as brackets: ``[Ann person!missed]``."""
    text = ""
    for part in list(passage.sides(LabelColours()))[side]:
        marks = part["marks"]
        text += "[" * sum(mark["first"] for mark in marks) + part["text"]
        for mark in reversed(marks):
            if mark["last"]:
                text += f" {mark['label']}!{mark['kind']}]"
    return text


def test_each_kind_of_error_by_hand(blank: Language) -> None:
    text = "Ann met Bo Lee in New York for Acme"
    [one] = passages(
        blank,
        example(
            blank,
            text,
            [("person", 0, 1), ("person", 2, 3), ("org", 5, 7), ("city", 1, 2), ("game", 3, 4)],
            [("person", 0, 1), ("person", 2, 4), ("city", 5, 7), ("org", 8, 9)],
        ),
    )
    assert [(e.kind, e.gold, e.predicted, e.gold_text, e.predicted_text) for e in one.errors] == [
        ("spurious", "", "city", "", "met"),
        ("boundary", "person", "person", "Bo Lee", "Bo"),
        ("type", "city", "org", "New York", "New York"),
        ("missed", "org", "", "Acme", ""),
    ]
    assert shown(one, 0) == (
        "[Ann person!correct] met [Bo Lee person!boundary] in [New York city!type] for [Acme org!missed] "
    )
    assert shown(one, 1) == (
        "[Ann person!correct] [met city!spurious] [Bo person!boundary] Lee in [New York org!type] for Acme "
    )
    assert passages(blank, example(blank, text, [("city", 5, 7)], [("city", 5, 7)])) == []


def test_nested_and_crossing_entities(blank: Language) -> None:
    gold: Mentions = [("org", 0, 4), ("city", 2, 4)]
    [one] = passages(blank, example(blank, "Bank of New York City", [("org", 0, 3), ("city", 2, 5)], gold))
    assert shown(one, 0) == "[Bank of [New York city!boundary] org!boundary] City "
    # they cross: a mark is closed and opened again where the other ends
    assert [[mark["label"] for mark in part["marks"]] for part in list(one.sides(LabelColours()))[1]] == [
        ["org"],
        ["org", "city"],
        ["city"],
        [],
    ]


def test_predictions_on_other_words_are_shown_in_the_text_of_the_data(blank: Language) -> None:
    gold = annotated(blank, ["In", "\n", "Rome", ",", "Bo"], [("city", 2, 3), ("person", 4, 5)], [False] * 5)
    own = annotated(blank, ["In", "Rome,", "Bo"], [("city", 1, 2), ("person", 2, 3)])
    [one] = passages(blank, Example(own, gold))
    assert shown(one, 0) == "In\n[Rome city!boundary],[Bo person!correct]"
    assert shown(one, 1) == "In\n[Rome, city!boundary][Bo person!correct]"


def test_relations(blank: Language) -> None:
    text = "Ann of Acme met Bo of Rome"
    entities: Mentions = [("person", 0, 1), ("org", 2, 3), ("person", 4, 5), ("city", 6, 7)]
    pair = example(blank, text, entities, entities)
    set_supervision(pair.reference, relations=[(0, 1, "works for"), (2, 3, "lives in"), (0, 2, "met")])
    ann, acme, bo, rome = pair.predicted.spans["gliner"]
    made = [Relation(ann, acme, "leads", 0.9), Relation(ann, bo, "met", 0.9), Relation(rome, bo, "met", 0.5)]
    set_relations(pair.predicted, made)
    [one] = passages(blank, pair)
    assert {(e.kind, e.gold_text, e.predicted_text) for e in one.errors} == {
        ("type", "Ann → works for → Acme", "Ann → leads → Acme"),
        ("missed", "Bo → lives in → Rome", ""),
        ("spurious", "", "Rome → met → Bo"),
    }


def test_long_texts_are_cut_between_words(blank: Language) -> None:
    words = ["Ann", *["filler"] * 100, "Bo", *["filler"] * 100]
    gold: Mentions = [("person", 0, 1), ("person", 101, 102)]
    one, other = (
        part.text[part.start : part.last]
        for part in passages(blank, example(blank, " ".join(words), [], gold))
    )
    assert one.startswith("Ann filler") and one.endswith("filler") and "Bo" not in one
    assert other.startswith("filler") and " Bo " in other and len(other) < 400
    dense = passages(blank, example(blank, "Ann " * 2000, [], [("person", at, at + 1) for at in range(2000)]))
    assert sum(len(part.errors) for part in dense) == 2000
    assert max(part.last - part.start for part in dense) <= LONGEST


def test_a_bounded_page_keeps_rare_kinds_and_labels(blank: Language) -> None:
    common = example(blank, "Ann slept", [], [("person", 0, 1)])
    rare = example(blank, "Ann slept", [("city", 1, 2)], [])
    found = passages(blank, *[common] * 30, rare, *[common] * 30)
    chosen = choose(found, 10)
    assert len(chosen) == 10 and 31 in [one.document for one in chosen]
    assert [one.document for one in chosen] == sorted(one.document for one in chosen)
    assert choose(found, 100) == found


class Page(HTMLParser):
    """Reads a page; fails on an element that is not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: Counter[str] = Counter()
        self.attributes: list[tuple[str, str | None]] = []
        self.data: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements[tag] += 1
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements[tag] += 1
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.data.append(data)


def test_classes_and_records(blank: Language, tmp_path: Path) -> None:
    text = "Fox costs 5 dollars and Owl 7 dollars"
    gold, guess = annotated(blank, text.split(), []), annotated(blank, text.split(), [])
    set_gold_classes(gold, {"tone": {"true": ["good"], "labels": ["good", "bad"]}, "topics": {"true": ["a", "b"], "labels": ["a", "b", "c"], "multi_label": True}})  # fmt: skip
    write_classes(guess, [Classified("tone", {}, "bad"), Classified("topics", {}, ["b", "c"])])
    known = {"name": gold[0:1], "price": gold[2:4], "state": "new"}
    set_records(gold, [Record("sale", known), Record("sale", {"name": gold[5:6], "price": gold[6:8]})])
    found = {"name": guess[0:1], "price": guess[2:3], "state": "used"}
    set_records(guess, [Record("sale", {"name": guess[5:6], "price": guess[6:8]}), Record("sale", found)])
    pair = Example(guess, gold)
    scores: dict[str, Any] = {"classes": ClassScorer()([pair]), "records": RecordScorer()([pair])}
    tasks = TaskErrors(scores)
    assert tasks.confusions([pair]) == {
        "tone": {"good": {"good": 0, "bad": 1}, "bad": {"good": 0, "bad": 0}},
        "topics": {
            "a": {"a": 0, "b": 0, "c": 0, "(nothing)": 1},
            "b": {"a": 0, "b": 1, "c": 0, "(nothing)": 0},
            "c": {"a": 0, "b": 0, "c": 0, "(nothing)": 0},
            "(nothing)": {"a": 0, "b": 0, "c": 1, "(nothing)": 0},
        },
    }
    reader = ErrorReader(blank, LABELS, "gliner", "gliner", tasks)
    [one] = reader.passages(1, pair, *reader.pair(pair))
    assert {
        (e.kind, e.gold, e.predicted)
        for e in one.errors
        if e.gold_text in ("text", "") and "." not in e.predicted
    } == {
        ("type", "tone=good", "tone=bad"),
        ("missed", "topics=a", ""),
        ("spurious", "", "topics=c"),
    }
    assert [e for e in one.errors if "sale" in e.gold + e.predicted] == [
        ("missed", 0, 3, "sale.state", "", "new", ""),
        ("spurious", 0, 3, "", "sale.state", "", "used"),
        ("boundary", 10, 19, "sale.price", "sale.price", "5 dollars", "5"),
    ]
    assert one.records == [
        (
            "sale",
            [
                ("name", "Fox", "Fox", True),
                ("price", "5 dollars", "5", False),
                ("state", "new", "used", False),
            ],
        )
    ]
    path = tmp_path / "page.html"
    every = evaluate_pipeline(spacy.blank("en"), [pair], metrics=["exact", "errors"], span_getter="gliner")
    places: dict[str, Any] = {"gold_getter": "gliner", "predicted_getter": "gliner"}
    write_error_page(path, blank, [pair], [guess], every | scores, **places)
    page = Page(path.read_text(encoding="utf-8"))
    assert ("data-gold", "tone=good") in page.attributes and ("href", "#classes") in page.attributes
    assert page.attributes.count(("class", "record")) == 1 and page.attributes.count(("class", "wrong")) == 2
    found |= {"price": guess[2:4], "state": "NEW"}
    set_records(guess, [Record("sale", {"name": guess[5:6], "price": guess[6:8]}), Record("sale", found)])
    assert reader.tasks is not None
    assert not reader.tasks.of_records(pair, [(0, 1)] * 8)[1]


def page_of(nlp: Language, examples: list[Example], path: Path, **options: Any) -> str:
    docs = [one.predicted for one in examples]
    ruler = spacy.blank("en")
    scores = evaluate_pipeline(ruler, examples, metrics=["exact", "errors"], span_getter="gliner")
    scores |= {"labels": sorted({span.label_ for one in examples for span in one.reference.spans["gliner"]})}
    places: dict[str, Any] = {"gold_getter": "gliner", "predicted_getter": "gliner"}
    write_error_page(path, nlp, examples, docs, scores, **places, **options)
    return path.read_text(encoding="utf-8")


def test_everything_is_escaped(blank: Language, tmp_path: Path) -> None:
    evil = "</script><img/src=x>\"'&{{7*7}}\x07"
    words = [evil, "met", "$&`"]
    spans: Mentions = [(evil, 0, 1), ("b", 2, 3)]
    pair = Example(annotated(blank, words, [("b", 0, 1)]), annotated(blank, words, spans))
    set_supervision(pair.reference, source=evil)
    text = page_of(blank, [pair], tmp_path / "page.html", name=evil, data=evil)
    page = Page(text)
    assert page.elements["script"] == 1 and not page.elements["img"] and "\x07" not in text
    visible = evil.replace("\x07", "␇")
    assert [part for part in page.data if part.endswith(visible)] and (
        "data-gold",
        visible,
    ) in page.attributes


def test_the_page_needs_nothing_else(blank: Language, tmp_path: Path) -> None:
    pairs = [example(blank, "Ann saw Rome", [("city", 0, 1)], [("person", 0, 1), ("city", 2, 3)])] * 3
    curve = {
        "metric": "exact", "curve": [{"threshold": at / 1000, "p": 0.5, "r": None, "f": 0.5} for at in range(1000)],
        "best": {"threshold": 0.4, "p": 0.5, "r": 0.5, "f": 0.5}, "before": {"threshold": 0.5, "p": 0, "r": 0, "f": 0},
        "even": [], "together": None, "labels": {}, "kept": {},
    }  # fmt: skip
    text = page_of(blank, pairs, tmp_path / "page.html", curve=curve)
    page = Page(text)
    links = [value for name, value in page.attributes if name in ("src", "href", "action", "xlink:href")]
    assert (
        set(links) == {"#errors", "#confusion", "#threshold"} and "url(" not in text and "@import" not in text
    )
    points = [str(value) for name, value in page.attributes if name == "points"]
    assert len(points) == 3 and all(len(line.split()) <= 300 for line in points)
    kinds = [str(value) for name, value in page.attributes if name == "data-kind"]
    assert Counter(kinds) == {"type": 3, "missed": 3} and set(kinds) <= {*KINDS}
    assert page.elements["article"] == 3
    assert page.elements["table"] == page.elements["caption"] + 1 >= 3


def test_a_perfect_evaluation_has_a_page_too(blank: Language, tmp_path: Path) -> None:
    pairs = [example(blank, "Ann slept", [("person", 0, 1)], [("person", 0, 1)])]
    assert Page(page_of(blank, pairs, tmp_path / "page.html")).elements["article"] == 0
