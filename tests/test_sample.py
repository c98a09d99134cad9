"""The sample corpus: its files are what the script builds, and all of them say the same."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import pytest
import spacy

from gliner_pipe.data.annotations import gold_spans, supervision
from gliner_pipe.data.readers.json import gliner_json
from gliner_pipe.data.readers.standoff import standoff

ROOT = Path(__file__).parent.parent
SAMPLE = ROOT / "data" / "sample"


def build(source: Path, output: Path) -> subprocess.CompletedProcess[str]:
    script = [sys.executable, str(ROOT / "scripts" / "build_sample.py")]
    arguments = ["--source", str(source), "--output", str(output)]
    return subprocess.run([*script, *arguments], capture_output=True, text=True, encoding="utf8")


def test_files_are_what_the_script_builds(tmp_path):
    built = build(SAMPLE / "sentences.txt", tmp_path)
    assert built.returncode == 0, built.stderr
    names = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*")}
    assert names | {"README.md", "label_names.json", "sentences.txt"} == {
        str(path.relative_to(SAMPLE)) for path in SAMPLE.rglob("*.*")
    }
    for name in names:
        assert (tmp_path / name).read_bytes() == (SAMPLE / name).read_bytes(), name
    assert built.stdout in (SAMPLE / "README.md").read_text("utf8")


@pytest.mark.parametrize(("split", "number"), [("train", 612), ("dev", 88)])
def test_sentences_documents_and_brat_hold_the_same_relations(split, number):
    sources = (
        gliner_json(SAMPLE / f"{split}.jsonl"),
        gliner_json(SAMPLE / f"{split}_docs.jsonl"),
        standoff(SAMPLE / "brat" / split),
    )
    nlp = spacy.blank("en")
    sentences, documents, brat = (relations(source(nlp)) for source in sources)
    assert sentences.total() == number
    assert sentences == documents == brat


def test_other_names_stand_for_the_entities_of_the_documents():
    documents, renamed = (read_lines(f"train_{kind}.jsonl") for kind in ("docs", "names"))
    concepts = json.loads((SAMPLE / "label_names.json").read_text("utf8"))
    standing_for = {name: concept["labels"] for concept in concepts for name in concept["names"]}
    for document, record in zip(documents, renamed, strict=True):
        assert record["tokenized_text"] == document["tokenized_text"]
        for start, end, name in record["ner"]:
            assert name in record["ner_labels"]
            assert any([start, end, label] in document["ner"] for label in standing_for.get(name, [name]))
    words = document_words(renamed)
    years = words["calendar year"] | words["year of an event"]
    assert "1958" in years and all(len(year) == 4 and year.isdigit() for year in years)
    firms = words["business"] | words["firm"] | words["corporation"] | words["company name"]
    assert "Bose" in firms and not any("University" in firm or "Museum" in firm for firm in firms)
    labels = {label for document in documents for a, b, label in document["ner"]}
    assert labels < words.keys() and standing_for.keys() <= words.keys()


@pytest.mark.parametrize("new", ["place", "year", "company", "job title"])
def test_the_new_labels_of_the_readme_are_new(new):
    assert not any(new in record["ner_labels"] for record in read_lines("train_names.jsonl"))


def test_the_splits_share_no_text_and_few_names():
    def surfaces(split):
        rows = read_lines(f"{split}.jsonl")
        return {
            (" ".join(r["tokenized_text"][a : b + 1]).lower(), label)
            for r in rows
            for a, b, label in r["ner"]
        }

    def runs(split):
        rows = read_lines(f"{split}.jsonl")
        texts = [[word.lower() for word in row["tokenized_text"] if len(word) > 1] for row in rows]
        words = [[word for word in text if word.isalpha()] for text in texts]
        return {tuple(text[i : i + 6]) for text in words for i in range(len(text) - 5)}

    assert not runs("train") & runs("dev")
    assert len(surfaces("dev") - surfaces("train")) > 0.8 * len(surfaces("dev"))


def read_lines(name):
    return [json.loads(line) for line in (SAMPLE / name).read_text("utf8").splitlines()]


def document_words(records):
    words = defaultdict(set)
    for record in records:
        for start, end, name in record["ner"]:
            words[name].add(" ".join(record["tokenized_text"][start : end + 1]))
    return words


def relations(examples) -> Counter[tuple[str, str, str]]:
    """Count head, label and tail; without blanks, as the words differ."""
    found: Counter[tuple[str, str, str]] = Counter()
    for example in examples:
        spans = ["".join(span.text.split()) for span in gold_spans(example.reference, "gliner")]
        stated = supervision(example.reference).get("relations") or []
        found.update((spans[head], label, spans[tail]) for head, tail, label in stated)
    return found


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("> Ann lives_in Oslo", "expected '> HEAD | label | TAIL'"),
        ("> Ann | loves | Oslo", "unknown relation 'loves'"),
        ("> Ann | works_at | Oslo", "0 entities outside of others read 'Oslo'"),
        ("> Ann | works_at | Ann", "from an entity to itself"),
    ],
)
def test_the_script_refuses_what_is_no_relation(tmp_path, line, reason):
    source = tmp_path / "source.txt"
    source.write_text(
        f"# doc one train\n[Ann|person] left [[Oslo|city] Zoo|organization].\n{line}\n", encoding="utf8"
    )
    refused = build(source, tmp_path / "out")
    assert refused.returncode == 1
    assert reason in refused.stderr and f"{source}:3" in refused.stderr
