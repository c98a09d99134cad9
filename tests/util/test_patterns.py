"""Regular expressions of users."""

from __future__ import annotations

import re

import pytest

from gliner_pipe.errors import ConfigError
from gliner_pipe.pipeline.labels import parse_labels
from gliner_pipe.util import patterns
from gliner_pipe.util.patterns import Pattern


def test_the_whole_text_matches_as_in_re() -> None:
    for text, other in ((r"[\w.+-]+@[\w.-]+", "a@b c"), (r"(?i)oslo|lima", "Oslo x"), (r"^\d{4}$", "12345")):
        pattern = Pattern(text)
        for one in ("a@b.c", "LIMA", "1999", other):
            assert pattern.fullmatch(one) == (re.fullmatch(text, one) is not None), (text, one)


def test_one_that_takes_too_long_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns, "SECONDS", 0.1)
    with pytest.raises(ConfigError) as raised:
        Pattern("(a|aa)+$").fullmatch("a" * 60 + "!")
    assert raised.value.where == "pattern" and raised.value.do


@pytest.mark.parametrize("wrong", ["(", "[", "*", "(?P<a>", "(?z)", "\\", 3, ""])
def test_no_regular_expression(wrong: object) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_labels([{"label": "a", "pattern": wrong}], "labels")
    assert raised.value.where == "labels[0].pattern"


@pytest.mark.parametrize(
    "bomb", ["a{9999999}", "(a{999}){999}", "(?P<n>a)?(?(n)b{9999}|c){99}", "((?>a{99}){99}){99}"]
)
def test_one_that_would_fill_the_memory(bomb: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_labels([{"label": "a", "pattern": bomb}], "labels")
    assert raised.value.where == "labels[0].pattern"


def test_usual_repetitions_are_allowed() -> None:
    assert Pattern(r"(\d{4} ){3}\d{4}").fullmatch("1234 1234 1234 1234")
    assert Pattern("|".join(f"name {number}" for number in range(20_000))).fullmatch("name 19999")
