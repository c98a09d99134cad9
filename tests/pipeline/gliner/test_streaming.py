"""What both components share when documents stream through them."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import spacy
import torch
from conftest import gliner_config
from spacy.tokens import Doc

from gliner_pipe.modeling.inference import TokenBudget
from gliner_pipe.pipeline import buffers
from gliner_pipe.util.prefetch import ahead

WORDS = [
    "Maria",
    "met",
    "Bob",
    "in",
    "Oslo",
    ".",
    "Then",
    "they",
    "flew",
    "to",
    "Lima",
    "with",
    "Ana",
    "Silva",
]
LENGTHS = [5, 1, 13, 3, 0, 40, 8, 2, 300, 6, 1, 9]


def text_of(number: int) -> str:
    """A text of its own for each number, of very different lengths; some are empty, one has several windows."""
    length = LENGTHS[number % len(LENGTHS)]
    return " ".join(WORDS[(number + at) % len(WORDS)] for at in range(length))


@pytest.fixture(scope="module", params=["gliner", "token_classifier"])
def pipeline(request: pytest.FixtureRequest, backbone: Path) -> Any:
    """A pipeline with one of the components, untrained, that finds some spans in each text."""
    nlp = spacy.blank("en")
    torch.manual_seed(0)
    if request.param == "gliner":
        config = gliner_config(backbone, threshold=0.4)
        config["model"]["encoder"]["backbone"] |= {"window": 48, "stride": 32}
        nlp.add_pipe("gliner", config=config)
    else:
        embedding = {"@backbones": "transformer", "model": str(backbone), "window": 48, "stride": 32}
        nlp.add_pipe(
            "token_classifier",
            config={"labels": ["person", "city"], "embedding": embedding, "threshold": 0.0},
        )
    nlp.initialize()
    if request.param == "token_classifier":
        with torch.no_grad():  # so that it finds entities without training
            nlp.get_pipe("token_classifier").network.decoder.project.bias.zero_()
    return nlp


@pytest.fixture
def nlp(pipeline: Any) -> Iterator[Any]:
    """The same, left as it was."""
    component = pipeline.pipeline[0][1]
    cfg = component.cfg
    yield pipeline
    component.cfg, component.budget = cfg, None
    pipeline.set_error_handler(spacy.util.raise_error)


def found(doc: Doc) -> list[tuple[int, int, str]]:
    return [(ent.start, ent.end, ent.label_) for ent in doc.ents]


def scores(doc: Doc) -> list[float]:
    group = doc.spans.get("gliner")
    return [] if group is None else group.attrs["scores"]


def test_order_and_results_do_not_depend_on_how_documents_are_batched(nlp: Any) -> None:
    texts = [text_of(number) for number in range(30)]
    alone = [nlp(text) for text in texts]
    assert sum(bool(doc.ents) for doc in alone) > 10
    component = nlp.pipeline[0][1]
    for batch_size, tokens in ((1, "auto"), (2, "auto"), (1000, "auto"), (1000, 1), (3, 90)):
        component.budget = TokenBudget(tokens)
        docs = list(nlp.pipe(texts, batch_size=batch_size))
        assert [doc.text for doc in docs] == texts
        assert [found(doc) for doc in docs] == [found(doc) for doc in alone]
        for one, other in zip(docs, alone, strict=True):
            assert scores(one) == pytest.approx(scores(other), abs=1e-5)


def test_a_stream_without_end_is_read_a_bounded_way_ahead(nlp: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    read = 0

    def endless() -> Iterator[Doc]:
        nonlocal read
        for number in itertools.count():
            read += 1
            yield nlp.make_doc(text_of(number))

    component = nlp.pipeline[0][1]

    def after(n_docs: int, batch_size: int) -> int:
        nonlocal read
        read = 0
        stream = component.pipe(endless(), batch_size=batch_size)
        assert [doc.text for doc in itertools.islice(stream, n_docs)] == [text_of(i) for i in range(n_docs)]
        return read

    assert after(5, batch_size=1) == 5  # nothing is read ahead
    assert after(5, batch_size=2) == 2 * buffers.READ_AHEAD
    component.cfg = {**component.cfg, "batch_size": 7}
    assert after(5, batch_size=1000) == 7
    component.cfg = {**component.cfg, "batch_size": None}
    monkeypatch.setattr(buffers, "MOST_DOCS", 20)
    assert after(5, batch_size=1000) == 20
    monkeypatch.setattr(buffers, "MOST_WORDS", 60)  # five documents have 62 words
    assert after(5, batch_size=1000) == 6


@pytest.mark.parametrize("stage", ["prepare", "run", "set_annotations"])
def test_a_bad_document_does_not_lose_its_neighbours(
    nlp: Any, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    component = nlp.pipeline[0][1]
    texts = [text_of(number) for number in range(20)]
    texts[3], texts[17] = "bad Maria", "bad Bob"
    expected = [found(doc) for doc in nlp.pipe(texts) if not doc.text.startswith("bad")]
    real = getattr(component, stage)

    def docs_of(given: Any) -> list[str]:
        if stage != "run":
            return [doc.text for doc in given]
        return ["bad" for window in given.windows if window.n_words == 2 and tuple(window.ids) in bad_ids]

    def failing(given: Any, *rest: Any) -> Any:
        if any(text.startswith("bad") for text in docs_of(given)):
            raise ValueError("cannot be read")
        return real(given, *rest)

    windows = component.prepare([nlp.make_doc(text) for text in texts if text.startswith("bad")]).windows
    bad_ids = {tuple(window.ids) for window in windows}
    monkeypatch.setattr(component, stage, failing)
    with pytest.raises(ValueError, match="cannot be read"):
        list(nlp.pipe(texts))
    caught: list[tuple[str, list[str], str]] = []
    nlp.set_error_handler(
        lambda name, _, docs, error: caught.append((name, [doc.text for doc in docs], str(error)))
    )
    docs = list(nlp.pipe(texts))
    assert caught == [(nlp.pipe_names[0], [text], "cannot be read") for text in ("bad Maria", "bad Bob")]
    assert [doc.text for doc in docs] == [text for text in texts if not text.startswith("bad")]
    assert [found(doc) for doc in docs] == expected


def test_label_sets_of_their_own_come_back_with_their_documents(backbone: Path) -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("gliner", config=gliner_config(backbone, threshold=0.3))
    nlp.initialize()
    labels = [["person"], ["date"], ["city"], None, [], ["person", {"label": "city", "threshold": 0.9}]]

    def docs() -> Iterator[Doc]:
        for number in range(25):
            doc = nlp.make_doc(text_of(number))
            doc._.gliner_labels = labels[number % len(labels)]
            yield doc

    alone = [nlp(doc) for doc in docs()]
    together = list(nlp.get_pipe("gliner").pipe(docs()))  # type: ignore[attr-defined]
    assert [found(doc) for doc in together] == [found(doc) for doc in alone]
    assert {ent.label_ for doc in alone for ent in doc.ents} >= {"person", "city", "date"}


def test_wrong_labels_of_one_document_are_its_own_error(backbone: Path) -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("gliner", config=gliner_config(backbone))
    nlp.initialize()
    docs = [nlp.make_doc(text_of(number)) for number in range(9)]
    docs[4]._.gliner_labels = "person"
    caught: list[list[Doc]] = []
    component: Any = nlp.get_pipe("gliner")
    component.set_error_handler(lambda name, proc, docs, error: caught.append(docs))
    assert list(component.pipe(docs)) == docs[:4] + docs[5:]
    assert caught == [[docs[4]]]


def test_words_that_are_cut_are_counted_once_though_a_neighbour_fails(
    nlp: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    component = nlp.pipeline[0][1]
    real, calls = component.run, []

    def failing(prepared: Any) -> Any:
        calls.append(prepared)
        if len(calls) == 1:
            raise ValueError
        return real(prepared)

    monkeypatch.setattr(component, "run", failing)
    component.report.clear()
    docs = [Doc(nlp.vocab, words=["Maria", "met"]), Doc(nlp.vocab, words=["Bob", "x-" * 40])]
    assert list(component.pipe(docs)) == docs
    assert len(calls) == 3
    assert list(component.report.values()) == [1]


def test_processes_find_the_same(nlp: Any) -> None:
    texts = [text_of(number) for number in range(12)]
    expected = [found(doc) for doc in nlp.pipe(texts)]
    assert [found(doc) for doc in nlp.pipe(texts, n_process=2, batch_size=4)] == expected


# -- a thread that is one step ahead -----------------------------------------------------------------------------------


def test_a_thread_makes_the_next_while_this_one_is_used() -> None:
    began = [threading.Event() for _ in range(4)]

    def make(number: int) -> int:
        began[number].set()
        return number * 10

    seen = []
    for number, made in enumerate(ahead(make, range(4))):
        assert number == 3 or began[number + 1].wait(20)
        seen.append(made)
    assert seen == [0, 10, 20, 30]


def test_errors_of_the_next_come_when_it_is_due() -> None:
    def make(number: int) -> float:
        return 1 / (2 - number)

    seen = []
    with pytest.raises(ZeroDivisionError):
        for made in ahead(make, itertools.count()):
            seen.append(made)
    assert seen == [0.5, 1.0]


def test_the_thread_ends_with_its_iterator() -> None:
    before = threading.active_count()
    stream = ahead(str, itertools.count())
    assert next(stream) == "0"
    assert threading.active_count() == before + 1
    del stream
    assert threading.active_count() == before


def test_components_prepare_in_a_thread_where_the_model_runs_elsewhere(
    nlp: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on CUDA, with the model on the CPU."""
    component = nlp.pipeline[0][1]
    texts = [text_of(number) for number in range(20)]
    expected = [found(doc) for doc in nlp.pipe(texts)]
    threads = []
    real = component.prepare

    def prepare(docs: Any) -> Any:
        threads.append(threading.current_thread())
        return real(docs)

    monkeypatch.setattr(component, "prepare", prepare)
    monkeypatch.setattr(type(component), "device", torch.device("cuda"))
    component.cfg = {**component.cfg, "batch_size": 6}
    assert [found(doc) for doc in nlp.pipe(texts)] == expected
    assert len(threads) == 4
    assert threading.main_thread() not in threads
