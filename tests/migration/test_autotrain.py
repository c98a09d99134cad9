from __future__ import annotations

import csv
import json
import os
import sys
from pathlib import Path

import datasets
import pytest
import spacy
import torch
from confit import Config
from transformers import AutoConfig, AutoModelForTokenClassification, AutoTokenizer, pipeline

from gliner_pipe.autotrain import train
from gliner_pipe.errors import ConfigError
from gliner_pipe.migration import to_config
from gliner_pipe.migration.autotrain import TokenClassificationParams
from gliner_pipe.migration.tables import PARAMETERS
from gliner_pipe.registry import registry
from gliner_pipe.train import main
from gliner_pipe.train import train as train_pipeline
from tests.migration.migration_files import resolved, written

#: Names and defaults as AutoTrain documents them.
DEFAULTS = {
    "model": "bert-base-uncased",
    "project_name": "project-name",
    "tokens_column": "tokens",
    "tags_column": "tags",
    "train_split": "train",
    "valid_split": None,
    "max_samples": None,
    "lr": 5e-5,
    "epochs": 3,
    "batch_size": 8,
    "max_seq_length": 128,
    "warmup_ratio": 0.1,
    "gradient_accumulation": 1,
    "optimizer": "adamw_torch",
    "scheduler": "linear",
    "weight_decay": 0.0,
    "max_grad_norm": 1.0,
    "seed": 42,
    "mixed_precision": None,
    "auto_find_batch_size": False,
    "logging_steps": -1,
    "eval_strategy": "epoch",
    "early_stopping_patience": 5,
    "early_stopping_threshold": 0.01,
    "push_to_hub": False,
    "username": None,
    "token": None,
    "save_total_limit": 1,
    "log": "none",
}

FILE = """
task: token-classification
base_model: "{backbone}"
project_name: "{out}"
log: tensorboard
backend: local
data:
  path: "{sample}"
  train_split: train
  valid_split: dev
  column_mapping:
    tokens_column: words
    tags_column: labels
params:
  lr: 2e-5
  epochs: 4
  batch_size: 16
  max_seq_length: 64
  mixed_precision: bf16
hub:
  username: ${NER_USER}
  token: ${HF_TOKEN}
  push_to_hub: true
"""


