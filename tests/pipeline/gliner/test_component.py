"""Prediction: what goes into documents, and what must not change it."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import spacy
import torch
from conftest import gliner_config
from spacy.tokens import Doc, DocBin, Span

from gliner_pipe.errors import NotInitializedError
from gliner_pipe.pipeline.annotate import OVERLAPPED, UNALIGNED, Prediction

TEXTS = [
    "Ada Lovelace met Charles Babbage in London.",
    "",
    "   ",
    "Paris",
    "Yesterday the mayor of Little Hampton spoke to the press about the new bridge over the river Arun .",
    "caf\u00e9 \U0001f469\u200d\U0001f680 in \U0001f1eb\U0001f1f7 !",
]


def entities(doc: Doc, key: str = "gliner") -> list[tuple[int, int, str, float]]:
    group = doc.spans[key]
    scores = group.attrs["scores"]
    return [(s.start, s.end, s.label_, float(x)) for s, x in zip(group, scores, strict=True)]


def close(left: list[Any], right: list[Any]) -> bool:
    same = [item[:3] for item in left] == [item[:3] for item in right]
    return same and np.allclose([item[3] for item in left], [item[3] for item in right], atol=1e-5, rtol=0)


@pytest.fixture
def component(nlp: Any) -> Any:
    component = nlp.get_pipe("gliner")
    component.threshold = 0.3
    return component


def test_call_and_pipe_agree_and_keep_the_order(nlp: Any, component: Any) -> None:
    piped = list(nlp.pipe(TEXTS * 3, batch_size=4))
    assert [doc.text for doc in piped] == TEXTS * 3
    for doc in piped:
        assert close(entities(doc), entities(nlp(doc.text)))
    assert sum(len(doc.spans["gliner"]) for doc in piped) > 0


@pytest.mark.parametrize("batch_size", [1, 2, 5, 100])
def test_batch_mates_never_change_scores(nlp: Any, component: Any, batch_size: int) -> None:
    component.threshold = 0.0  # every span with its score
    component.cfg |= {"flat_ner": False, "multi_label": True}
    alone = [entities(nlp(text)) for text in TEXTS]
    together = [entities(doc) for doc in nlp.pipe(TEXTS, batch_size=batch_size)]
    assert sum(map(len, alone)) > 100
    for left, right in zip(alone, together, strict=True):
        assert {x[:3] for x in left} == {x[:3] for x in right}
        scores = {x[:3]: x[3] for x in right}
        assert all(abs(x[3] - scores[x[:3]]) < 1e-5 for x in left)


def test_own_batch_size_comes_first(nlp: Any, component: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    component.cfg["batch_size"] = 2
    seen: list[int] = []
    real = component.prepare
    monkeypatch.setattr(component, "prepare", lambda docs: seen.append(len(docs)) or real(docs))
    docs = [nlp.make_doc(text) for text in TEXTS]
    assert list(component.pipe(docs, batch_size=100)) == docs
    assert seen == [2, 2, 2]


def test_predict_leaves_documents_as_they_are(nlp: Any, component: Any) -> None:
    docs = [nlp.make_doc(text) for text in TEXTS]
    before = [doc.to_bytes() for doc in docs]
    found = component.predict(docs)
    assert [doc.to_bytes() for doc in docs] == before
    assert any(prediction.entities for prediction in found)
    component.set_annotations(docs, found)
    assert [[s.label_ for s in doc.spans["gliner"]] for doc in docs] == [
        [entity.label for entity in prediction.entities] for prediction in found
    ]


@pytest.mark.parametrize("text", ["", " ", "\n\n \t", "\u200b", "\u200b \u200b"])
def test_texts_without_words_have_no_entities(nlp: Any, component: Any, text: str) -> None:
    component.threshold = 0.0
    doc = nlp(text)
    assert doc.text == text
    assert entities(doc) == [] and doc.spans["gliner"].attrs["scores"] == []


def test_one_token(nlp: Any, component: Any) -> None:
    component.threshold = 0.0
    assert [item[:2] for item in entities(nlp("Paris"))] == [(0, 1)]


def test_tokens_that_the_tokenizer_drops_keep_their_place(nlp: Any, component: Any) -> None:
    component.threshold = 0.0
    component.cfg |= {"flat_ner": False, "multi_label": True}
    words = ["Ada", "\u200b", " ", "Lovelace"]
    doc = nlp(Doc(nlp.vocab, words=words, spaces=[False] * 4))
    found = {(start, end) for start, end, _, _ in entities(doc)}
    assert found == {(0, 1), (3, 4), (0, 4)}  # none starts or ends at a word without pieces


def test_emoji(nlp: Any, component: Any) -> None:
    component.threshold = 0.0
    doc = nlp(TEXTS[5])
    assert doc.text == TEXTS[5]
    assert entities(doc)


def test_empty_stream(nlp: Any) -> None:
    assert list(nlp.pipe([])) == []
    assert nlp.get_pipe("gliner").predict([]) == []


def test_flat_nested_and_multi_label(nlp: Any, component: Any) -> None:
    component.threshold = 0.0
    flat = entities(nlp(TEXTS[0]))
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(flat))
    component.cfg["flat_ner"] = False
    nested = entities(nlp(TEXTS[0]))
    assert len(nested) > len(flat)
    for a in nested:
        for b in nested:
            assert not a[0] < b[0] < a[1] < b[1]
    assert len({item[:2] for item in nested}) == len(nested)
    component.cfg["multi_label"] = True
    multi = entities(nlp(TEXTS[0]))
    assert {item[:2] for item in multi} == {item[:2] for item in nested}
    assert len(multi) == 2 * len(nested)


def test_spans_key_and_no_ents(backbone: Path) -> None:
    nlp = spacy.blank("en")
    config = gliner_config(backbone, spans_key="mine", annotate_ents=False, threshold=0.0)
    nlp.add_pipe("gliner", config=config)
    nlp.initialize()
    doc = nlp(TEXTS[0])
    assert entities(doc, "mine") and "gliner" not in doc.spans and doc.ents == ()


def test_ents_are_the_best_that_do_not_overlap(nlp: Any, component: Any) -> None:
    component.threshold = 0.0
    component.cfg |= {"flat_ner": False, "multi_label": True}
    doc = nlp(TEXTS[0])
    best = max(entities(doc), key=lambda item: item[3])
    assert best[:3] in [(ent.start, ent.end, ent.label_) for ent in doc.ents]


@pytest.mark.parametrize("overwrite", [False, True])
def test_entities_that_were_there(nlp: Any, component: Any, overwrite: bool) -> None:
    component.cfg |= {"overwrite_ents": overwrite, "annotate_ents": True}
    component.threshold = 0.0
    doc = nlp.make_doc("a b c d")
    doc.ents = [Span(doc, 1, 3, label="OLD")]
    component.set_annotations([doc], [Prediction([make_entity(0, 1, 0.9), make_entity(3, 3, 0.8)])])
    ents = {(ent.start, ent.end, ent.label_) for ent in doc.ents}
    assert len(doc.spans["gliner"]) == 2
    if overwrite:
        assert ents == {(0, 2, "new"), (3, 4, "new")}
    else:
        assert ents == {(1, 3, "OLD"), (3, 4, "new")}
        assert component.report[OVERLAPPED] == 1


def make_entity(start: int, end: int, score: float) -> Any:
    from gliner_pipe.pipeline.annotate import Entity

    return Entity(start, end, "new", score)


def test_scores_survive_bytes_and_docbin(nlp: Any, component: Any) -> None:
    doc = nlp(TEXTS[0])
    expected = entities(doc)
    assert expected
    copied = Doc(nlp.vocab).from_bytes(doc.to_bytes())
    assert entities(copied) == expected
    (binned,) = DocBin(docs=[doc], store_user_data=True).get_docs(nlp.vocab)
    assert entities(binned) == expected


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_two_processes(nlp: Any, component: Any) -> None:
    """Also where the parent's threads are warm, which a forked process does not inherit."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        expected = [entities(doc) for doc in nlp.pipe(TEXTS)]
        torch.ones(2000, 2000).exp()  # large enough for several threads
        docs = list(nlp.pipe(TEXTS, n_process=2, batch_size=2))
    finally:
        torch.set_num_threads(threads)
    assert [doc.text for doc in docs] == TEXTS
    assert all(close(entities(doc), right) for doc, right in zip(docs, expected, strict=True))


