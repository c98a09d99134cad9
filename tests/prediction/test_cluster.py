"""Ray and Spark on this machine, each in a separate process, compared with the same pipeline without them."""

from __future__ import annotations

import gc
import importlib.util
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import SAMPLE

from gliner_pipe.errors import ConfigError, DataError
from gliner_pipe.predict import predict
from gliner_pipe.prediction import ArrowPredictor
from gliner_pipe.prediction.arrow_predictor import load_once
from gliner_pipe.prediction.cluster import ShardTask
from gliner_pipe.prediction.job import Job
from gliner_pipe.prediction.run import ShardOptions
from gliner_pipe.prediction.shard_writers import Schema
from gliner_pipe.prediction.shards import find_shards

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed")
needs_spark = pytest.mark.skipif(
    importlib.util.find_spec("pyspark") is None or shutil.which("java") is None,
    reason="pyspark or java is not installed",
)

THRESHOLD = 0.0


@pytest.fixture
def model(nlp: Any, tmp_path: Path) -> Path:
    nlp.to_disk(tmp_path / "model")
    return tmp_path / "model"


def sample_table() -> pa.Table:
    lines = (SAMPLE / "dev.jsonl").read_text(encoding="utf8").splitlines()[:40]
    texts = [" ".join(json.loads(line)["tokenized_text"]) for line in lines]
    return pa.table({"id": range(len(texts)), "text": texts})


