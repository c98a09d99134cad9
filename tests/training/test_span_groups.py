"""Components whose spans are in other groups: readers, scorers and evaluation follow them."""

from __future__ import annotations

import confit
import pytest
import spacy

from gliner_pipe.errors import ConfigError
from gliner_pipe.evaluate import evaluate
from gliner_pipe.metrics.spans import ExactScorer, OverlapScorer, TokenScorer
from gliner_pipe.pipeline.build import PipelineArg
from gliner_pipe.registry import registry
from gliner_pipe.train import train
from tests.training.conftest import records

FEW = {"max_steps": 1, "batch_size": "4 samples", "loggers": [], "cpu": True}


@pytest.fixture
def pipeline(config_path, request):
    resolved = confit.Config.from_disk(config_path, resolve=True, registry=registry)
    section = resolved["train"]["nlp"]
    section["components"]["gliner"] |= request.param
    return PipelineArg.validate(section)


@pytest.mark.parametrize(
    "pipeline", [{"spans_key": "entities"}, {"spans_key": "found", "gold_spans_key": "gold"}], indirect=True
)
def test_records_in_python(pipeline, tmp_path):
    rows = records(8)
    seen = []
    scorers = {"ner": ExactScorer(), "overlap": OverlapScorer(), "token": TokenScorer()}
    nlp = train(
        pipeline,
        train_dataset=rows,
        eval_dataset=rows,
        scorer=scorers,
        freeze_components=None,
        on_validation_callback=seen.append,
        output_path=tmp_path / "model-last",
        **FEW,
    )
    scores = seen[-1]["scores"]
    assert scores["ner"]["micro"]["support"] == sum(len(row["ner"]) for row in rows)
    assert scores["overlap"]["micro"]["support"] and scores["token"]["micro"]["support"]
    scores = evaluate(
        pipeline=nlp, data=rows_as_file(tmp_path, rows), show=False, metrics={"ner": ExactScorer()}
    )
    assert scores["ner"]["micro"]["support"] == sum(len(row["ner"]) for row in rows)
    assert scores["ner"]["micro"]["f"] == pytest.approx(seen[-1]["scores"]["ner"]["micro"]["f"])


def rows_as_file(folder, rows):
    from tests.training.conftest import write

    return str(write(folder / "rows.jsonl", rows))


def test_readers_in_a_config(config_path, tmp_path):
    config = confit.Config.from_disk(config_path)
    config["components"]["gliner"]["spans_key"] = "entities"
    nlp = train(**{**config.resolve(registry=registry)["train"], **FEW})
    assert nlp.meta["performance"]["ner"]["micro"]["support"] > 0
    assert "entities" in spacy.load(tmp_path / "out" / "model-last")("Ann left Oslo .").spans


@pytest.mark.parametrize("pipeline", [{}], indirect=True)
def test_data_are_given_once(pipeline, tmp_path):
    rows = records(8)
    with pytest.raises(ConfigError) as caught:
        train(pipeline, rows, train_dataset=rows, output_path=tmp_path / "model-last", **FEW)
    assert caught.value.where == "train.train_dataset"
    with pytest.raises(ConfigError) as caught:
        train(pipeline, output_path=tmp_path / "model-last", **FEW)
    assert caught.value.where == "train.train_data"