@pytest.mark.parametrize(
    ("mode", "expected", "dropped"),
    [("strict", ["z"], 2), ("contract", ["z"], 1), ("expand", ["x,y", "z"], 0)],
)
def test_alignment_modes(backbone: Path, mode: str, expected: list[str], dropped: int) -> None:
    """The word splitter reads ``x , y z`` where the tokens are ``x,y z``."""
    nlp = spacy.blank("en")
    config = gliner_config(backbone, alignment_mode=mode, word_splitter={"@word_splitters": "whitespace"})
    component: Any = nlp.add_pipe("gliner", config=config)
    doc = Doc(nlp.vocab, words=["x,y", "z"], spaces=[True, False])
    assert component.word_splitter.split(doc).texts == ["x", ",", "y", "z"]
    component.set_annotations(
        [doc], [Prediction([make_entity(0, 0, 0.9), make_entity(2, 3, 0.8), make_entity(3, 3, 0.7)])]
    )
    assert [span.text for span in doc.spans["gliner"]] == expected
    assert len(doc.spans["gliner"].attrs["scores"]) == len(expected)
    assert component.report[UNALIGNED] == dropped


def test_an_entity_of_several_tokens(backbone: Path) -> None:
    nlp = spacy.blank("en")
    config = gliner_config(backbone, word_splitter={"@word_splitters": "whitespace"})
    component: Any = nlp.add_pipe("gliner", config=config)
    doc = Doc(nlp.vocab, words=["rock-n", "-roll", "band"], spaces=[False, True, False])
    assert component.word_splitter.split(doc).texts == ["rock-n-roll", "band"]
    component.set_annotations([doc], [Prediction([make_entity(0, 0, 0.9)])])
    assert [span.text for span in doc.spans["gliner"]] == ["rock-n-roll"]


