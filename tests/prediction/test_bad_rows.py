"""Rows that cannot be predicted on: each is skipped, counted and listed, and its output row says why."""

from __future__ import annotations

import datetime
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import command_server  # noqa: F401 (registers the component "fragile")
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import spacy
from spacy.language import Language
from spacy.tokens import Doc

from gliner_pipe.errors import ConfigError, DataError
from gliner_pipe.predict import main, predict, predict_texts
from gliner_pipe.prediction import ArrowPredictor

ANN = {"start": 0, "end": 3, "label": "person", "score": None, "text": "Ann"}
HALF = r'"\ud83d"'


def make_pipeline(*more: str) -> Any:
    nlp = spacy.blank("en")
    nlp.add_pipe("span_ruler", config={"spans_key": "found"}).add_patterns(
        [{"label": "person", "pattern": "Ann"}]
    )
    for name in more:
        nlp.add_pipe(name)
    nlp.max_length = 1000
    return nlp


def run(source: Path, output: Path, nlp: Any = None, **options: Any) -> int:
    nlp = make_pipeline("fragile") if nlp is None else nlp
    return predict(pipeline=nlp, input=source, output=output, quiet=True, **options)


def write(path: Path, lines: list[bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def read(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        table.validate(full=True)
        return table.to_pylist()
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8", "strict")
    rows = [json.loads(line) for line in text.splitlines()]
    json.dumps(rows, ensure_ascii=False).encode()  # no half characters either
    return rows


def listed(output: Path, name: str) -> list[dict[str, str]]:
    return [
        json.loads(line) for line in (output / "_predict/errors" / f"{name}.jsonl").read_text().splitlines()
    ]


#: What a line holds, and a part of what its row says.
LINES: dict[bytes, str] = {
    b'{"text": %s}' % HALF.encode(): "surrogate",
    b'{"text": "Ann %s"}' % rb"\uDE00": "surrogate",
    b'{"text": "caf\xe9"}': "not UTF-8",
    b'{"text": 3}': "int",
    b'{"text": ["Ann"]}': "list",
    b'{"text": {"a": 1}}': "dict",
    b'{"text": true}': "bool",
    b'{"text": null}': "null",
    b'{"body": "Ann"}': "has no field 'text'",
    b'{"text": "%s"}' % (b"x" * 1001): "1001 characters",
    b'{"text": "fail"}': "RuntimeError: this text is too much",
    b'{"text": "Ann", "entities": []}': "'entities'",
    b'{"text": "Ann", "error": "old"}': "'error'",
}
#: Lines from which no row can be made.
NO_ROWS = [
    b'{"text": NaN}',
    b'{"text": "Ann"',
    b'["Ann"]',
    b'"Ann"',
    b"\xff\xfe",
    b'{"text": "Ann", "text": "Bo"}',
]
#: Lines that are good.
GOOD = [b'{"text": "Ann"}', rb'{"text": ""}', rb'{"text": "\u0000\u0000"}', rb'{"text": "\ud83d\ude00"}']


@pytest.mark.parametrize("n_process", [1, 2])
@pytest.mark.parametrize("format", ["jsonl", "parquet"])
def test_bad_lines(tmp_path: Path, format: str, n_process: int, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [line for bad in [*LINES, *NO_ROWS] for line in (bad, GOOD[0])] + GOOD
    source = write(tmp_path / "in" / "a.jsonl", lines)
    nlp = make_pipeline("fragile")
    options = {"format": format, "on_error": "skip", "n_process": n_process, "batch_size": 3}
    count = predict(pipeline=nlp, input=source, output=tmp_path / "out", **options)
    good = len(LINES) + len(NO_ROWS) + len(GOOD)
    assert count == good
    rows = read(tmp_path / "out" / f"a.{format}")
    bad = [row for row in rows if row["entities"] is None]
    assert len(rows) == good + len(LINES) and len(bad) == len(LINES)
    for row, reason in zip(bad, LINES.values(), strict=True):
        assert reason in row["error"]
    assert all(row.get("error") is None for row in rows if row["entities"] is not None)
    errors = listed(tmp_path / "out", f"a.{format}")
    assert sorted(error["where"].split(" ")[0] for error in errors) == sorted(
        f"{source}:{2 * number + 1}" for number in range(len(LINES) + len(NO_ROWS))
    )
    assert f"{len(errors)} rows without prediction" in capsys.readouterr().err
    assert predict(pipeline=nlp, input=source, output=tmp_path / "out", **options) == good


@pytest.mark.parametrize("line", [*LINES, *NO_ROWS])
def test_a_bad_line_stops_with_what_to_do_and_is_gone_on_with(tmp_path: Path, line: bytes) -> None:
    source = write(tmp_path / "in" / "a.jsonl", [GOOD[0], line, GOOD[0]])
    if b'"error"' not in line:  # which is a column as any other where no rows are skipped
        for _ in range(2):
            with pytest.raises(DataError, match=r"a\.jsonl:2.*(--on-error skip|--keep)"):
                run(source, tmp_path / "out")
    assert run(source, tmp_path / "out", on_error="skip") == 2
    assert len(read(tmp_path / "out" / "a.jsonl")) == (2 if line in NO_ROWS else 3)


def test_a_row_may_be_mended(tmp_path: Path) -> None:
    source = write(tmp_path / "in" / "b.jsonl", [GOOD[0], b'{"text": 3}'])
    write(tmp_path / "in" / "a.jsonl", [GOOD[0]])
    with pytest.raises(DataError, match=r"b\.jsonl:2"):
        run(tmp_path / "in", tmp_path / "out")
    write(source, [b'{"text": "Bo"}', GOOD[0]])
    assert run(tmp_path / "in", tmp_path / "out") == 3
    assert [row["text"] for row in read(tmp_path / "out" / "b.jsonl")] == ["Bo", "Ann"]


def strings(values: list[bytes | None], kind: Any = None) -> pa.Array:
    """A column of strings that holds any bytes."""
    array = pa.array(values, pa.binary())
    column = pa.StringArray.from_buffers(
        len(array), array.buffers()[1], array.buffers()[2], array.buffers()[0]
    )
    return column if kind is None else column.cast(kind)


@pytest.mark.parametrize("format", ["parquet", "jsonl"])
@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_bytes_in_parquet_that_are_not_utf8(tmp_path: Path, format: str, kind: Any, caplog: Any) -> None:
    texts = strings([b"Ann", b"caf\xe9", b"Ann", None, b"\xed\xa0\xbd", b"Ann"])
    names = strings([b"a", b"b", b"\xff", b"d", b"e", b"f"])
    lists = pa.ListArray.from_arrays([0, 1, 2, 3, 4, 5, 6], names)
    columns = {
        "text": texts.cast(kind) if pa.types.is_large_string(kind) else texts,
        "name": names,
        "names": lists,
    }
    if pa.types.is_dictionary(kind):
        known = strings([b"Ann", b"caf\xe9", b"\xed\xa0\xbd"])
        columns["text"] = pa.DictionaryArray.from_arrays(pa.array([0, 1, 0, None, 2, 0], pa.int32()), known)
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table(columns), tmp_path / "in" / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet:2.*UTF-8.*--on-error skip"):
        run(tmp_path / "in", tmp_path / "out", format=format)
    assert run(tmp_path / "in", tmp_path / "out", format=format, on_error="skip") == 3
    rows = read(tmp_path / "out" / f"a.{format}")
    assert [row["entities"] for row in rows] == [[ANN], None, [ANN], None, None, [ANN]]
    assert rows[1]["text"] == "caf\ufffd" and "UTF-8 (byte 4)" in rows[1]["error"]
    assert rows[2]["name"] == "\ufffd" and rows[2]["names"] == ["\ufffd"] and "null" in rows[3]["error"]
    assert "1 row with" in caplog.text and "U+FFFD" in caplog.text
    assert len(listed(tmp_path / "out", f"a.{format}")) == 3


@pytest.mark.parametrize("format", ["parquet", "jsonl", "jsonl.gz"])
def test_half_characters_beside_the_text(tmp_path: Path, format: str, caplog: Any) -> None:
    lines = [rb'{"text": "Ann", "by": {"\udc00": ["\ud83d!"]}}', rb'{"text": "Ann", "by": {}}']
    source = write(tmp_path / "a.jsonl", lines)
    assert run(source, tmp_path / "out", format=format) == 2
    rows = read(tmp_path / "out" / f"a.{format}")
    by = json.loads(rows[0]["by"]) if isinstance(rows[0]["by"], str) else rows[0]["by"]
    assert by == {"\ufffd": ["\ufffd!"]} and "1 row with" in caplog.text


def test_values_that_python_does_not_have(tmp_path: Path) -> None:
    columns = {
        "text": ["Ann", "Ann"],
        "nano": pa.array([1, 2], pa.timestamp("ns")),
        "far": pa.array([10**7, 1], pa.date32()),
        "day": [datetime.date(2020, 1, 2)] * 2,
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    assert run(tmp_path / "a.parquet", tmp_path / "out", format="jsonl") == 2
    rows = read(tmp_path / "out" / "a.jsonl")
    assert [row["entities"] for row in rows] == [[ANN], [ANN]]
    assert rows[0]["day"] == "2020-01-02" and all(isinstance(row["far"], str) for row in rows)


def damaged(folder: Path) -> dict[str, Callable[[], object]]:
    """Ways to write a file that cannot be read to its end."""
    packed = gzip.compress(b"".join(b'{"text": "Ann %d"}\n' % number for number in range(3000)), mtime=0)
    path = folder / "b.parquet"

    def parquet() -> None:
        table = pa.table({"text": [f"Ann {number}" for number in range(3000)]})
        pq.write_table(table, path, row_group_size=1000, use_dictionary=False)
        data = bytearray(path.read_bytes())
        start = pq.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset
        data[start : start + 400] = bytes(400)
        path.write_bytes(data)

    return {
        "b.jsonl.gz": lambda: (folder / "b.jsonl.gz").write_bytes(packed[: len(packed) // 2]),
        "b.parquet": parquet,
        "b2.parquet": lambda: (folder / "b2.parquet").write_bytes(b"PAR1 is no table"),
        "b.jsonl": lambda: (folder / "b.jsonl").write_text('{"text": "Ann"}', encoding="utf-16"),
        "b3.parquet": lambda: pq.write_table(pa.table({"body": ["Ann"]}), folder / "b3.parquet"),
        "b4.parquet": lambda: pq.write_table(pa.table({"text": [1]}), folder / "b4.parquet"),
    }


@pytest.mark.parametrize(
    "name", ["b.jsonl.gz", "b.parquet", "b2.parquet", "b.jsonl", "b3.parquet", "b4.parquet"]
)
@pytest.mark.parametrize("shard_size", [None, 500])
def test_other_files_go_on_after_one_that_is_damaged(
    tmp_path: Path, name: str, shard_size: int | None
) -> None:
    for other in "ac":
        write(tmp_path / "in" / f"{other}.jsonl", GOOD)
    damaged(tmp_path / "in")[name]()
    options = {"shard_size": shard_size, "save_every": 0}
    with pytest.raises(DataError, match=rf"in/{name}"):
        run(tmp_path / "in", tmp_path / "out", **options)
    for _ in range(2):  # what cannot be read is tried once more
        with pytest.raises(DataError, match=rf"in/{name}"):
            run(tmp_path / "in", tmp_path / "out", **options, on_error="skip")
        done = [path.name for path in (tmp_path / "out").glob("[ac]*.jsonl")]
        assert len(done) == 2
    if shard_size is None:
        path = tmp_path / "in" / name
        if path.suffix == ".parquet":
            pq.write_table(pa.table({"text": ["Ann"]}), path)
        else:
            path.write_bytes(gzip.compress(GOOD[0]) if path.suffix == ".gz" else GOOD[0])
        assert run(tmp_path / "in", tmp_path / "out", **options, on_error="skip") == 2 * len(GOOD) + 1


def test_a_prompt_that_does_not_fit_the_window(nlp: Any, tmp_path: Path) -> None:
    many = [f"label number {number}" for number in range(400)]
    rows = [{"text": "Ann met Bo", "ask": ["person"]}, {"text": "Ann met Bo", "ask": many}]
    source = write(tmp_path / "a.jsonl", [json.dumps(row).encode() for row in [*rows, rows[0]]])
    options = {"labels_column": "ask"}
    for _ in range(2):
        with pytest.raises(DataError, match=r"a\.jsonl:2 .*--on-error skip"):
            run(source, tmp_path / "out", nlp, **options)
    assert run(source, tmp_path / "out", nlp, **options, on_error="skip") == 2
    found = read(tmp_path / "out" / "a.jsonl")
    assert found[1]["entities"] is None and "window" in found[1]["error"]
    with pytest.raises(ConfigError, match="window"):  # which concerns all rows
        run(source, tmp_path / "new", nlp, labels=many, on_error="skip")


def test_labels_that_cannot_be(nlp: Any, tmp_path: Path) -> None:
    asks = [b'"person"', b"3", b"[]", b"[3]", b"[null]", rb'["\ud83d"]', b'["a", "a"]', b'[{"x": 1}]', b"{}"]
    lines = [b'{"text": "Ann", "ask": %s}' % ask for ask in (*asks, b'["person"]')]
    source = write(tmp_path / "a.jsonl", lines)
    count = run(source, tmp_path / "out", nlp, labels_column="ask", on_error="skip")
    found = read(tmp_path / "out" / "a.jsonl")
    assert len(found) == len(asks) + 1 and count == sum(row["entities"] is not None for row in found) <= 2
    assert all("label" in row["error"] for row in found if row["entities"] is None)


class FailsInBatches:
    """A component whose ``pipe`` knows no error handlers, and fails on a whole batch."""

    def __call__(self, doc: Doc) -> Doc:
        return next(self.pipe([doc]))

    def pipe(self, docs: Any, batch_size: int = 0) -> Any:
        for batch in spacy.util.minibatch(docs, 7):
            if any(doc.text == "fail" for doc in batch):
                raise ValueError("one of these")
            yield from batch


Language.factory("batchwise", func=lambda nlp, name: FailsInBatches())


@pytest.mark.parametrize("n_process", [1, 2])
def test_a_failure_costs_no_other_row_its_prediction(tmp_path: Path, n_process: int) -> None:
    lines = [b'{"text": "%s"}' % (b"fail" if number in (3, 4, 30) else b"Ann") for number in range(31)]
    source = write(tmp_path / "a.jsonl", lines)
    nlp = make_pipeline("batchwise")
    assert run(source, tmp_path / "out", nlp, on_error="skip", n_process=n_process, batch_size=10) == 28
    found = read(tmp_path / "out" / "a.jsonl")
    assert [number for number, row in enumerate(found) if row["entities"] is None] == [3, 4, 30]
    assert "one of these" in found[3]["error"]
    assert nlp.default_error_handler is spacy.util.raise_error


def test_the_same_in_texts_and_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nlp = make_pipeline("fragile")
    for text in ("fail", "\ud83d", "x" * 1001):
        stream = predict_texts(nlp, ["Ann", text, "Ann"])
        assert next(stream)[2] == [ANN]
        with pytest.raises(DataError, match="text 2 "):
            next(stream)
    nlp.to_disk(tmp_path / "model")
    with pytest.raises(SystemExit):
        main(["--pipeline", str(tmp_path / "model"), "--text", "Ann \udcff"])
    assert "surrogate" in capsys.readouterr().err
    table = pa.table({"text": ["Ann", "fail", None]})
    with pytest.raises(DataError, match="row 1 of the batch"):
        ArrowPredictor(tmp_path / "model")(table.slice(0, 2))
    found = ArrowPredictor(tmp_path / "model", on_error="skip")(table).to_pylist()
    assert [row["entities"] for row in found] == [[ANN], None, None]
    assert found[0]["error"] is None and "too much" in found[1]["error"] and "null" in found[2]["error"]
