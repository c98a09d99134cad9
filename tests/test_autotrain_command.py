"""The command line of AutoTrain is read as it is."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from gliner_pipe.autotrain import main, parse
from gliner_pipe.errors import ConfigError

PAGE = Path(__file__).parent.parent / "docs" / "autotrain.md"
LINE = shlex.split(
    "token-classification --train --model some/encoder --data-path ./ner_data --tags-column=ner_tags"
)


def test_options() -> None:
    params = parse([*LINE, "--lr", "2e-5", "--push-to-hub", "--username", "me", "--tag-names", "O,B-A,I-A"])
    given = {item.name.name: item.name.read(item.value) for item in params.given() if not item.absent}
    assert given["tags_column"] == "ner_tags" and given["lr"] == 2e-5 and given["push_to_hub"] is True
    assert given["tag_names"] == ["O", "B-A", "I-A"] and given["epochs"] == 3


def test_values_without_an_option_and_several_values() -> None:
    line = ["ner", "corpus", "--train", "--backend", "local", "--tag_names", "O", "B-A", "I-A", "--log=none"]
    params = parse(line)
    assert (params.data_path, params.tag_names, params.log) == ("corpus", ["O", "B-A", "I-A"], "none")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["llm", "--train"], r"\[task\] is 'llm'; allowed: token-classification"),
        ([*LINE, "--learning-rat", "1"], r"\[--learning-rat\] is unknown"),
        ([*LINE, "--epoch", "1"], r"Did you mean '--epochs'"),
        ([*LINE, "--lr"], r"\[--lr\] has no value. Write --lr VALUE"),
        ([*LINE, "--lr", "fast"], r"params.lr\] is 'fast'"),
        (["--model", "x"], r"\[--data-path\] is missing"),
        ([*LINE, "stray"], r"\[stray\]"),
        (["ner", "a", "b"], r"\[b\]"),
    ],
)
def test_mistakes(line: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(line)


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    assert "--early-stopping-patience" in shown and "required" in shown


def test_a_mistake_is_one_line(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([*LINE, "--epoch", "1"])
    assert stopped.value.code == 1
    error = capsys.readouterr().err
    assert error.startswith("error: [--epoch]") and error.count("\n") == 1


def test_commands_of_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each can be read, and stands for a whole configuration."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    blocks = re.findall(r"^```bash\n(.*?)^```", PAGE.read_text("utf8"), re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    commands = [shlex.split(line) for line in lines if line.startswith("python -m gliner_pipe.autotrain ")]
    assert len(commands) >= 4
    for command in commands:
        config = parse(command[3:]).to_config().config
        assert "token_classifier" in config["components"]
        assert config["train"]["transformers_path"]
