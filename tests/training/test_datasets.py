"""Draws from several datasets, epochs, chunks and label sets of their own."""

from __future__ import annotations

import json
import random
from collections import Counter
from contextlib import nullcontext
from dataclasses import replace
from itertools import islice

import pytest
import spacy

from gliner_pipe.data.annotations import gold_spans, supervision
from gliner_pipe.data.checks import CountRules
from gliner_pipe.data.holdout import drop_labels, hold_out
from gliner_pipe.data.label_sampling import LabelSampling, sample_labels
from gliner_pipe.data.lazy import LazyExamples
from gliner_pipe.data.on_disk import Storage
from gliner_pipe.data.readers.json import gliner_json
from gliner_pipe.errors import ConfigError, DataError
from gliner_pipe.training.data_sections import TrainData, ValidationData
from gliner_pipe.training.datasets import (
    describe,
    draws,
    draws_per_epoch,
    read_training,
    read_validation,
)


def records(name, number):
    return [{"tokenized_text": [f"{name}{i}", "."], "ner": [[0, 0, name]]} for i in range(number)]


@pytest.fixture(scope="module")
def blank():
    return spacy.blank("en")


def data(blank, *sections, batch_size="2 samples"):
    return read_training(blank, TrainData.validate(list(sections)), batch_size)


def section(name, number, **options):
    return {"reader": records(name, number), **options}


def names(draw):
    return [example.reference[0].text for example in draw]


def test_without_weights_each_draw_has_a_batch_of_each(blank):
    datasets = data(blank, section("a", 5), section("b", 3, batch_size="1 sample"))
    found = [names(draw) for draw in islice(draws(datasets, 3), 6)]
    streams = [dataset.batches(random.Random(f"3-{i}")) for i, dataset in enumerate(datasets)]
    expected = [names([*one, *other]) for one, other in islice(zip(*streams, strict=True), 6)]
    assert found == expected
    assert [Counter(name[0] for name in draw) for draw in found[:3]] == [
        {"a": 2, "b": 1},
        {"a": 2, "b": 1},
        {"a": 1, "b": 1},
    ]
    assert draws_per_epoch(datasets, 3) == 3
    assert sorted(name for draw in found[:3] for name in draw if name[0] == "a") == [
        f"a{i}" for i in range(5)
    ]


def test_with_weights_each_draw_has_a_batch_of_one(blank):
    datasets = data(blank, section("a", 8, weight=3), section("b", 4), section("c", 2, weight=0.5))
    found = [names(draw) for draw in islice(draws(datasets, 1), 900)]
    assert all(len({name[0] for name in draw}) == 1 for draw in found)
    counts = Counter(draw[0][0] for draw in found)
    assert [round(9 * counts[name] / 900 / 2, 1) for name in "abc"] == pytest.approx([3, 1, 0.5], abs=0.2)
    assert found == [names(draw) for draw in islice(draws(datasets, 1), 900)]
    assert found[:20] != [names(draw) for draw in islice(draws(datasets, 2), 20)]
    assert draws_per_epoch(datasets, 1) == 4 + 2 + 1
    # each of them goes through its own documents evenly
    seen = Counter(name for draw in found for name in draw if name[0] == "b")
    assert max(seen.values()) - min(seen.values()) <= 1


def test_one_dataset_with_a_weight_is_drawn_from_as_without(blank):
    plain, weighted = (data(blank, section("a", 5, **options)) for options in ({}, {"weight": 2}))
    assert [names(d) for d in islice(draws(plain, 0), 7)] == [names(d) for d in islice(draws(weighted, 0), 7)]


@pytest.mark.parametrize("weight", [0, -1, True, "2", float("inf"), float("nan")])
def test_invalid_weights_fail(weight):
    with pytest.raises(ConfigError, match=r"\[train.train_data.weight\]"):
        TrainData.validate({"reader": records("a", 1), "weight": weight})


def test_an_epoch_counts_the_batches_of_split_documents(blank):
    long = [{"tokenized_text": ["a"] * 100, "ner": [[0, 0, "x"]]}]
    whole, cut, chunks = (
        data(blank, {"reader": long, "randomize": False, **options}, batch_size="1 sample")
        for options in ({}, {"max_length": 20}, {"chunk": {"max_words": 20, "stride": 10}})
    )
    assert [draws_per_epoch(datasets, 0) for datasets in (whole, cut, chunks)] == [1, 5, 9]


@pytest.mark.parametrize("in_memory", [True, False])
def test_each_pass_draws_another_share_of_the_texts_without_entities(blank, tmp_path, in_memory):
    empty = [{"tokenized_text": [f"none{i}", "."], "ner": [], "ner_labels": ["a"]} for i in range(40)]
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in [*records("a", 5), *empty]))
    given = {"reader": str(path), "empty_texts": 0.5, "keep_in_memory": in_memory}
    storage = Storage(tmp_path, "train_data", CountRules("gliner", None), nullcontext)
    (dataset,) = read_training(blank, TrainData.validate([given]), "2 samples", storage)
    assert isinstance(dataset.documents, LazyExamples) is not in_memory
    rng = random.Random(0)
    passes = [[name for draw in dataset.one_pass(rng) for name in names(draw)] for _ in range(2)]
    for names_drawn in passes:
        assert sorted(name for name in names_drawn if name[0] == "a") == [f"a{i}" for i in range(5)]
        assert 10 < len(names_drawn) - 5 < 30
        assert len(set(names_drawn)) == len(names_drawn)
    assert set(passes[0]) != set(passes[1])
    assert draws_per_epoch([dataset], 0) < 23


