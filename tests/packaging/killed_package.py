"""Work for kill_loop.py: packages two fat pipelines in turn under one name, without end."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import spacy

from gliner_pipe.package import package

LABELS = ("FIRST", "SECOND")


def prepare(folder: str) -> tuple[Callable[[], None], Callable[[], None]]:
    root = Path(folder)
    for label in LABELS:
        nlp = spacy.blank("en")
        patterns = [{"label": label, "pattern": f"{label} {number}"} for number in range(3_000)]
        nlp.add_pipe("entity_ruler").add_patterns(patterns)
        nlp.to_disk(root / label)

    def make(label: str) -> None:
        package(pipeline=root / label, name="my_ner_model", dist_dir=root / "dist", distributions="wheel")

    def work() -> None:
        while True:
            for label in reversed(LABELS):
                make(label)

    def check() -> None:
        with zipfile.ZipFile(root / "dist" / "my_ner_model-0.1.0-py3-none-any.whl") as wheel:
            assert wheel.testzip() is None
            ruler = json.loads(wheel.read("my_ner_model/artifacts/meta.json"))["labels"]["entity_ruler"]
            patterns = wheel.read("my_ner_model/artifacts/entity_ruler/patterns.jsonl").decode("utf8")
            assert len(patterns.splitlines()) == 3_000
            assert patterns.count(f'"{ruler[0]}"') == 3_000

    make(LABELS[0])
    return work, check
