"""Training of models that propose spans: entities, relations, records and classes, and what their budgets leave out."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
import torch
from task_pipeline import DATA, PLAIN, STATES, boundary_blocks, made, record

from gliner_pipe.evaluation.evaluate import evaluate_pipeline

KINDS = ["boundary", "boundary_pool"]
FIELDS = ["name", "price", {"field": "state", "choices": STATES}]


def taught(
    backbone: Any, kind: str, mode: str | None, data: Any = DATA, settings: Any = None, **options: Any
) -> Any:
    """Pipeline, component and examples of a model that forms records in this mode, with options of its spans."""
    product = {"fields": FIELDS, **({"anchor": "name"} if mode == "natural" else {})}
    product |= {} if mode is None else {"mode": mode}
    torch.manual_seed(0)
    blocks = {"classifier": None, **boundary_blocks(kind, **options)}
    return made(backbone, data, blocks=blocks, **{"records": {"product": product}, **(settings or {})})


def learn(component: Any, examples: Any, steps: int, rate: float) -> list[dict[str, float]]:
    """Train on all examples at once with a falling learning rate; return the losses of each step."""
    network, rng, losses = component.network, random.Random(0), []
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate)
    for step in range(steps):
        network.train()
        optimizer.param_groups[0]["lr"] = rate * (1 + math.cos(math.pi * step / steps)) / 2
        terms = network(component.collate(examples, rng))
        optimizer.zero_grad()
        terms.total.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 10.0)
        optimizer.step()
        losses.append({name: part.item() for name, part in terms.parts.items()})
    network.eval()
    return losses


@pytest.mark.parametrize(
    ("kind", "mode", "rate"), [("boundary", "natural", 1e-2), ("boundary_pool", "anchorless", 5e-3)]
)
def test_entities_relations_and_records_are_learned(backbone: Any, kind: str, mode: str, rate: float) -> None:
    nlp, component, examples = taught(backbone, kind, mode, DATA[:5], enable_abstention=False)
    losses = learn(component, examples, 140, rate)
    assert set(losses[0]) == {"boundary", "span", "span_count", "relation", "record"}
    scores = evaluate_pipeline(nlp, examples)
    assert scores["exact"]["micro"]["f"] == 1
    assert scores["relations"]["strict"]["micro"]["f"] == 1
    assert scores["records"]["fields"]["micro"]["f"] == 1


@pytest.mark.parametrize("kind", KINDS)
def test_parts_have_the_loss_of_the_whole(backbone: Any, kind: str) -> None:
    """Also over several windows of a text."""
    long = record(" ".join(["Ann works for Acme in Oslo."] * 12), ["Ann"], ["Acme"], "good", [], [], [])
    long["output"]["relations"] = [{"works for": {"head": "Ann", "tail": "Acme"}}]
    _, component, examples = taught(backbone, kind, "latent", [*DATA, long], {"window": 120})
    component.network.eval()
    drawn = component.draw(examples, random.Random(1))
    assert max(rows for rows, _ in drawn.sizes()) > 1
    whole = component.network(drawn.whole()).parts
    parts = [component.network(drawn.lay_out(texts)).parts for texts in ([0, 3, 6], [1, 2, 4, 5])]
    assert {"boundary", "span", "abstention", "span_count", "relation", "record"} == whole.keys()
    for name, value in whole.items():
        torch.testing.assert_close(value, sum(part[name] for part in parts), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_what_nobody_looked_for_is_not_taught(backbone: Any, kind: str) -> None:
    """A text with relations alone, and one with classes alone."""
    relations = {"input": "Ann works for Acme.", "output": {"relations": DATA[0]["output"]["relations"]}}
    classes = {"input": "Ann left.", "output": {"classifications": DATA[0]["output"]["classifications"]}}
    blocks = boundary_blocks(kind)
    _, component, examples = made(backbone, [*DATA, relations, classes], blocks=blocks)
    first = component.collate(examples[-2:-1], random.Random(0))
    (query,) = first.inputs.queries
    assert (query.entities, [task.name for task in query.tasks]) == ((), ["works for"])
    assert component.network(first).parts["relation"] > 0
    second = component.collate(examples[-1:], random.Random(0))
    parts = component.network(second).parts
    assert parts["class"] > 0
    assert not any(part.item() for name, part in parts.items() if name != "class")
    component.network(second).total.backward()


@pytest.mark.parametrize("mode", ["natural", "anchorless"])
def test_fields_that_a_record_does_not_name_may_stay_unknown(backbone: Any, mode: str) -> None:
    data = [{"text": "The new Fox costs 5 dollars.", "records": {"product": [{"name": [8, 11]}]}}]
    found = {}
    for what in ("absent", "unknown"):
        settings = {"task_sampling": {**PLAIN, "unnamed_fields": what}}
        _, component, examples = taught(backbone, "boundary", mode, data, settings)
        component.network.eval()
        batch = component.collate(examples, random.Random(0))
        found[what] = {name: part.item() for name, part in component.network(batch).parts.items()}
    assert batch.tasks.unnamed.tolist() == [[0, 0, 0, 1], [0, 0, 0, 2]]
    for name in ("boundary", "span", "abstention", "span_count", "record"):
        assert 0 < found["unknown"][name] < found["absent"][name]


def test_gold_annotations_beyond_the_budgets_are_counted(backbone: Any) -> None:
    few = {"start_top_k": 2, "end_top_k": 2}
    data = [
        {
            "input": "Ann and Bob and Eve and Tom.",
            "output": {"entities": {"person": ["Ann", "Bob", "Eve", "Tom"]}},
        }
    ]
    _, component, examples = taught(backbone, "boundary", "latent", data, **few)
    ((reason, number),) = component.collate(examples, random.Random(0)).dropped.items()
    assert number == 2
    assert "start_top_k" in reason
    few = {"pool_boundary_top_k": 3, "pool_size": 3}
    _, component, examples = taught(backbone, "boundary_pool", "latent", data, **few)
    ((reason, number),) = component.collate(examples, random.Random(0)).dropped.items()
    assert number == 1
    assert "pool_boundary_top_k" in reason


@pytest.mark.parametrize(("mode", "number"), [("anchorless", 1), ("natural", 1), (None, 2)])
def test_records_and_relations_that_cannot_be_found_are_counted(
    backbone: Any, mode: str | None, number: int
) -> None:
    data = [DATA[4], DATA[3]]
    extra = {"json_structures": [*DATA[4]["output"]["json_structures"], {"product": {"price": "7 dollars"}}]}
    data[0] = {**data[0], "output": {**data[0]["output"], **extra}}
    _, component, examples = taught(backbone, "boundary", mode, data)
    component.gliner.record_finder.record_instance_queries = 2
    component.gliner.relation_finder.relation_pair_cap = 1
    dropped = component.collate(examples, random.Random(0)).dropped
    assert sum(count for reason, count in dropped.items() if reason.startswith("record ")) == number
    assert sum(count for reason, count in dropped.items() if reason.startswith("relation ")) == 1


def test_good_pairs_that_are_left_out_are_counted(backbone: Any, caplog: pytest.LogCaptureFixture) -> None:
    nlp, component, _ = taught(backbone, "boundary", "latent")
    component.relation_threshold = 0.0
    finder = component.gliner.relation_finder
    finder.relation_heads_per_type = finder.relation_tails_per_type = 100
    finder.relation_pair_cap = 100_000
    nlp("Ann works for Acme.")
    assert not finder.full_budgets
    assert not caplog.records
    finder.relation_pair_cap = 3
    list(nlp.pipe(["Ann works for Acme.", "Bob works for Globex."]))
    assert finder.full_budgets == 2
    assert sum("relation_pair_cap" in one.message for one in caplog.records) == 1


# -- faults of the package that are not copied -----------------------------------------------------------------------


def test_no_gold_relation_is_taught_as_absent(backbone: Any) -> None:
    """The package leaves out one of five by default, with its spans as negatives."""
    _, component, examples = taught(backbone, "boundary", "latent", settings={"task_sampling": {}})
    orders = set()
    for seed in range(40):
        batch = component.collate(examples[3:4], random.Random(seed))
        for number, task in enumerate(batch.inputs.queries[0].tasks):
            if task.kind == "relation":
                count = batch.tasks.counts[batch.tasks.counts[:, 1] == number, 2]
                assert count.tolist() == [2]
                orders.add(task.fields[0].name)
    assert orders == {"head", "tail"}


def test_names_are_hidden_only_where_something_explains_them(backbone: Any) -> None:
    settings = {"task_sampling": {"hide_names": 1.0, "drop_descriptions": 0.0}}
    blocks = boundary_blocks("boundary")
    _, component, examples = made(backbone, DATA, blocks=blocks, **settings)
    for seed in range(10):
        for query in component.collate(examples, random.Random(seed)).inputs.queries:
            names = [*query.entities, *(field.name for task in query.tasks for field in task.fields)]
            assert not any(name.startswith(("entity ", "label ", "field ")) for name in names)


def test_classes_are_matched_by_their_whole_names(backbone: Any) -> None:
    tasks = [
        {"task": "tone", "labels": ["good", "bad"], "true_label": ["good"]},
        {"task": "tone_strength", "labels": ["weak", "strong"], "true_label": ["strong"]},
    ]
    data = [{"input": "Fine!", "output": {"classifications": tasks}}]
    _, component, examples = made(backbone, data, blocks=boundary_blocks("boundary"))
    batch = component.collate(examples, random.Random(0))
    named = {task.name: number for number, task in enumerate(batch.inputs.queries[0].tasks)}
    values = {
        name: batch.tasks.values[batch.tasks.labels[batch.tasks.labels[:, 1] == number, 3][0]].tolist()
        for name, number in named.items()
    }
    assert values == {"tone": [1, 0], "tone_strength": [0, 1]}
