"""Options that cannot be right are refused by name, on the command line and in Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fuzz.rule import command, obeys

from gliner_pipe import evaluate, predict
from gliner_pipe.distill import distill
from gliner_pipe.errors import ConfigError
from gliner_pipe.packaging.source import find_pipeline
from gliner_pipe.pipeline.stream import annotate

ROW = '{"text": "Ann lives.", "spans": [{"start": 0, "end": 3, "label": "person"}]}'
OF_PREDICT = [
    ("format", ""),
    ("batch_size", "0"),
    ("batch_size", None),
    ("n_process", "0"),
    ("n_process", "-2"),
    ("save_every", "nan"),
    ("shard_size", "0"),
    ("workers", "0"),
    ("device", "cpu:9"),
    ("span_getter", "nowhere"),
    ("span_getter", ""),
    ("text_column", "body"),
    ("labels", "caf\udce9"),
    ("labels", "[" * 3000),
    ("threshold", "true"),
]
OF_EVALUATE = [
    ("batch_size", "0"),
    ("n_process", "0"),
    ("negatives", "-1"),
    ("seed", "-1"),
    ("device", "cpu:9"),
    ("predicted_getter", "nowhere"),
    ("span_getter", ""),
    ("threshold_metric", "overlap"),
    ("threshold_steps", "0"),
    ("overlap_threshold", "inf"),
]


@pytest.mark.parametrize(("option", "value"), OF_PREDICT)
def test_predict(option: str, value: str | None, nlp: Any, tmp_path: Path) -> None:
    nlp.to_disk(tmp_path / "pipeline")
    arguments = ["pipeline", "--text", "Ann lives.", f"--{option}", *([] if value is None else [value])]
    finished = command(predict.main, arguments, tmp_path)
    assert finished.code == 1 and f"{option}]" in finished.stderr


@pytest.mark.parametrize(("option", "value"), OF_EVALUATE)
def test_evaluate(option: str, value: str, nlp: Any, tmp_path: Path) -> None:
    nlp.to_disk(tmp_path / "pipeline")
    (tmp_path / "dev.jsonl").write_text(ROW, encoding="utf8")
    finished = command(evaluate.main, ["pipeline", "dev.jsonl", f"--{option}", value], tmp_path)
    assert finished.code == 1 and f"{option}]" in finished.stderr


@pytest.mark.parametrize("data", [None, 3, [[1]], {"a": 1}])
def test_data_of_an_evaluation_in_python(data: Any, nlp: Any) -> None:
    with pytest.raises(ConfigError) as raised:
        evaluate.evaluate(pipeline=nlp, data=data, show=False)
    assert raised.value.where == "data"


@pytest.mark.parametrize(
    "options", [{"batch_size": 0}, {"batch_size": -1}, {"n_process": 0}, {"n_process": -2}]
)
def test_numbers_of_a_stream_in_python(options: dict[str, int], nlp: Any) -> None:
    with pytest.raises(ConfigError) as raised:
        list(annotate(nlp, ["Ann"], **options))
    assert raised.value.where == next(iter(options))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("limit", "many"),
        ("limit", -1),
        ("labels", Path()),
        ("threshold", 2),
        ("output_path", [1]),
        ("output_path", ""),
    ],
)
def test_options_of_a_distillation(option: str, value: Any, nlp: Any) -> None:
    outcome = obeys(lambda: distill(nlp, nlp, ["Ann lives."], **{option: value}))
    assert isinstance(outcome.error, ConfigError) and outcome.error.where.endswith(option)


def test_what_is_no_pipeline_is_no_package() -> None:
    with pytest.raises(ConfigError):
        find_pipeline(["x"])  # type: ignore[arg-type]


def test_without_memory_a_command_says_so(tmp_path: Path) -> None:
    from gliner_pipe.cli.app import run

    def work(_: Any) -> None:
        def fill() -> None:
            raise MemoryError

        run(fill, [])

    assert "memory" in command(work, [], tmp_path).stderr
