"""Mistakes in a configuration: one line with the section, what was found, what is allowed and what to do."""

from __future__ import annotations

import copy
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import spacy
from confit import Config
from conftest import gliner_config

from gliner_pipe.pipeline.build import make_pipeline

BACKBONE = "model.encoder.backbone"
MODEL = r"\[components\.gliner\.model"

#: Setting in the component's section, its value, and the error line of a command.
BLOCKS: dict[str, tuple[str, Any, str]] = {
    "wrong family": (
        "model.encoder",
        {"@span_reps": "markerV0"},
        MODEL + r"\.encoder\] found @span_reps = markerV0; allowed: @encoders = .*uni_encoder",
    ),
    "no block": (
        "model.loss",
        3,
        MODEL + r"\.loss\] found 3 \(int\); allowed: @losses = .*gliner_pipe\.focal",
    ),
    "unknown name": (
        "model.encoder.@encoders",
        "uni_encodr",
        MODEL
        + r"\.encoder\] found @encoders = uni_encodr; allowed: .*uni_encoder.*Did you mean uni_encoder\?",
    ),
    "unknown family": (
        "model.encoder",
        {"@encodrs": "uni_encoder"},
        MODEL + r"\.encoder\] found the key @encodrs; allowed: .*@encoders.*Did you mean @encoders\?",
    ),
    "two families": (
        "model.encoder.@span_reps",
        "markerV0",
        MODEL + r"\.encoder\] holds @encoders and @span_reps; allowed: one key with @",
    ),
    "unknown setting": (
        f"{BACKBONE}.windw",
        3,
        MODEL + r"\.encoder\.backbone\.windw\].*@backbones = transformer; allowed: model, window.*"
        r"Did you mean window\?",
    ),
    "missing setting": (
        "model.encoder",
        {"@encoders": "uni_encoder", "rnn_layers": 1, "backbone": "GONE"},
        MODEL + r"\.encoder\.backbone\] found 'GONE' \(str\); allowed: @backbones = .*transformer",
    ),
    "wrong type": (
        f"{BACKBONE}.window",
        "abc",
        MODEL + r"\.encoder\.backbone\.window\] input should be a valid integer.*got 'abc' \(str\)",
    ),
    "wrong choice": (
        f"{BACKBONE}.pooling",
        "middle",
        MODEL
        + r"\.encoder\.backbone\.pooling\] input should be 'first', 'last', 'mean' or 'max', got 'middle'",
    ),
    "negative window": (
        f"{BACKBONE}.window",
        -3,
        MODEL + r"\.encoder\.backbone\.window\] found -3; allowed: at least 16",
    ),
    "stride beyond window": (
        f"{BACKBONE}.stride",
        500,
        MODEL + r"\.encoder\.backbone\.stride\] found 500 with a window of 384; allowed: 1 to 384\.",
    ),
    "unknown setting of the component": (
        "treshold",
        0.3,
        r"\[components\.gliner\.treshold\].*allowed: .*Did you mean threshold\?",
    ),
    "scorer": (
        "scorer",
        {"@scorers": "gliner_pipe.ner_exct"},
        r"\[components\.gliner\.scorer\] found @scorers = gliner_pipe\.ner_exct; "
        r"allowed: .*Did you mean gliner_pipe\.ner_exact",
    ),
}

#: The same error from ``nlp.add_pipe`` and from a command.
SETTINGS: dict[str, tuple[str, Any, str]] = {
    "threshold": ("threshold", 1.5, r"\.threshold\] found 1\.5; allowed: a number from 0 to 1"),
    "threshold type": (
        "threshold",
        "high",
        r"\.threshold\] found 'high' \(str\); allowed: a number from 0 to 1",
    ),
    "bool": ("flat_ner", "abc", r"\.flat_ner\] found 'abc' \(str\); allowed: true or false"),
    "labels": (
        "labels",
        "person",
        r"\.labels\] found 'person'; allowed: a list of labels\. Write ..person",
    ),
    "label key": (
        "labels",
        [{"label": "a", "descr": "b"}],
        r"\.labels\[0\]\] found the key 'descr'; allowed: label, description, threshold",
    ),
    "label threshold": (
        "labels",
        ["x", {"label": "a", "threshold": 7}],
        r"\.labels\[1\]\] found the threshold 7",
    ),
    "device": ("device", "gpux", r"\.device\] found 'gpux'; allowed: auto, cpu, cuda, cuda:0 \.\.\., mps"),
    "alignment": (
        "alignment_mode",
        "loose",
        r"\.alignment_mode\] found 'loose'; allowed: strict, contract, expand",
    ),
    "sampling flag": (
        "label_sampling",
        {"max_types": True},
        r"\.label_sampling\.max_types\].*True.*allowed: ",
    ),
    "sampling share": (
        "relation_sampling",
        {"vary": True},
        r"\.relation_sampling\.vary\].*True.*allowed: ",
    ),
    "batch size": (
        "batch_size",
        0,
        r"\.batch_size\] found 0; allowed: a whole number of at least 1, or null",
    ),
    "ratio": ("task_lr_ratio", -1.0, r"\.task_lr_ratio\] found -1\.0; allowed: a number above 0"),
    "sampling": (
        "label_sampling",
        {"max": 3},
        r"\.label_sampling\.max\].*allowed: max_types, ",
    ),
    "sampling type": (
        "label_sampling",
        {"max_types": "a"},
        r"\.label_sampling\.max_types\]",
    ),
    "sampling value": (
        "label_sampling",
        {"max_types": 0},
        r"\.label_sampling\.max_types\].*0.*allowed: ",
    ),
    "architecture": (
        "model",
        {"@span_reps": "markerV0"},
        r"\.model\] found MarkerV0; allowed: @architectures = gliner_pipe\.GLiNER\.v1",
    ),
    "word splitter": (
        "word_splitter",
        {"@span_reps": "markerV0"},
        r"\.word_splitter\] found @span_reps = markerV0; allowed: @word_splitters = .*spacy, stanza.*whitespace",
    ),
}

