from __future__ import annotations

import hashlib
import importlib
import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
import spacy
from forked import Forked, kill_and_check

import gliner_pipe
from gliner_pipe.errors import ConfigError
from gliner_pipe.package import main, package

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
WHEEL = "my_ner_model-0.1.0-py3-none-any.whl"
SDIST = "my_ner_model-0.1.0.tar.gz"
CARD = "my_ner_model-0.1.0.README.md"
CODE = """
from spacy.language import Language

@Language.component("shout")
def shout(doc):
    doc.user_data["shout"] = doc.text.upper()
    return doc
"""
LOAD = """
import json, spacy, my_ner_model
from spacy.cli.info import info
nlp = spacy.load("my_ner_model", config={"nlp.batch_size": 7})
print(json.dumps({
    "file": my_ner_model.__file__,
    "entities": [[span.text, span.label_] for span in my_ner_model.load()("I saw Paris.").ents],
    "batch_size": nlp.batch_size,
    "pipeline": my_ner_model.load(exclude=["entity_ruler"]).pipe_names,
    "version": my_ner_model.__version__,
    "installed": "my_ner_model" in spacy.util.get_installed_models(),
    "info": info("my_ner_model", silent=True)["name"],
}))
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    nlp = spacy.blank("en")
    ruler = nlp.add_pipe("entity_ruler")
    ruler.add_patterns([{"label": "CITY", "pattern": "Paris"}, {"label": "ORG", "pattern": "UNO"}])
    nlp.meta["performance"] = {"ents_f": 0.875}
    path = tmp_path_factory.mktemp("artifacts") / "model-last"
    nlp.to_disk(path)
    (path.parent / "train_config.cfg").write_text("[train]\nmax_steps = 20\n", encoding="utf8")
    return path


@pytest.fixture(scope="module")
def dist(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project") / "dist"
    package(
        pipeline=model,
        name="my_ner_model",
        metadata={"author": "Jane Doe", "license": "MIT", "description": "Finds\ncities."},
        dist_dir=folder,
    )
    return folder


def digests(folder: Path) -> dict[str, str]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def fresh_environment(folder: Path) -> Path:
    """Make a virtual environment that sees this one's packages, so that nothing has to be downloaded."""
    venv.create(folder, with_pip=False)
    below = {"base": str(folder), "platbase": str(folder)}
    own = Path(sysconfig.get_path("purelib", vars=below))
    seen = sysconfig.get_path("purelib")
    (own / "seen.pth").write_text(f"import site; site.addsitedir({seen!r})\n", encoding="utf8")
    return folder / ("Scripts" if os.name == "nt" else "bin") / "python"


def run(*command: str | Path) -> str:
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=ENVIRONMENT)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def install(python: Path, file: Path) -> None:
    run(python, "-m", "pip", "install", "--no-index", "--no-deps", "--no-build-isolation", file)


def wheel_text(wheel: Path, name: str) -> str:
    with zipfile.ZipFile(wheel) as archive:
        (found,) = (item for item in archive.namelist() if item.endswith(name))
        return archive.read(found).decode("utf8")


def test_what_stands_in_dist(dist: Path) -> None:
    assert sorted(path.name for path in dist.iterdir()) == sorted([WHEEL, SDIST, CARD])


def test_metadata_of_the_wheel(dist: Path) -> None:
    metadata = Parser().parsestr(wheel_text(dist / WHEEL, "dist-info/METADATA"))
    assert (metadata["Name"], metadata["Version"]) == ("my_ner_model", "0.1.0")
    assert (metadata["Summary"], metadata["Author"], metadata["License"]) == (
        "Finds cities.",
        "Jane Doe",
        "MIT",
    )
    assert [item.split("<")[0] for item in metadata.get_all("Requires-Dist")] == ["spacy"]
    entry_points = wheel_text(dist / WHEEL, "entry_points.txt")
    assert entry_points.split() == ["[spacy_models]", "my_ner_model", "=", "my_ner_model"]