@pytest.fixture
def corpus(tmp_path):
    """A folder with train.csv and dev.csv, tags in words."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    rows = [
        ("Ann lives in Oslo .", "B-person O O B-city O"),
        ("Bob likes New York .", "B-person O B-city I-city O"),
    ]
    for split in ("train", "dev"):
        with (folder / f"{split}.csv").open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["tokens", "tags"])
            table.writerows([[json.dumps(part.split()) for part in row] for row in rows * 4])
    return folder


def test_parameters_have_the_names_and_defaults_of_autotrain():
    params = TokenClassificationParams(data_path="x")
    assert {name: getattr(params, name) for name in DEFAULTS} == DEFAULTS
    assert set(PARAMETERS) == {"data_path", "tag_names", *DEFAULTS}


def test_configuration(backbone, corpus, tmp_path):
    params = TokenClassificationParams(
        data_path=str(corpus),
        model=str(backbone),
        project_name=str(tmp_path / "my-ner"),
        valid_split="dev",
        max_samples=50,
        scheduler="cosine",
        optimizer="adamw_hf",
        gradient_accumulation=2,
        mixed_precision="fp16",
        log="wandb",
    )
    moved = params.to_config()
    nlp = resolved(moved)
    decoder = nlp.get_pipe("token_classifier").model.decoder
    assert (decoder.scheme, decoder.mode, decoder.all_pieces) == ("bio", "joint", True)
    train_options = moved.config["train"]
    reader = {"@readers": "bio", "path": str(corpus), "tokens_column": "tokens", "tags_column": "tags"}
    assert train_options["train_data"] == {
        "randomize": True,
        "reader": {**reader, "split": "train", "max_samples": 50},
    }
    assert train_options["val_data"] == {"reader": {**reader, "split": "dev", "max_samples": 10}}
    expected = {
        "output_path": str(tmp_path / "my-ner"),
        "transformer_lr": 5e-5,
        "task_lr": 5e-5,
        "transformers_path": str(tmp_path / "my-ner"),
        "load_best_model_at_end": True,
        "max_epochs": 3.0,
        "batch_size": "8 samples",
        "schedule": "cosine",
        "optimizer": "adamw",
        "gradient_accumulation_steps": 2,
        "mixed_precision": "fp16",
        "loggers": ["default", "wandb"],
        "validation_interval": "epoch",
        "checkpoint_interval": "epoch",
        "patience": 5,
        "patience_threshold": 0.01,
        "best_metric": "ner.micro.f",
        "weight_decay": 0.0,
        "save_total_limit": 1,
        "seed": 42,
    }
    assert {key: train_options[key] for key in expected} == expected
    assert "max_steps" not in train_options and "validation_split" not in train_options


def test_without_a_valid_split(corpus):
    train_options = TokenClassificationParams(data_path=str(corpus)).to_config().config["train"]
    assert train_options["validation_split"] == 0.2 and train_options["patience"] == 5
    moved = TokenClassificationParams(data_path="someone/a-data-set").to_config()
    assert {
        *("validation_split", "patience", "patience_threshold"),
        *("best_metric", "load_best_model_at_end"),
    } & set(moved.config["train"]) == set()
    assert any(note.startswith("patience, patience_threshold") for note in moved.notes)


def test_windows_fit_the_encoder(backbone):
    moved = TokenClassificationParams(data_path="x", model=str(backbone), max_seq_length=4000).to_config()
    assert moved.config["components"]["token_classifier"]["embedding"]["window"] == 510
    assert any(note.startswith("window = 510") for note in moved.notes)


def test_training_continues_from_a_gliner_model(tmp_path):
    (tmp_path / "gliner_config.json").write_text("{}")
    moved = TokenClassificationParams(data_path="x", model=str(tmp_path)).to_config()
    assert moved.config["components"]["gliner"]["model"] == str(tmp_path)
    assert moved.config["train"]["task_lr"] == 2e-4 and "transformers_path" not in moved.config["train"]


def test_the_token_is_never_shown():
    params = TokenClassificationParams(data_path="x", push_to_hub=True, username="me", token="hf_secret")
    moved = params.to_config()
    assert moved.config["train"]["hub_model_id"] == "me/project-name"
    assert "hf_secret" not in repr(params) + moved.to_cfg()
    assert any("HF_TOKEN" in note for note in moved.notes)


@pytest.mark.parametrize(
    ("values", "allowed"),
    [
        ({"data_path": ""}, "a file"),
        ({"lr": "fast"}, "a number"),
        ({"epochs": 0}, "a number above 0"),
        ({"batch_size": 2.5}, "a whole number"),
        ({"max_seq_length": 3}, "a whole number from 16"),
        ({"optimizer": "adamw_torc"}, "adamw_torch"),
        ({"scheduler": "step"}, "linear"),
        ({"mixed_precision": "fp8"}, "fp16, bf16, no"),
        ({"log": "neptune"}, "none, tensorboard, wandb"),
        ({"eval_strategy": "often"}, "no, steps, epoch"),
    ],
)
def test_wrong_values(values, allowed):
    with pytest.raises(ConfigError) as raised:
        TokenClassificationParams(**{"data_path": "x", **values})
    ((name, value),) = values.items()
    assert raised.value.where == f"params.{name}"
    assert repr(value) in raised.value.found and allowed in raised.value.allowed


def test_none_means_the_default():
    params = TokenClassificationParams(data_path="x", lr=None, max_seq_length=None, project_name="")
    assert params.to_config().config == TokenClassificationParams(data_path="x").to_config().config


def test_pushing_needs_an_owner():
    with pytest.raises(ConfigError, match="username") as raised:
        TokenClassificationParams(data_path="x", push_to_hub=True).to_config()
    assert raised.value.where == "params.push_to_hub"


def test_splits_need_a_data_set_with_splits(tmp_path):
    (tmp_path / "data.csv").touch()
    with pytest.raises(ConfigError) as raised:
        TokenClassificationParams(data_path=str(tmp_path / "data.csv"), valid_split="dev").to_config()
    assert raised.value.where == "params.valid_split"


def test_yaml_file(backbone, tmp_path, monkeypatch):
    monkeypatch.setenv("NER_USER", "ann")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    moved = to_config(written(tmp_path, FILE, backbone))
    resolved(moved)
    train_options = moved.config["train"]
    assert train_options["hub_model_id"] == "ann/out" and train_options["push_to_hub"] is True
    assert train_options["train_data"]["reader"]["tokens_column"] == "words"
    assert train_options["val_data"]["reader"]["tags_column"] == "labels"
    assert (train_options["transformer_lr"], train_options["max_epochs"]) == (2e-5, 4.0)
    assert train_options["mixed_precision"] == "bf16" and train_options["patience"] == 5
    assert train_options["loggers"] == ["default", "tensorboard"]
    assert moved.config["components"]["token_classifier"]["embedding"]["window"] == 64


@pytest.mark.parametrize(
    ("old", "new", "place", "mentioned"),
    [
        ("token-classification", "llm-sft", "1 (task)", "'llm-sft'"),
        ("  lr:", "  learning:", "14 (params.learning)", ""),
        ("log:", "logs:", "4 (logs)", "'log'"),
        ("  lr: 2e-5", "  lr: high", "14 (params.lr)", "'high'"),
        ("tokens_column", "token_column", "11 (data.column_mapping.token_column)", "'tokens_column'"),
        ("${HF_TOKEN}", "hf_abcdef", "21 (hub.token)", "HF_TOKEN"),
        ("${NER_USER}", "${NOBODY_SET_THIS}", "20 (hub.username)", "NOBODY_SET_THIS"),
        (
            "  column_mapping:\n    tokens_column: words\n    tags_column: labels",
            "  column_mapping: 3",
            "10 (data.column_mapping)",
            "tokens_column",
        ),
        ("  path: ", "  paths: ", "7 (data.paths)", "'path'"),
        ("  lr: 2e-5", "  lr: 2e-5\n  data_path: twice", "15 (params.data_path)", "old.yaml:7"),
        ('  path: "{sample}"\n', "", "6 (data)", "path"),
    ],
)
def test_mistakes_in_a_file(old, new, place, mentioned, tmp_path, monkeypatch):
    monkeypatch.setenv("NER_USER", "ann")
    assert FILE.count(old) == 1
    source = written(tmp_path, FILE.replace(old, new))
    with pytest.raises(ConfigError) as raised:
        to_config(source)
    assert raised.value.where == f"{source}:{place}" and mentioned in str(raised.value)
    assert "hf_abcdef" not in str(raised.value)


def test_training(backbone, corpus, tmp_path, monkeypatch):
    """Trains with the two lines of an AutoTrain script, and loads the result in transformers and in spaCy."""
    monkeypatch.chdir(tmp_path)
    params = TokenClassificationParams(
        data_path=str(corpus),
        model=str(backbone),
        project_name="my-ner",
        valid_split="dev",
        token="hf_secret",
        epochs=40,
        lr=5e-3,
        batch_size=4,
    )
    nlp = train(params)
    assert nlp.get_pipe("token_classifier").labels == ("city", "person")
    folder = Path("my-ner")
    assert (folder / "model-last" / "config.cfg").is_file() and (folder / "model-best").is_dir()
    config = Config.from_disk(folder / "train_config.cfg")
    assert config["train"]["train_data"]["reader"]["@readers"] == "bio"
    assert "hf_secret" not in (folder / "train_config.cfg").read_text()
    assert os.environ.get("HF_TOKEN") is None
    ner = pipeline("token-classification", model="./my-ner", aggregation_strategy="simple", device="cpu")
    text = "Bob likes New York ."
    assert [(one["start"], one["end"], one["entity_group"]) for one in ner(text)] == [
        (0, 3, "person"),
        (10, 18, "city"),
    ]
    best = spacy.load("my-ner/model-best")
    assert [(ent.text, ent.label_) for ent in best(text).ents] == [("Bob", "person"), ("New York", "city")]


def test_training_continues_from_a_token_classifier(backbone, corpus, tmp_path):
    """Labels that the model knows keep their weights; new labels start from new weights."""
    known = tmp_path / "known"
    names = {0: "O", 1: "B-person", 2: "I-person", 3: "B-date", 4: "I-date"}
    settings = AutoConfig.from_pretrained(backbone, id2label=names, label2id={v: k for k, v in names.items()})
    AutoModelForTokenClassification.from_config(settings).save_pretrained(known)
    AutoTokenizer.from_pretrained(backbone).save_pretrained(known)
    out = tmp_path / "out"
    params = TokenClassificationParams(
        data_path=str(corpus), model=str(known), project_name=str(out), valid_split="dev", epochs=1, lr=1e-9
    )
    moved = params.to_config()
    model = moved.config["components"]["token_classifier"]["model"]
    assert model["name"] == str(known) and model["labels"] == "data" and model["window"] == 128
    train(params)
    made = AutoModelForTokenClassification.from_pretrained(out)
    assert made.config.id2label == {0: "O", 1: "B-city", 2: "I-city", 3: "B-person", 4: "I-person"}
    before = AutoModelForTokenClassification.from_pretrained(known).classifier.weight
    assert torch.allclose(made.classifier.weight[[0, 3, 4]], before[[0, 1, 2]], atol=1e-6)


def test_tags_as_numbers(backbone, tmp_path):
    """Reads tag names from the features of a data set saved with save_to_disk."""
    tags = datasets.Sequence(datasets.ClassLabel(names=["O", "B-person", "I-person", "B-city"]))
    features = datasets.Features({"tokens": datasets.Sequence(datasets.Value("string")), "tags": tags})
    rows = {"tokens": [["Ann", "Lee", "in", "Oslo"]] * 4, "tags": [[1, 2, 0, 3]] * 4}
    part = datasets.Dataset.from_dict(rows, features=features)
    datasets.DatasetDict({"train": part, "validation": part}).save_to_disk(tmp_path / "ner_data")
    out = tmp_path / "out"
    params = TokenClassificationParams(
        data_path=str(tmp_path / "ner_data"),
        model=str(backbone),
        project_name=str(out),
        valid_split="validation",
        epochs=1,
    )
    assert train(params).get_pipe("token_classifier").labels == ("person", "city")
    ids = {"O": 0, "B-person": 1, "I-person": 2, "B-city": 3, "I-city": 4}
    assert AutoConfig.from_pretrained(out).label2id == ids


def test_exported_ids_are_those_of_the_data(backbone, tmp_path):
    """In the order of the names, and with a label that the data names but does not have; a fifth is held out."""
    names = ["I-person", "O", "B-person", "I-city", "B-city", "B-date", "I-date"]
    tags = datasets.Sequence(datasets.ClassLabel(names=names))
    features = datasets.Features({"tokens": datasets.Sequence(datasets.Value("string")), "tags": tags})
    rows = {"tokens": [["Ann", "Lee", "in", "Oslo"]] * 10, "tags": [[2, 0, 1, 4]] * 10}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "data")
    out = tmp_path / "out"
    params = TokenClassificationParams(
        str(tmp_path / "data"), str(backbone), str(out), epochs=20, lr=5e-3, batch_size=4
    )
    assert params.to_config().config["train"]["validation_split"] == 0.2
    nlp = train(params)
    assert AutoConfig.from_pretrained(out).id2label == dict(enumerate(names))
    ner = pipeline("token-classification", model=str(out), aggregation_strategy="simple", device="cpu")
    assert [one["entity_group"] for one in ner("Ann Lee in Oslo")] == ["person", "city"]
    assert [ent.label_ for ent in nlp("Ann Lee in Oslo").ents] == ["person", "city"]
    card = (out / "README.md").read_text("utf8")
    assert "library_name: transformers" in card and "model-index:" in card and "| `person` |" in card
    (out / "README.md").write_text("Mine.")
    train(params)  # the earlier pipelines are kept
    assert len(list((out / "earlier").iterdir())) == 1
    assert (out / "README.md").read_text() == "Mine."


def test_exported_ids_are_those_of_a_data_set_of_the_hub(backbone, tmp_path, monkeypatch):
    """Only its description is read before the training; here from the cache."""
    names = ["I-person", "O", "B-person", "I-city", "B-city"]
    words, tags = datasets.Value("string"), datasets.ClassLabel(names=names)
    features = datasets.Features({"tokens": datasets.Sequence(words), "ner_tags": datasets.Sequence(tags)})
    rows = {"tokens": [["Ann", "Lee", "in", "Oslo"]] * 4, "ner_tags": [[2, 0, 1, 4]] * 4}
    part = datasets.Dataset.from_dict(rows, features=features)
    cached = tmp_path / "cache" / "ada___people" / "default" / "0.0.0" / "abc"
    part.save_to_disk(tmp_path / "saved")
    cached.mkdir(parents=True)
    next((tmp_path / "saved").glob("*.arrow")).rename(cached / "people-train.arrow")
    info = part.info
    info.dataset_name, info.builder_name, info.config_name, info.version = (
        "people",
        "parquet",
        "default",
        "0.0.0",
    )
    info.splits = datasets.SplitDict(
        {"train": datasets.SplitInfo("train", num_examples=4, dataset_name="people")}
    )
    info.write_to_directory(cached)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    out = tmp_path / "out"
    params = TokenClassificationParams(
        "ada/people", str(backbone), str(out), tags_column="ner_tags", valid_split="train", epochs=1
    )
    assert params.to_config().config["components"]["token_classifier"]["decoder"]["tag_names"] == names
    train(params)
    assert AutoConfig.from_pretrained(out).id2label == dict(enumerate(names))


@pytest.mark.parametrize("by_number", [True, False])
def test_tags_without_an_o_are_labels_of_words(backbone, tmp_path, by_number):
    """Neighbours with one label are not one entity."""
    names = ["NOUN", "ADV", "VERB", "PUNCT"]
    tags = [[0, 0, 2, 1, 3]] * 8
    rows = {"tokens": [["Guard", "dogs", "bark", "loudly", "."]] * 8, "tags": tags}
    kind = datasets.ClassLabel(names=names) if by_number else datasets.Value("string")
    if not by_number:
        rows["tags"] = [[names[number] for number in row] for row in tags]
    features = {"tokens": datasets.Sequence(datasets.Value("string")), "tags": datasets.Sequence(kind)}
    datasets.Dataset.from_dict(rows, features=datasets.Features(features)).save_to_disk(tmp_path / "data")
    params = TokenClassificationParams(
        str(tmp_path / "data"), str(backbone), str(tmp_path / "out"), epochs=20, lr=5e-3, batch_size=4
    )
    nlp = train(params)
    assert [token.tag_ for token in nlp("Guard dogs bark loudly .")] == [names[number] for number in tags[0]]
    assert nlp.meta["performance"]["tags.micro.f"] == 1.0 and not nlp("Guard dogs").ents
    expected = names if by_number else sorted(names)
    assert AutoConfig.from_pretrained(tmp_path / "out").id2label == dict(enumerate(expected))


def test_yaml_file_on_the_command_line(backbone, corpus, tmp_path, monkeypatch):
    text = FILE[: FILE.index("hub:")].replace("log: tensorboard\n", "").replace("  column_mapping:\n", "")
    text = text.replace("    tokens_column: words\n    tags_column: labels\n", "").replace("bf16", "none")
    source = written(
        tmp_path, text.replace("{sample}", str(corpus)).replace("epochs: 4", "epochs: 1"), backbone
    )
    monkeypatch.setattr(sys, "argv", ["train", "--config", str(source), "--cpu", "true"])
    main()
    assert AutoConfig.from_pretrained(tmp_path / "out").id2label[1] == "B-city"


def test_decoders_that_transformers_lacks_are_refused_before_training(backbone, corpus, tmp_path):
    options = TokenClassificationParams(
        data_path=str(corpus), model=str(backbone), project_name=str(tmp_path / "out")
    ).to_config()
    options.config["components"]["token_classifier"]["decoder"] = {"@decoders": "crf"}
    resolved_options = Config(options.config).resolve(registry=registry)["train"]
    with pytest.raises(ConfigError) as raised:
        train_pipeline(**resolved_options)
    assert raised.value.where == "components.token_classifier.decoder"
    assert not (tmp_path / "out").exists()
