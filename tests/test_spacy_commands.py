"""spaCy's own command line: config, train, evaluate, package, find-threshold."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import spacy
import torch
from forked import Forked
from spacy import util
from spacy.cli._util import setup_cli
from spacy.cli.evaluate import evaluate
from spacy.language import DEFAULT_CONFIG_PATH
from spacy.tokens import DocBin, Span
from thinc.api import Config

from tests.pipeline.gliner.test_component_training import DATA

ROOT = Path(__file__).parent.parent
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
max_learn_rate = null

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


def test_evaluate_prints_the_scores_of_entities(folder: Path) -> None:
    output = command(folder, "evaluate", "out/model-best", "dev.spacy", "--output", "ents.json")
    assert "NER F" in output and "NER (per type)" in output
    assert json.loads((folder / "ents.json").read_text())["ents_f"] > 0.1


def test_evaluate_of_another_format_says_what_to_do(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "dev.jsonl").write_text('{"text": "Ada left."}\n', encoding="utf8")
    with pytest.warns(UserWarning, match="W090"):
        evaluate(str(folder / "out" / "model-best"), folder / "dev.jsonl")
    assert caplog.text.count("gliner-pipe evaluate") == 1


def test_frozen_and_annotating_components(folder: Path, backbone: Path) -> None:
    """A trained component keeps its weights, and its entities are seen by the component after it."""
    trained = spacy.load(folder / "out" / "model-best")
    nlp = spacy.blank("en")
    nlp.add_pipe("gliner", source=trained)
    embedding = {"@backbones": "transformer", "model": str(backbone)}
    nlp.add_pipe("token_classifier", config={"embedding": embedding, "decoder": "softmax"})
    steps = {
        "max_steps": 2,
        "eval_frequency": 1,
        "frozen_components": ["gliner"],
        "annotating_components": ["gliner"],
    }
    defaults = util.load_config(DEFAULT_CONFIG_PATH)
    config: Any = defaults.merge({**nlp.config, "training": {**steps, "score_weights": {"tags_f": 1.0}}})
    config["components"]["gliner"] = {"source": str(folder / "out" / "model-best")}
    config["paths"] |= {"train": "train.spacy", "dev": "dev.spacy"}
    config.to_disk(folder / "frozen.cfg")
    command(folder, "train", "frozen.cfg", "--output", "frozen")
    again = spacy.load(folder / "frozen" / "model-last")
    weights = [one.get_pipe("gliner").model.state_dict() for one in (trained, again)]  # type: ignore[attr-defined]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_select_pipes(folder: Path) -> None:
    nlp = spacy.load(folder / "out" / "model-best")
    with nlp.select_pipes(disable="gliner"):
        assert "gliner" not in nlp("Ada met Charles").spans
    with nlp.select_pipes(enable="gliner"):
        assert "gliner" in nlp("Ada met Charles").spans
    assert spacy.load(folder / "out" / "model-best", disable=["gliner"])("Ada").spans == {}


def test_the_shipped_config(folder: Path, backbone: Path) -> None:
    """``init fill-config`` completes it, and it trains as it is."""
    config = ROOT / "configs" / "spacy_train.cfg"
    command(folder, "init", "fill-config", str(config), "shipped.cfg")
    assert "alignment_mode" in (folder / "shipped.cfg").read_text("utf8")
    changes = {
        "paths.train": json.dumps(
            [str(ROOT / path) for path in Config().from_disk(config)["paths"]["train"]]
        ),
        "paths.dev": str(ROOT / "data" / "sample" / "dev.jsonl"),
        "components.gliner.model.encoder.backbone.model": str(backbone),
        "corpora.train.limit": "4",
        "corpora.dev.limit": "4",
        "training.max_steps": "2",
        "training.eval_frequency": "2",
    }
    options = [part for key, value in changes.items() for part in (f"--{key}", value)]
    output = command(folder, "train", str(config), "--output", "shipped", *options)
    assert "limits the learning rate" not in output
    assert spacy.load(folder / "shipped" / "model-last").get_pipe("gliner").labels  # type: ignore[attr-defined]


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
