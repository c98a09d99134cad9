"""The options ``classes`` and ``records`` of the commands that predict and evaluate."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from conftest import make_backbone
from task_pipeline import DATA, made

from gliner_pipe import evaluate, predict
from gliner_pipe.errors import ConfigError
from gliner_pipe.pipeline.overrides import override
from gliner_pipe.prediction.arrow_predictor import ArrowPredictor

OWN = {"mood": ["happy", "sad"]}
KIND = {"sale": ["buyer", {"field": "state", "choices": ["open", "paid"]}]}
TEXTS = [one["input"] for one in DATA[:3]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved pipeline, which finds records at random, and its data."""
    place = tmp_path_factory.mktemp("tasks")
    nlp, component, _ = made(make_backbone(place / "backbone"))
    component.threshold = 0.0
    nlp.to_disk(place / "model")
    (place / "data.jsonl").write_text("".join(json.dumps(one) + "\n" for one in DATA), encoding="utf-8")
    (place / "texts").mkdir()
    (place / "texts" / "a.jsonl").write_text(
        "".join(json.dumps({"text": text}) + "\n" for text in TEXTS), encoding="utf-8"
    )
    return place


def rows_of(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_json_of_other_tasks(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    model, texts = str(folder / "model"), str(folder / "texts" / "a.jsonl")
    given = ["--classes", json.dumps(OWN), "--records", json.dumps(KIND), "--quiet"]
    predict.main([model, "--input", texts, "--output", str(path), *given])
    rows = rows_of(path)
    assert [set(row["classes"]) for row in rows] == [{"mood"}] * len(TEXTS)
    assert all(set(row["cats"]) == {"happy", "sad"} and set(row["records"]) <= {"sale"} for row in rows)
    assert any(row["records"] for row in rows)


def test_names_of_own_tasks(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    model, texts = str(folder / "model"), str(folder / "texts" / "a.jsonl")
    predict.main([model, "--input", texts, "--output", str(path), "--classes", "topics", "--quiet"])
    for row in rows_of(path):
        assert set(row["classes"]) == {"topics"} and isinstance(row["classes"]["topics"], list)
        assert set(row["records"]) <= {"product"}
    with pytest.raises(ConfigError, match=r"^\[classes\].*topcs"):
        predict.predict(pipeline=model, text="Ada.", classes="topcs")
    with pytest.raises(ConfigError, match=r"^\[records\]"):
        predict.predict(pipeline=model, text="Ada.", records="{'product': 3}")


def test_shards_and_arrow_tables(folder: Path, tmp_path: Path) -> None:
    import pyarrow as pa

    options: dict[str, Any] = {"classes": OWN, "records": KIND}
    out = tmp_path / "shards"
    model = folder / "model"
    predict.predict(
        pipeline=str(model), input=folder / "texts", output=out, format="parquet", quiet=True, **options
    )
    table = pq.read_table(next(out.glob("*.parquet")))
    assert [set(json.loads(one)) for one in table["classes"].to_pylist()] == [{"mood"}] * len(TEXTS)
    found = ArrowPredictor(model, **options)(pa.table({"text": TEXTS}))
    assert found["classes"].to_pylist() == table["classes"].to_pylist()
    assert found["records"].to_pylist() == table["records"].to_pylist()


def test_evaluation_of_some_tasks(folder: Path) -> None:
    options: dict[str, Any] = {
        "pipeline": str(folder / "model"),
        "data": folder / "data.jsonl",
        "show": False,
    }
    every = evaluate.evaluate(**options)
    assert set(every["classes"]["tasks"]) == {"tone", "topics"}
    some = evaluate.evaluate(**options, classes="tone", records={"product": ["name"]})
    assert set(some["classes"]["tasks"]) == {"tone"}
    assert set(some["records"]["fields"]) == {
        "micro",
        "macro",
        "product.name",
        "product.price",
        "product.state",
    }
    other = evaluate.evaluate(**options, records={"sale": ["buyer"]})
    assert not {one for one in other["records"]["records"] if one not in ("micro", "macro", "sale")}


def test_tasks_of_the_data_for_a_component_without(folder: Path) -> None:
    import spacy

    nlp = spacy.load(folder / "model")
    component = nlp.get_pipe("gliner")
    component.classes, component.records = {}, {}
    scores = evaluate.evaluate(pipeline=nlp, data=folder / "data.jsonl", show=False)
    assert set(scores["classes"]["tasks"]) == {"tone", "topics"}
    assert "product.name" in scores["records"]["fields"] and scores["classes"]["all"]["accuracy"] > 0
    assert not component.classes and not component.records


def test_settings_come_back(folder: Path) -> None:
    import spacy

    nlp = spacy.load(folder / "model")
    component = nlp.get_pipe("gliner")
    before = component.class_data, component.record_data
    with override(nlp, classes=OWN, records=["product"]):
        assert component.class_data == OWN and component.record_data == before[1]
    assert (component.class_data, component.record_data) == before