def test_error_handler(nlp: Any, component: Any) -> None:
    failed: list[str] = []

    def handler(name: str, proc: Any, docs: list[Doc], error: Exception) -> None:
        failed.extend(f"{name}: {doc.text}: {type(error).__name__}" for doc in docs)

    nlp.set_error_handler(handler)
    docs = [nlp.make_doc(text) for text in ("good", "bad", "fine")]
    docs[1]._.gliner_labels = [3]
    assert [doc.text for doc in nlp.pipe(docs, batch_size=1)] == ["good", "fine"]
    assert failed == ["gliner: bad: ConfigError"]


def test_before_initialize(backbone: Path) -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("gliner", config=gliner_config(backbone))
    with pytest.raises(NotInitializedError, match=r"'gliner' has no weights yet. Call nlp.initialize\(\)"):
        nlp("text")


def test_two_components(backbone: Path) -> None:
    nlp = spacy.blank("en")
    config = gliner_config(backbone, threshold=0.0)
    nlp.add_pipe("gliner", config=config | {"labels": ["person"]})
    nlp.add_pipe("gliner", name="ner2", config=config | {"labels": ["city"], "spans_key": "second"})
    nlp.initialize()
    doc = nlp(TEXTS[0])
    assert {item[2] for item in entities(doc)} == {"person"}
    assert {item[2] for item in entities(doc, "second")} == {"city"}
    assert nlp.get_pipe("ner2").name == "ner2"
