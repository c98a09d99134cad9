"""Training data on disk give the same batches and the same weights as training data in memory."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from itertools import islice
from types import SimpleNamespace

import confit
import pytest
import spacy
import torch

from gliner_pipe.data import on_disk as module
from gliner_pipe.data.checks import CountRules
from gliner_pipe.data.holdout import hold_out, without_labels
from gliner_pipe.data.lazy import LazyExamples
from gliner_pipe.data.on_disk import DiskExamples, Storage
from gliner_pipe.errors import ConfigError
from gliner_pipe.pipeline.build import pipeline_of
from gliner_pipe.registry import registry
from gliner_pipe.train import train
from gliner_pipe.training.data_check import check_data
from gliner_pipe.training.data_sections import TrainData, ValidationData
from gliner_pipe.training.datasets import (
    data_report,
    draws,
    draws_per_epoch,
    read_training,
    read_validation,
)
from gliner_pipe.training.label_checks import check_labels
from gliner_pipe.training.resuming import describe_data
from gliner_pipe.training.validation import Validation
from tests.training.conftest import records, weights, write


@pytest.fixture(scope="module")
def blank():
    return spacy.blank("en")


@pytest.fixture
def paths(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BLOCK_BYTES", 500)
    rng = random.Random(5)
    long = []
    for _ in range(6):
        some = records(8, seed=rng.randrange(99))
        words: list[str] = []
        ner = []
        for one in some:
            ner += [[len(words) + a, len(words) + b, label] for a, b, label in one["ner"]]
            words += one["tokenized_text"]
        long.append({"tokenized_text": words, "ner": ner})
    mixed = records(30) + long[:3] + records(20, seed=2) + long[3:]
    return write(tmp_path / "one.jsonl", mixed), write(tmp_path / "two.jsonl", records(25, seed=9))


def both(blank, sections, folder, batch_size="4 samples"):
    """Return the same data in memory and on disk."""
    storage = Storage(folder, "train", CountRules("gliner", 12))
    made = []
    for in_memory in (True, False):
        given = [{**section, "keep_in_memory": in_memory} for section in sections]
        made.append(read_training(blank, TrainData.validate(given), batch_size, storage))
    assert not any(isinstance(one.documents, LazyExamples) for one in made[0])
    assert all(isinstance(one.documents, DiskExamples) for one in made[1])
    return made


def texts(draw):
    return [(one.reference.text, str(one.reference.spans["gliner"])) for one in draw]


class Component:
    name = "gliner"
    max_width = 2


@pytest.mark.parametrize("batch_size", ["4 samples", "30 words", "40 padded_words", "9 spans", "40 pieces"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"max_length": 12},
        {"max_length": 12, "randomize": False},
        {"chunk": {"max_words": 20, "stride": 5}, "max_length": 9},
        {"multi_sentence": False},
        {"limit": 40},
    ],
)
def test_draws_are_the_same(blank, paths, tmp_path, options, batch_size):
    sections = [{"reader": str(path), **options} for path in paths]

    def counted(examples):
        return [sum(len(token) for token in one.reference) // 3 for one in examples]

    memory, disk = (
        [replace(one, count_pieces=counted) for one in made]
        for made in both(blank, sections, tmp_path / "cache", batch_size)
    )
    expected = [texts(draw) for draw in islice(draws(memory, 3), 60)]
    assert [texts(draw) for draw in islice(draws(disk, 3), 60)] == expected
    assert draws_per_epoch(disk, 3) == draws_per_epoch(memory, 3) < 60
    assert data_report(disk, Component()) == data_report(memory, Component())


def test_held_out_documents_and_labels_are_the_same(blank, paths, tmp_path):
    (memory,), (disk,) = both(blank, [{"reader": str(paths[0])}], tmp_path / "cache", "30 words")
    rest, out = hold_out(memory.documents, 0.2, 7)
    lazy, held = hold_out(disk.documents, 0.2, 7)
    assert isinstance(lazy, LazyExamples)
    assert texts(out) == texts(held) and texts(rest) == texts(lazy)
    rest, dropped = without_labels(rest, ["city"], "gliner")
    lazy, counted = without_labels(lazy, ["city"], "gliner")
    assert dropped == counted and dropped["city"] > 10
    memory, disk = replace(memory, documents=rest), replace(disk, documents=lazy)
    expected = [texts(draw) for draw in islice(draws([memory], 3), 40)]
    assert [texts(draw) for draw in islice(draws([disk], 3), 40)] == expected
    assert not any("city" in spans for draw in expected for _, spans in draw)
    assert data_report([disk], Component()) == data_report([memory], Component())


def test_all_examples_are_read_once_only(config_path, paths, tmp_path):
    nlp = pipeline_of(options(config_path, None, tmp_path)["nlp"])
    _, (disk,) = both(nlp, [{"reader": str(paths[0])}], tmp_path / "cache")
    made = Counter()
    documents = disk.documents
    documents.make = lambda data, make=documents.make: made.update(["example"]) or make(data)
    component = nlp.get_pipe("gliner")
    component.labels = []
    component.initialize(lambda: documents, nlp=nlp)
    assert sorted(component.labels) == ["city", "person"]
    check_labels({"gliner": component}, [disk], Validation([], {}), SimpleNamespace(unseen_labels=[]), print)
    describe_data(documents, "gliner")
    assert made["example"] <= 1 < len(documents)


def test_a_check_finds_the_same(blank, paths):
    found = [
        check_data(
            blank,
            TrainData.validate({"reader": str(paths[0]), "keep_in_memory": in_memory}),
            ValidationData.validate(str(paths[1])),
            max_width=2,
        )
        for in_memory in (True, False)
    ]
    assert found[0].to_dict() == found[1].to_dict()
    assert found[0].error is None and found[0].parts["data"].texts[0].repeated


def options(config_path, train_data, out, **changes):
    resolved = confit.Config.from_disk(config_path, resolve=True, registry=registry)
    given = {**resolved["train"], "train_data": train_data, "output_path": out / "model-last"}
    return {**given, "loggers": [], "validation_interval": 2, "max_steps": 6, **changes}


class StopError(Exception):
    pass


@pytest.mark.parametrize(
    "changes",
    [
        {"num_workers": 1, "gradient_accumulation_steps": 2},
        {"validation_split": 0.2, "val_data": None, "scorer": None, "batch_size": "60 pieces"},
    ],
)
def test_weights_are_the_same_and_a_training_resumes(config_path, paths, tmp_path, changes, capsys):
    def section(path, in_memory, **more):
        return {"reader": str(path), "max_length": 15, "keep_in_memory": in_memory, **more}

    memory, disk = ([section(paths[0], held, weight=2), section(paths[1], held)] for held in (True, False))
    expected = train(**options(config_path, memory, tmp_path / "memory", **changes))
    lines = capsys.readouterr().out

    def stop(record):
        if record["step"] == 4:
            raise StopError

    with pytest.raises(StopError):
        train(**options(config_path, disk, tmp_path / "disk", on_validation_callback=stop, **changes))
    more = capsys.readouterr().out
    assert "training data on disk" in more
    (report,) = (line for line in lines.splitlines() if "training data:" in line)
    assert report in more
    files = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "disk" / "data-cache").iterdir()}
    assert len(files) == 2
    resumed = options(config_path, disk, tmp_path / "disk", resume_from_checkpoint="auto", **changes)
    found = train(**resumed)
    assert "differ" not in capsys.readouterr().out  # nor do the data differ from those of the checkpoint
    left, right = weights(expected), weights(found)
    assert [name for name, value in left.items() if not torch.equal(value, right[name])] == []
    now = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "disk" / "data-cache").iterdir()}
    assert now == files


def test_large_files_are_kept_on_disk_unless_the_section_says_otherwise(blank, paths, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LARGE", 1000)
    storage = Storage(tmp_path / "cache", "train", CountRules("gliner"))

    def documents(value, **more):
        (dataset,) = read_training(blank, TrainData.validate(value), 2, storage, **more)
        return dataset.documents

    assert isinstance(documents(paths[0]), DiskExamples)
    assert isinstance(documents({"reader": str(paths[0]), "keep_in_memory": True}), list)
    monkeypatch.setattr(module, "LARGE", 100_000)
    assert isinstance(documents(paths[0]), list)
    assert isinstance(documents({"reader": records(5), "keep_in_memory": False}), DiskExamples)
    with pytest.raises(ConfigError) as caught:
        read_validation(blank, ValidationData.validate({"reader": records(5), "keep_in_memory": False}))
    assert caught.value.where == "train.val_data.keep_in_memory"


def test_batches_that_are_skipped_are_not_read(blank, paths, tmp_path):
    _, disk = both(blank, [{"reader": str(paths[0])}], tmp_path / "cache", "30 words")
    made = Counter()
    documents = disk[0].documents
    documents.make = lambda data, make=documents.make: made.update(["example"]) or make(data)
    assert len(list(islice(draws(disk, 0), 100))) == 100
    assert not made