#: Detected when the weights are loaded.
LATE: dict[str, tuple[str, Any, str]] = {
    "checkpoint": (
        "model",
        "./no/such",
        r"\.model\].*'\./no/such'.*allowed: a folder with a",
    ),
    "backbone": (
        f"{BACKBONE}.model",
        "/no/such",
        r"\.model\.encoder\.backbone\.model\].*'/no/such'.*allowed: a folder with a Hugging",
    ),
    "odd width": (
        f"{BACKBONE}.hidden_size",
        33,
        r"\.model\.encoder\.rnn_layers\] found vectors of the odd width 33",
    ),
    "device": (
        "device",
        "cuda:99",
        r"\.device\] found 'cuda:99'.*\"auto\"",
    ),
}

APP = """
from typing import Any
from confit import Cli
from gliner_pipe.cli.app import run
from gliner_pipe.pipeline.build import PipelineArg
from gliner_pipe.registry import registry

app = Cli(pretty_exceptions_enable=False)


@app.command(name="train", registry=registry)
def train(nlp: PipelineArg, steps: int = 3) -> None:
    nlp.initialize()
    print("trained", nlp.pipe_names, steps)


run(app)
"""


def changed(backbone: Path, place: str, value: Any) -> dict[str, Any]:
    config = copy.deepcopy(gliner_config(backbone))
    *sections, last = place.split(".")
    found = config
    for name in sections:
        found = found[name]
    found[last] = value
    return config


def config_text(component: dict[str, Any], **lines: str) -> str:
    values = {"factory": '"gliner"', "steps": "3", "lang": '"en"', "pipeline": '["gliner"]'}
    values |= {"components": "${components}", **lines}
    text = Config({"components": {"gliner": {"@factory": "FACTORY", **component}}}).to_cfg_str()
    text = text.replace('"FACTORY"', values["factory"])
    return (
        f"[train]\nnlp = ${{nlp}}\nsteps = {values['steps']}\n\n[nlp]\nlang = {values['lang']}\n"
        f"pipeline = {values['pipeline']}\ncomponents = {values['components']}\n\n{text}"
    )


def run_process(folder: Path, text: str, *arguments: str) -> tuple[int, str, str]:
    (folder / "config.cfg").write_text(text)
    (folder / "app.py").write_text(APP)
    command = [sys.executable, "app.py", "--config", "config.cfg", *arguments]
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=env, check=False)
    return done.returncode, done.stdout, done.stderr


def run_here(folder: Path, monkeypatch: pytest.MonkeyPatch, app: str, text: str, *arguments: str) -> None:
    path = folder / "config.cfg"
    path.write_text(text)
    monkeypatch.setattr(sys, "argv", ["app.py", "--config", str(path), *arguments])
    exec(compile(app, "app.py", "exec"), {"__name__": "__main__"})


