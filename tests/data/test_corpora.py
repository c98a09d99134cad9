"""Reads the annotated corpora of the folder GLINER_PIPE_DATA and compares counts with their descriptions."""

from __future__ import annotations

import csv
import json
import os
from collections import Counter
from pathlib import Path

import pytest
import spacy
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value
from spacy.tokens import Doc, Span
from spacy.training import Example

from gliner_pipe.data.annotations import gold_spans, supervision
from gliner_pipe.data.checks import check_examples
from gliner_pipe.data.raw_text import has_hyphens, running_text
from gliner_pipe.data.readers import bio, conll, gliner_json, jsonl, standoff
from gliner_pipe.data.splitting import Chunk, chunk_examples, split_examples
from gliner_pipe.data.word_report import compare_words
from gliner_pipe.data.writers import write_gliner_json
from gliner_pipe.pipeline.word_splitters import SpacyWords
from gliner_pipe.training.word_checks import word_ranges

DATA = Path(os.environ.get("GLINER_PIPE_DATA") or "/nonexistent")
pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(not DATA.is_dir(), reason="GLINER_PIPE_DATA names no folder"),
]


def described(file: Path) -> dict[str, object] | None:
    """Return the counts that the description of a corpus gives for `file`."""
    description = json.loads((file.parent / "META.json").read_text(encoding="utf8"))
    return description["splits"].get(file.name.split(".")[0])


FILES = [
    file
    for file in sorted(DATA.glob("*/*.jsonl"))
    if (file.parent / "META.json").exists() and described(file)
]
WORDS = [file for file in FILES if ".chars." not in file.name]
CHARACTERS = [file for file in FILES if ".chars." in file.name]

FOLDERS = sorted({file.parent for file in DATA.glob("*/raw/**/*.ann")})


def name(file: Path) -> str:
    return file.relative_to(DATA).as_posix()


@pytest.mark.parametrize("file", WORDS, ids=name)
def test_words(nlp, file, tmp_path):
    expected = described(file)
    examples = list(gliner_json(file)(nlp))
    report = check_examples(examples)
    assert report.examples == expected["records"]
    assert report.words == expected["tokens"]
    assert report.longest == expected["max_tokens"]
    assert report.without_entities == expected["records_without_entities"]
    assert report.entities == expected["labels"]
    assert report.relations == expected.get("relations", 0)
    pieces = list(split_examples(examples, max_length=50))
    assert sum(len(gold_spans(piece.reference)) for piece in pieces) == expected["entities"]
    assert sum(len(piece.reference) for piece in pieces) == expected["tokens"]
    written = write_gliner_json([example.reference for example in examples], tmp_path / "again.jsonl")
    assert (written.entities, written.relations) == (expected["entities"], expected.get("relations", 0))
    again = check_examples(gliner_json(tmp_path / "again.jsonl")(nlp))
    assert (again.entities, again.words) == (report.entities, report.words)


def tagged(record: dict) -> dict[str, list[str]] | None:
    """Return words and BIO tags of a record; None if its entities overlap."""
    tags = ["O"] * len(record["tokenized_text"])
    for start, end, label in record["ner"]:
        if set(tags[start : end + 1]) != {"O"}:
            return None
        tags[start : end + 1] = [f"B-{label}"] + [f"I-{label}"] * (end - start)
    return {"tokens": record["tokenized_text"], "ner_tags": tags}


@pytest.mark.parametrize("file", WORDS, ids=name)
def test_tables(nlp, file, tmp_path):
    """The same entities, written as tags into tables of all kinds, are the same entities."""
    rows = [tagged(json.loads(line)) for line in file.read_text(encoding="utf8").splitlines()]
    if None in rows:
        pytest.skip("entities overlap")
    expected = described(file)
    names = sorted({tag for row in rows for tag in row["ner_tags"]})
    features = Features({"tokens": List(Value("string")), "ner_tags": List(ClassLabel(names=names))})
    data = Dataset.from_list(rows, features=features)
    data.to_parquet(str(tmp_path / "a.parquet"))
    DatasetDict(train=data).save_to_disk(tmp_path / "saved")
    with (tmp_path / "a.csv").open("w", encoding="utf8", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["tokens", "ner_tags"])
        writer.writerows([str(row["tokens"]), [names.index(tag) for tag in row["ner_tags"]]] for row in rows)
    readers = [
        bio(tmp_path / "a.parquet", tags_column="ner_tags"),
        bio(tmp_path / "saved", tags_column="ner_tags"),
        bio(tmp_path / "a.csv", tags_column="ner_tags", tag_names=names),
        gliner_json(rows, fields={"tokens": "tokens", "ner": "ner_tags"}),
    ]
    for reader in readers:
        report = check_examples(reader(nlp))
        assert report.examples == expected["records"]
        assert report.words == expected["tokens"]
        assert report.entities == expected["labels"]
        assert not [reason for reason in reader.report if "read as" in reason]


@pytest.mark.parametrize("file", WORDS, ids=name)
def test_chunks(nlp, file):
    """Each entity that the overlap has room for is whole in a chunk, others are counted."""
    counts: Counter[str] = Counter()
    chunk = Chunk(max_words=40, stride=10)
    for example in gliner_json(file)(nlp):
        spans = gold_spans(example.reference)
        found, words = set(), 0
        parts = list(chunk_examples([example], chunk, report=counts))
        for number, part in enumerate(parts):
            start = 30 * number
            found |= {(s.start + start, s.end + start, s.label) for s in gold_spans(part.reference)}
            words += len(part.reference)
        assert words == len(example.reference) + 10 * (len(parts) - 1)
        whole = {(s.start, s.end, s.label) for s in spans}
        assert found <= whole
        assert {span for span in whole if span[1] - span[0] <= 11} <= found
        counts["lost"] += len(whole - found)
    assert counts["entity whole in no chunk (left out)"] == counts["lost"]


