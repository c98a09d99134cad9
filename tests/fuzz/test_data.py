"""Data files: any bytes and any values are a clear error or a right result; what is written is read again."""

from __future__ import annotations

import csv
import io
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
import spacy
from fuzz.rule import obeys, tries
from hypothesis import given
from hypothesis import strategies as st
from spacy.tokens import Doc, DocBin, Span

from gliner_pipe.data.annotations import gold_spans, set_supervision, supervision
from gliner_pipe.data.detect import reader_of_path
from gliner_pipe.data.writers import write_gliner_json, write_jsonl, write_standoff
from gliner_pipe.prediction.texts import read_texts

NLP = spacy.blank("xx")

CHARACTERS = st.characters(codec="utf-8", exclude_characters="\0")
ANY_CHARACTERS = st.characters()  # with lone surrogates
BLANKS = st.sampled_from(
    [" ", "  ", "\t", "\n", "\r\n", "\r", "\x0b", "\x1c", "\x85", "\xa0", "\u2028", "\u3000"]
)
WORDS = st.text(CHARACTERS, min_size=1, max_size=6) | st.sampled_from(
    ["Ada", "東京", "e\u0301", "😀", "U.K.", "\u200b"]
)
#: Words of all categories of Unicode between all kinds of blanks.
TEXTS = st.lists(WORDS | BLANKS, min_size=1, max_size=8).map("".join).filter(str.strip)
LABELS = st.sampled_from(["person", "big city", "東", "a-b", "O", "I-x"])

NUMBERS = (
    st.integers(-3, 12)
    | st.integers()
    | st.floats()
    | st.booleans()
    | st.sampled_from([10**30, -(10**18), 2**63, 0.0, -0.0])
)
SCALARS = (
    st.none()
    | NUMBERS
    | st.text(ANY_CHARACTERS, max_size=5)
    | st.sampled_from(["0", "-1", "٣", "B-", "I-x", "O"])
)
NAMES = [
    "text", "entities", "spans", "ner", "tokenized_text", "tokens", "tags", "relations", "classes", "records", "links",
    "ner_labels", "ner_negatives", "rel_labels", "id", "adds_labels", "ner_descriptions", "all_occurrences", "data",
    "annotations", "predictions", "result", "value", "input", "output", "start", "end", "label", "labels", "head", "tail",
    "child", "from_id", "to_id", "type", "points", "items", "fields", "field", "choices", "list", "mode", "anchor",
    "multi_label", "description", "examples", "classifications", "json_structures", "json_descriptions", "task",
    "record_metadata", "true_label", "answer", "offset", "length", "_input_hash", "annotation_id", "to_name",
]  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=12,
)
WORD_LISTS = st.lists(WORDS, min_size=1, max_size=6)
TAGS = st.sampled_from(
    ["O", "B-x", "I-x", "B-", "I-", "E-x", "S-x", "U-y", "B-x|I-y", "(x", "*)", "x", "_", "", "3"]
)


@st.composite
def records(draw: Any) -> dict[str, Any]:
    """Return a record of any reader that is right except for some values."""
    text = draw(TEXTS)
    span = st.tuples(st.integers(0, len(text)), st.integers(0, len(text)), LABELS).map(list)
    mention = {"text": text[:2], "start": 0, "end": 2}
    forms: list[dict[str, Any]] = [
        {"text": text, "entities": draw(st.lists(span, max_size=3))},
        {"tokenized_text": draw(WORD_LISTS), "ner": draw(st.lists(span, max_size=3)), "relations": [[0, 0, "r"]]},
        {"input": text, "output": {"entities": {"x": [mention, text[:3]]}, "relations": [{"r": {"head": text[:1]}}]}},
        {"data": {"text": text}, "annotations": [{"result": [{"type": "labels", "id": "a", "value": {
            "start": 0, "end": 1, "labels": ["x"]}}]}]},
        {"tokens": draw(WORD_LISTS), "tags": draw(st.lists(TAGS, max_size=6))},
        {"text": text, "entities": [], "classes": {"s": "a"}, "records": {"p": [{"n": [0, 1]}]}},
    ]  # fmt: skip
    record = draw(st.sampled_from(forms))
    if draw(st.booleans()):
        record[draw(st.sampled_from(NAMES))] = draw(VALUES)
    return record


