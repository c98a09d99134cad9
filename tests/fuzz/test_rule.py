"""The rule of the fuzzers can fail: it notices tracebacks, hangs, memory and messages of several lines."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from fuzz import rule
from fuzz.rule import Broken, command, obeys

from gliner_pipe.cli.signals import stop
from gliner_pipe.errors import ConfigError, GlinerPipeError


@pytest.fixture(autouse=True)
def _uncounted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rule, "OUTCOMES", Counter())


class Unclear(GlinerPipeError):
    """An error with the message as it is."""

    def __init__(self, message: str) -> None:
        Exception.__init__(self, message)


def fail(error: BaseException) -> None:
    raise error


def endless() -> None:
    while True:
        try:
            sum(range(1000))
        except Exception:  # which swallows all but the end
            continue


def test_results_and_our_errors_obey() -> None:
    assert obeys(lambda: 3).result == 3
    refused = ConfigError("train.seed", "is -1", "a whole number")
    assert obeys(fail, refused).error is refused
    assert rule.OUTCOMES == {"answered": 1, "refused": 1}


@pytest.mark.parametrize(
    "error",
    [KeyError("x"), RecursionError(), Unclear("a\nb"), Unclear("\x1b[31m"), Unclear("x" * 5000), Unclear("")],
)
def test_other_errors_and_unclear_messages_break_the_rule(error: Exception) -> None:
    with pytest.raises(Broken):
        obeys(fail, error)


def test_a_hang_breaks_the_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(rule._Hang), rule.limits(seconds=0.2):
        endless()


@pytest.mark.skipif(sys.platform != "linux", reason="the memory of a process is read from /proc")
def test_much_memory_breaks_the_rule() -> None:
    with pytest.raises(Broken):
        obeys(lambda: bytearray(3 << 30))


def ends(code: int, *lines: str) -> Any:
    def main(_: Sequence[str]) -> None:
        print(*lines, sep="\n", file=sys.stderr)
        raise SystemExit(code)

    return main


def test_commands(tmp_path: Path) -> None:
    assert command(lambda _: print("done"), [], tmp_path).stdout == "done\n"
    finished = command(lambda _: stop("[train.seed] is -1", 1), [], tmp_path)
    assert finished.code == 1 and finished.stderr == "error: [train.seed] is -1\n"
    for main in (
        ends(1),
        ends(1, "error: one", "error: two"),
        ends(1, "error: one", "and more"),
        ends(3, "error: one"),
        ends(0, "Traceback (most recent call last)"),
        lambda _: fail(KeyError("x")),
    ):
        with pytest.raises(Broken):
            command(main, [], tmp_path)
