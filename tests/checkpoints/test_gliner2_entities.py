"""Entities of GLiNER2 checkpoints (architecture ``span``), beside the `gliner2` package."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from gliner2_parity import (
    CLOSE,
    LABELS,
    TEXTS,
    checkpoint,
    gap,
    load,
    load_peer,
    our_entities,
    their_entities,
)

COUNTERS = ("count_lstm", "count_lstm_v2", "count_lstm_moe")


def threshold_of(peer: Any, texts: list[str], labels: Any) -> float:
    """A threshold that some entities pass, and none lies at."""
    return gap([score for one in their_entities(peer, texts, labels, 0.02) for score in one.values()])


def check(ours: list[Any], theirs: list[Any]) -> None:
    """Compare entities and scores."""
    assert sum(map(len, theirs)) > 5
    for found, wanted in zip(ours, theirs, strict=True):
        assert found == pytest.approx(wanted, abs=CLOSE)


@pytest.mark.parametrize("counter", COUNTERS)
def test_every_counter(counter: str) -> None:
    folder = checkpoint(counter)
    peer = load_peer(folder)
    threshold = threshold_of(peer, TEXTS, LABELS)
    theirs = their_entities(peer, TEXTS, LABELS, threshold)
    nlp = load(folder, labels=LABELS, threshold=threshold)
    check(our_entities(nlp.pipe(TEXTS)), theirs)
    check(our_entities(map(nlp, TEXTS)), theirs)  # one by one


@pytest.mark.parametrize(("pooling", "kind"), [("mean", "deberta-v2"), ("max", "bert")])
def test_pooling_and_encoders(pooling: str, kind: str) -> None:
    folder = checkpoint("count_lstm", pooling, kind)
    peer = load_peer(folder)
    threshold = threshold_of(peer, TEXTS, LABELS)
    nlp = load(folder, labels=LABELS, threshold=threshold)
    check(our_entities(nlp.pipe(TEXTS)), their_entities(peer, TEXTS, LABELS, threshold))


def test_descriptions_and_thresholds_of_labels() -> None:
    folder = checkpoint()
    peer, nlp = load_peer(folder), load(folder)
    described: dict[str, Any] = {
        "person": "names of people",
        "big city": "where many live",
        "date": "days, years",
    }
    threshold = threshold_of(peer, TEXTS, described)
    described["big city"] = {"description": "where many live", "threshold": threshold - 0.1}
    component = nlp.get_pipe("gliner")
    component.threshold = threshold
    component.labels = [
        {"label": "person", "description": "names of people"},
        {"label": "big city", "description": "where many live", "threshold": threshold - 0.1},
        {"label": "date", "description": "days, years"},
    ]
    ours = our_entities(nlp.pipe(TEXTS))
    check(ours, their_entities(peer, TEXTS, described, threshold))
    component.labels = LABELS
    assert our_entities(nlp.pipe(TEXTS)) != ours  # descriptions are read


def test_documents_with_labels_of_their_own_do_not_change_each_other() -> None:
    folder = checkpoint("count_lstm_v2")
    peer, nlp = load_peer(folder), load(folder)
    sets = [LABELS, ["date"], ["date", "place", "person", "animal", "thing"]]
    nlp.get_pipe("gliner").threshold = threshold = threshold_of(peer, TEXTS, sets[2])
    docs = [nlp.make_doc(text) for text in TEXTS]
    for doc, labels in zip(docs, sets, strict=True):
        doc._.gliner_labels = labels
    theirs = [
        their_entities(peer, [text], labels, threshold)[0] for text, labels in zip(TEXTS, sets, strict=True)
    ]
    check(our_entities(nlp.pipe(docs)), theirs)


def test_labels_conflict_only_with_themselves() -> None:
    nlp = load(checkpoint("count_lstm_moe"), labels=LABELS, threshold=0.3)
    (found,) = our_entities([nlp(TEXTS[2])])
    for label in LABELS:
        places = sorted(key[:2] for key in found if key[2] == label)
        assert all(one[1] <= other[0] for one, other in itertools.pairwise(places))
    assert len({key[:2] for key in found}) < len(found)  # spans with two labels


def test_long_texts_are_read_in_windows() -> None:
    """Each window finds what starts at its own words; the full stop is added to the last."""
    nlp = load(checkpoint("count_lstm"), labels=LABELS, threshold=0.05)
    component = nlp.get_pipe("gliner")
    backbone = component.gliner.encoder.backbone
    backbone.window, backbone.stride = 24, 16
    text = " ".join(TEXTS[:1] * 4).rstrip(".")
    doc = nlp(text)
    windows = component.prepare([doc]).windows
    assert [window.n_added for window in windows] == [0] * (len(windows) - 1) + [1]
    (found,) = our_entities([doc])
    assert {start // len(TEXTS[0]) for start, _, _ in found} == set(range(4))
    assert all(text[start:end].strip() for start, end, _ in found)


# -- faults of the package that are not copied -----------------------------------------------------------------------


def test_the_added_full_stop_is_read_but_never_found() -> None:
    """The package finds it, with an end beyond the text."""
    folder = checkpoint("count_lstm")
    text = TEXTS[0].rstrip(".")
    (theirs,) = their_entities(load_peer(folder), [text], LABELS, 0.01)
    assert any(end > len(text) for _, end, _ in theirs)
    nlp = load(folder, labels=LABELS, threshold=0.01)
    component = nlp.get_pipe("gliner")
    (ours,) = our_entities([nlp(text)])
    assert ours
    assert not component.report
    # it is read: all other spans have the scores that they have with a full stop in the text
    component.cfg["flat_ner"], component.cfg["partial_overlaps"] = False, True
    (without,), (within,) = our_entities([nlp(text)]), our_entities([nlp(f"{text}.")])
    assert without == pytest.approx(
        {key: score for key, score in within.items() if key[1] <= len(text)}, abs=1e-6
    )
    assert our_entities([nlp(""), nlp("  ")]) == [{}, {}]


def test_entities_do_not_depend_on_a_count() -> None:
    """In the package there are none where the most probable count is 0, whatever their scores."""
    folder = checkpoint("count_lstm")
    peer = load_peer(folder)
    bias = peer.count_pred[2].bias
    threshold = threshold_of(peer, TEXTS, LABELS)
    before = their_entities(peer, TEXTS, LABELS, threshold)
    nlp = load(folder, labels=LABELS, threshold=threshold)
    with torch.no_grad():
        kept = bias[0].clone()
        bias[0] = nlp.get_pipe("gliner").gliner.counter.number[2].bias[0] = 99.0
        hidden = their_entities(peer, TEXTS, LABELS, threshold)
        bias[0] = kept
    assert not any(hidden)
    check(our_entities(nlp.pipe(TEXTS)), before)


def test_words_without_subword_tokens_are_not_read() -> None:
    """The package gives them the vector of the next word, and returns them as entities."""
    folder = checkpoint("count_lstm", kind="bert", pooling="max")
    nlp = load(folder, labels=LABELS, threshold=0.05)
    text = TEXTS[0]
    at = text.index("Oslo")
    (plain,) = our_entities([nlp(text)])
    (found,) = our_entities([nlp(f"{text[:at]}\u200b {text[at:]}")])
    moved = {(s + 2 * (s >= at), e + 2 * (e > at), label): score for (s, e, label), score in plain.items()}
    assert found == pytest.approx(moved, abs=1e-6)
