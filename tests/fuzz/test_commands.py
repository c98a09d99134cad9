"""Command lines: any options with any values, in any order, on consoles of any encoding."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import spacy
from conftest import gliner_config
from fuzz.rule import command, tries
from hypothesis import given
from hypothesis import strategies as st

from gliner_pipe.cli.commands import COMMANDS
from tests.training.conftest import CONFIG, records, write

#: What each command is given first. None of them listens at a port, trains long or calls a compiler.
BASE = {
    "train": ["config.cfg"],
    "evaluate": ["pipeline", "dev.jsonl"],
    "predict": ["pipeline", "--text", "Ann lives in Oslo."],
    "serve": ["pipeline", "--host", "256.1.1.1"],
    "package": ["pipeline", "--name", "a name"],
    "convert": ["nowhere", "converted"],
    "export": ["pipeline", "exported"],
    "push": ["nowhere", "user/name"],
    "distill": ["config.cfg", "--teacher", "pipeline", "--texts", "texts.txt"],
    "autotrain": ["token-classification", "--train", "--data-path", "nowhere"],
    "check": ["train.jsonl"],
}
VALUES = (
    *(
        "-1",
        "0",
        "1",
        "1.5",
        "1e400",
        "nan",
        "inf",
        "",
        " ",
        "null",
        "[]",
        "{}",
        "[null]",
        "[1]",
        '["x"]',
        "true",
        "no",
    ),
    *(
        "x",
        "a b",
        "a,b",
        ",",
        "${nowhere}",
        "${a b}",
        "${9**9**9}",
        '${"x" * 10**10}',
        "\x1b[31mred",
        "a\nb",
        "é東",
    ),
    *("9" * 5000, "[" * 3000 + "]" * 3000, "\udcff", "..", ".", "/", "~", "loop", "dangling", "latin.jsonl"),
    *(
        "empty.jsonl",
        "bytes.jsonl",
        "folder.jsonl",
        "folder",
        "odd\n\x1b[31m.jsonl",
        os.fsdecode(b"caf\xe9.jsonl"),
    ),
    *(
        "texts.txt",
        "train.jsonl",
        "config.cfg",
        "pipeline",
        "/dev/null",
        "cuda:9",
        "cpu:9",
        "fp99",
        "jsonl",
        "html",
    ),
    *(
        "standoff",
        "auto",
        "epoch",
        "2000 words",
        "--",
        "--config",
        "-x",
        '[{"label": "a", "pattern": "("}]',
        "*",
        "a=b",
    ),
)
UNKNOWN = ("zzz", "vars.x", "components.gliner.threshold", "train.seed", "a.b.c", "a..b", "", "-", "é")


@pytest.fixture(scope="module")
def home(backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with a pipeline, data, and files that are none."""
    folder = tmp_path_factory.mktemp("home")
    nlp = spacy.blank("en")
    nlp.add_pipe("gliner", config=gliner_config(backbone))
    nlp.initialize()
    nlp.to_disk(folder / "pipeline")
    for seed, name in enumerate(("train", "dev")):
        write(folder / f"{name}.jsonl", records(8, seed))
    text = CONFIG.format(train="train.jsonl", dev="dev.jsonl", backbone=backbone, out="out")
    (folder / "config.cfg").write_text(
        text.replace("max_steps = 4", "max_steps = 1\nloggers = []"), encoding="utf8"
    )
    (folder / "texts.txt").write_text("Ann lives in Oslo.\nBen slept.\n", encoding="utf8")
    (folder / "latin.jsonl").write_bytes(b'{"text": "caf\xe9"}\n')
    (folder / "empty.jsonl").touch()
    (folder / "bytes.jsonl").write_bytes(bytes(range(256)))
    (folder / "folder.jsonl").mkdir()
    (folder / "folder").mkdir()
    for name in ("odd\n\x1b[31m.jsonl", os.fsdecode(b"caf\xe9.jsonl")):
        (folder / name).write_text('{"text": "Ann lives."}\n', encoding="utf8")
    (folder / "loop").symlink_to(folder / "loop")
    (folder / "dangling").symlink_to(folder / "gone")
    return folder


@st.composite
def command_lines(draw: st.DrawFn) -> tuple[str, list[str]]:
    """A command and its arguments: some less, some replaced, some more."""
    name = draw(st.sampled_from([*COMMANDS]))
    argv = list(BASE[name])
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(
            st.sampled_from(
                ["option", "option", "option", "joined", "switch", "unknown", "replace", "drop", "add"]
            )
        )
        value = draw(st.sampled_from(VALUES))
        option = "--" + draw(st.sampled_from([one for one in COMMANDS[name].options if "push" not in one]))
        place = draw(st.integers(0, max(0, len(argv) - 1)))
        if kind == "option":
            argv += [option, value]
        elif kind == "joined":
            argv.append(f"{option}={value}")
        elif kind == "switch":
            argv.append(option)
        elif kind == "unknown":
            argv += ["--" + draw(st.sampled_from(UNKNOWN)), value]
        elif kind == "add":
            argv.insert(place, value)
        elif argv:
            argv[place : place + 1] = [value] if kind == "replace" else []
    return name, argv


@given(line=command_lines(), encoding=st.sampled_from(["utf-8", "ascii", "cp1252"]))
@tries(60)
def test_command_lines(line: tuple[str, list[str]], encoding: str, home: Path) -> None:
    name, argv = line
    main: Any = import_module(f"gliner_pipe.{name}").main
    command(main, argv, home, encoding, reports=name == "check")
