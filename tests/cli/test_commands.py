"""All commands and their help, which imports none of them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import fields
from importlib import import_module
from inspect import signature

import pytest
from click.shell_completion import BashComplete
from click.testing import CliRunner

from gliner_pipe.cli.commands import COMMANDS, Command, main
from gliner_pipe.migration.autotrain import TokenClassificationParams
from gliner_pipe.migration.tables import PARAMETERS

#: Runs the help of every module as ``python -m`` does, and shows what that imported.
HELP = """
import contextlib, io, json, runpy, sys
texts = {}
for name in sys.argv[1].split(","):
    sys.argv[1:] = ["--help"]
    with contextlib.redirect_stdout(io.StringIO()) as shown, contextlib.suppress(SystemExit):
        runpy.run_module(f"gliner_pipe.{name}".removesuffix("."), run_name="__main__", alter_sys=True)
    texts[name] = shown.getvalue()
print(json.dumps([texts, sorted({name.split(".")[0] for name in sys.modules})]))
"""


def test_help_of_every_module_imports_nothing_heavy() -> None:
    names = ",".join([*COMMANDS, "__main__"])
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", HELP, names], capture_output=True, text=True, check=True
    )
    texts, modules = json.loads(done.stdout)
    assert not {"torch", "spacy", "confit", "transformers", "numpy"} & set(modules)
    for name in COMMANDS:
        assert texts[name].startswith(f"Usage: python -m gliner_pipe.{name} ")
        assert re.search(rf"^  {name} +\w", texts["__main__"], re.MULTILINE)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_explains_every_option(name: str) -> None:
    info = COMMANDS[name]
    if name == "autotrain":
        expected = {one.name for one in fields(TokenClassificationParams)}
        assert {name: one.text for name, one in info.options.items()} == {
            name: PARAMETERS[name].meaning for name in expected
        }
    else:
        parameters = signature(getattr(import_module(f"gliner_pipe.{name}"), name)).parameters.values()
        expected = {one.name for one in parameters if one.kind is not one.VAR_KEYWORD}
        expected -= {"config_meta", "on_validation_callback"}
    assert expected <= set(info.options)
    assert [name for name, one in info.options.items() if not one.text] == []
    assert {*info.groups, *info.positional} <= set(info.options)
    shown = CliRunner().invoke(main, [name, "--help"], terminal_width=80)
    assert shown.exit_code == 0
    for option in expected:
        flag = option.replace("_", "-") if name == "autotrain" else option
        assert re.search(rf"--{flag}\b", shown.output), option
    assert not re.search(r"\x1b|[╭│]|Path\(|``|config_meta|:func:", shown.output)
    assert max(map(len, shown.output.splitlines())) <= 80


def test_help_of_defaults() -> None:
    shown = " ".join(CliRunner().invoke(main, ["package", "-h"]).output.split())
    assert "[default: dist]" in shown and "[default: .]" in shown and "[default: wheel,sdist]" in shown


@pytest.mark.parametrize(
    ("words", "incomplete", "expected"),
    [
        ([], "pre", {"predict"}),
        (["predict"], "--thr", {"--threshold"}),
        (["predict", "m", "--on_error"], "", {"stop", "skip"}),
        (["train", "x.cfg"], "--max_s", {"--max_steps"}),
    ],
)
def test_completion(words: list[str], incomplete: str, expected: set[str]) -> None:
    shell = BashComplete(main, {}, "gliner-pipe", "_GLINER_PIPE_COMPLETE")
    assert {item.value for item in shell.get_completions(words, incomplete)} == expected


def test_an_unknown_command() -> None:
    shown = CliRunner().invoke(main, ["trian"])
    assert shown.exit_code == 2 and "train?" in shown.output


def test_a_command_gets_its_arguments_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    monkeypatch.setattr("gliner_pipe.convert.main", seen.append)
    arguments = ["a", "--to=b", "--", "-x", "--labels", "c", "d"]
    Command(COMMANDS["convert"]).main(arguments, standalone_mode=False)
    assert seen == [arguments]
