from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
from confit.utils.xjson import loads
from hypothesis import given, settings
from hypothesis import strategies as st

from gliner_pipe.cli.commands import COMMANDS
from gliner_pipe.cli.options import arranged, command_line, literal, text_options
from gliner_pipe.errors import ConfigError
from gliner_pipe.pipeline.labels import split_labels

text = st.text(st.characters(exclude_categories=["Cs"]))


@given(
    value=text | st.sampled_from(["1e3", "null", "${a.b}", "x # y", "-", "--text", "[a]", '"', "\\", "'''"])
)
@settings(deadline=None)
def test_literal_values_reach_the_command_as_they_are(value: str) -> None:
    for argv in (["--text", value], [f"--text={value}"]):
        option, quoted = literal(argv, ["text"])
        assert option == "--text"
        assert loads(quoted) == value


def test_other_options_are_left_alone() -> None:
    argv = ["--threshold", "0.5", "--a.text", "1", "text", "--text", "1", "--span-getter", "2", "--lines"]
    assert literal(argv, ["text", "span_getter"]) == [*argv[:6], '"1"', "--span-getter", '"2"', "--lines"]


def test_options_that_are_texts() -> None:
    def command(
        text: str, path: Path | None, kind: Literal["a", "b"], anything: Any, names: str | list[str],
        number: int | str, switch: bool, section: dict[str, str],
    ) -> Path: ...  # fmt: skip

    assert text_options(command) == ["text", "path", "kind", "anything", "names"]


def test_values_without_options_and_exceptions() -> None:
    def command(source: str, target: str, lang: str = "", count: int = 0) -> None: ...

    seen: list[list[str]] = []
    argv = ["1", "--lang", "3", "2", "--component=4"]
    command_line(
        "convert", lambda given: seen.append([*given]), command, argv, text=["component"], parsed=["lang"]
    )
    assert seen == [["--source", '"1"', "--lang", "3", "--target", '"2"', "--component", '"4"']]


#: What people write, and what confit reads.
LINES: dict[str, list[tuple[str, str]]] = {
    "predict": [
        ("M --text T", "--pipeline M --text T"),
        ("--text T M", "--text T --pipeline M"),
        ("--text --x M", "--text --x --pipeline M"),
        ("M texts.txt", "--pipeline M --input texts.txt"),
        ("--pipeline M texts.txt", "--pipeline M --input texts.txt"),
        ("M - --lines", "--pipeline M --input - --lines"),
        (
            "M x.jsonl --labels a b --threshold 0.5",
            "--pipeline M --input x.jsonl --labels a,b --threshold 0.5",
        ),
        ("M x --labels a,b", "--pipeline M --input x --labels a,b"),
        ("M x --labels a, b", "--pipeline M --input x --labels a,,b"),
        ("--html M x", "--html --pipeline M --input x"),
        ("--html false M x", "--html false --pipeline M --input x"),
        ("p.cfg M x", "--config p.cfg --pipeline M --input x"),
        ("M x --n-process 2", "--pipeline M --input x --n-process 2"),
        ("M x --predict.lines", "--pipeline M --input x --predict.lines"),
    ],
    "train": [
        ("c.cfg", "--config c.cfg"),
        ("--cpu c.cfg --max_steps 5", "--cpu --config c.cfg --max_steps 5"),
        ("--fp16 c.cfg", "--fp16 --config c.cfg"),
        ("--config c.cfg d.CFG", "--config c.cfg --config d.CFG"),
        ("c.yaml --vars.train x", "--config c.yaml --vars.train x"),
        ("c.cfg --unseen_labels a b", '--config c.cfg --unseen_labels ["a","b"]'),
        ("c.cfg --unseen_labels a", '--config c.cfg --unseen_labels ["a"]'),
        ('c.cfg --unseen_labels ["a"]', '--config c.cfg --unseen_labels ["a"]'),
        ("c.cfg --unseen_labels null", "--config c.cfg --unseen_labels null"),
    ],
    "check": [("c.cfg", "--config c.cfg"), ("d.jsonl dev", "--data d.jsonl dev")],
    "convert": [("c.yaml c.cfg", "--source c.yaml --target c.cfg")],
    "evaluate": [("M d.jsonl --confusion", "--pipeline M --data d.jsonl --confusion")],
}


@pytest.mark.parametrize(
    ("name", "line", "expected"), [(name, *pair) for name, pairs in LINES.items() for pair in pairs]
)
def test_every_value_gets_its_option(name: str, line: str, expected: str) -> None:
    texts = ["text", "labels", "data", "input"]
    if expected.endswith(" dev"):
        with pytest.raises(ConfigError) as raised:
            arranged(line.split(), COMMANDS[name], texts)
        assert raised.value.where == "dev"
        return
    found = arranged(line.split(), COMMANDS[name], texts)
    assert [value.replace(" ", "") for value in found] == expected.split()


def test_an_option_that_the_command_does_not_have() -> None:
    with pytest.raises(ConfigError) as raised:
        arranged(["M", "--lables", "a", "b"], COMMANDS["predict"])
    assert raised.value.where == "--lables" and "labels" in raised.value.do
    with pytest.raises(ConfigError) as raised:
        arranged(["M", "-v"], COMMANDS["predict"])
    assert raised.value.where == "-v"
    assert arranged(["M", "--threshold", "-.5"], COMMANDS["predict"])[2:] == ["--threshold", "-.5"]
    assert arranged(["c.cfg", "--lables", "a"], COMMANDS["train"])[-2:] == [
        "--lables",
        "a",
    ]  # confit refuses it


def test_an_option_without_value() -> None:
    with pytest.raises(ConfigError, match="Write --text VALUE"):
        literal(["--text"], ["text"])


@pytest.mark.parametrize(
    ("given_labels", "expected"),
    [
        (None, None),
        ("person", ["person"]),
        (" person,  full name,, ", ["person", "full name"]),
        ('["city, state", "person"]', ["city, state", "person"]),
        ('[{"label": "date", "threshold": 0.2}]', [{"label": "date", "threshold": 0.2}]),
        (["a", {"label": "b"}], ["a", {"label": "b"}]),
    ],
)
def test_split_labels(given_labels: object, expected: object) -> None:
    assert split_labels(given_labels) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize("labels", ["", " , ", "[]", []])
def test_no_labels(labels: object) -> None:
    with pytest.raises(ConfigError, match="holds no label"):
        split_labels(labels)  # type: ignore[arg-type]


def test_broken_json() -> None:
    with pytest.raises(ConfigError, match="is not a JSON list"):
        split_labels("['a']")
