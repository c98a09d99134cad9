"""The sample corpus: its files are what the script builds, and all of them say the same."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
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
    assert names | {"README.md", "sentences.txt"} == {
        str(path.relative_to(SAMPLE)) for path in SAMPLE.rglob("*.*")
    }
    for name in names:
        assert (tmp_path / name).read_bytes() == (SAMPLE / name).read_bytes(), name
    assert built.stdout in (SAMPLE / "README.md").read_text("utf8")


@pytest.mark.parametrize(("split", "number"), [("train", 199), ("dev", 41)])
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
