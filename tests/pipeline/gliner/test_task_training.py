"""Training on entities, relations, classes and records together, which the model reads in one prompt."""

from __future__ import annotations

import random
from typing import Any

import spacy
import torch
from spacy.training import Example
from task_pipeline import DATA, PLAIN, STATES, made, record

from gliner_pipe.data.readers import gliner2_json
from gliner_pipe.evaluation.evaluate import evaluate_pipeline


def test_all_four_tasks_are_learned(backbone):
    nlp, component, examples = made(backbone)
    assert component.labels == ("company", "person")
    assert component.relations == ("works for",)
    assert component.class_data == {
        "tone": ["good", "bad", "neutral"],
        "topics": {"labels": ["work", "prices", "travel"], "multi_label": True},
    }
    assert component.record_data == {"product": ["name", "price", {"field": "state", "choices": STATES}]}
    optimizer = torch.optim.AdamW(component.network.parameters(), lr=3e-3)
    rng = random.Random(0)
    for _ in range(170):
        component.network.train()
        terms = component.network(component.collate(examples, rng))
        assert set(terms.parts) == {"span", "class", "count", "slot"}
        optimizer.zero_grad()
        terms.total.backward()
        torch.nn.utils.clip_grad_norm_(component.network.parameters(), 10.0)
        optimizer.step()
    component.network.eval()
    scores = evaluate_pipeline(nlp, examples)
    assert scores["exact"]["micro"]["f"] > 0.8
    assert scores["relations"]["strict"]["micro"]["f"] > 0.8
    assert scores["classes"]["all"]["accuracy"] > 0.8
    assert scores["records"]["fields"]["micro"]["f"] > 0.8


def targets_of(component: Any, examples: list[Example]) -> Any:
    return component.collate(examples, random.Random(0)).tasks


def test_targets_by_hand(backbone):
    _, component, examples = made(backbone)
    found = targets_of(component, examples[4:5])
    # product, works for, tone, topics
    assert found.counts.tolist() == [[0, 0, 2], [0, 1, 0]]
    assert found.columns.tolist() == [
        [0, 0, 0, 0, -1],
        [0, 0, 0, 1, -1],
        [0, 0, 0, 2, 0],
        [0, 0, 1, 0, -1],
        [0, 0, 1, 1, -1],
        [0, 0, 1, 2, 1],
    ]
    assert found.places.tolist() == [[0, 0], [0, 1], [0, 2], [0, 3]]
    before = 8  # words of the prompt: ( product: state ( new | used ) ) has 9 elements
    words = {tuple(row) for row in found.spans.tolist()}
    shift = min(word for _, word, _, _ in words) - 2
    assert words == {(0, 2 + shift, 0, 0), (0, 4 + shift, 1, 1), (0, 9 + shift, 0, 2), (0, 10 + shift, 1, 3)}
    assert shift == before + 1
    assert found.chosen.tolist() == [[False, True], [True, False]]
    assert found.choices.tolist() == [[4, 6], [4, 6]]
    assert found.values.tolist() == [[0, 0, 1], [0, 1, 0]]
    assert found.single.tolist() == [True, False]
    assert found.outside[0, : before + 1].all() and not found.outside[0, before + 1 :].any()


def test_fields_that_a_record_does_not_name(backbone):
    text = "The Fox costs 5 dollars, the Owl is new."
    data = [
        {
            "text": text,
            "records": {
                "product": [
                    {"name": [4, 7], "price": [14, 23]},
                    {"name": [29, 32], "price": None, "state": "new"},
                ]
            },
        }
    ]
    fields = ["name", "price", {"field": "state", "choices": STATES}]
    for sampling, skipped in ((PLAIN, set()), ({**PLAIN, "unnamed_fields": "unknown"}, {(0, 2)})):
        _, component, examples = made(backbone, data, records={"product": fields}, task_sampling=sampling)
        found = targets_of(component, examples)
        assert found.counts.tolist() == [[0, 0, 2]]  # both are records still
        asked = {(slot, field) for _, _, slot, field, _ in found.columns.tolist()}
        assert asked == {(slot, field) for slot in range(2) for field in range(3)} - skipped
        assert len(found.choices) == 2 - len(skipped)
        component.network.train()
        component.network(component.collate(examples, random.Random(0))).total.backward()


def test_what_nobody_looked_for_is_not_asked(backbone):
    classes = {"input": "Ann left.", "output": {"classifications": [DATA[0]["output"]["classifications"][0]]}}
    _, component, examples = made(backbone, [*DATA, classes])
    batch = component.collate(examples[-1:], random.Random(0))
    (query,) = batch.inputs.queries
    assert (query.entities, [task.name for task in query.tasks]) == ((), ["tone"])
    assert len(batch.tasks.counts) == 0
    assert float(component.network(batch).parts["span"]) == 0


