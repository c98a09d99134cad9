"""Sections and variables of a config that nothing reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from confit import Config

from gliner_pipe import distill, train
from gliner_pipe.cli.config_cli import check_read
from gliner_pipe.errors import ConfigError

GOOD = """
[vars]
train = "train.jsonl"
dev = "dev.jsonl"

[nlp]
components = ${components}

[components]

[components.gliner]
@factory = "gliner"

[scorer]

[scorer.ner]
@scorers = "gliner_pipe.ner_exact"

[package]
name = "x"

[train]
nlp = ${nlp}
scorer = ${scorer}
train_data = ${vars.train}
val_data = ${vars.dev}
sample_texts = ["a", ${vars.dev + "x"}]
"""
SPACY = """
[paths]
train = null
dev = null

[corpora]

[corpora.train]
@readers = "spacy.Corpus.v1"

[training]
seed = 3
"""

#: What a mistake adds to a good config, the place in the error, and what was meant.
MISTAKES = {
    "train": ('[trian]\n[trian.schedule]\n@schedules = "linear"', "trian", "train"),
    "components": ("[component]\n[component.gliner]\nthreshold = 0.1", "component", "components"),
    "scorer": ('[scorers]\n[scorers.ner]\n@scorers = "gliner_pipe.ner_exact"', "scorers", "scorer"),
    "vars": ("[var]\ntrain = 1", "var", "vars"),
    "without a similar name": ("[xyz]\na = 1", "xyz", "xyz"),
    "system": ("[system]\nsead = 1", "system", "system"),
    "paths": ("[paths]\ntrian = 1", "paths", "paths"),
}


def parsed(text: str) -> Config:
    return Config.from_str(text)


@pytest.mark.parametrize("name", MISTAKES)
def test_a_section_that_nothing_reads_is_an_error(name: str) -> None:
    text, where, meant = MISTAKES[name]
    with pytest.raises(ConfigError) as raised:
        check_read([parsed(GOOD + text)])
    assert raised.value.where == where
    assert meant in raised.value.do


def test_a_variable_that_nothing_reads_is_an_error() -> None:
    with pytest.raises(ConfigError) as raised:
        check_read([parsed(GOOD.replace("[vars]", "[vars]\ntrian = 3"))])
    assert (raised.value.where, raised.value.allowed) == ("vars.trian", "dev, train")
    assert "train" in raised.value.do


def test_sections_that_are_read() -> None:
    check_read([parsed(GOOD)])
    check_read([parsed(GOOD.replace("[vars]", "[own]").replace("${vars.", "${own."))])


def test_what_options_replace_may_stay(capsys: pytest.CaptureFixture[str]) -> None:
    before, after = parsed(GOOD), parsed(GOOD)
    after["train"] |= {"nlp": "some/pipeline", "train_data": "other.jsonl", "scorer": None}
    check_read([before, after])
    assert capsys.readouterr().out == ""
    after["vars"]["trian"] = "x"
    with pytest.raises(ConfigError) as raised:
        check_read([before, after])
    assert raised.value.where == "vars.trian"


def test_what_a_training_wrote_may_hold_replaced_variables() -> None:
    written = parsed(GOOD)
    written["train"] |= {"train_data": "other.jsonl", "scorer": None}
    check_read([written], written)
    again = parsed(written.to_str())
    again["vars"]["trian"] = "x"
    with pytest.raises(ConfigError) as raised:
        check_read([written, again], written)
    assert raised.value.where == "vars.trian"


def test_sections_of_spacy_and_of_an_unused_pipeline_are_reported_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    check_read([parsed(GOOD.replace("nlp = ${nlp}", 'nlp = "some/pipeline"') + SPACY)])
    (line,) = capsys.readouterr().out.splitlines()
    assert [
        name for name in ("nlp", "components", "paths", "corpora", "training") if f"[{name}]" not in line
    ] == []


@pytest.mark.parametrize("app", [train.app, distill.app])
@pytest.mark.parametrize("suffix", ["cfg", "yaml"])
def test_commands_refuse_what_nothing_reads(app: Any, suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"config.{suffix}"
    config = parsed(GOOD)
    file.write_text(config.to_cfg_str() if suffix == "cfg" else config.to_yaml_str(), encoding="utf8")
    arguments = ["--config", str(file)]
    for option, where in (
        ("--vars.trian", "vars.trian"),
        ("--trian.seed", "trian.seed"),
        ("--train.seed", "train.seed"),
    ):
        with pytest.raises(ConfigError) as raised:
            app([*arguments, option, "x"])
        assert raised.value.where == where
    config["trian"] = {"max_steps": 3}
    file.write_text(config.to_cfg_str() if suffix == "cfg" else config.to_yaml_str(), encoding="utf8")
    with pytest.raises(ConfigError) as raised:
        app(arguments)
    assert raised.value.where == "trian"
