"""Taggers in the training loop, in evaluations and predictions."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import spacy
import torch
from confit import Config
from conftest import SAMPLE, make_backbone
from spacy import util
from spacy.cli.train import train as spacy_train
from spacy.language import DEFAULT_CONFIG_PATH
from spacy.tokens import Doc, DocBin
from tagging_pipeline import config, example, examples, found, trained

from gliner_pipe.data.splitting import split_examples
from gliner_pipe.data.token_targets import read_values, write_value
from gliner_pipe.errors import ConfigError
from gliner_pipe.evaluation.evaluate import evaluate_pipeline
from gliner_pipe.pipeline.overrides import override
from gliner_pipe.predict import predict_texts
from gliner_pipe.registry import registry
from gliner_pipe.train import app, train
from gliner_pipe.training.validation import validation_loss

ROOT = SAMPLE.parent.parent


def options(tmp_path: Path, **changes: Any) -> dict[str, Any]:
    settings = {
        "max_steps": 30,
        "validation_interval": 15,
        "batch_size": "20 samples",
        "transformer_lr": 3e-3,
        "task_lr": 3e-3,
        "cpu": True,
        "loggers": ["jsonl"],
        "output_path": tmp_path / "model-last",
    }
    return settings | changes


@pytest.mark.parametrize("max_tokens", [None, 40])
def test_learns_in_the_loop_and_however_it_is_cut(
    backbone: Path, tmp_path: Path, max_tokens: int | None, capsys: Any
) -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("token_classifier", "ner", config=config(backbone))
    gold = examples(nlp)
    train(
        nlp, {"reader": lambda _: gold}, {"reader": lambda _: gold},
        **options(tmp_path, grad_accumulation_max_tokens=max_tokens),
    )  # fmt: skip
    rows = [json.loads(row) for row in (tmp_path / "train_log.jsonl").read_text("utf8").splitlines()]
    losses = [row["loss"] for row in rows if "loss" in row]
    assert losses[-1] < 0.2 < losses[0]
    assert nlp.meta["performance"]["ner.micro.f"] == 1.0
    again = spacy.load(tmp_path / "model-best")
    assert found(again("Ada Smith lives in Rome .")) == [("Ada Smith", "person"), ("Rome", "city")]
    assert "36 entities of 2 labels" in capsys.readouterr().out


@pytest.mark.parametrize(("chains", "lost"), [("one", 2), (None, 1)])
def test_what_cannot_be_learned_is_counted_once_before_the_first_step(
    backbone: Path, tmp_path: Path, chains: str | None, lost: int, capsys: Any
) -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("token_classifier", "ner", config=config(backbone, chains=chains))
    words = ["The", "London", "School", "of", "Rome"]
    entities = [(0, 2, "school"), (1, 1, "city"), (3, 4, "town"), (4, 4, "town")]
    gold = [*examples(nlp), example(nlp, words, entities)]
    settings = options(tmp_path, max_steps=4, validation_interval=2)
    train(nlp, {"reader": lambda _: gold}, {"reader": lambda _: gold}, **settings)
    lines = [line for line in capsys.readouterr().out.splitlines() if "cannot be learned" in line]
    assert len(lines) == 1 and f"[components.ner] {lost} of 40 gold annotations" in lines[0]


def test_models_that_transformers_lacks_are_refused_before_the_first_step(tmp_path: Path) -> None:
    nlp = spacy.blank("en")
    folder = make_backbone(tmp_path / "modernbert", "modernbert")
    nlp.add_pipe("token_classifier", "ner", config=config(folder, "softmax"))
    gold = examples(nlp)
    settings = options(tmp_path, transformers_path=tmp_path / "out")
    with pytest.raises(ConfigError, match=r"\[components\.ner\.embedding\] found Transformer.*dense"):
        train(nlp, {"reader": lambda _: gold}, **settings)
    assert not (tmp_path / "out").exists() and not (tmp_path / "model-last").exists()


def test_a_focal_loss_and_weights_from_a_config(backbone: Path) -> None:
    decoder = {
        "@decoders": "softmax",
        "loss": {"@losses": "gliner_pipe.focal"},
        "class_weights": {"city": 2.0, "O": 0.5},
    }
    nlp = trained(backbone, 40, decoder)
    assert found(nlp("Ada Smith lives in Rome .")) == [("Ada Smith", "person"), ("Rome", "city")]
    again = spacy.blank("en").from_config(nlp.config)
    assert again.get_pipe("token_classifier").network.decoder.criterion.gamma == 2.0


def test_the_lowest_validation_loss_is_the_best(backbone: Path, tmp_path: Path, capsys: Any) -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("token_classifier", "ner", config=config(backbone, "softmax"))
    gold, records = examples(nlp), []
    settings = options(tmp_path, max_steps=12, validation_interval=2, schedule="constant", warmup_rate=0.0)
    train(
        nlp,
        {"reader": lambda _: gold},
        {"reader": lambda _: gold[:6]},
        best_metric="val_loss",
        on_validation_callback=records.append,
        **settings,
    )
    losses = [record["scores"]["val_loss"] for record in records]
    assert losses[-1] < losses[0] and all(loss > 0 for loss in losses)
    lowest = [loss == min(losses[: place + 1]) for place, loss in enumerate(losses)]
    assert [record["best"] for record in records] == lowest
    best = spacy.load(tmp_path / "model-best")
    assert best.meta["performance"]["val_loss"] == pytest.approx(min(losses))
    assert validation_loss(best, gold[:6]) == pytest.approx(min(losses), rel=1e-4)
    assert f"val_loss {min(losses):.4f} at step" in capsys.readouterr().out


def test_cuts_of_a_batch_give_one_loss(backbone: Path) -> None:
    component = trained(backbone, steps=3).get_pipe("token_classifier")
    component.network.eval()
    gold = [*examples(component)[:6]]
    whole = component.get_loss(gold).total
    parts = [component.get_loss([one]).total for one in gold]
    assert torch.allclose(whole, torch.stack(parts).sum(), atol=1e-3)
    counts = [component.collate([one], random.Random(0)).count for one in gold]
    assert sum(counts) == component.collate(gold).count


def test_training_of_token_tags(backbone: Path, tmp_path: Path, capsys: Any) -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("token_classifier", "pos", config=config(backbone, None, target="_.kind"))
    gold = [example(nlp, words, []) for words in (["Ada", "sees", "Rome"], ["Oslo", "sees", "Alan"])]
    for one in gold:
        for token in one.reference:
            write_value(token, "_.kind", "name" if token.is_title else "verb")
    train(nlp, {"reader": lambda _: gold, "max_length": 2}, {"reader": lambda _: gold}, **options(tmp_path))
    assert nlp.meta["performance"]["tags.micro.f"] == 1.0
    assert "6 with token._.kind (2 different)" in capsys.readouterr().out
    again = spacy.load(tmp_path / "model-last")
    assert read_values(again("Ada sees Rome"), "_.kind", None) == ["name", "verb", "name"]


def test_attributes_of_extensions_survive_the_cutting_of_documents() -> None:
    nlp = spacy.blank("en")
    gold = example(nlp, ["One", "two", ".", "Three", "four", "."], [])
    for token in gold.reference:
        write_value(token, "_.kind", token.text.lower())
    parts = list(split_examples([gold], max_length=3))
    assert [read_values(part.reference, "_.kind", None) for part in parts] == [
        ["one", "two", "."],
        ["three", "four", "."],
    ]


def test_evaluation(backbone: Path) -> None:
    nlp = trained(backbone)
    gold = examples(nlp)
    result = evaluate_pipeline(nlp, gold)
    assert result["exact"]["micro"]["f"] == 1.0 and result["labels"] == ["city", "person"]
    assert result["threshold"] == 0.0 and result["unasked_labels"] == {}
    only = evaluate_pipeline(nlp, gold, labels=["city"])
    assert only["labels"] == ["city"] and only["exact"]["micro"]["support"] == 20
    assert only["left_out"] == {"person": 16}
    none = evaluate_pipeline(nlp, gold, threshold=1.0)
    assert none["exact"]["micro"]["r"] < 1.0
    assert nlp.get_pipe("token_classifier").threshold == 0.0


def test_prediction(backbone: Path) -> None:
    nlp = trained(backbone)
    (_, _, entities), _ = predict_texts(nlp, ["Ada Smith lives in Rome .", "Oslo is a city ."])
    assert [(entity["text"], entity["label"]) for entity in entities] == [
        ("Ada Smith", "person"),
        ("Rome", "city"),
    ]
    with override(nlp, threshold=0.5, device="cpu"):
        assert nlp.get_pipe("token_classifier").threshold == 0.5
    with (
        pytest.raises(ConfigError, match=r"\[labels\] is set, but the pipeline has no gliner component"),
        override(nlp, labels=["town"]),
    ):
        pass


@pytest.mark.parametrize("name", ["ner_crf", "token_classification"])
def test_configs_train_on_the_sample(
    backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(ROOT)
    path = ROOT / "configs" / f"{name}.cfg"
    raw = Config.from_disk(path)
    parsed = Config(raw["nlp"]).resolve(registry=registry, root=raw)
    (component,) = parsed["components"]
    small = "vars.model"
    if name == "ner_crf":
        small = "components.ner.embedding.embedding.model"
    changes: dict[str, Any] = {
        small: backbone,
        "train.train_data.limit": 12,
        "train.val_data.limit": 4,
        "train.batch_size": "4 samples",
        "train.cpu": "true",
        "train.output_path": tmp_path / "model-last",
        **({"train.max_steps": 3} if name == "ner_crf" else {"vars.epochs": 1}),
    }
    app(
        [
            "--config",
            str(path),
            *(str(part) for key, value in changes.items() for part in (f"--{key}", value)),
        ]
    )
    nlp = spacy.load(tmp_path / "model-last")
    labels = nlp.get_pipe(component).labels
    assert len(labels) > 5
    assert 0 <= nlp.meta["performance"]["ner.micro.f"] <= 1
    doc = nlp(Doc(nlp.vocab, ["Marie", "Curie", "moved", "to", "Paris", "."]))
    if name == "ner_crf":
        assert set(doc.spans) == {*labels, "gold_spans"}
    else:
        assert set(doc.spans) == {"gliner"}


def test_command_line_of_spacy(backbone: Path, tmp_path: Path) -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("token_classifier", "ner", config=config(backbone))
    DocBin(docs=[one.reference for one in examples(nlp, "ents")]).to_disk(tmp_path / "data.spacy")
    settings = fill_config(
        {
            **nlp.config,
            "training": {
                "max_steps": 40,
                "eval_frequency": 20,
                "optimizer": {"@optimizers": "Adam.v1", "learn_rate": 0.003},
            },
        }
    )
    settings["paths"] |= {"train": str(tmp_path / "data.spacy"), "dev": str(tmp_path / "data.spacy")}
    settings.to_disk(tmp_path / "config.cfg")
    spacy_train(tmp_path / "config.cfg", tmp_path / "trained")
    again = spacy.load(tmp_path / "trained" / "model-best")
    assert [ent.label_ for ent in again("Ada Smith lives in Rome .").ents] == ["person", "city"]
    assert again.meta["performance"]["tags_f"] == 1.0
    assert again.evaluate(examples(again, "ents"))["ents_f"] == 1.0  # what "spacy evaluate" prints


def fill_config(given: dict[str, Any]) -> Any:
    """What is given, on top of the defaults of spaCy."""
    defaults = util.load_config(DEFAULT_CONFIG_PATH)
    return defaults.merge(given)
