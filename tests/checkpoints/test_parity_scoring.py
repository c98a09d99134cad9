"""Given spans and class scores of the `gliner` package: the same entities and scores here."""

from __future__ import annotations

from typing import Any

import pytest
import spacy
from checkpoint_parity import CLOSE, LABELS, TEXTS, load, make_peer, save
from spacy.tokens import Doc

pytestmark = pytest.mark.filterwarnings("ignore")

#: Start and end character; GLiNER drops those that do not coincide with its words.
GIVEN = [[(0, 15), (6, 15), (23, 38), (1, 5), (42, 49)], [(0, 2)], [(4, 9), (15, 19), (65, 75)]]


def entities(docs: list[Doc]) -> list[dict[tuple[int, int, str], float]]:
    return [{(s.start_char, s.end_char, s.label_): s._.score for s in doc.spans["gliner"]} for doc in docs]


def documents(component: Any, nlp: Any, given: Any = None) -> list[Doc]:
    docs = [nlp.make_doc(text) for text in TEXTS]
    for doc, spans in zip(docs, given or [], strict=bool(given)):
        doc._.gliner_input_spans = spans
    return list(component.pipe(docs))


@pytest.mark.parametrize("mode", ["markerV0", "token_level"])
@pytest.mark.parametrize(("flat", "multi"), [(True, False), (False, True)])
def test_given_spans(tmp_path, mode, flat, multi):
    model = make_peer(span_mode=mode)
    options = {"threshold": 0.02, "flat_ner": flat, "multi_label": multi}
    spans = [[{"start": start, "end": end} for start, end in text] for text in GIVEN]
    theirs = [
        model.inference([text], LABELS, batch_size=1, input_spans=[some], **options)[0]
        for text, some in zip(TEXTS, spans, strict=True)
    ]
    wanted = [{(e["start"], e["end"], e["label"]): e["score"] for e in text} for text in theirs]
    component = load(save(model, tmp_path), **options)
    found = entities(documents(component, spacy.blank("en"), spans))
    assert sum(map(len, wanted)) > 3
    for ours, expected in zip(found, wanted, strict=True):
        assert ours == pytest.approx(expected, abs=CLOSE)


def test_class_scores(tmp_path):
    model = make_peer()
    options = {"threshold": 0.6, "flat_ner": True, "multi_label": False}
    component = load(save(model, tmp_path), class_scores=True, alignment_mode="strict", **options)
    checked = 0
    for doc in documents(component, spacy.blank("en")):
        (theirs,) = model.inference([doc.text], LABELS, batch_size=1, return_class_probs=True, **options)
        wanted = {(e["start"], e["end"]): e["class_probs"] for e in theirs}
        group = doc.spans["gliner"]
        for span, classes in zip(group, group.attrs["class_scores"], strict=True):
            expected = wanted[span.start_char, span.end_char]
            assert classes == pytest.approx(expected, abs=CLOSE) and list(classes) == list(expected)
            checked += 1
    assert checked > 3
