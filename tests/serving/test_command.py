"""The command `serve` as a process: its address, its client, its end."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import spacy

from gliner_pipe.client import Client, ServerError
from gliner_pipe.errors import ConfigError
from gliner_pipe.serve import _named, serve


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    nlp = spacy.blank("en")
    nlp.add_pipe("entity_ruler").add_patterns([{"label": "person", "pattern": "Ada"}])
    nlp.to_disk(tmp_path_factory.mktemp("served") / "pipeline")
    return tmp_path_factory.getbasetemp() / "served0" / "pipeline"


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_server_answers_its_client_and_ends_at_sigterm(folder: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("GLINER_PIPE_TOKEN", "a-token-of-this-test")
    command = [sys.executable, "-m", "gliner_pipe.serve", f"rules={folder}", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        try:
            line = next(line for line in process.stdout if "http" in line)
            (url,) = re.findall(r"http://127\.0\.0\.1:[1-9]\d*", line)
            with Client(url) as client:
                one = client.predict("Ada was here.")
                assert [(entity.text, entity.label) for entity in one.entities] == [("Ada", "person")]
                found = list(client.stream(f"Ada {n}" for n in range(30)))
                assert [len(prediction.entities) for prediction in found] == [1] * 30
                assert client.info().pipelines[0].name == "rules"
                with pytest.raises(ServerError) as error:
                    client.predict("Ada", labels=["city"])
                assert error.value.status == 422
            with Client(url, token="another", retries=0) as client, pytest.raises(ServerError) as error:
                client.predict("Ada")
            assert error.value.status == 401
        finally:
            process.send_signal(signal.SIGTERM)
            rest = process.stdout.read()
        assert process.wait(30) == 128 + signal.SIGTERM
        assert "a-token-of-this-test" not in line + rest
        assert "Ada" not in rest
    with Client(url, retries=0) as client:
        assert not client.is_ready()
        with pytest.raises(ServerError) as error:
            client.predict("Ada")
        assert error.value.status == 0


def test_names_of_pipelines() -> None:
    assert _named("a/b") == {"default": "a/b"}
    assert _named("a=x,b=y") == {"a": "x", "b": "y"}
    assert _named(["news=models/a", "models/b"]) == {"news": "models/a", "pipeline2": "models/b"}
    with pytest.raises(ConfigError, match=r"serve\.pipeline"):
        _named(["a=x", "a=y"])


@pytest.mark.parametrize(
    ("options", "where"),
    [({"port": 70_000}, "port"), ({"max_texts": 0}, "max_texts"), ({"replicas": 2}, "replicas")],
)
def test_options_that_are_refused(folder: Path, options: dict[str, Any], where: str) -> None:
    with pytest.raises(ConfigError, match=rf"serve\.{where}"):
        serve(pipeline=str(folder), **options)
