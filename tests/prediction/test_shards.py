from __future__ import annotations

import datetime
import gzip
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import spacy
from forked import Forked
from spacy.language import Language

from gliner_pipe.errors import ConfigError, DataError
from gliner_pipe.predict import main, predict

ANN = {"start": 0, "end": 3, "label": "person", "score": None, "text": "Ann"}
DAY = datetime.date(2020, 1, 2)


def make_ruler() -> Any:
    nlp = spacy.blank("en")
    nlp.add_pipe("span_ruler", config={"spans_key": "found"}).add_patterns(
        [{"label": "person", "pattern": "Ann"}]
    )
    return nlp


def write_json(path: Path, rows: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def write_parquet(path: Path, rows: list[dict[str, Any]], **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path, **options)
    return path


def read(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        return pq.ParquetFile(path).read().to_pylist()
    data = path.read_bytes()
    lines = (gzip.decompress(data) if path.suffix == ".gz" else data).decode().splitlines()
    return [json.loads(line) for line in lines]


def outputs(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Rows of each file of predictions."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): read(path)
        for path in files
        if path.relative_to(folder).parts[0] != "_predict"
    }


def run(source: Path | str, output: Path, **options: Any) -> int:
    return predict(pipeline=make_ruler(), input=source, output=output, quiet=True, **options)


def rows(count: int, first: int = 0) -> list[dict[str, Any]]:
    return [{"id": first + number, "text": f"Ann {first + number}"} for number in range(count)]


def test_each_input_file_has_an_output_file_of_the_same_format(tmp_path: Path) -> None:
    write_json(tmp_path / "in" / "a.jsonl", [{"text": "Ann", "id": 1}, {"text": "Bo", "other": [1.5]}])
    write_json(tmp_path / "in" / "sub" / "b.jsonl.gz", [{"text": "Ann"}])
    write_parquet(tmp_path / "in" / "c.parquet", [{"when": DAY, "text": "Ann"}, {"when": None, "text": "Bo"}])
    assert run(tmp_path / "in", tmp_path / "out") == 5
    found = outputs(tmp_path / "out")
    assert found == {
        "a.jsonl": [
            {"text": "Ann", "id": 1, "entities": [ANN]},
            {"text": "Bo", "other": [1.5], "entities": []},
        ],
        "c.parquet": [
            {"when": DAY, "text": "Ann", "entities": [ANN]},
            {"when": None, "text": "Bo", "entities": []},
        ],
        "sub/b.jsonl.gz": [{"text": "Ann", "entities": [ANN]}],
    }
    schema = pq.ParquetFile(tmp_path / "out" / "c.parquet").schema_arrow
    assert schema.field("when").type == pa.date32()
    assert [field.name for field in schema.field("entities").type.value_type] == [
        "start", "end", "text", "label", "score",
    ]  # fmt: skip
    assert not (tmp_path / "out" / "_predict" / "parts").exists()


def test_text_files(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = tmp_path / "in"
    (source / "sub").mkdir(parents=True)
    (source / "a.txt").write_text("Ann\nBo", encoding="utf-8")
    (source / "sub" / "b.txt").write_text("Bo\n" * 300 + "Ann\n", encoding="utf-8")
    assert run(source, tmp_path / "out") == 2
    assert outputs(tmp_path / "out")["a.jsonl"] == [{"text": "Ann\nBo", "entities": [ANN]}]
    assert run(source, tmp_path / "lines", lines=True, format="parquet") == 303
    found = outputs(tmp_path / "lines")
    assert [len(rows) for rows in found.values()] == [2, 301]
    assert found["sub/b.parquet"][-1] == {"text": "Ann", "entities": [ANN]}
    assert run(source / "sub", tmp_path / "parts", lines=True, shard_size=200) == 301
    assert [len(rows) for rows in outputs(tmp_path / "parts").values()] == [200, 101]
    with pytest.raises(ConfigError) as error:
        run(source, tmp_path / "out", lines=True)
    assert error.value.where == "lines"
    with pytest.raises(ConfigError) as error:
        run(source, tmp_path / "ids", id_column="id")
    assert error.value.where == "id_column"
    (source / "bad.txt").write_bytes(b"caf\xe9")
    with pytest.raises(DataError):
        run(source, tmp_path / "out", on_error="skip")
    write_json(source / "c.jsonl", [{"text": "Ann"}])
    assert run(source, tmp_path / "other") == 1
    assert "3 text files left out" in caplog.text


@pytest.mark.parametrize("format", ["html", "terminal"])
def test_one_page_needs_a_file(tmp_path: Path, format: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("Ann", encoding="utf-8")
    with pytest.raises(ConfigError) as error:
        run(tmp_path / "in", tmp_path / "out", format=format)
    assert error.value.where == "output"
    assert run(tmp_path / "in", tmp_path / "out.html", format=format) == 1


def test_formats_are_converted_into_each_other(tmp_path: Path) -> None:
    mixed = [
        {"text": "Ann", "x": 1, "y": {}, "deep": {"a": 1}},
        {"text": "Bo", "x": "one", "deep": {"b": [2]}, "late": True},
        *({"text": "Ann", "x": 0} for _ in range(300)),
        {"text": "Cy", "new": {"c": None}, "late": "yes"},
    ]
    write_json(tmp_path / "a.jsonl", mixed)
    run(tmp_path / "a.jsonl", tmp_path / "out", format="parquet", save_every=0)
    (found,) = outputs(tmp_path / "out").values()
    assert [row["text"] for row in found] == [row["text"] for row in mixed]
    assert [json.loads(found[place]["x"]) for place in (0, 1, 2)] == [1, "one", 0]
    assert found[0]["deep"] == {"a": 1, "b": None} and found[1]["deep"] == {"a": None, "b": [2]}
    assert json.loads(found[-1]["late"]) == "yes" and json.loads(found[1]["late"]) is True
    assert found[2]["late"] is None and found[-1]["entities"] == [] and found[2]["entities"] == [ANN]
    values = {"day": DAY, "raw": b"\xff", "nan": float("nan"), "text": "Ann"}
    write_parquet(tmp_path / "b.parquet", [values])
    run(tmp_path / "b.parquet", tmp_path / "back", format="jsonl")
    assert outputs(tmp_path / "back") == {
        "b.jsonl": [{"day": "2020-01-02", "raw": "/w==", "nan": None, "text": "Ann", "entities": [ANN]}]
    }


@pytest.mark.parametrize("suffix", ["parquet", "jsonl", "jsonl.gz"])
def test_shard_size(tmp_path: Path, suffix: str) -> None:
    data = rows(10)
    if suffix == "parquet":
        write_parquet(tmp_path / f"a.{suffix}", data, row_group_size=3)
    else:
        write_json(tmp_path / f"a.{suffix}", data)
    assert run(tmp_path / f"a.{suffix}", tmp_path / "out", shard_size=4, id_column="id", keep="text") == 10
    found = outputs(tmp_path / "out")
    assert [len(rows) for rows in found.values()] == [4, 4, 2]
    assert list(found) == [f"a-0000{number}.{suffix}" for number in range(3)]
    assert [row["id"] for rows in found.values() for row in rows] == list(range(10))


def test_columns(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", [{"body": "Ann", "n": 1, "entities": "old"}])
    for number, (options, where, found, do) in enumerate(
        [
            ({}, "a.parquet", "'text' (columns: body, n, entities)", "text_column"),
            ({"text_column": "n"}, "a.parquet (n)", "int64", "text_column"),
            ({"text_column": "body"}, "a.parquet (entities)", "", "--keep"),
        ]
    ):
        with pytest.raises(DataError) as error:
            run(tmp_path / "a.parquet", tmp_path / f"out{number}", **options)
        assert error.value.where.endswith(where)
        assert found in error.value.found and do in error.value.do
    assert run(tmp_path / "a.parquet", tmp_path / "out3", text_column="body", keep="n") == 1
    assert outputs(tmp_path / "out3") == {"a.parquet": [{"n": 1, "entities": [ANN]}]}


def test_bad_rows_stop_or_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [{"text": "Ann"}, '{"text": ', '["x"]', "", {"text": None, "id": "n"}, {"id": 3}, {"text": "Ann"}]
    write_json(tmp_path / "in" / "a.jsonl", [*lines, {"text": "x" * 2_000_000}])
    write_parquet(tmp_path / "in" / "b.parquet", [{"text": None}, {"text": "Ann"}])
    with pytest.raises(DataError) as stopped:
        run(tmp_path / "in", tmp_path / "out", id_column="id")
    assert "a.jsonl:2" in stopped.value.where and "--on-error skip" in stopped.value.do
    assert not outputs(tmp_path / "out")
    (part,) = (tmp_path / "out" / "_predict" / "parts" / "a.jsonl").glob("*.jsonl")
    assert [row["text"] for row in read(part)] == ["Ann"]

    arguments = [
        "--pipeline",
        make_saved(tmp_path),
        "--input",
        tmp_path / "in",
        "--output",
        tmp_path / "skip",
    ]
    main([*map(str, arguments), "--on-error", "skip"])
    messages = capsys.readouterr().err
    assert "a.jsonl:2" in messages and "6 rows without prediction" in messages
    found = outputs(tmp_path / "skip")
    assert [row["entities"] for row in found["a.jsonl"]] == [[ANN], None, None, [ANN], None]
    assert [row["entities"] for row in found["b.parquet"]] == [None, [ANN]]
    listed = [
        json.loads(line)
        for line in (tmp_path / "skip/_predict/errors/a.jsonl.jsonl").read_text().splitlines()
    ]
    assert [Path(error["where"]).name for error in listed] == [f"a.jsonl:{line}" for line in (2, 3, 5, 6, 8)]
    (only,) = (tmp_path / "skip/_predict/errors/b.parquet.jsonl").read_text().splitlines()
    assert json.loads(only) == {
        "where": f"{tmp_path / 'in' / 'b.parquet'}:1", "found": "has no text (null)", "allowed": "a text",
    }  # fmt: skip


def make_saved(folder: Path) -> Path:
    make_ruler().to_disk(folder / "ruler")
    return folder / "ruler"


def test_a_truncated_file(tmp_path: Path) -> None:
    packed = gzip.compress("".join(json.dumps(row) + "\n" for row in rows(2000)).encode(), mtime=0)
    (tmp_path / "a.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(DataError) as error:
        run(tmp_path / "a.jsonl.gz", tmp_path / "out", on_error="skip")
    assert error.value.where.endswith("a.jsonl.gz")


def test_labels_of_a_row(nlp: Any, tmp_path: Path) -> None:
    nlp.get_pipe("gliner").threshold = 0.0
    data = [
        {"text": "Ann met Bo", "ask": ["thing"]},
        {"text": "Ann met Bo", "ask": None},
        {"text": "Ann met Bo", "ask": []},
    ]
    write_parquet(tmp_path / "a.parquet", data)
    predict(
        pipeline=nlp, input=tmp_path / "a.parquet", output=tmp_path / "out",
        labels_column="ask", on_error="skip", quiet=True,
    )  # fmt: skip
    (found,) = outputs(tmp_path / "out").values()
    assert {entity["label"] for entity in found[0]["entities"]} == {"thing"}
    assert {entity["label"] for entity in found[1]["entities"]} <= {"person", "city"}
    assert found[1]["entities"] and found[2]["entities"] is None
    with pytest.raises(ConfigError) as error:
        run(tmp_path / "a.parquet", tmp_path / "new", labels_column="ask")
    assert error.value.where == "labels_column"  # the ruler has no gliner component


def test_one_stream_over_shards_and_processes(tmp_path: Path) -> None:
    for number in range(3):
        write_json(tmp_path / "in" / f"{number}.jsonl", rows(number * 7, 100 * number))
    run(tmp_path / "in", tmp_path / "one", save_every=0)
    run(tmp_path / "in", tmp_path / "two", save_every=0, n_process=2, batch_size=4)
    assert outputs(tmp_path / "one") == outputs(tmp_path / "two")
    assert [len(rows) for rows in outputs(tmp_path / "two").values()] == [0, 7, 14]


def count_texts(nlp: Any, breaks_at: str | None = None) -> list[str]:
    """Return a list that receives the texts that a pipeline processes from now on."""
    seen: list[str] = []

    def counting(text: str) -> Any:
        if text == breaks_at:
            raise RuntimeError("the power went out")
        seen.append(text)
        return type(nlp).make_doc(nlp, text)

    nlp.make_doc = counting
    return seen


@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
def test_a_resumed_run_repeats_nothing(tmp_path: Path, suffix: str) -> None:
    for number in range(3):
        path = tmp_path / "in" / f"{number}.{suffix}"
        data = rows(700, 1000 * number)
        write_parquet(path, data, row_group_size=100) if suffix == "parquet" else write_json(path, data)
    nlp = make_ruler()
    seen = count_texts(nlp, breaks_at="Ann 1600")

    def go() -> None:
        options = {"save_every": 0, "batch_size": 16, "quiet": True}
        predict(pipeline=nlp, input=tmp_path / "in", output=tmp_path / "out", **options)

    with pytest.raises(RuntimeError, match="power"):
        go()
    assert len(outputs(tmp_path / "out")) == 1
    first = (tmp_path / "out" / f"0.{suffix}").stat().st_mtime_ns
    seen = count_texts(nlp)
    go()
    # the first shard is whole, and two chunks of 256 rows of the second are written
    assert seen == [f"Ann {number}" for number in (*range(1512, 1700), *range(2000, 2700))]
    assert (tmp_path / "out" / f"0.{suffix}").stat().st_mtime_ns == first
    run(tmp_path / "in", tmp_path / "whole")
    assert outputs(tmp_path / "out") == outputs(tmp_path / "whole")
    seen.clear()
    write_json(tmp_path / "in" / "more.jsonl", rows(2))
    go()
    assert seen == ["Ann 0", "Ann 1"]


def test_resume_after_a_kill(tmp_path: Path) -> None:
    for number in range(4):
        write_parquet(tmp_path / "in" / f"{number}.parquet", rows(2000, 2000 * number))
    output = tmp_path / "out"
    arguments = ["--pipeline", make_saved(tmp_path), "--input", tmp_path / "in", "--output", output]
    child = Forked(main, [*arguments, "--save-every", "0", "--quiet"], tmp_path / "process")
    parts = output / "_predict" / "parts"
    deadline = time.monotonic() + 120
    while not ((output / "0.parquet").is_file() and list(parts.rglob("*.parquet"))):
        assert child.process.is_alive() and time.monotonic() < deadline
        time.sleep(0.002)
    child.kill()
    assert child.process.exitcode == -signal.SIGKILL
    whole = {path.name: path.stat().st_mtime_ns for path in output.glob("*.parquet")}
    assert 0 < len(whole) < 4
    nlp = spacy.load(tmp_path / "ruler")
    seen = count_texts(nlp)
    assert predict(pipeline=nlp, input=tmp_path / "in", output=output, quiet=True) == 8000
    assert 0 < len(seen) == len(set(seen)) <= 8000 - 2000 * (len(whole) - 1)
    marked = {name for name, before in whole.items() if (output / name).stat().st_mtime_ns == before}
    assert len(marked) >= len(whole) - 1  # the last may have been joined, and not yet counted
    found = [row for rows in outputs(output).values() for row in rows]
    assert [row["id"] for row in found] == list(range(8000))
    assert all(row["entities"] == [ANN] for row in found)
    assert [path.name for path in output.rglob(".*")] == []


def test_documents_that_an_error_handler_drops(nlp: Any, tmp_path: Path) -> None:
    gliner = nlp.get_pipe("gliner")
    prepare = gliner.prepare

    def failing(docs: Any) -> Any:
        if any("13" in doc.text for doc in docs):
            raise RuntimeError("unlucky")
        return prepare(docs)

    gliner.prepare = failing
    nlp.set_error_handler(lambda name, pipe, docs, error: None)
    write_json(tmp_path / "a.jsonl", rows(600))
    assert predict(pipeline=nlp, input=tmp_path / "a.jsonl", output=tmp_path / "out", quiet=True) == 584
    (found,) = outputs(tmp_path / "out").values()
    lost = [row["id"] for row in found if row["entities"] is None]
    assert [row["id"] for row in found] == list(range(600))
    assert lost == [number for number in range(600) if "13" in str(number)]
    listed = (tmp_path / "out/_predict/errors/a.jsonl.jsonl").read_text().splitlines()
    assert len(listed) == len(lost) and "a.jsonl:14" in listed[0] and "error handler" in listed[0]


def test_other_settings_are_refused(nlp: Any, tmp_path: Path) -> None:
    write_json(tmp_path / "in" / "a.jsonl", rows(2))

    def go(**options: Any) -> int:
        return predict(pipeline=nlp, input=tmp_path / "in", output=tmp_path / "out", quiet=True, **options)

    go()
    assert go(labels="person,city", batch_size=1) == 2  # the component's own
    for name, options in {
        "gliner.labels": {"labels": "person"},
        "gliner.threshold": {"threshold": 0.7},
        "text_column": {"text_column": "id"},
        "format": {"format": "parquet"},
    }.items():
        with pytest.raises(ConfigError) as error:
            go(**options)
        assert error.value.where == name and "--output" in error.value.do
    next(nlp.get_pipe("gliner").network.parameters()).data[0] += 1
    with pytest.raises(ConfigError) as error:
        go()
    assert error.value.where == "pipeline"


def test_other_data_and_folders_are_refused(tmp_path: Path) -> None:
    source = write_json(tmp_path / "in" / "a.jsonl", rows(2))
    run(tmp_path / "in", tmp_path / "out")
    source.write_text('{"text": "Ann"}\n')
    with pytest.raises(DataError) as error:
        run(tmp_path / "in", tmp_path / "out")
    assert error.value.where == str(source) and str(tmp_path / "out" / "a.jsonl") in error.value.found
    with pytest.raises(DataError) as error:
        run(tmp_path / "in", tmp_path / "in")  # holds files that are no predictions
    assert error.value.where == str(tmp_path / "in")
    run(tmp_path / "in", tmp_path / "in" / "out")
    with pytest.raises(DataError) as error:
        run(tmp_path / "in", tmp_path / "in" / "out")  # its predictions would be input
    assert error.value.where == str(tmp_path / "in" / "out" / "a.jsonl")
    write_json(tmp_path / "in" / "a.jsonl.gz", rows(2))
    with pytest.raises(DataError) as error:
        run(tmp_path / "in", tmp_path / "new", format="parquet")
    assert "a.parquet" in error.value.found and str(source) in error.value.found
    with pytest.raises(ConfigError) as refused:
        run(tmp_path / "in", tmp_path / "new.jsonl", shard_size=3, format="jsonl")
    assert refused.value.where == "shard_size"


@pytest.mark.parametrize("which", [0, -1])  # the one that is read, and one that is read later
def test_an_input_that_changes_during_the_run(tmp_path: Path, which: int) -> None:
    paths = [write_json(tmp_path / "in" / f"{number}.jsonl", rows(700)) for number in range(5)]
    nlp = make_ruler()
    changed = paths[which]

    def change(doc: Any) -> Any:
        if doc.text == "Ann 100" and "Bob" not in changed.read_text():
            changed.write_text(changed.read_text().replace("Ann 699", "Bob 699"))
        return doc

    name = f"changes_input_{which}"
    Language.component(name, func=change)
    nlp.add_pipe(name)
    options: dict[str, Any] = {"input": tmp_path / "in", "output": tmp_path / "out", "quiet": True}
    with pytest.raises(DataError) as error:
        predict(pipeline=nlp, save_every=0, **options)
    assert error.value.where == str(changed)
    predict(pipeline=nlp, **options)  # the changed file is read from its beginning
    found = [row["text"] for row in outputs(tmp_path / "out")[changed.name]]
    assert found[-1] == "Bob 699" and len(found) == 700


def test_one_process_at_a_time(tmp_path: Path) -> None:
    write_json(tmp_path / "a.jsonl", rows(2))
    lock = tmp_path / "out" / "_predict" / "lock"
    code = (
        "import sys; from gliner_pipe.util.file_lock import only_writer\n"
        "with only_writer(sys.argv[1]): print(flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(lock)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(DataError, match=f"process {other.pid} "):
            run(tmp_path / "a.jsonl", tmp_path / "out")
        other.communicate()
    assert run(tmp_path / "a.jsonl", tmp_path / "out") == 2


def test_shards_as_single_texts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_parquet(tmp_path / "a.parquet", [{"key": 7, "body": "Ann"}])
    write_json(tmp_path / "b.jsonl.gz", [{"key": 8, "body": "Ann"}])
    for name, key in {"a.parquet": 7, "b.jsonl.gz": 8}.items():
        options = {"text_column": "body", "id_column": "key", "format": "jsonl"}
        assert predict(pipeline=make_ruler(), input=tmp_path / name, **options) == 1
        assert json.loads(capsys.readouterr().out) == {"text": "Ann", "entities": [ANN], "meta": {"id": key}}


def test_class_scores(nlp: Any, tmp_path: Path) -> None:
    component = nlp.get_pipe("gliner")
    component.cfg |= {"threshold": 0.0, "class_scores": True}
    write_json(tmp_path / "a.jsonl", [{"text": "Ann met Bo"}, {"text": ""}])
    options: dict[str, Any] = {"pipeline": nlp, "input": tmp_path / "a.jsonl", "quiet": True}
    predict(output=tmp_path / "json", **options)
    predict(output=tmp_path / "parquet", format="parquet", **options)
    (found,), (table,) = outputs(tmp_path / "json").values(), outputs(tmp_path / "parquet").values()
    assert found[0]["entities"] and [row["entities"] for row in table[1:]] == [[]]
    for one, other in zip(found[0]["entities"], table[0]["entities"], strict=True):
        assert set(one["class_scores"]) == {"person", "city"}
        assert one["class_scores"][one["label"]] == one["score"]
        assert {**other, "class_scores": dict(other["class_scores"])} == one