def test_a_pass_without_texts_fails(blank):
    (dataset,) = data(blank, {"reader": [{"tokenized_text": ["none"], "ner": []}], "empty_texts": 0.0})
    with pytest.raises(DataError):
        next(dataset.batches(random.Random(0)))


def test_chunks(blank):
    long = [
        {"tokenized_text": [f"w{i}" for i in range(20)], "ner": [[1, 1, "x"], [4, 5, "y"], [11, 17, "z"]]}
    ]
    (dataset,) = data(blank, {"reader": long, "chunk": {"max_words": 6, "stride": 2}})
    report: Counter[str] = Counter()
    parts = dataset.parts(report=report)
    assert [part.reference[0].text for part in parts] == ["w0", "w4", "w8", "w12", "w16"]
    assert [[span.label_ for span in gold_spans(part.reference)] for part in parts] == [
        ["x", "y"],
        ["y"],
        [],
        [],
        [],
    ]
    assert report["entity whole in no chunk (left out)"] == 1

    class Component:
        name = "gliner"

    text = describe([dataset], Component())
    assert "5 examples (3 without entities)" in text
    assert "1 entity whole in no chunk (left out)" in text
    both = data(
        blank, {"reader": long, "chunk": {"max_words": 10, "stride": 2}, "max_length": 5, "randomize": False}
    )
    assert max(len(part.reference) for part in both[0].parts()) <= 7  # an entity of seven words is not cut


@pytest.mark.parametrize(
    "options", [{"chunk": {"max_words": 5, "stride": 1}}, {"weight": 2.0}, {"empty_texts": 0.5}]
)
def test_validation_has_no_chunks_and_weights(blank, options):
    sections = ValidationData.validate({"reader": records("a", 1), **options})
    with pytest.raises(ConfigError) as caught:
        read_validation(blank, sections)
    assert caught.value.where == f"train.val_data.{next(iter(options))}"


def test_wrong_chunks():
    with pytest.raises(ConfigError, match=r"\[train.train_data.chunk.stride\]"):
        TrainData.validate({"reader": records("a", 1), "chunk": {"max_words": 5, "stride": 9}})


def test_documents_and_labels_are_held_out(blank):
    examples = list(gliner_json(records("a", 6) + records("b", 6))(blank))
    (dataset,) = read_training(blank, TrainData.validate(examples), 2)
    rest, held = hold_out(dataset.documents, 0.25, 0)
    dataset = replace(dataset, documents=rest)
    assert (len(rest), len(held)) == (9, 3)
    dropped = drop_labels(dataset.documents, ["b"], dataset.spans_key)
    assert dropped == {"b": sum(name[0] == "b" for name in names(rest))}
    learned = [
        span.label_
        for draw in islice(draws([dataset], 0), 9)
        for e in draw
        for span in gold_spans(e.reference)
    ]
    assert set(learned) == {"a"}
    assert all(gold_spans(example.reference) for example in examples)  # the caller's own are untouched


def test_labels_of_one_dataset_are_no_negatives_of_another(blank):
    """Persons of the second corpus are not annotated, so nobody may learn that they are none."""
    people = [{"tokenized_text": ["Ann", "left", "Oslo"], "ner": [[0, 0, "person"]]}]
    places = [{"tokenized_text": ["Bob", "saw", "Lima"], "ner": [[2, 2, "city"]]}]
    closed = [
        {"reader": gliner_json(people, labels=["person", "animal"])},
        {"reader": gliner_json(places, labels=["city", "river"])},
    ]

    def asked(sections, **options):
        """Return all labels that each text is asked for, over many draws in which both texts meet."""
        found: dict[str, set[str]] = {}
        for number, draw in enumerate(
            islice(draws(read_training(blank, TrainData.validate(sections), 1), 0), 20)
        ):
            gold = [[span.label_ for span in gold_spans(example.reference)] for example in draw]
            stated = [supervision(example.reference) for example in draw]
            sampling = LabelSampling(**options)
            labels = sample_labels(gold, stated, ["person", "city"], sampling, random.Random(number))
            assert names(draw) == ["Ann", "Bob"]
            for name, chosen in zip(names(draw), labels, strict=True):
                found.setdefault(name, set()).update(chosen)
        return found

    for source in ("batch", "labels", "both"):
        own = {"Ann": {"person", "animal"}, "Bob": {"city", "river"}}
        assert asked(closed, negatives_from=source) == own
        assert asked([people, places], negatives_from=source) == {name: {"person", "city"} for name in own}
