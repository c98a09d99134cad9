"""Files that are damaged, of the wrong kind, endless or changed while they are read are one clear error."""

from __future__ import annotations

import gzip
import json
import os
import zlib

import pytest
import srsly
from spacy.tokens import Doc, DocBin, Span

from gliner_pipe.data import files
from gliner_pipe.data.annotations import USER_DATA_KEY, supervision
from gliner_pipe.data.detect import reader_of_path
from gliner_pipe.data.fields import LONGEST_LABEL, LONGEST_RUN, LONGEST_TEXT, SHOWN_REASONS, Report
from gliner_pipe.errors import DataError

TEXT = "Ada Lovelace left London."


def line(**fields):
    return json.dumps({"text": TEXT, "entities": [[0, 12, "person"]], **fields})


def written(tmp_path, data, name="a.jsonl"):
    path = tmp_path / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def error_of(path, nlp, name="auto", **options):
    with pytest.raises(DataError) as caught:
        list(reader_of_path(path, name=name, **options)(nlp))
    assert str(path) in caught.value.where
    assert len(str(caught.value)) < 1000 and "\n" not in str(caught.value)
    return caught.value


ZIPPED = gzip.compress(line().encode())


@pytest.mark.parametrize(
    "data",
    [ZIPPED[:-10], ZIPPED[:30], ZIPPED[:-8] + bytes(8), ZIPPED + b"junk", line().encode(), b""],
    ids=["cut", "cut early", "checksum", "junk", "text", "empty"],
)
def test_damaged_gzip(tmp_path, nlp, data):
    error_of(written(tmp_path, data, "a.jsonl.gz"), nlp, "jsonl")


@pytest.mark.parametrize(
    "pattern", [b" ", b"\n", b"x", b'[{"text": "a'], ids=["blanks", "lines", "letters", "text"]
)
def test_gzip_bombs(tmp_path, nlp, pattern, monkeypatch):
    monkeypatch.setattr(files, "LONGEST_RECORD", 1 << 16)
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(pattern + pattern[-1:] * (1 << 23)))
    error_of(path, nlp, "jsonl")


@pytest.mark.parametrize("layout", ["{}", "[{}", "{{\n{}"], ids=["line", "array", "object"])
def test_endless_records(tmp_path, nlp, layout, monkeypatch):
    monkeypatch.setattr(files, "LONGEST_RECORD", 1 << 16)
    error_of(written(tmp_path, layout.format('"a": "' + "x" * (1 << 18))), nlp, "jsonl")


@pytest.mark.parametrize("name", ["a.jsonl", "a.conll", "a.csv"])
@pytest.mark.parametrize(
    ("start", "named"),
    [(b"\x1f\x8b", "gzip"), (b"PK\x03\x04", "zip"), (b"\xff\xfe\0\0", "UTF-32"), (b"\xff\xfea\0", "UTF-16")],
)
def test_other_kinds_of_files(tmp_path, nlp, name, start, named):
    assert named in error_of(written(tmp_path, start + b"abcdefgh\n", name), nlp).found


def test_folders_and_pipes(tmp_path, nlp):
    (tmp_path / "a.txt").write_text(TEXT)
    (tmp_path / "a.ann").mkdir()
    with pytest.raises(DataError, match="is a folder"):
        list(reader_of_path(tmp_path, name="standoff")(nlp))
    os.mkfifo(tmp_path / "b.jsonl")
    error_of(tmp_path / "b.jsonl", nlp)


