"""A pipeline learns from records and data sets in memory, with chunks and weights."""

from __future__ import annotations

import json

import pytest
from datasets import Dataset, DatasetDict

from gliner_pipe.errors import DataError
from gliner_pipe.train import train

RECORDS = [{"tokenized_text": ["Ann", "left", "Oslo", "."], "ner": [[0, 0, "person"], [2, 2, "city"]]}] * 4


def losses(folder):
    lines = (folder / "train_log.jsonl").read_text("utf8").splitlines()
    return [record["loss"] for record in map(json.loads, lines) if record["type"] == "step"]


def test_records(nlp, tmp_path):
    train(
        nlp, train_data=RECORDS, max_steps=2, output_path=tmp_path / "model-last", cpu=True, loggers=["jsonl"]
    )
    assert len(losses(tmp_path)) == 2


def test_data_sets_with_weights_and_chunks(nlp, tmp_path, capsys):
    tagged = Dataset.from_dict({"tokens": [["Ann", "left"]] * 4, "ner_tags": [["B-person", "O"]] * 4})
    train(
        nlp,
        train_data=[
            {"reader": RECORDS, "chunk": {"max_words": 3, "stride": 1}, "weight": 2},
            {"reader": DatasetDict(train=tagged, validation=tagged.select([0]))},
            {"reader": tagged.to_iterable_dataset()},
            {"reader": {"train": tagged.to_pandas(), "validation": tagged.to_pandas()}},
            tagged.data.table,
        ],
        val_data=DatasetDict(train=tagged, validation=tagged.select([0])),
        batch_size=1,
        max_steps=4,
        output_path=tmp_path / "model-last",
        cpu=True,
        loggers=["jsonl"],
    )
    assert len(losses(tmp_path)) == 4
    assert "4 documents cut into chunks" in capsys.readouterr().out


def test_a_mistake_names_its_record(nlp, tmp_path):
    broken = {"tokenized_text": ["Ann"], "ner": [[0, 4, "person"]]}
    with pytest.raises(DataError, match=r"^record 4 \(ner\[0\]\[1\]\) is 4, out of range"):
        train(nlp, train_data=[*RECORDS, broken], max_steps=2, output_path=tmp_path / "model-last", cpu=True)
