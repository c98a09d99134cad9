"""spaCy's own command line: config, train, evaluate, package, find-threshold."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path

import pytest
import spacy
from forked import Forked
from spacy.cli._util import setup_cli
from spacy.tokens import DocBin, Span

from tests.pipeline.gliner.test_component_training import DATA

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="nothing is forked")

CONFIG = """
[paths]
train = null
dev = null

[nlp]
lang = "en"
pipeline = ["gliner"]

[components]

[components.gliner]
factory = "gliner"
labels = []

[components.gliner.model]
@architectures = "gliner_pipe.GLiNER.v1"
dropout = 0.0

[components.gliner.model.encoder]
@encoders = "uni_encoder"

[components.gliner.model.encoder.backbone]
@backbones = "transformer"
model = {backbone}

[components.gliner.model.span_rep]
@span_reps = "markerV0"
max_width = 6
dropout = 0.0

[training]
max_steps = 60
eval_frequency = 20
dropout = 0.0

[training.optimizer]
@optimizers = "Adam.v1"
learn_rate = 0.003
"""


LABELS = ("city", "person")


def command(folder: Path, *arguments: str) -> str:
    """Run a command in a fork, which need not import everything again."""
    output = Forked(setup_cli, list(arguments), folder, {"PIP_NO_INDEX": "1"}).output()
    return output + (folder / "stderr").read_text("utf8")


def write_corpus(target: Path) -> None:
    nlp = spacy.blank("en")
    docs = DocBin(store_user_data=True)
    for text, entities in DATA:
        doc = nlp.make_doc(text)
        doc.spans["gliner"] = [Span(doc, start, end, label=label) for start, end, label in entities]
        docs.add(doc)
    docs.to_disk(target)


@pytest.fixture(scope="module")
def folder(backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a filled config, corpora and a trained pipeline."""
    folder = tmp_path_factory.mktemp("spacy_train")
    (folder / "base.cfg").write_text(CONFIG.replace("{backbone}", json.dumps(str(backbone))))
    write_corpus(folder / "train.spacy")
    write_corpus(folder / "dev.spacy")  # what was learned is found again
    # by spaCy alone: nothing of this package is imported before
    fill = [sys.executable, "-m", "spacy", "init", "fill-config", "base.cfg", "config.cfg"]
    subprocess.run(fill, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    paths = ["--paths.train", "train.spacy", "--paths.dev", "dev.spacy"]
    command(folder, "train", "config.cfg", "--output", "out", *paths)
    return folder


def test_fill_config_writes_every_setting(folder: Path) -> None:
    text = (folder / "config.cfg").read_text()
    assert 'alignment_mode = "expand"' in text and "window = 384" in text and "gamma = 2.0" in text
    assert "spans_gliner_f = 1.0" in text


def test_debug_config(folder: Path) -> None:
    output = command(
        folder, "debug", "config", "config.cfg", "--paths.train", "train.spacy", "--paths.dev", "dev.spacy"
    )
    assert "Config validation for [training]" in output


def test_train(folder: Path) -> None:
    nlp = spacy.load(folder / "out" / "model-last")
    assert nlp.meta["performance"]["spans_gliner_f"] > 0.1
    assert nlp.get_pipe("gliner").labels == LABELS  # type: ignore[attr-defined]


def test_evaluate(folder: Path) -> None:
    command(folder, "evaluate", "out/model-best", "dev.spacy", "--output", "scores.json")
    assert json.loads((folder / "scores.json").read_text())["spans_gliner_f"] > 0.1


def test_find_threshold(folder: Path) -> None:
    arguments = ["out/model-best", "dev.spacy", "gliner", "threshold", "spans_gliner_f", "--n_trials", "3"]
    assert "Best threshold" in command(folder, "find-threshold", *arguments)


def test_init_labels(folder: Path) -> None:
    paths = ["--paths.train", "train.spacy", "--paths.dev", "dev.spacy"]
    command(folder, "init", "labels", "config.cfg", "labels", *paths)
    assert json.loads((folder / "labels" / "gliner.json").read_text()) == list(LABELS)


def test_package(folder: Path) -> None:
    (folder / "packages").mkdir()
    arguments = ["out/model-best", "packages", "--name", "tiny", "--version", "1.2.3", "--build", "none"]
    command(folder, "package", *arguments)
    package = folder / "packages" / "en_tiny-1.2.3"
    meta = json.loads((package / "meta.json").read_text())
    if "gliner_pipe" in importlib.metadata.packages_distributions():  # not so in an editable installation
        assert any(requirement.startswith("gliner_pipe") for requirement in meta["requirements"])
    assert spacy.load(package / "en_tiny" / "en_tiny-1.2.3")("Ada met Charles").text == "Ada met Charles"