def test_all_occurrences_of_a_text_are_right(backbone):
    text = "Fox and fox cost 5."
    by_text = {"input": text, "output": {"json_structures": [{"product": {"name": "Fox"}}]}}
    by_place = {"text": text, "records": {"product": [{"name": [0, 3]}]}}
    for data, number in (([by_text], 2), ([by_place], 1)):
        _, component, examples = made(backbone, data)
        assert len(targets_of(component, examples).spans) == number


def test_values_that_cannot_be_learned_are_counted(backbone):
    records = {"product": [{"name": [0, 25], "state": "odd", "price": None}]}
    data = [{"text": "A b c d e f g h i j k l m.", "entities": [], "records": records}]
    settings = {"product": ["name", {"field": "state", "choices": ["new"]}]}
    _, component, examples = made(backbone, data, records=settings)
    dropped = component.collate(examples, random.Random(0)).dropped
    assert dropped["value of a record or relation wider than max_width"] == 1
    assert dropped["value of a record that is none of the choices of its field"] == 1


def test_parts_have_the_loss_of_the_whole(backbone):
    """Also over several windows of a text, which share the loss of its classes."""
    long = record(" ".join(["Ann works for Acme in Oslo."] * 12), ["Ann"], ["Acme"], "good", ["work"], [], [])
    _, component, examples = made(backbone, [*DATA, long], window=120)
    component.network.eval()
    drawn = component.draw(examples, random.Random(1))
    assert max(rows for rows, _ in drawn.sizes()) > 1
    whole = component.network(drawn.whole()).parts
    parts = [component.network(drawn.lay_out(texts)).parts for texts in ([0, 3, 6], [1, 2, 4, 5])]
    for name, value in whole.items():
        torch.testing.assert_close(value, sum(part[name] for part in parts), rtol=1e-4, atol=1e-3)


def test_a_draw_depends_on_its_generator_alone(backbone):
    sampling = {"task_sampling": {"hide_names": 1.0}, "label_sampling": {}}
    described = [
        {
            **one,
            "output": {**one["output"], "entity_descriptions": {"person": "a human", "company": "a firm"}},
        }
        for one in DATA
    ]
    _, component, examples = made(backbone, described, **sampling)
    first, again, other = (component.collate(examples, random.Random(seed)) for seed in (3, 3, 4))
    assert first.inputs.queries == again.inputs.queries != other.inputs.queries
    assert first.tasks.columns.equal(again.tasks.columns)
    names = {name for query in first.inputs.queries for name in query.entities}
    assert "entity 1" in names  # explained by a description
    for query in first.inputs.queries:
        assert not any(
            task.fields[0].name.startswith("label") for task in query.tasks
        )  # nothing would explain them


def test_spacy_trains_the_same_way(backbone):
    nlp, component, examples = made(backbone)
    optimizer = nlp.create_optimizer()
    optimizer.learn_rate = 1e-3
    losses = []
    for _ in range(12):
        losses.append(nlp.update(examples, sgd=optimizer)["gliner"])
    assert losses[-1] < 0.7 * losses[0]
    assert component.report == {}


def test_tasks_on_a_uni_encoder(backbone):
    tokens = {"class_token": "<<CLS>>", "field_token": "<<FLD>>"}
    _, component, examples = made(backbone, encoder={"@encoders": "uni_encoder", **tokens})
    optimizer = torch.optim.AdamW(component.network.parameters(), lr=3e-3)
    losses = []
    for _ in range(30):
        component.network.train()
        terms = component.network(component.collate(examples, random.Random(0)))
        assert set(terms.parts) == {"span", "class", "count", "slot"}
        optimizer.zero_grad()
        terms.total.backward()
        torch.nn.utils.clip_grad_norm_(component.network.parameters(), 10.0)
        optimizer.step()
        losses.append({name: float(part) for name, part in terms.parts.items()})
    assert all(losses[-1][name] < losses[0][name] for name in losses[0])


def test_a_model_without_tasks_ignores_them(backbone):
    nlp = spacy.blank("en")
    text_encoder = {"@backbones": "transformer", "model": str(backbone)}
    model = {
        "@architectures": "gliner_pipe.GLiNER.v1",
        "encoder": {"@encoders": "uni_encoder", "backbone": text_encoder},
        "span_rep": {"@span_reps": "markerV0", "max_width": 4},
    }
    component = nlp.add_pipe("gliner", config={"model": model, "device": "cpu"})
    examples = list(gliner2_json(DATA)(nlp))
    nlp.initialize(lambda: examples)
    batch = component.collate(examples, random.Random(0))
    assert batch.tasks is None and not batch.inputs.queries[0].tasks
