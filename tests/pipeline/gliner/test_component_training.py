"""Training by spaCy's own means: update, finish_update, initialize, evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import spacy
import torch
from conftest import gliner_config
from spacy.language import Language
from spacy.tokens import Span
from spacy.training import Example
from spacy.util import fix_random_seed

from gliner_pipe.pipeline.gliner.training_batch import TOO_WIDE

DATA = [
    ("Ada met Charles in London .", [(0, 1, "person"), (2, 3, "person"), (4, 5, "city")]),
    ("Paris is far from Rome .", [(0, 1, "city"), (4, 5, "city")]),
    ("Grace Hopper was born in New York .", [(0, 2, "person"), (5, 7, "city")]),
    ("Nothing of note happened .", []),
]


def pipeline(backbone: Path, **changes: Any) -> Language:
    nlp = spacy.blank("en")
    config = gliner_config(backbone, labels=[], **changes)
    config["model"]["dropout"] = 0.0
    config["model"]["span_rep"]["dropout"] = 0.0
    nlp.add_pipe("gliner", config=config)
    return nlp


def examples(nlp: Language, group: str | None = "gliner", data: Any = None) -> list[Example]:
    made = []
    for text, entities in DATA if data is None else data:
        gold = nlp.make_doc(text)
        spans = [Span(gold, start, end, label=label) for start, end, label in entities]
        if group is None:
            gold.set_ents(spans)
        else:
            gold.spans[group] = spans
        made.append(Example(nlp.make_doc(text), gold))
    return made


def no_dropout(nlp: Language) -> Any:
    component: Any = nlp.get_pipe("gliner")
    for module in component.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if hasattr(module, "dropout_prob"):  # attention of transformers 4, without a layer
            module.dropout_prob = 0.0
    return component


@pytest.fixture
def ready(backbone: Path) -> Language:
    nlp = pipeline(backbone, label_sampling={"all_labels": True, "shuffle": False})
    nlp.initialize(lambda: examples(nlp))
    return nlp


def test_initialize_leaves_the_model_in_evaluation_mode(ready: Language) -> None:
    """Otherwise each text would switch the mode, which clears the packed weights."""
    model: Any = ready.get_pipe("gliner").model
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize("group", ["gliner", None])
def test_update_lowers_the_loss(backbone: Path, group: str | None) -> None:
    fix_random_seed(0)
    nlp = pipeline(backbone, max_learn_rate=None)  # weights that are not pretrained need higher ones
    gold = examples(nlp, group)
    sgd = nlp.initialize(lambda: gold)
    sgd.learn_rate = 0.003
    history = []
    for _ in range(60):
        losses: dict[str, float] = {}
        nlp.update(gold, sgd=sgd, losses=losses)
        history.append(losses["gliner"])
    assert sum(history[-5:]) < 0.5 * sum(history[:5])
    scores = nlp.evaluate(gold)
    assert scores["spans_gliner_f"] > 0.5
    assert set(scores["spans_gliner_per_type"]) == {"person", "city"}


def test_create_optimizer_drives_the_steps(ready: Language) -> None:
    component = no_dropout(ready)
    sgd = ready.create_optimizer()
    before = [parameter.detach().clone() for parameter in component.model.parameters()]
    ready.update(examples(ready), sgd=sgd)
    moved = [
        float((p.detach() - old).abs().max())
        for p, old in zip(component.model.parameters(), before, strict=True)
    ]
    assert max(moved) > 1e-5
    assert all(parameter.grad is None for parameter in component.model.parameters())
    sgd.learn_rate = 0.0
    sgd.L2_is_weight_decay = False
    before = [parameter.detach().clone() for parameter in component.model.parameters()]
    ready.update(examples(ready), sgd=sgd)
    assert all(torch.equal(p, old) for p, old in zip(component.model.parameters(), before, strict=True))


def test_gradients_are_collected_until_finish_update(ready: Language) -> None:
    component = no_dropout(ready)
    component.model.eval()
    gold = examples(ready)
    losses: dict[str, float] = {}
    before = [parameter.detach().clone() for parameter in component.model.parameters()]
    component.update(gold[:2], sgd=False, losses=losses)
    component.update(gold[2:], sgd=None, losses=losses)
    assert all(torch.equal(p, old) for p, old in zip(component.model.parameters(), before, strict=True))
    parts = {name: p.grad.clone() for name, p in component.model.named_parameters() if p.grad is not None}
    component.model.zero_grad()
    whole = component.update(gold, sgd=False)
    assert losses["gliner"] == pytest.approx(whole["gliner"], rel=1e-5)
    for name, parameter in component.model.named_parameters():
        if name in parts:
            torch.testing.assert_close(parameter.grad, parts[name], rtol=1e-4, atol=1e-6)
    component.finish_update(ready.create_optimizer())
    assert any(not torch.equal(p, old) for p, old in zip(component.model.parameters(), before, strict=True))


def test_losses_are_added_up(ready: Language) -> None:
    component = no_dropout(ready)
    gold = examples(ready)
    first = component.update(gold, sgd=False)["gliner"]
    losses = {"gliner": 1.0, "other": 2.0}
    component.update(gold, sgd=False, losses=losses)
    assert losses == {"gliner": pytest.approx(1.0 + first, rel=1e-5), "other": 2.0}


def test_without_gold_and_without_words(ready: Language) -> None:
    component: Any = ready.get_pipe("gliner")
    assert component.update([], sgd=False) == {"gliner": 0.0}
    empty = Example(ready.make_doc(""), ready.make_doc(""))
    assert component.update([empty], sgd=False) == {"gliner": 0.0}
    bare = Example(ready.make_doc("Nothing here ."), ready.make_doc("Nothing here ."))
    assert component.update([bare, empty], sgd=False)["gliner"] > 0  # spans that are no entities


def test_what_is_left_out_is_counted(ready: Language) -> None:
    component: Any = ready.get_pipe("gliner")
    text = "one two three four five six seven eight"
    component.update(examples(ready, data=[(text, [(0, 8, "person"), (0, 1, "person")])]), sgd=False)
    assert component.report[TOO_WIDE] == 1


def test_initialize_learns_the_labels(backbone: Path) -> None:
    nlp = pipeline(backbone)
    nlp.initialize(lambda: examples(nlp))
    assert nlp.get_pipe("gliner").labels == ("city", "person")  # type: ignore[attr-defined]


def test_initialize_keeps_labels_and_weights(backbone: Path) -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("gliner", config=gliner_config(backbone, labels=["ship"], threshold=0.3))
    nlp.initialize(lambda: examples(nlp))
    component: Any = nlp.get_pipe("gliner")
    assert component.labels == ("ship",)
    before = component.predict([nlp.make_doc("Ada met Charles")])
    nlp.initialize(lambda: examples(nlp))
    assert component.predict([nlp.make_doc("Ada met Charles")]) == before


def test_initialize_takes_the_labels_it_is_given(backbone: Path) -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("gliner", config=gliner_config(backbone))
    labels = ["tree", {"label": "ship", "description": "a vessel"}]
    nlp.config["initialize"]["components"]["gliner"] = {"labels": labels}
    nlp.initialize(lambda: examples(nlp))
    assert nlp.get_pipe("gliner").label_data == labels  # type: ignore[attr-defined]


def test_the_same_seed_gives_the_same_weights(backbone: Path) -> None:
    runs = []
    for _ in range(2):
        fix_random_seed(7)
        nlp = pipeline(backbone)
        sgd = nlp.initialize(lambda: examples(nlp))  # noqa: B023 (called at once)
        losses: dict[str, float] = {}
        for _ in range(2):
            nlp.update(examples(nlp), sgd=sgd, losses=losses)
        runs.append(losses["gliner"])
    assert runs[0] == runs[1]


def test_trained_weights_are_saved(ready: Language, tmp_path: Path) -> None:
    sgd = ready.create_optimizer()
    for _ in range(2):
        ready.update(examples(ready), sgd=sgd)
    component: Any = ready.get_pipe("gliner")
    component.threshold = 0.1
    docs = [ready.make_doc(text) for text, _ in DATA]
    ready.to_disk(tmp_path / "model")
    loaded = spacy.load(tmp_path / "model")
    assert loaded.get_pipe("gliner").predict(docs) == component.predict(docs)  # type: ignore[attr-defined]
    before = component.predict(docs)
    ready.update(examples(ready), sgd=sgd)
    assert component.predict(docs) != before
    component.from_disk(tmp_path / "model" / "gliner")
    assert component.predict(docs) == before
    ready.update(examples(ready), sgd=sgd)  # steps the weights that were loaded, not those before
    assert component.predict(docs) != before


def test_evaluate(ready: Language) -> None:
    component: Any = ready.get_pipe("gliner")
    component.threshold = 1.0
    assert ready.evaluate(examples(ready))["spans_gliner_f"] == 0.0
    assert component.score([])["spans_gliner_f"] is None


def test_evaluate_follows_the_spans_key(backbone: Path) -> None:
    # untrained: that all spans are found must not be a matter of chance
    found = {"threshold": 0.0, "flat_ner": False, "multi_label": True}
    nlp = pipeline(backbone, spans_key="mine", gold_spans_key="gold", **found)
    gold = examples(nlp, "gold")
    nlp.initialize(lambda: gold)
    scores = nlp.evaluate(gold)
    assert scores["spans_mine_r"] > 0 and "spans_gliner_f" not in scores


def test_default_score_weights(ready: Language) -> None:
    weights = ready.get_pipe_meta("gliner").default_score_weights
    assert sum(value for value in weights.values() if value) == 1.0
    assert set(weights) <= set(ready.evaluate(examples(ready)))