@pytest.mark.parametrize("file", CHARACTERS, ids=name)
def test_characters(nlp, file):
    """Tokens differ from those of the description, so that a few more entities coincide, or fewer."""
    expected = described(file)
    reader = jsonl(file)
    report = check_examples(reader(nlp), flat_ner=False)
    records = [json.loads(line) for line in file.read_text(encoding="utf8").splitlines()]
    assert report.examples == expected["records"] == len(records)
    total = sum(len(record["entities"]) for record in records)
    assert sum(report.entities.values()) + reader.report["duplicate entity (merged)"] == total
    related = sum(len(record.get("relations", [])) for record in records)
    assert report.relations + reader.report["duplicate relation (merged)"] == related
    assert sum(report.entities.values()) == pytest.approx(expected["entities"], rel=0.01)


@pytest.mark.parametrize(
    ("path", "options", "corpus", "split"),
    [
        (
            "wnut17/raw/emerging.test.annotated",
            {"label_map": {"creative-work": "creative work"}},
            "wnut17",
            "test",
        ),
        ("crossner_ai/raw/ner_data/ai/test.txt", {}, "crossner_ai", "test"),
        (
            "uner/raw/English-PUD/en_pud-ud-test.iob2",
            {"token_column": 1, "tag_column": 2},
            "uner",
            "en_pud_test",
        ),
    ],
)
def test_columns(nlp, path, options, corpus, split):
    if not (DATA / path).exists():
        pytest.skip("not in this folder")
    expected = described(DATA / corpus / f"{split}.jsonl")
    report = check_examples(conll(DATA / path, **options)(nlp))
    assert report.examples == expected["records"]
    assert report.words == expected["tokens"]
    assert sum(report.entities.values()) == expected["entities"]
    assert sorted(report.entities.values()) == sorted(expected["labels"].values())


@pytest.mark.parametrize("folder", FOLDERS, ids=name)
def test_standoff(nlp, folder):
    reader = standoff(folder)
    counts: Counter[str] = Counter()
    for example in reader(nlp):
        counts["documents"] += 1
        counts["entities"] += len(gold_spans(example.reference))
        counts["relations"] += len(supervision(example.reference).get("relations", []))
    lines = [
        line
        for file in folder.glob("*.ann")
        for line in file.read_text(encoding="utf-8-sig").split("\n")
        if line
    ]
    assert counts["documents"] == len(list(folder.glob("*.txt")))
    merged = reader.report["duplicate entity (merged)"]
    assert counts["entities"] + merged == sum(line.startswith("T") for line in lines)
    merged = reader.report["duplicate relation (merged)"]
    assert counts["relations"] + merged == sum(line.startswith("R") for line in lines)


#: Corpora with both words and text, and the largest share of gaps between words where the guessed text may be wrong.
GUESSED = {"tasteset/train": 0.005, "snips/test": 0.005, "wet_lab/dev": 0.02, "presidio_synth/train": 0.02}


@pytest.mark.parametrize("name", GUESSED)
def test_running_text_of_words(name):
    """The text that is guessed from words is nearly that of the corpus, and as many entities have other words there."""
    nlp = spacy.blank("en")
    guessed, real, wrong = [], [], 0
    lines = (DATA / f"{name}.chars.jsonl").read_text(encoding="utf8").splitlines()[:200]
    for example, line in zip(gliner_json(DATA / f"{name}.jsonl")(nlp), lines, strict=False):
        words = [token.text for token in example.reference]
        spaces = spaces_in(json.loads(line)["text"], words)
        if spaces is not None:
            doc = Doc(nlp.vocab, words, spaces)
            doc.spans["gliner"] = [Span(doc, s.start, s.end, s.label) for s in gold_spans(example.reference)]
            guessed.append(example)
            real.append(Example(doc, doc))
    hyphens = has_hyphens([token.text for token in example.reference] for example in guessed)
    for example in real:
        words = [token.text for token in example.reference]
        found = spaces_in(running_text(words, hyphens), words)
        wrong += sum(
            one != bool(token.whitespace_) for one, token in zip(found, example.reference, strict=True)
        )
    ranges = word_ranges(SpacyWords())
    guess, truth = (compare_words(nlp, some, "gliner", ranges) for some in (guessed, real))
    assert wrong <= GUESSED[name] * truth.words
    assert guess.share(guess.other_entities) == pytest.approx(truth.share(truth.other_entities), abs=0.005)
    if name == "tasteset/train":
        assert guess.other_entities.most_common(1)[0][0] == "quantity"
        assert guess.other_entities["quantity"] / guess.entities["quantity"] == pytest.approx(0.25, abs=0.02)


def spaces_in(text: str, words: list[str]) -> list[bool] | None:
    """Return whether there is space after each of the words of a text, but the last; None if it has others."""
    spaces, place = [], 0
    for word in words:
        start = text.find(word, place)
        if start < 0 or text[place:start].strip():
            return None
        spaces.append(start > place)
        place = start + len(word)
    return [*spaces[1:], False]