@pytest.mark.parametrize(
    "text",
    ["ab " * (LONGEST_TEXT // 3 + 1), "a " + "(" * (LONGEST_RUN + 1), "_" * (LONGEST_RUN + 1)],
    ids=["long", "signs", "underscores"],
)
def test_texts_that_no_tokenizer_can_take(tmp_path, nlp, text):
    error_of(written(tmp_path, line(text=text, entities=[])), nlp)


@pytest.mark.parametrize(
    "fields",
    [
        {"id": "\ud800"},
        {"ner_descriptions": {"\ud800": "x"}},
        {"entities": [[0, 3, "x" * (LONGEST_LABEL + 1)]]},
        {"entities": [["\u0660", "\u0663", "x"]]},
        {"classes": {"s": "a", " s": "b"}},
        {"classes": {"s": {"label": "a", "multi_label": "no"}}},
        {"records": {"p": [], " p": []}},
        {"records": {"p": {"items": [], "mode": "bogus"}}},
        {"records": {"p": {"items": [], "description": 7}}},
        {"records": {"p": {"items": [], "fields": ["a", "a"]}}},
        {"records": {"p": {"items": [], "fields": [{"field": "a", "list": "no"}]}}},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_values_that_cannot_be_right(tmp_path, nlp, fields):
    path = written(tmp_path, line(**fields))
    assert error_of(path, nlp).where.startswith(f"{path}:1 ({next(iter(fields))}")


@pytest.mark.parametrize(
    "record",
    [
        {"data": {"text": TEXT}, "annotations": 3},
        {"data": {"text": TEXT}, "annotations": [], "predictions": 3},
        {"data": {"text": TEXT}, "annotations": [{"result": [{"to_name": ["x"], "value": {}}]}]},
        {"text": TEXT, "spans": [{"start": 0, "end": 3, "label": "x"}], "tokens": 3,
         "relations": [{"head": 0, "child": 0, "label": "x"}]},
        {"text": TEXT, "spans": [{"start": 0, "end": 3, "label": "x"}], "tokens": [{"id": 0, "start": "x"}],
         "relations": [{"head": 0, "child": 0, "label": "x"}]},
    ],
)  # fmt: skip
def test_damaged_exports_are_read_or_refused(tmp_path, nlp, record):
    path = written(tmp_path, json.dumps(record) + "\n" + line(), "a.jsonl")
    try:
        assert list(reader_of_path(path, name="jsonl")(nlp))
    except DataError as error:
        assert str(path) in error.where


def test_a_length_that_is_a_text_counts_from_the_start(tmp_path, nlp):
    spans = [{"offset": "4", "length": "8", "label": "x"}]
    (example,) = reader_of_path(written(tmp_path, line(entities=spans)))(nlp)
    (span,) = next(iter(example.reference.spans.values()))
    assert span.text == "Lovelace"


@pytest.mark.parametrize("offset", ["9" * 5000, "-1", "0;3 12"])
def test_offsets_of_standoff(tmp_path, nlp, offset):
    (tmp_path / "a.txt").write_text(TEXT)
    (tmp_path / "a.ann").write_text(f"T1\tperson 0 {offset}\tAda\n")
    with pytest.raises(DataError, match=r"a\.ann:1"):
        list(reader_of_path(tmp_path)(nlp))


def test_ranges_of_an_entity_do_not_overlap(tmp_path, nlp):
    (tmp_path / "a.txt").write_text(TEXT)
    (tmp_path / "a.ann").write_text("T1\tperson 0 5;3 12\tAda L Lovelace\n")
    with pytest.raises(DataError, match="overlap"):
        list(reader_of_path(tmp_path)(nlp))


@pytest.mark.parametrize("cell", ["[" + "9" * 5000 + "]", "[1is 2]", "[" * 50000, "[9**9**9]", "[open('x')]"])
def test_cells_are_data(tmp_path, nlp, cell):
    error_of(written(tmp_path, f'tokens,tags\n"{cell}","[\'O\']"\n', "a.csv"), nlp)


def test_numbers_of_words_beyond_any_sentence(tmp_path, nlp):
    rows = ["1-999999999999999999\tAda", "1\tAda", "2\tleft"]
    tail = "\t_\t_\t_\t_\t_\t_\t_\tNER=O\n"
    (example,) = reader_of_path(written(tmp_path, "".join(row + tail for row in rows), "a.conll"))(nlp)
    assert [token.text for token in example.reference] == ["Ada", "left"]


def test_many_tags_take_linear_time(tmp_path, nlp):
    path = written(tmp_path, "".join(f"w B-{i}\n" for i in range(20_000)), "a.conll")
    (example,) = reader_of_path(path)(nlp)
    assert len(next(iter(example.reference.spans.values()))) == 20_000
    error_of(written(tmp_path, "Ada B-" + "x" * 10**6 + "\nb O\n", "b.conll"), nlp)


@pytest.mark.parametrize(
    "metadata", [b"{", b"[1]", b"null", b'{"info": [1]}', b'{"info": {"features": {"tags": {"feature": {"names": 3, '
                 b'"_type": "ClassLabel"}, "_type": "Sequence"}}}}', b"\xff", b"[" * 100_000],
)  # fmt: skip
def test_damaged_metadata_of_parquet(tmp_path, nlp, metadata):
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pa.table({"tokens": [["a"]], "tags": [["O"]]}).replace_schema_metadata({b"huggingface": metadata})
    parquet.write_table(table, tmp_path / "a.parquet")
    assert len(list(reader_of_path(tmp_path / "a.parquet")(nlp))) == 1


def test_damaged_pages_of_parquet(tmp_path, nlp):
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pa.table({"tokens": [["a", "b"]] * 500, "tags": [["O", "O"]] * 500})
    parquet.write_table(table, tmp_path / "a.parquet", compression="gzip")
    data = bytearray((tmp_path / "a.parquet").read_bytes())
    data[30:90] = bytes(60)
    error_of(written(tmp_path, bytes(data), "a.parquet"), nlp)


def test_a_report_has_a_bounded_number_of_reasons():
    report = Report({f"reason {i}": 1 for i in range(1000)})
    assert len(report.render()) == SHOWN_REASONS + 1


@pytest.mark.parametrize("start", ["", "[", "{\n"], ids=["lines", "array", "objects"])
def test_a_file_that_changes_while_it_is_read(tmp_path, nlp, start):
    first = line()[1:] if start == "{\n" else line()
    path = written(tmp_path, f"{start}{first}\n{line()}" if start != "[" else f"[{line()},\n{line()}]")
    examples = iter(reader_of_path(path, name="jsonl")(nlp))
    next(examples)
    os.utime(path, ns=(1, 1))
    with pytest.raises(DataError, match="changed"):
        list(examples)


# -- spaCy's files -----------------------------------------------------------------------------------------------------


def docbin(nlp, path, change=lambda content: content, stored=None):
    docs = DocBin(store_user_data=True)
    for _ in range(3):
        doc = nlp.make_doc(TEXT)
        doc.spans["gliner"] = [Span(doc, 0, 2, "person")]
        if stored is not None:
            doc.user_data[USER_DATA_KEY] = stored
        docs.add(doc)
    content = change(srsly.msgpack_loads(zlib.decompress(docs.to_bytes())))
    path.write_bytes(zlib.compress(srsly.msgpack_dumps(content)))
    return path


@pytest.mark.parametrize("cut", [0, 1, 100])
def test_spacy_files_that_are_cut_off(tmp_path, nlp, cut):
    path = docbin(nlp, tmp_path / "a.spacy")
    error_of(written(tmp_path, path.read_bytes()[:cut], "a.spacy"), nlp)


@pytest.mark.parametrize(
    "change",
    [
        lambda content: [1],
        lambda content: {},
        lambda content: {**content, "attrs": [1, 2]},
        lambda content: {**content, "lengths": b"\xff" * 12},
        lambda content: {**content, "lengths": content["lengths"][:8]},
        lambda content: {**content, "span_groups": [b"\xff"] * 3},
        lambda content: {**content, "user_data": [b"\xc1"] * 3},
        lambda content: {**content, "cats": []},
    ],
)
def test_spacy_files_with_parts_that_do_not_fit(tmp_path, nlp, change):
    error_of(docbin(nlp, tmp_path / "a.spacy", change), nlp)


@pytest.mark.parametrize(
    "stored",
    [
        "x",
        [1],
        {"relations": "abc"},
        {"relations": [[0, 9, "r"]]},
        {"ner_labels": 3},
        {"bogus": 1},
        {"records": 3},
    ],
)
def test_annotations_of_other_types_in_spacy_files(tmp_path, nlp, stored):
    error = error_of(docbin(nlp, tmp_path / "a.spacy", stored=stored), nlp)
    assert USER_DATA_KEY in error.where


def test_annotations_in_spacy_files(tmp_path, nlp):
    stored = {"relations": [[0, 0, "r"]], "ner_labels": ["person"], "id": "a"}
    path = docbin(nlp, tmp_path / "a.spacy", stored=stored)
    example, *_ = reader_of_path(path)(nlp)
    assert isinstance(example.reference, Doc)
    assert supervision(example.reference) == stored


def test_a_bomb_of_spacy(tmp_path, nlp, monkeypatch):
    monkeypatch.setattr("gliner_pipe.data.spacy_files.LONGEST_RECORD", 1 << 16)
    path = tmp_path / "a.spacy"
    path.write_bytes(zlib.compress(bytes(1 << 24)))
    error_of(path, nlp)