def read_bytes(data: bytes, name: str, reader: str = "auto", more: dict[str, bytes] | None = None) -> Any:
    """Return the documents in a file with these bytes; each of their spans must be within its text."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(data)
        for other, content in (more or {}).items():
            Path(folder, other).write_bytes(content)
        docs = [example.reference for example in reader_of_path(path, name=reader)(NLP)]
    for doc in docs:
        for span in gold_spans(doc):
            assert 0 <= span.start_char < span.end_char <= len(doc.text)
            assert doc.text[span.start_char : span.end_char] == span.text and span.label_
    return docs


@tries(60)
@given(st.lists(records(), min_size=1, max_size=3), st.booleans())
def test_json(found: list[dict[str, Any]], array: bool) -> None:
    lines = json.dumps(found) if array else "\n".join(map(json.dumps, found))
    obeys(read_bytes, lines.encode(), "a.json")


@tries(40)
@given(
    st.lists(VALUES, min_size=1, max_size=3),
    st.sampled_from(["jsonl", "gliner_json", "gliner2_json", "auto"]),
)
def test_any_json(found: list[Any], reader: str) -> None:
    obeys(read_bytes, "\n".join(map(json.dumps, found)).encode(), "a.jsonl", reader)


@st.composite
def damaged(draw: Any, texts: st.SearchStrategy[str]) -> bytes:
    """Return the bytes of a text, cut off or with other bytes in it."""
    data = draw(texts).encode("utf-8", "surrogatepass")
    at = draw(st.integers(0, len(data)))
    kind = draw(st.sampled_from(["whole", "whole", "cut", "bytes", "utf-16"]))
    if kind == "utf-16":
        return data.decode("utf-8", "surrogatepass").encode("utf-16", "surrogatepass")
    return (
        data
        if kind == "whole"
        else data[:at] + (draw(st.binary(max_size=3)) + data[at:] if kind == "bytes" else b"")
    )


COLUMNS = st.lists(
    st.tuples(WORDS, st.sampled_from([" ", "\t", "  "]), TAGS).map("".join) | st.sampled_from(["", "#x", "-DOCSTART- O"]),
    max_size=8,
)  # fmt: skip


@tries(40)
@given(damaged(COLUMNS.map("\n".join)), st.sampled_from(["a.conll", "a.tsv", "a.txt", "a.conllu"]))
def test_columns(data: bytes, name: str) -> None:
    obeys(read_bytes, data, name)


@tries(40)
@given(st.data(), TEXTS)
def test_brat(data: st.DataObject, text: str) -> None:
    offsets = st.integers(-1, len(text) + 2).map(str) | st.sampled_from(["9" * 30, "0.5", "", "٣"])
    ranges = st.lists(st.tuples(offsets, offsets).map(" ".join), min_size=1, max_size=2).map(";".join)
    entity = st.tuples(st.sampled_from(["T1", "T2", "T"]), LABELS, ranges, st.just(text[:3]) | WORDS).map(
        lambda parts: f"{parts[0]}\t{parts[1]} {parts[2]}\t{parts[3]}"
    )
    others = st.sampled_from(
        ["R1\tr Arg1:T1 Arg2:T2", "E1\tx:T1", "E2\tx:E1", "#1\tNote T1\tx", "A1\tNeg T9", "X", "R2"]
    )
    lines = st.lists(entity | others, max_size=4).map("\n".join)
    more = {"a.ann": data.draw(damaged(lines))}
    obeys(read_bytes, text.encode(), "a.txt", "standoff", more)


CELLS = (
    st.lists(WORDS, max_size=4).map(repr) | st.lists(TAGS, max_size=4).map(json.dumps) | st.text(ANY_CHARACTERS, max_size=8)
    | st.sampled_from(["['a' 'b']", "[1 2]", "array(['a'])", "(1,)", "{1}", "[" * 200, "-" * 50, "f'{1}'", "[9**9]"])
)  # fmt: skip


@tries(40)
@given(st.data())
def test_csv(data: st.DataObject) -> None:
    stream = io.StringIO()
    rows = data.draw(st.lists(st.lists(CELLS, min_size=1, max_size=3), max_size=3))
    csv.writer(stream).writerows([["tokens", "tags"], *rows])
    obeys(read_bytes, data.draw(damaged(st.just(stream.getvalue()))), "a.csv")


@tries(25)
@given(st.data())
def test_parquet(data: st.DataObject) -> None:
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    kinds = [
        st.lists(st.text(CHARACTERS, max_size=4), max_size=3), st.lists(st.integers(-3, 3), max_size=3), st.integers(-3, 3),
        st.text(CHARACTERS, max_size=4), st.floats(), st.none(), st.binary(max_size=3),
    ]  # fmt: skip
    size = data.draw(st.integers(0, 4))
    columns = {
        name: data.draw(
            st.sampled_from(kinds).flatmap(lambda kind: st.lists(kind, min_size=size, max_size=size))
        )
        for name in ("tokens", "tags")
    }
    sink = pa.BufferOutputStream()
    metadata = {b"huggingface": data.draw(VALUES.map(json.dumps)).encode("utf-8", "surrogatepass")}
    parquet.write_table(pa.table(columns).replace_schema_metadata(metadata), sink)
    content = bytearray(sink.getvalue().to_pybytes())
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    obeys(read_bytes, bytes(content), "a.parquet")


@tries(25)
@given(st.data())
def test_docbin(data: st.DataObject) -> None:
    doc = NLP.make_doc("Ada Lovelace left London.")
    doc.spans["gliner"] = [Span(doc, 0, 2, "person")]
    doc.user_data["gliner_pipe"] = data.draw(st.none() | VALUES.filter(_is_packed))
    content = bytearray(DocBin(docs=[doc], store_user_data=True).to_bytes())
    for _ in range(data.draw(st.integers(0, 2))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    obeys(
        read_bytes,
        bytes(content[: data.draw(st.integers(0, len(content)) | st.just(len(content)))]),
        "a.spacy",
    )


def _is_packed(value: Any) -> bool:
    try:
        return len(NLP.make_doc("a").to_bytes()) > 0 and len(repr(value).encode()) > 0 and _pack(value)
    except (UnicodeError, OverflowError):
        return False


def _pack(value: Any) -> bool:
    import srsly

    return bool(srsly.msgpack_dumps(value))


@tries(30)
@given(damaged(st.lists(TEXTS, max_size=4).map("\n".join)), st.booleans())
def test_texts_to_predict_on(data: bytes, lines: bool) -> None:
    def texts() -> list[str]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "a.txt")
            path.write_bytes(data)
            return [item.text for item in read_texts(path, lines=lines)]

    found = obeys(texts).result
    assert found is None or lines or found[0].encode() == data.removeprefix(b"\xef\xbb\xbf")


# -- what is written is read again -------------------------------------------------------------------------------------


@st.composite
def documents(draw: Any) -> Doc:
    """Return a document with entities and relations between them."""
    text = draw(TEXTS)
    doc = NLP.tokenizer(text)
    words = [token.i for token in doc if not token.is_space]
    spans: dict[tuple[int, int, str], None] = {}
    for _ in range(draw(st.integers(0, 3)) if words else 0):
        start, end = sorted((draw(st.sampled_from(words)), draw(st.sampled_from(words))))
        spans[start, end + 1, draw(LABELS)] = None
    doc.spans["gliner"] = [Span(doc, start, end, label) for start, end, label in spans]
    if spans and draw(st.booleans()):
        ends = st.integers(0, len(spans) - 1)
        set_supervision(doc, relations=[[draw(ends), draw(ends), draw(LABELS)]])
    return doc


def annotations(doc: Doc, words: bool) -> Any:
    """Return the words or the text of a document, with its entities and relations."""
    spans = [
        (
            [token.text for token in span if not token.is_space]
            if words
            else (span.start_char, span.end_char),
            span.label_,
        )
        for span in gold_spans(doc)
    ]
    content: Any = [token.text for token in doc if not token.is_space] if words else doc.text
    return content, spans, supervision(doc).get("relations") or []


@tries(60)
@given(documents(), st.sampled_from(["jsonl", "gliner_json", "standoff", "spacy"]))
def test_what_is_written_is_read_again(doc: Doc, kind: str) -> None:
    if kind == "gliner_json" and not any(not token.is_space for token in doc):
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.jsonl")
        if kind == "standoff":
            report = write_standoff([doc], folder)
        elif kind == "spacy":
            path = path.with_suffix(".spacy")
            DocBin(docs=[doc], store_user_data=True).to_disk(path)
        else:
            (write_jsonl if kind == "jsonl" else write_gliner_json)([doc], path)
        (example,) = obeys(
            lambda: list(reader_of_path(folder if kind == "standoff" else path, name=kind)(NLP))
        ).result
    words = kind == "gliner_json"
    expected, found = annotations(doc, words), annotations(example.reference, words)
    if kind == "standoff":
        names = report.labels
        content, spans, relations = expected
        spans = [(ends, names.get(label, label)) for ends, label in spans]
        expected = content, spans, [[head, tail, names.get(label, label)] for head, tail, label in relations]
    assert found == expected