def test_meta_and_card_of_the_wheel(dist: Path) -> None:
    meta = json.loads(wheel_text(dist / WHEEL, "artifacts/meta.json"))
    assert json.loads(wheel_text(dist / WHEEL, "my_ner_model/meta.json")) == meta
    assert (meta["lang"], meta["name"], meta["version"]) == ("en", "my_ner_model", "0.1.0")
    assert meta["labels"] == {"entity_ruler": ["CITY", "ORG"]}
    assert meta["performance"] == {"ents_f": 0.875}
    card = (dist / CARD).read_text(encoding="utf8")
    assert wheel_text(dist / WHEEL, "my_ner_model/README.md") == card
    for text in ("`CITY`, `ORG`", "| `ents_f` | 87.5 |", "max_steps = 20", "## Licence\n\nMIT"):
        assert text in card


def test_an_installed_package_loads(dist: Path, tmp_path: Path) -> None:
    """A source distribution, of which pip builds a wheel; a wheel is installed by the next test."""
    python = fresh_environment(tmp_path / "env")
    install(python, dist / SDIST)
    found = json.loads(run(python, "-c", LOAD))
    assert Path(found.pop("file")).is_relative_to(tmp_path)
    assert found == {
        "entities": [["Paris", "CITY"]],
        "batch_size": 7,
        "pipeline": [],
        "version": "0.1.0",
        "installed": True,
        "info": "my_ner_model",
    }


def test_a_pipeline_in_memory_with_code_of_the_project(tmp_path: Path) -> None:
    code = tmp_path / "src" / "shouting"
    code.mkdir(parents=True)
    (code / "__init__.py").touch()
    (code / "parts.py").write_text(CODE, encoding="utf8")

    def work() -> None:  # in a process of its own, so that the component is not registered in this one
        sys.path.insert(0, "src")
        importlib.import_module("shouting.parts")
        nlp = spacy.blank("en")
        nlp.add_pipe("shout")
        package(pipeline=nlp, name="loud", version="2.0rc1", code="src/shouting", distributions=["wheel"])

    Forked(work, [], tmp_path).output()
    python = fresh_environment(tmp_path / "env")
    install(python, tmp_path / "dist" / "loud-2.0rc1-py3-none-any.whl")
    load = "import spacy; print(spacy.load('loud')('hi').user_data['shout'])"
    assert run(python, "-c", load).strip() == "HI"


def test_the_command_reads_only_its_own_section_of_a_config(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config = f"""
[nlp]
lang = "en"
components = ${{components}}

[components]

[components.ner]
@factory = "not_installed_here"

[train]
nlp = ${{nlp}}
output_path = {json.dumps(str(model))}

[package]
pipeline = ${{train.output_path}}
name = "my_ner_model"
distributions = ["wheel"]
"""
    (tmp_path / "config.cfg").write_text(config, encoding="utf8")
    command = ["package", "--config", "config.cfg", "--version", "0.10", "--metadata.author", "7"]
    monkeypatch.setattr(sys, "argv", command)
    monkeypatch.chdir(tmp_path)
    main()
    wheel, card = "my_ner_model-0.10-py3-none-any.whl", "my_ner_model-0.10.README.md"
    assert [line.split()[0] for line in caplog.messages] == [f"dist/{wheel}", f"dist/{card}"]
    assert json.loads(wheel_text(tmp_path / "dist" / wheel, "artifacts/meta.json"))["author"] == "7"


def test_a_wrong_path_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "model-best").mkdir()
    command = [sys.executable, "-m", "gliner_pipe.package", "--pipeline", "model-last", "--name", "x"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=ENVIRONMENT)
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "'model-last', which does not exist (.: it holds model-best)" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["model-best"]


