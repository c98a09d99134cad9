"""What offsets count: code points, UTF-16 code units or bytes, the end inclusive or not."""

from __future__ import annotations

from typing import Any

import pytest

from gliner_pipe.data.annotations import gold_spans
from gliner_pipe.data.readers import jsonl, standoff
from gliner_pipe.errors import DataError

TEXTS = ["😀 Zoë met Ann in São Paulo", "Ann and Bob 😀😀 left Rome", "No emoji: Ann left"]
NAMES = ["Zoë", "Ann", "São Paulo", "Bob", "Rome"]


def offset(text: str, place: int, unit: str) -> int:
    before = text[:place]
    sizes = {"codepoints": len(before), "bytes": len(before.encode())}
    return sizes.get(unit, len(before.encode("utf-16-le")) // 2)


def records(unit: str, *, inclusive: bool = False, stated: bool = True) -> list[dict[str, Any]]:
    made = []
    for text in TEXTS:
        spans = []
        for name in NAMES:
            if name in text:
                start = text.index(name)
                ends = offset(text, start, unit), offset(text, start + len(name), unit) - inclusive
                span = {"start": ends[0], "end": ends[1], "label": "name"}
                spans.append(span | {"text": name} if stated else span)
        made.append({"text": text, "spans": spans})
    return made


EXPECTED = [[name for name in NAMES if name in text] for text in TEXTS]


def names(reader, nlp) -> list[list[str]]:
    return [[span.text for span in gold_spans(example.reference)] for example in reader(nlp)]


@pytest.mark.parametrize("inclusive", [False, True])
@pytest.mark.parametrize("unit", ["codepoints", "utf16", "bytes"])
def test_stated_texts_show_what_offsets_count(write, nlp, unit, inclusive):
    reader = jsonl(write("a.jsonl", records(unit, inclusive=inclusive)))
    assert names(reader, nlp) == EXPECTED
    assert sum(reader.report.values()) == (unit != "codepoints" or inclusive)


def test_the_whole_file_decides_also_for_entities_that_do_not_state_their_text(write, nlp):
    made = records("utf16", stated=False)
    made[1] = records("utf16")[1]
    reader = jsonl(write("a.jsonl", made))
    assert names(reader, nlp) == EXPECTED
    assert len(reader.report) == 1


@pytest.mark.parametrize("unit", ["utf16", "bytes"])
def test_the_option(write, nlp, unit):
    reader = jsonl(write("a.jsonl", records(unit, stated=False)), offsets=unit)
    assert names(reader, nlp) == EXPECTED
    assert not reader.report


def test_offsets_beyond_the_text_show_what_they_count(write, nlp):
    text = "😀 Ann left for 😀 Rome"
    spans = [[offset(text, text.index(n), "utf16"), offset(text, text.index(n) + len(n), "utf16"), "x"] for n in ("Ann", "Rome")]  # fmt: skip
    assert spans[1][1] > len(text)
    reader = jsonl(write("a.jsonl", [{"id": 1, "text": text, "label": spans}]))
    assert names(reader, nlp) == [["Ann", "Rome"]]
    assert len(reader.report) == 1


def test_offsets_without_evidence_are_not_converted_but_reported(write, nlp):
    text = "😀 Ann left for Rome."
    (span,) = [[offset(text, text.index("Ann"), "utf16"), offset(text, text.index("Ann") + 3, "utf16"), "x"]]
    reader = jsonl(write("a.jsonl", [{"text": text, "label": [span]}]))
    list(reader(nlp))
    assert any('offsets = "utf16"' in reason for reason in reader.report)


def test_the_text_of_a_single_entity_differs(write, nlp, caplog):
    made = records("utf16")
    made[2]["spans"][0]["text"] = "Bob"
    reader = jsonl(write("a.jsonl", made))
    assert names(reader, nlp) == [*EXPECTED[:2], []]
    assert reader.report["entity whose text is not the text at its offsets (dropped)"] == 1
    assert "a.jsonl:3 (spans[0])" in caplog.text


def test_no_single_reading_fits(write, nlp):
    made = [*records("utf16")[:1], *records("codepoints")[1:]]
    reader = jsonl(write("a.jsonl", made))
    assert names(reader, nlp) == [[], *EXPECTED[1:]]
    assert reader.report["entity whose text is not the text at its offsets (dropped)"] == 3


def test_no_stated_text_fits(write, nlp, fails):
    with fails(DataError, "a.jsonl:1 (spans[0].text)"):
        spans = [{"start": 0, "end": 3, "label": "x", "text": "Bob"}]
        list(jsonl(write("a.jsonl", [{"text": "Ann left", "spans": spans}]))(nlp))


def test_offsets_within_a_character(write, nlp, fails):
    with fails(DataError, "a.jsonl:1 (entities[0])"):
        list(jsonl(write("a.jsonl", [{"text": "😀 Ann", "entities": [[1, 3, "x"]]}]), offsets="utf16")(nlp))


@pytest.mark.parametrize("unit", ["utf16", "bytes"])
def test_standoff_files(write, nlp, unit):
    text = TEXTS[0]
    places = [(text.index(name), text.index(name) + len(name), name) for name in EXPECTED[0]]
    lines = [
        f"T{number}\tname {offset(text, start, unit)} {offset(text, end, unit)}\t{name}\n"
        for number, (start, end, name) in enumerate(places)
    ]
    write("a.ann", "".join(lines))
    reader = standoff(write("a.txt", text))
    assert names(reader, nlp) == EXPECTED[:1]
    assert len(reader.report) == 1


def test_a_doubt_that_comes_after_texts_that_fit(write, nlp, fails):
    """Bytes and code points differ in the first text, too, but it fits both."""
    plain = {"text": "é a b c d", "spans": [{"start": 2, "end": 3, "label": "x"}]}
    stated = {"text": "Zoë met Ann", "spans": [{"start": 9, "end": 12, "label": "x", "text": "Ann"}]}
    with fails(DataError, "a.jsonl:2 (spans)"):
        list(jsonl(write("a.jsonl", [plain, stated]))(nlp))
