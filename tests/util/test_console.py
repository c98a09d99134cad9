"""Messages break between words on a terminal only, and appear above a bar."""

from __future__ import annotations

import io
import logging
from pathlib import Path

import pytest
from rich.console import Console
from rich.live import Live

from gliner_pipe.util.console import ConsoleHandler, console_note, says_what_is_unwritten
from gliner_pipe.util.plurals import number_of

LINE = "a word and another " * 10


def test_lines_are_whole_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    console_note(LINE)
    assert capsys.readouterr().out == f"{LINE}\n"


def test_lines_break_between_words_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "30")
    ConsoleHandler(stderr=True).emit(logging.LogRecord("x", 30, "", 0, LINE, None, None))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) > 5 and " ".join(line.strip() for line in lines).split() == LINE.split()


def test_a_command_to_copy_is_one_line_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "30")
    console_note(LINE, whole=True)
    assert capsys.readouterr().out == f"{LINE}\n"


def test_a_message_appears_above_a_bar() -> None:
    file = io.StringIO()
    with Live("the bar", console=Console(file=file, force_terminal=True), auto_refresh=False) as live:
        live.refresh()
        console_note("a message")
    shown = file.getvalue()
    assert shown.index("a message") < shown.rindex("the bar")


@pytest.mark.parametrize(
    ("number", "noun", "expected"),
    [
        (1, "example", "1 example"),
        (0, "text", "0 texts"),
        (1200, "entity", "1,200 entities"),
        (1, "entity", "1 entity"),
    ],
)
def test_plurals(number: int, noun: str, expected: str) -> None:
    assert number_of(number, noun) == expected


def test_a_stopped_function_says_what_it_has_not_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    @says_what_is_unwritten("first", "second", "third")
    def write(first: Path, *, second: Path, third: Path | None = None, error: type[BaseException]) -> None:
        first.write_text("new")
        raise error

    first, second = tmp_path / "a", tmp_path / "b"
    for error in (KeyboardInterrupt, ValueError):
        with pytest.raises(error):
            write(first, second=second, error=error)
        said = capsys.readouterr().err.replace("\n", "")
        assert said == (f"nothing was written to {second}" if error is KeyboardInterrupt else "")
