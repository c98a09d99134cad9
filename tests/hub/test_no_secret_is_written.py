"""Secrets in the config of a training: no file that is written afterwards contains one."""

from __future__ import annotations

import io
import json
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import spacy
from hub.hub_server import HubServer
from spacy.language import Language
from util.test_secrets import FORMS

from gliner_pipe.convert import convert
from gliner_pipe.data.readers.json import gliner_json
from gliner_pipe.evaluate import evaluate
from gliner_pipe.hub import push_to_hub
from gliner_pipe.package import package
from gliner_pipe.predict import app as predict_app
from gliner_pipe.registry import registry
from gliner_pipe.train import app, train
from tests.training.conftest import CONFIG, records, write

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")

#: By name, in every way that names are written.
NAMED = {
    name: f"planted-word-{number:02d}"
    for number, name in enumerate(
        (
            *(
                "wandb_token",
                "GITHUB_TOKEN",
                "HF_TOKEN",
                "private_key",
                "passphrase",
                "Authorization",
                "apiKey",
            ),
            *(
                "db_password",
                "client-secret",
                "connection_string",
                "sentry_dsn",
                "webhook_url",
                "cookie",
                "wandb_key",
            ),
            *("aws_secret_access_key", "sas_token", "access_key"),
        )
    )
}
ON_COMMAND_LINE = "planted-on-the-command-line"
IN_COMPONENT = "planted-in-a-component"
IN_META = "planted-in-the-meta"
IN_SECTION = "planted-in-a-section"
CORES = [
    *NAMED.values(),
    *(core for _, core in FORMS.values()),
    *(ON_COMMAND_LINE, IN_COMPONENT, IN_META, IN_SECTION),
]


@registry.readers.register("shop_of_secrets")
def shop(path: str, login: Any = None, logins: Any = None, api_key: str = "", cookies: Any = None) -> Any:
    assert api_key in (ON_COMMAND_LINE, "")  # the reader gets the value of the config
    return gliner_json(path)


@Language.factory("keeper_of_secrets", default_config={"api_key": "", "urls": []})
def keeper(nlp: Language, name: str, api_key: str, urls: list[str]) -> Any:
    return lambda doc: doc


def planted(backbone: Path, folder: Path) -> Path:
    data = {name: str(write(folder / f"{name}.jsonl", records(8))) for name in ("train", "dev")}
    text = CONFIG.format(backbone=backbone, out=folder / "out", **data)
    by_form = {f"value_{number}": text for number, (text, _) in enumerate(FORMS.values())}
    every = [*by_form.values(), {"deep": [{"deeper": next(iter(by_form.values()))}]}]
    reader = f'@readers = "shop_of_secrets"\nlogin = {json.dumps(NAMED)}\nlogins = {json.dumps(every)}\napi_key = ""\n'
    text = text.replace('@readers = "gliner_json"\n', reader, 1)
    text = text.replace(
        "[components.gliner]\n",
        '[components.keeper]\n@factory = "keeper_of_secrets"\n'
        f'api_key = "{IN_COMPONENT}"\nurls = {json.dumps(list(by_form.values()))}\n\n[components.gliner]\n',
    )
    more = [f"{name} = {json.dumps(value)}" for name, value in {**NAMED, **by_form}.items()]
    text = text.replace("[vars]\n", "\n".join(["[vars]", *more, ""]))
    text += f'\n[train.train_data.reader.cookies]\nsession = "{IN_SECTION}"\n'
    text += "\n[predict]\nvariables = ${vars}\n"  # a variable that nothing reads is an error
    path = folder / "config.cfg"
    path.write_text(text, encoding="utf8")
    return path


def contents(path: Path) -> Iterator[tuple[str, bytes]]:
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            yield from unpacked(str(file), file.read_bytes())


def unpacked(name: str, data: bytes) -> Iterator[tuple[str, bytes]]:
    yield name, data
    if zipfile.is_zipfile(io.BytesIO(data)):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for item in archive.namelist():
                yield from unpacked(f"{name}/{item}", archive.read(item))
    elif name.endswith(".tar.gz"):
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            for member in archive:
                if member.isfile():
                    yield from unpacked(f"{name}/{member.name}", archive.extractfile(member).read())


def check(files: Iterator[tuple[str, bytes]], least: int) -> None:
    number = 0
    needles = [form.encode() for core in CORES for form in {core, json.dumps(core)[1:-1]}]
    for number, (name, data) in enumerate(files, 1):  # noqa: B007
        held = [needle for needle in needles if needle in data]
        assert not held, (name, held)
    assert number >= least


