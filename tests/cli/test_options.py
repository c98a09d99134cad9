from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
from confit.utils.xjson import loads
from hypothesis import given, settings
from hypothesis import strategies as st

from gliner_pipe.cli.options import command_line, literal, text_options
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


def test_positional_values_and_exceptions() -> None:
    def command(source: str, target: str, text: str = "", count: int = 0) -> None: ...

    seen: list[list[str]] = []
    argv = ["1", "2", "3", "--text", "4", "--count", "5"]
    command_line(seen.append, command, argv, positional=("source", "target"), text=["count"], parsed=["text"])
    assert seen == [["--source", '"1"', "--target", '"2"', "3", "--text", "4", "--count", '"5"']]


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
