"""Code that comes with a model needs the consent of the user who loads it; a saved model cannot give consent."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import spacy
import torch
from conftest import SAMPLE, gliner_config, make_backbone
from forked import Forked
from safetensors.torch import save_file
from spacy.language import Language

import gliner_pipe
from gliner_pipe.errors import GlinerPipeError

VARIABLE = "GLINER_PIPE_TRUST_REMOTE_CODE"
TEXT = "Ada Lovelace met Charles Babbage in London."
BLOCK = "components.gliner.model.encoder.backbone"

CODE = """
from pathlib import Path
from transformers import BertConfig, BertModel

with Path({marker!r}).open("a") as file:
    file.write("ran\\n")


class StrangeConfig(BertConfig):
    model_type = "strange{number}"


class StrangeModel(BertModel):
    config_class = StrangeConfig
"""


class Planted:
    """A backbone whose code writes a file when it is imported."""

    number = 0

    def __init__(self, folder: Path) -> None:
        Planted.number += 1  # transformers keeps what it has imported once, by name and content
        self.number = Planted.number
        self.mark = folder / f"mark-{self.number}"
        self.folder = make_backbone(folder / "backbone")
        self.plant(self.folder)

    def plant(self, folder: Path, kind: str | None = None) -> None:
        module = f"modeling_strange{self.number}"
        (folder / f"{module}.py").write_text(CODE.format(marker=str(self.mark), number=self.number))
        path = folder / "config.json"
        config = json.loads(path.read_text())
        config["model_type"] = kind or f"strange{self.number}"
        config["auto_map"] = {"AutoConfig": f"{module}.StrangeConfig", "AutoModel": f"{module}.StrangeModel"}
        path.write_text(json.dumps(config))

    def plant_tokenizer(self, folder: Path) -> None:
        path = folder / "tokenizer_config.json"
        name = f"modeling_strange{self.number}.StrangeTokenizer"
        settings = {**json.loads(path.read_text()), "tokenizer_class": "StrangeTokenizer"}
        settings["auto_map"] = {"AutoTokenizer": [name, name]}
        path.write_text(json.dumps(settings))

    @property
    def ran(self) -> bool:
        return self.mark.exists()


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Planted:
    monkeypatch.delenv(VARIABLE, raising=False)
    return Planted(tmp_path)


def without_checksums(folder: Path) -> None:
    """Leave out the checksums of a pipeline's files, as somebody does who changes them."""
    for path in folder.glob("*/cfg.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "files": {}, "config": None}))


def asking(folder: Path, trusts: bool = True) -> dict[str, Any]:
    config = gliner_config(folder, threshold=0.1)
    config["model"]["encoder"]["backbone"]["trust_remote_code"] = trusts
    return config


@pytest.fixture
def saved(planted: Planted, tmp_path: Path) -> Path:
    """A pipeline whose backbone needs code, saved with consent; the planted mark is removed."""
    nlp = spacy.blank("en")
    nlp.add_pipe("gliner", config=asking(planted.folder))
    nlp.initialize()
    assert planted.ran
    nlp.to_disk(tmp_path / "model")
    planted.mark.unlink()
    shutil.rmtree(planted.folder)
    # in this process the class is known by now: what is loaded is to be of a stranger
    planted.number = Planted.number = Planted.number + 1
    planted.mark = tmp_path / f"mark-{planted.number}"
    backbone = tmp_path / "model" / "gliner" / "model" / "encoder" / "backbone"
    for file in backbone.glob("*.py"):
        file.unlink()
    planted.plant(backbone)
    without_checksums(tmp_path / "model")
    return tmp_path / "model"


def state_it(folder: Path) -> None:
    """Write the consent into the pipeline's own config, as pipelines of earlier versions have it."""
    path = folder / "config.cfg"
    text = path.read_text().replace(f"[{BLOCK}]\n", f"[{BLOCK}]\ntrust_remote_code = true\n")
    assert "trust_remote_code = true" in text
    path.write_text(text)
    without_checksums(folder)


def refused(error: pytest.ExceptionInfo[GlinerPipeError]) -> None:
    for part in ("trust_remote_code=True", "--trust-remote-code", VARIABLE):
        assert part in str(error.value)


def test_the_value_is_not_written(saved: Path) -> None:
    for file in saved.rglob("*"):
        if file.suffix in (".cfg", ".json"):
            assert "trust_remote_code" not in file.read_text(), file


def test_a_saved_pipeline_cannot_consent(saved: Path, planted: Planted) -> None:
    state_it(saved)
    for load in (spacy.load, gliner_pipe.load):
        with pytest.raises(GlinerPipeError) as error:
            load(saved)
        refused(error)
        assert "components.gliner" in str(error.value)
        assert not planted.ran


def test_the_caller_consents(saved: Path, planted: Planted, monkeypatch: pytest.MonkeyPatch) -> None:
    state_it(saved)
    nlp = gliner_pipe.load(saved, trust_remote_code=True)
    assert planted.ran
    assert nlp.get_pipe("gliner").predict([nlp.make_doc(TEXT)])
    assert "trust_remote_code" not in nlp.config.to_str()
    with pytest.raises(GlinerPipeError):  # for that call alone
        spacy.load(saved)
    monkeypatch.setenv(VARIABLE, "1")
    assert spacy.load(saved)
    monkeypatch.setenv(VARIABLE, "perhaps")
    with pytest.raises(GlinerPipeError, match=VARIABLE):
        spacy.load(saved)


def test_a_pipeline_loaded_with_consent_is_saved_and_loaded_again(saved: Path, tmp_path: Path) -> None:
    nlp = gliner_pipe.load(saved, trust_remote_code=True)
    nlp.to_disk(tmp_path / "again")
    assert list((tmp_path / "again" / "gliner").rglob("modeling_strange*.py"))
    shutil.rmtree(saved)
    command(tmp_path, "predict", "--pipeline", tmp_path / "again", "--text", TEXT, "--trust-remote-code")
    again = gliner_pipe.load(tmp_path / "again", trust_remote_code=True)
    doc = nlp.make_doc(TEXT)
    assert again.get_pipe("gliner").predict([doc]) == nlp.get_pipe("gliner").predict([doc])


def test_bytes(saved: Path, planted: Planted) -> None:
    data = gliner_pipe.load(saved, trust_remote_code=True).get_pipe("gliner").to_bytes()
    nlp = spacy.blank("en")
    component: Any = nlp.add_pipe("gliner", config=asking(planted.folder))
    with pytest.raises(GlinerPipeError) as error:
        component.from_bytes(data)
    refused(error)


def test_unneeded_code_needs_no_consent(backbone: Path, planted: Planted, tmp_path: Path) -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("gliner", config=asking(backbone, trusts=False))
    nlp.initialize()
    nlp.to_disk(tmp_path / "model")
    planted.plant(tmp_path / "model" / "gliner" / "model" / "encoder" / "backbone", kind="bert")
    state_it(tmp_path / "model")
    loaded = spacy.load(tmp_path / "model")
    doc = nlp.make_doc(TEXT)
    assert loaded.get_pipe("gliner").predict([doc]) == nlp.get_pipe("gliner").predict([doc])
    assert not planted.ran


def test_a_pipeline_without_weights_cannot_consent(planted: Planted, tmp_path: Path) -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("gliner", config=asking(planted.folder))
    nlp.to_disk(tmp_path / "model")
    assert "trust_remote_code" not in (tmp_path / "model" / "config.cfg").read_text()
    state_it(tmp_path / "model")
    loaded = spacy.load(tmp_path / "model")
    with pytest.raises(GlinerPipeError) as error:
        loaded.initialize()
    refused(error)
    assert not planted.ran
    gliner_pipe.load(tmp_path / "model", trust_remote_code=True).initialize()
    assert planted.ran


def test_a_named_tagger_cannot_consent(planted: Planted, tmp_path: Path) -> None:
    path = planted.folder / "config.json"
    config = {**json.loads(path.read_text()), "architectures": ["StrangeForTokenClassification"]}
    config["auto_map"]["AutoModelForTokenClassification"] = config["auto_map"]["AutoModel"]
    path.write_text(json.dumps(config))
    nlp = spacy.blank("en")
    model = {"@architectures": "gliner_pipe.PretrainedTokenClassifier.v1", "name": str(planted.folder)}
    component: Any = nlp.add_pipe("token_classifier", config={"model": model})
    nlp.to_disk(tmp_path / "model", exclude=["token_classifier"])
    component.to_disk(tmp_path / "model" / "token_classifier", exclude=["model"])
    cfg = tmp_path / "model" / "config.cfg"
    section = "[components.token_classifier.model]\n"
    cfg.write_text(cfg.read_text().replace(section, f"{section}trust_remote_code = true\n"))
    without_checksums(tmp_path / "model")
    loaded: Any = spacy.load(tmp_path / "model")
    with pytest.raises(GlinerPipeError) as error:
        loaded(TEXT)
    refused(error)
    assert not planted.ran


def test_a_tokenizer_of_its_own(backbone: Path, planted: Planted, tmp_path: Path) -> None:
    own = Path(shutil.copytree(backbone, tmp_path / "own"))
    planted.plant(own)
    planted.plant_tokenizer(own)
    nlp = spacy.blank("en")
    nlp.add_pipe("gliner", config=asking(own, trusts=False))
    with pytest.raises(GlinerPipeError) as error:
        nlp.initialize()
    refused(error)
    assert not planted.ran


@pytest.mark.parametrize("part", ["text encoder", "tokenizer"])
def test_a_gliner_checkpoint_cannot_consent(part: str, planted: Planted, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "gliner_config.json").write_text(json.dumps({"model_name": str(planted.folder)}))
    save_file({"rnn.weight": torch.zeros(1000)}, folder / "model.safetensors")
    if part == "tokenizer":
        sizes = {"hidden_size": 2, "num_attention_heads": 1, "num_hidden_layers": 1, "intermediate_size": 2}
        sizes |= {"vocab_size": 10, "max_position_embeddings": 8}
        config = {"model_name": str(planted.folder), "encoder_config": {"model_type": "bert", **sizes}}
        (folder / "gliner_config.json").write_text(json.dumps(config))
        planted.plant_tokenizer(planted.folder)
    for load in (gliner_pipe.load, lambda path: run_here("convert", path, tmp_path / "made")):
        with pytest.raises(GlinerPipeError) as error:
            load(folder)
        refused(error)
        assert not planted.ran


def test_code_for_attention_needs_consent(backbone: Path) -> None:
    nlp = spacy.blank("en")
    config = gliner_config(backbone)
    config["model"]["encoder"]["backbone"]["attn_implementation"] = "stranger/kernel"
    nlp.add_pipe("gliner", config=config)
    with pytest.raises(GlinerPipeError, match="attn_implementation"):
        nlp.initialize()


# -- commands ----------------------------------------------------------------------------------------------------------


def command(folder: Path, module: str, *arguments: object, **environment: str) -> None:
    """Run a command in a fork, so that code that it runs is not known here; it must succeed."""
    main = importlib.import_module(f"gliner_pipe.{module}").main
    Forked(main, list(arguments), folder / "process", environment).output()


def run_here(module: str, *arguments: object) -> str:
    """Run a command in this process: faster, and sufficient if no code is run."""
    errors = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(errors):
        patch.setattr(sys, "argv", [module, *map(str, arguments)])
        try:
            importlib.import_module(f"gliner_pipe.{module}").main()
        except SystemExit as end:
            if end.code:
                raise GlinerPipeError(errors.getvalue()) from None
    return errors.getvalue()


def commands(model: Path, tmp_path: Path) -> dict[str, list[object]]:
    data = SAMPLE / "dev.jsonl"
    return {
        "predict": ["--pipeline", model, "--text", TEXT],
        "evaluate": ["--pipeline", model, "--data", data],
        "export": ["--pipeline", model, "--output", tmp_path / "graphs", "--onnx"],
        "convert": [model, tmp_path / "checkpoint", "--to", "gliner"],
    }


@pytest.mark.parametrize("name", ["predict", "evaluate", "export", "convert"])
def test_commands_refuse(name: str, saved: Path, planted: Planted, tmp_path: Path) -> None:
    state_it(saved)
    with pytest.raises(GlinerPipeError) as error:
        run_here(name, *commands(saved, tmp_path)[name])
    refused(error)
    assert not planted.ran


@pytest.mark.parametrize("name", ["predict", "evaluate", "export", "convert"])
def test_commands_take_consent(name: str, saved: Path, planted: Planted, tmp_path: Path) -> None:
    with contextlib.suppress(GlinerPipeError):  # not all can be exported: only the consent matters
        run_here(name, *commands(saved, tmp_path)[name], "--trust-remote-code")
    assert planted.ran


def test_commands_take_consent_from_the_environment(saved: Path, planted: Planted, tmp_path: Path) -> None:
    command(tmp_path, "predict", *commands(saved, tmp_path)["predict"], **{VARIABLE: "1"})
    assert planted.ran


def training(nlp: str, output: Path) -> str:
    return f"""
[train]
nlp = {nlp}
train_data = "{SAMPLE / "train.jsonl"}"
val_data = "{SAMPLE / "dev.jsonl"}"
max_steps = 2
batch_size = "2 samples"
output_path = "{output}"
sample_texts = ["{TEXT}"]
loggers = []
cpu = true
load_best_model_at_end = true

"""


def components(folder: Path, trusts: bool) -> str:
    return f"""
[nlp]
lang = "en"
components = ${{components}}

[components.gliner]
@factory = "gliner"
labels = ["person", "city"]

[components.gliner.model]
@architectures = "gliner_pipe.GLiNER.v1"

[components.gliner.model.encoder]
@encoders = "uni_encoder"

[{BLOCK}]
@backbones = "transformer"
model = "{folder}"
trust_remote_code = {str(trusts).lower()}

[components.gliner.model.span_rep]
@span_reps = "markerV0"
max_width = 6
"""


def test_a_training_config_consents_for_its_training(planted: Planted, tmp_path: Path) -> None:
    output = tmp_path / "artifacts" / "model-last"
    config = tmp_path / "config.cfg"
    config.write_text(training("${nlp}", output) + components(planted.folder, trusts=False))
    with pytest.raises(GlinerPipeError) as error:
        run_here("train", "--config", config)
    refused(error)
    assert not planted.ran
    config.write_text(training("${nlp}", output) + components(planted.folder, trusts=True))
    command(tmp_path, "train", "--config", config)
    assert planted.ran
    for file in output.parent.rglob("*"):
        if file.suffix in (".cfg", ".json"):
            assert "trust_remote_code" not in file.read_text(), file
    command(tmp_path, "train", "--config", config, "--resume_from_checkpoint", "auto", "--max_steps", "3")
    planted.mark.unlink()
    with pytest.raises(GlinerPipeError) as error:
        run_here("predict", "--pipeline", output, "--text", TEXT)
    refused(error)
    assert not planted.ran
    command(tmp_path, "predict", "--pipeline", output, "--text", TEXT, "--trust-remote-code")
    assert planted.ran


def test_a_pipeline_that_is_trained_further_cannot_consent(
    saved: Path, planted: Planted, tmp_path: Path
) -> None:
    state_it(saved)
    config = tmp_path / "config.cfg"
    config.write_text(training(f'"{saved}"', tmp_path / "more" / "model-last"))
    with pytest.raises(GlinerPipeError) as error:
        run_here("train", "--config", config)
    refused(error)
    assert not planted.ran
    run_here("train", "--config", config, "--trust-remote-code")
    assert planted.ran


def test_a_teacher_cannot_consent(saved: Path, planted: Planted, backbone: Path, tmp_path: Path) -> None:
    state_it(saved)
    (tmp_path / "texts.txt").write_text(f"{TEXT}\n" * 3)
    config = tmp_path / "config.cfg"
    config.write_text(
        training("${nlp}", tmp_path / "student" / "model-last") + components(backbone, trusts=True)
    )
    with pytest.raises(GlinerPipeError) as error:
        run_here(
            "distill",
            "--config",
            config,
            "--teacher",
            saved,
            "--texts",
            tmp_path / "texts.txt",
            "--train.val_data",
            "null",
        )
    refused(error)
    assert not planted.ran


def test_packaging_runs_no_code(saved: Path, planted: Planted, tmp_path: Path) -> None:
    state_it(saved)
    command(
        tmp_path,
        "package",
        "--pipeline",
        saved,
        "--name",
        "strange_model",
        "--version",
        "0.1.0",
        "--dist_dir",
        tmp_path / "dist",
        "--distributions",
        "wheel",
    )
    assert list((tmp_path / "dist").glob("*.whl"))
    assert not planted.ran


def test_copies_of_components_are_saved_without_the_value(backbone: Path, tmp_path: Path) -> None:
    """Components that are renamed, sourced or changed later are saved without the value too."""
    nlp = spacy.blank("en")
    nlp.add_pipe("gliner", config=asking(backbone))
    nlp.initialize()
    nlp.rename_pipe("gliner", "other")
    other: Language = spacy.blank("en")
    other.add_pipe("other", source=nlp)
    for each in (nlp, other, type(nlp).from_config(nlp.config)):
        assert "trust_remote_code" not in each.config.to_str()