def test_an_installed_pipeline_can_be_packaged_again(
    dist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(dist / WHEEL) as archive:
        archive.extractall(tmp_path / "site")
    monkeypatch.syspath_prepend(tmp_path / "site")
    wheel, _ = package(pipeline="my_ner_model", version="0.2", dist_dir=tmp_path, distributions="wheel")
    assert wheel == tmp_path / "my_ner_model-0.2-py3-none-any.whl"
    assert json.loads(wheel_text(wheel, "artifacts/meta.json"))["author"] == "Jane Doe"


def test_the_sources_can_be_kept_and_the_pipeline_stays_as_it_is(model: Path, tmp_path: Path) -> None:
    before = digests(model)
    package(
        pipeline=str(model),
        name="my_ner_model",
        version="1.0.0",
        root_dir=tmp_path,
        build_dir="build",
        distributions="wheel",
        artifacts_name="data",
        exclude=["vocab/vectors"],
    )
    kept = tmp_path / "build" / "my_ner_model-1.0.0"
    assert {"README.md", "pyproject.toml", "my_ner_model/data/config.cfg"} <= digests(kept).keys()
    assert not (kept / "my_ner_model" / "data" / "vocab" / "vectors").exists()
    (kept / "my_ner_model" / "data" / "config.cfg").write_text("changed", encoding="utf8")
    assert digests(model) == before


def test_a_pipeline_of_this_project_needs_it(tmp_path: Path) -> None:
    path = tmp_path / "model"
    spacy.blank("en").to_disk(path)
    meta = json.loads((path / "meta.json").read_text(encoding="utf8"))
    (path / "meta.json").write_text(json.dumps({**meta, "requirements": ["regex>=2020"]}), encoding="utf8")
    config = (path / "config.cfg").read_text(encoding="utf8")
    section = '[components.gliner]\nfactory = "gliner"\nlabels = ["person"]\n'
    config = config.replace("pipeline = []", 'pipeline = ["gliner"]').replace(
        "[components]\n", f"[components]\n\n{section}"
    )
    (path / "config.cfg").write_text(config, encoding="utf8")
    wheel, _ = package(
        pipeline=path, name="mine", dist_dir=tmp_path, distributions="wheel", requirements="pandas>=2,<3"
    )
    needed = json.loads(wheel_text(wheel, "artifacts/meta.json"))["requirements"]
    assert needed == ["regex>=2020", f"gliner_pipe>={gliner_pipe.__version__}", "pandas>=2,<3"]


@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({"name": "my-model"}, "name"),
        ({"version": 0.1}, "version"),
        ({"distributions": "egg"}, "distributions"),
        ({"metadata": {"authr": "Jane"}}, "metadata.authr"),
        ({"artifacts_name": "../up"}, "artifacts_name"),
        ({"exclude": "*.pt"}, "exclude"),
        ({"code": "nowhere"}, "code"),
        ({"requirements": "a b"}, "requirements"),
    ],
)
def test_invalid_options_leave_nothing_behind(
    model: Path, tmp_path: Path, options: dict[str, object], where: str
) -> None:
    with pytest.raises(ConfigError) as error:
        package(**{"pipeline": model, "name": "my_ner_model", "dist_dir": tmp_path, **options})
    assert error.value.where == f"package.{where}"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the processes to kill are forks")
def test_a_killed_run_leaves_the_old_wheel_whole(tmp_path: Path) -> None:
    """Two fat pipelines are packaged in turn under one name."""
    labels = ("FIRST", "SECOND")
    for label in labels:
        nlp = spacy.blank("en")
        patterns = [{"label": label, "pattern": f"{label} {number}"} for number in range(2_000)]
        nlp.add_pipe("entity_ruler").add_patterns(patterns)
        nlp.to_disk(tmp_path / label)
    dist = tmp_path / "dist"

    def make(label: str) -> None:
        package(pipeline=tmp_path / label, name="my_ner_model", dist_dir=dist, distributions="wheel")

    def work() -> None:
        while True:
            for label in reversed(labels):
                make(label)

    def check() -> None:
        with zipfile.ZipFile(dist / WHEEL) as wheel:
            assert wheel.testzip() is None
        (label,) = json.loads(wheel_text(dist / WHEEL, "artifacts/meta.json"))["labels"]["entity_ruler"]
        patterns = wheel_text(dist / WHEEL, "artifacts/entity_ruler/patterns.jsonl")
        assert len(patterns.splitlines()) == patterns.count(f'"{label}"') == 2_000

    make("FIRST")
    kill_and_check(work, check, (0.2, 0.5, 0.8), tmp_path / "process")
    make("FIRST")
    assert sorted(path.name for path in dist.iterdir()) == sorted([WHEEL, CARD])


def test_the_wheel_of_this_project_lies_beside_the_package(model: Path, tmp_path: Path) -> None:
    files = package(
        pipeline=model, name="my_ner_model", distributions="wheel", dist_dir=tmp_path, vendor=True
    )
    assert [path.name for path in files] == [
        WHEEL,
        f"gliner_pipe-{gliner_pipe.__version__}-py3-none-any.whl",
        CARD,
    ]
    assert "pip install --find-links . my_ner_model==0.1.0" in files[-1].read_text(encoding="utf8")
