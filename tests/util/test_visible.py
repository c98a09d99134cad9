"""Control characters are shown and have no effect."""

from __future__ import annotations

import pickle

import pytest

from gliner_pipe.errors import ConfigError, DataError, GlinerPipeError
from gliner_pipe.util.console import console_note
from gliner_pipe.util.visible import one_line, visible


def test_control_characters_are_symbols() -> None:
    assert visible("a\x1b[31mb\tc\nd\x9b\x00") == "a␛[31mb\tc\nd�␀"
    assert visible("caf\udce9.txt").encode("utf8") == b"caf\\xe9.txt"


def test_one_line_is_short() -> None:
    assert one_line("a\r\n  b\x07") == "a b␇"
    text = one_line("x" * 10_000, 100)
    assert len(text) < 130 and "9," in text


@pytest.mark.parametrize("kind", [ConfigError, DataError])
def test_errors_are_one_line_of_what_a_user_gave(kind: type[ConfigError]) -> None:
    error = kind("a\nb", "is \x1b]0;title\x07 " + "9" * 10**7, "x\ny", "\x1b[2J")
    assert len(str(error)) < 4000 and "\n" not in str(error) and "\x1b" not in str(error)
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error) and again.where == "a\nb"
    assert "\n" not in str(GlinerPipeError("a\nb"))


def test_messages_on_the_console(capsys: pytest.CaptureFixture[str]) -> None:
    console_note("error: \x1b[31mred\udcff", stderr=True)
    assert capsys.readouterr().err == "error: ␛[31mred\\xff\n"