def test_no_secret_is_written(
    hub: HubServer,
    backbone: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    config = planted(backbone, source)
    command = [
        "--config",
        str(config),
        "--train.train_data.reader.api_key",
        ON_COMMAND_LINE,
        "--train.cpu",
        "true",
    ]
    command += [
        "--train.checkpoint_interval",
        "2",
        "--train.loggers",
        '["rich", "jsonl", "csv", "tensorboard"]',
    ]
    monkeypatch.setattr(sys, "argv", ["train", *command])
    app(command)
    out = source / "out"
    check(contents(out), 40)
    saved = out / "model-best"
    text = (saved / "train_config.cfg").read_text("utf8")
    assert 'wandb_token = "***"' in text and 'api_key = "***"' in text and "max_steps = 4" in text
    assert "train.train_data.reader.api_key" in caplog.text

    # training again from the saved config, and resuming a checkpoint, with the secret given again
    monkeypatch.setattr(sys, "argv", ["train"])
    again = ["--config", str(out / "train_config.cfg"), *command[2:], "--train.max_steps", "6"]
    app([*again, "--train.resume_from_checkpoint", "auto"])
    assert (out / "checkpoints" / "step-000006").is_dir()
    check(contents(out), 40)
    console = capfd.readouterr()
    assert "warning: " in console.out and "vars.wandb_token" in console.out
    assert "step-000004" in console.out and "reader.api_key" not in console.out  # resumed, with the secret

    nlp = spacy.load(saved)
    assert nlp.pipe_names == ["keeper", "gliner"]
    evaluate(
        pipeline=nlp,
        data=str(source / "dev.jsonl"),
        output=out / "scores.json",
        find_threshold=True,
        save=out / "calibrated",
        show=False,
    )
    (source / "texts").mkdir()
    for number in range(2):
        write(source / "texts" / f"{number}.jsonl", [{"text": "Ann lives in Oslo ."}] * 3)
    predict_app(
        [
            "--pipeline",
            str(saved),
            "--input",
            str(source / "texts"),
            "--output",
            str(out / "found"),
            "--quiet",
            "true",
        ]
    )
    assert (out / "found" / "_predict" / "manifest.json").is_file()
    convert(str(saved), out / "checkpoint", to="gliner", component="gliner")
    check(contents(out), 60)

    # what an earlier version wrote, with all secrets in it, is redacted on its way out, and stays as it is here
    nlp.remove_pipe("keeper")
    nlp.add_pipe("sentencizer", config={"punct_chars": [".", *(text for text, _ in FORMS.values())]})
    nlp._config["paths"]["api_key"] = IN_COMPONENT
    nlp.meta |= {"api_key": IN_META, "sources": [{"name": "a", "url": f"https://me:{IN_META}@host/"}]}
    (tmp_path / "old").mkdir()
    nlp.to_disk(tmp_path / "old" / "model-last")
    for folder in (tmp_path / "old" / "model-last", tmp_path / "old"):
        (folder / "train_config.cfg").write_bytes(config.read_bytes())
    held = b"".join(data for _, data in contents(tmp_path / "old"))
    assert all(json.dumps(text)[1:-1].encode() in held for text in (IN_COMPONENT, IN_META, *NAMED.values()))
    (tmp_path / "old" / "model-last" / "notes.txt").write_text("\n".join(text for text, _ in FORMS.values()))
    dist = tmp_path / "dist"
    package(
        pipeline=tmp_path / "old" / "model-last",
        name="my_model",
        metadata={"description": f"See https://host/?token={IN_META}.", "url": f"https://me:{IN_META}@host/"},
        dist_dir=dist,
        build_dir=tmp_path / "dist" / "build",
    )
    check(contents(dist), 30)
    assert {path.suffix for path in dist.iterdir() if path.is_file()} == {".whl", ".gz", ".md"}
    push_to_hub(tmp_path / "old" / "model-last", "ada/secrets")
    check(iter(hub.repos["ada/secrets"].branches["main"].items()), 10)
    assert (tmp_path / "old" / "model-last" / "train_config.cfg").read_bytes() == config.read_bytes()
    told = capfd.readouterr()
    for said in (console.out, console.err, told.out, told.err, caplog.text):
        check(iter([("messages", said.encode())]), 1)


def test_the_config_of_another_system(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(
        f"model_name: x/y\nprev_path: https://me:{IN_META}@host/model\ntrain_data: data.json\nnum_steps: 3\n"
    )
    convert(str(tmp_path / "run.yaml"), tmp_path / "run.cfg")
    text = (tmp_path / "run.cfg").read_text()
    assert IN_META not in text and '"***"' in text and "max_steps = 3" in text


def test_a_training_from_python(backbone: Path, tmp_path: Path) -> None:
    from conftest import gliner_config

    nlp = spacy.blank("en")
    nlp.add_pipe("keeper_of_secrets", config={"api_key": IN_COMPONENT})
    nlp.add_pipe("gliner", config=gliner_config(backbone, labels=["person", "city"]))
    nlp.meta["webhook"] = IN_META
    path = write(tmp_path / "train.jsonl", records(4))
    train(
        nlp,
        train_data={"reader": str(path)},
        max_steps=1,
        cpu=True,
        run_name=FORMS["github"][0],
        output_path=tmp_path / "out" / "model-last",
        loggers=["jsonl"],
    )
    check(contents(tmp_path / "out"), 8)


def test_errors_do_not_quote_secrets(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], backbone: Path
) -> None:
    from gliner_pipe.cli.app import run

    config = planted(backbone, tmp_path)
    for option, value in (
        ("train.hub_token", FORMS["hugging face"][0]),
        ("train.train_data.reader.password", IN_META),
    ):
        arguments = ["--config", str(config), f"--{option}", value]
        with pytest.raises(SystemExit):
            run(lambda arguments=arguments: app(arguments), arguments)
        said = capsys.readouterr()
        check(iter([("messages", (said.out + said.err).encode())]), 1)
        assert option in said.err