def rounded(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows sorted by id, scores rounded to four places: other batches give other last bits."""
    for row in rows:
        assert row.pop("error", None) is None  # a column where bad rows are skipped
        for entity in row["entities"]:
            entity["score"] = round(entity["score"], 4)
    return sorted(rows, key=lambda row: row["id"])


def test_tables_and_batches(model: Path) -> None:
    table = sample_table()
    predictor = ArrowPredictor(model, threshold=THRESHOLD, labels="person,place")
    found = predictor(table)
    assert found.schema.names == ["id", "text", "entities"] and found.select(["id", "text"]) == table
    row = found.to_pylist()[0]
    assert row["entities"]
    for entity in row["entities"]:
        assert row["text"][entity["start"] : entity["end"]] == entity["text"]
        assert entity["label"] in ("person", "place") and 0 <= entity["score"] <= 1
    batches = list(predictor.batches(table.to_batches(max_chunksize=7)))
    assert rounded(pa.Table.from_batches(batches).to_pylist()) == rounded(found.to_pylist())
    assert predictor(table.slice(0, 0)).schema == found.schema
    assert predictor(table.to_batches()[0]).num_rows == len(table)


def test_only_the_arguments_are_pickled_and_the_pipeline_is_loaded_once(model: Path) -> None:
    load_once.cache_clear()
    predictor = ArrowPredictor(model, threshold=THRESHOLD)
    data = pickle.dumps(predictor)
    assert len(data) < 2000
    for _ in range(3):  # tasks of one Spark process
        copy = pickle.loads(data)
        assert copy.nlp is predictor.nlp and copy.nlp.get_pipe("gliner").threshold == THRESHOLD
    assert load_once.cache_info().misses == 1
    assert ArrowPredictor(model, threshold=THRESHOLD).nlp is not predictor.nlp


def test_settings_stay_after_the_predictor(model: Path) -> None:
    """Nothing restores them at last, which would happen as the interpreter ends, when modules are gone already."""
    predictor = ArrowPredictor(model, threshold=THRESHOLD)
    nlp = predictor.nlp
    del predictor
    load_once.cache_clear()
    gc.collect()
    assert nlp.get_pipe("gliner").threshold == THRESHOLD


def test_rows_without_prediction_and_wrong_columns(model: Path, caplog: pytest.LogCaptureFixture) -> None:
    table = pa.table({"key": ["a", "b"], "body": ["Ann", None], "ask": [["thing"], None]})
    options = {"text_column": "body", "labels_column": "ask", "id_column": "key", "threshold": THRESHOLD}
    with pytest.raises(DataError) as stopped:
        ArrowPredictor(model, **options)(table)
    assert stopped.value.where == "row 1 of the batch (key 'b')" and "null" in stopped.value.found
    assert str(pickle.loads(pickle.dumps(stopped.value))) == str(stopped.value)
    found = ArrowPredictor(model, **options, on_error="skip")(table).to_pylist()
    assert [entity["label"] for entity in found[0]["entities"]] == ["thing"] and found[1]["entities"] is None
    assert "1 of 2 rows" in caplog.text
    with pytest.raises(DataError) as error:
        ArrowPredictor(model)(pa.table({"text": ["Ann"], "entities": [1]}))
    assert error.value.where == "the batch (entities)"
    with pytest.raises(DataError) as error:
        ArrowPredictor(model)(pa.table({"body": ["Ann"]}))
    assert error.value.where == "the batch" and "'text'" in error.value.found
    with pytest.raises(ConfigError) as refused:
        ArrowPredictor(ArrowPredictor(model).nlp)  # other processes cannot load it
    assert refused.value.where == "pipeline"


def test_a_cluster_task_returns_the_errors_of_its_shards(model: Path, tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["Ann"]}), tmp_path / "good.parquet")
    pq.write_table(pa.table({"text": [3]}), tmp_path / "bad.parquet")
    shards = tuple(find_shards(str(tmp_path / "*.parquet")))
    task = ShardTask(str(model), Job(tmp_path / "out", Schema()), ShardOptions(), shards, "token")
    (batch,) = pa.table({"id": [0, 1]}).to_batches()
    (found,) = pickle.loads(pickle.dumps(task)).batches([batch])
    errors = found.to_pylist()
    assert "bad.parquet (text)" in errors[0]["error"] and "int64" in errors[0]["error"]
    assert errors[1] == {"id": 1, "error": None} and (tmp_path / "out" / "good.parquet").is_file()


def run_script(code: str, *arguments: object) -> None:
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYSPARK_PYTHON": sys.executable}
    env |= {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        "SPARK_LOCAL_IP": "127.0.0.1",
    }
    command = [sys.executable, "-c", code, *map(str, arguments)]
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=env, start_new_session=True
    ) as child:
        try:
            _, messages = child.communicate(timeout=540)
        except BaseException:
            os.killpg(child.pid, signal.SIGKILL)  # and its own child processes
            raise
    assert child.returncode == 0, messages[-5000:]


RAY = """
import sys, ray, pyarrow.parquet as pq
from pathlib import Path
from gliner_pipe.predict import predict
from gliner_pipe.prediction import predict_ray
model, source, output = map(Path, sys.argv[1:])
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
ray.data.DataContext.get_current().enable_progress_bars = False
found = predict_ray(ray.data.read_parquet(str(source)), model, rows=16, workers=1, threshold=0.0)
found.repartition(1).write_parquet(str(output / "dataset"))
predict(pipeline=model, input=source, output=output / "shards", threshold=0.0, engine="ray", workers=1, on_error="skip")
"""

SPARK = """
import sys
from pathlib import Path
from pyspark.sql import SparkSession
from gliner_pipe.predict import predict
from gliner_pipe.prediction import predict_spark
model, source, output = map(Path, sys.argv[1:])
spark = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
found = predict_spark(spark.read.option("recursiveFileLookup", "true").parquet(str(source)).repartition(2), model, threshold=0.0)
found.coalesce(1).write.parquet(str(output / "dataset"))
predict(pipeline=model, input=source, output=output / "shards", threshold=0.0, engine="spark")
spark.stop()
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "code", [pytest.param(RAY, marks=needs_ray, id="ray"), pytest.param(SPARK, marks=needs_spark, id="spark")]
)
def test_a_cluster_predicts_the_same(model: Path, tmp_path: Path, code: str) -> None:
    table = sample_table()
    (tmp_path / "in" / "sub").mkdir(parents=True)
    (tmp_path / "found").mkdir()
    pq.write_table(table.slice(0, 25), tmp_path / "in" / "a.parquet")
    pq.write_table(table.slice(25), tmp_path / "in" / "sub" / "b.parquet")
    predict(pipeline=model, input=tmp_path / "in", output=tmp_path / "local", threshold=THRESHOLD, quiet=True)
    run_script(code, model, tmp_path / "in", tmp_path / "found")
    local = {
        name: pq.ParquetFile(tmp_path / "local" / name).read().to_pylist()
        for name in ("a.parquet", "sub/b.parquet")
    }
    assert all(row["entities"] for rows in local.values() for row in rows)
    for name, rows in local.items():
        path = tmp_path / "found" / "shards" / name
        assert rounded(pq.ParquetFile(path).read().to_pylist()) == rounded(rows)
    (dataset,) = (tmp_path / "found" / "dataset").glob("*.parquet")
    assert rounded(pq.ParquetFile(dataset).read().to_pylist()) == [
        row for rows in local.values() for row in rows
    ]
    state = tmp_path / "found" / "shards" / "_predict"
    assert sorted(path.name for path in state.iterdir()) == ["manifest.json", "shards"]