class Fails:
    """Runs the app of ``APP`` with a config and expects one line on stderr and status 1."""

    def __init__(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.folder, self.monkeypatch, self.capsys = folder, monkeypatch, capsys

    def __call__(self, text: str, message: str, *arguments: str) -> None:
        with pytest.raises(SystemExit) as stopped:
            run_here(self.folder, self.monkeypatch, APP, text, *arguments)
        output, error = self.capsys.readouterr()
        assert (stopped.value.code, output) == (1, ""), output + error
        one_line(error, message)


def one_line(error: str, message: str) -> None:
    assert error.count("\n") == 1 and error.startswith("error: "), error
    assert re.search(message, error), error


@pytest.fixture
def fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Fails:
    return Fails(tmp_path, monkeypatch, capsys)


@pytest.mark.slow
def test_by_process(backbone: Path, tmp_path: Path) -> None:
    place, value, message = BLOCKS["stride beyond window"]
    status, output, error = run_process(tmp_path, config_text(changed(backbone, place, value)))
    assert (status, output) == (1, ""), output + error
    one_line(error, message)


def test_a_good_configuration(
    backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_here(tmp_path, monkeypatch, APP, config_text(gliner_config(backbone)), "--steps", "4")
    assert capsys.readouterr().out == "trained ['gliner'] 4\n"


@pytest.mark.parametrize(
    ("place", "value", "message"), [*BLOCKS.values(), *SETTINGS.values(), *LATE.values()]
)
def test_by_command(backbone: Path, fails: Fails, place: str, value: Any, message: str) -> None:
    fails(config_text(changed(backbone, place, value)), message)


@pytest.mark.parametrize("case", SETTINGS)
def test_by_add_pipe(backbone: Path, case: str) -> None:
    place, value, message = SETTINGS[case]
    with pytest.raises(ValueError, match=r"\[components\.gliner" + message) as caught:
        spacy.blank("en").add_pipe("gliner", config=changed(backbone, place, value))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("case", LATE)
def test_when_weights_are_needed(backbone: Path, case: str) -> None:
    place, value, message = LATE[case]
    nlp = spacy.blank("en")
    nlp.add_pipe("gliner", name="mine", config=changed(backbone, place, value))
    with pytest.raises(ValueError, match=r"^\[components\.mine" + message) as caught:
        nlp.initialize()
    assert "\n" not in str(caught.value)


#: Errors of spaCy and confit: both say what was found and what is allowed; spaCy's do not name the section.
BY_ADD_PIPE = {
    "wrong family": r"GLiNER\.v1\.encoder\] found @span_reps = markerV0; allowed: @encoders = .*uni_encoder",
    "no block": r"GLiNER\.v1\.loss\] found 3 \(int\); allowed: @losses = .*gliner_pipe\.focal",
    "unknown name": r"'uni_encodr' in function registry 'encoders'(.|\n)*Available names: .*uni_encoder",
    "unknown family": r"Unknown function registry: 'encodrs'(.|\n)*Available names: .*encoders",
    "two families": r"can only contain one function registry reference. Got: \['@encoders', '@span_reps'\]",
    "unknown setting": r"gliner\.model\.encoder\.backbone -> windw\tunexpected argument: 'windw'",
    "missing setting": r"uni_encoder\.backbone\] found 'GONE' \(str\); allowed: @backbones = .*transformer",
    "wrong type": r"backbones\.transformer\.window\] is 'abc'; allowed: a valid integer",
    "wrong choice": r"transformer\.pooling\] is 'middle'; allowed: 'first', 'last', 'mean' or 'max'",
    "negative window": r"backbone\.window\] found -3; allowed: at least 16",
    "stride beyond window": r"backbone\.stride\] found 500 with a window of 384; allowed: 1 to 384",
    "unknown setting of the component": r"gliner -> treshold\tunexpected argument: 'treshold'",
    "scorer": r"'gliner_pipe\.ner_exct' in function registry 'scorers'(.|\n)*gliner_pipe\.ner_exact",
}


@pytest.mark.parametrize("case", BLOCKS)
def test_blocks_by_add_pipe(backbone: Path, case: str) -> None:
    place, value, _ = BLOCKS[case]
    with pytest.raises(ValueError, match=BY_ADD_PIPE[case]):
        spacy.blank("en").add_pipe("gliner", config=changed(backbone, place, value))


LINES = {
    "no factory": ({"factory": "null"}, r"\[components\.gliner\] found @factory = None; allowed: .*gliner"),
    "unknown factory": (
        {"factory": '"glner"'},
        r"\[components\.gliner\] found @factory = glner; .*Did you mean gliner\?",
    ),
    "unknown component": (
        {"pipeline": '["glinr"]'},
        r"\[nlp\.pipeline\] names a component 'glinr' that has no section; allowed: 'gliner'. "
        r"Add a section \[components\.glinr\]",
    ),
    "pipeline is no list": (
        {"pipeline": '"gliner"'},
        r"\[nlp\.pipeline\] input should be a valid list, got 'gliner'",
    ),
    "language": ({"lang": '"zz"'}, r"\[nlp\.lang\] found 'zz' .*; allowed: a language code"),
    "unknown line": (
        {"lang": '"en"\nlanguage = 3'},
        r"\[nlp\.language\] unexpected.*; allowed: the settings lang, pipeline",
    ),
    "reference": (
        {"components": "${compnents}"},
        r"\[nlp\.components\].*\$\{compnents\}.*Did you mean components\?",
    ),
    "expression": ({"steps": "${nlp.lang//10}"}, r"\[train\.steps\] \$\{nlp\.lang//10\} cannot be computed"),
    "type": ({"steps": '"many"'}, r"\[train\.steps\].*'many'.*integer"),
}


@pytest.mark.parametrize(
    ("place", "key", "theirs", "ours"),
    [
        ("model.encoder.backbone", "@factory", "transformer", '@backbones = "transformer"'),
        ("model.encoder.backbone", "@backbones", "text_cnn", '@backbones = "text_cnn"'),
        ("model.encoder.backbone", "@factory", "span_pooler", "no such block"),
        ("scorer", "@metrics", "ner_exact", '@metrics = "gliner_pipe.ner_exact"'),
    ],
)
def test_names_of_eds_nlp(backbone: Path, fails: Fails, place: str, key: str, theirs: str, ours: str) -> None:
    component = changed(backbone, place, {key: f"eds.{theirs}"})
    where = re.escape(f"[components.gliner.{place}]")
    fails(config_text(component), where + rf".*eds\.{theirs}.*{re.escape(ours)}.*/migrating/#from-eds-nlp")


def test_the_component_and_language_of_eds_nlp(backbone: Path, fails: Fails) -> None:
    text = config_text(gliner_config(backbone))
    component = text.replace('"gliner"\n', '"eds.ner_crf"\n', 1)
    assert component != text
    fails(component, r"\[components\.gliner\].*eds\.ner_crf.*token_classifier.*/migrating/")
    fails(text.replace('lang = "en"', 'lang = "eds"'), r"\[nlp\.lang\].*'eds'.*/migrating/")


@pytest.mark.parametrize("case", LINES)
def test_other_lines(backbone: Path, fails: Fails, case: str) -> None:
    lines, message = LINES[case]
    fails(config_text(gliner_config(backbone), **lines), message)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--components.gliner.threshold", "7"],
            r"\[components\.gliner\.threshold\] found 7; allowed: a number from 0 to 1",
        ),
        (
            ["--components.glinr.threshold", "0.3"],
            r"\[components\.glinr\] is not in the pipeline.*Did you mean gliner\?",
        ),
        (["--components.gliner"], r"\[components\.gliner\] is True; allowed: a section.*Without a value"),
        (["--components.gliner.threshold", "NaN"], r"\[components\.gliner\.threshold\] found nan; allowed: "),
        (["--components.gliner.model.dropout", "Infinity"], r"\[components\.gliner\.model\.dropout\] "),
        (["--nlp.batch_size", "0"], r"\[nlp\.batch_size\] "),
        (
            ["--components.gliner.modl.x", "7"],
            r"\[components\.gliner\.modl\].*Did you mean model\?",
        ),
        (
            ["--trin.steps", "7"],
            r"trin\.steps does not match any existing section.*; allowed: train, nlp, components$",
        ),
        (["--stepz", "7"], r"\[train\.stepz\].*allowed: nlp, steps"),
        (["--config", "/no/file.cfg"], r"/no/file\.cfg does not exist"),
        (["--nlp", "no_such_pipeline"], r"Can't find model 'no_such_pipeline'"),
    ],
)
def test_overrides(backbone: Path, fails: Fails, arguments: list[str], message: str) -> None:
    fails(config_text(gliner_config(backbone)), message, *arguments)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[other]\nx = 1\n", r"\[train\] this section is missing; found: other"),
        ("[other\nx = 1\n", r"no section headers.*config\.cfg"),
        ("[a]\nx = 1\n[a]\ny = 1\n", r"config\.cfg.*section 'a' already exists"),
    ],
)
def test_files(fails: Fails, text: str, message: str) -> None:
    fails(text, message)


def test_a_fault_of_the_program_is_raised(
    backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = config_text(gliner_config(backbone)) + '\n[unused]\n@backbones = "nope"\n'
    with pytest.raises(KeyError, match="missing"):
        run_here(tmp_path, monkeypatch, APP.replace("nlp.initialize()", "{}['missing']"), text)


def test_an_override_that_breaks_an_expression(backbone: Path, fails: Fails) -> None:
    text = config_text(gliner_config(backbone), lang="${train.steps//2}")
    fails(text, r"an expression \$\{\.\.\.\} of the config cannot be computed", "--steps", "abc")


def test_a_component_outside_the_pipeline_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    block = {"@factory": "sentencizer"}
    assert make_pipeline(components={"a": block, "b": block}, pipeline=["b"]).pipe_names == ["b"]
    assert "a" in capsys.readouterr().out
    make_pipeline(components={"a": block, "b": block})
    assert capsys.readouterr().out == ""
