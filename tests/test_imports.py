"""What is imported when, and that nothing reaches for the network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import gliner_config

#: Packages that must not be imported before a model is built. (spaCy's own command line imports rich.)
HEAVY = [
    "transformers",
    "tokenizers",
    "accelerate",
    "huggingface_hub",
    "datasets",
    "pandas",
    "sklearn",
    "wandb",
    "gliner",
    "jieba3",
    "hanlp",
    "janome",
    "mecab",
    "indicnlp",
    "camel_tools",
    "stanza",
    "langdetect",
]

NO_NETWORK = """
import socket
def refuse(*args, **kwargs):
    raise AssertionError("the network was reached for")
class Refused(socket.socket):
    connect = connect_ex = sendto = bind = refuse
socket.socket = Refused
socket.create_connection = socket.getaddrinfo = refuse
"""


def python(code: str, *arguments: str, cwd: Path | None = None) -> str:
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    env.pop("HF_HUB_OFFLINE", None)  # offline by itself, not by order
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *arguments],
        capture_output=True, text=True, env=env, cwd=cwd, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "code",
    [
        "import gliner_pipe",
        "import gliner_pipe.registry",
        "import spacy; spacy.blank('en')",
        "import spacy; spacy.blank('en').add_pipe('gliner', config={'word_splitter': {'@word_splitters': 'universal'}})",
        "import gliner_pipe.pipeline.gliner.component",
    ],
)
def test_light(code: str) -> None:
    output = python(f"{code}\nimport sys, json; print(json.dumps(sorted(sys.modules)))")
    loaded = set(json.loads(output))
    assert not loaded & set(HEAVY)
    assert any(name.split(".")[0] == "gliner_pipe" for name in loaded)  # the right thing was looked at


def test_our_entry_point_costs_spacy_nothing_but_ourselves() -> None:
    """Packages that ``spacy.blank`` imports on top of ``import spacy``."""
    code = "import spacy, sys, json; before = {n.split('.')[0] for n in sys.modules}; spacy.blank('en'); "
    output = python(code + "print(json.dumps(sorted({n.split('.')[0] for n in sys.modules} - before)))")
    new = {
        name
        for name in json.loads(output)
        if name not in sys.stdlib_module_names and not name.startswith("_")
    }
    assert "gliner_pipe" in new
    new.discard("google")  # an empty namespace: spaCy asks whether it runs in google.colab
    assert new <= {"gliner_pipe", "confit", "lark", "regex", "safetensors", "spacy_legacy", "spacy_loggers"}


def test_the_package_itself_imports_nothing() -> None:
    code = "import sys; before = set(sys.modules); import gliner_pipe; print(set(sys.modules) - before)"
    assert "torch" not in python(code) and "spacy" not in python(code)


def test_no_network(backbone: Path, tmp_path: Path) -> None:
    code = (
        NO_NETWORK
        + """
import sys, json, spacy
config = json.loads(sys.argv[1])
nlp = spacy.blank("en")
nlp.add_pipe("gliner", config=config)
nlp.initialize()
nlp("Ada Lovelace met Charles Babbage.")
nlp.to_disk(sys.argv[2])
spacy.load(sys.argv[2])("Ada Lovelace met Charles Babbage.")
try:
    socket.create_connection(("localhost", 1))
except AssertionError:
    print("blocked")
"""
    )
    assert (
        python(code, json.dumps(gliner_config(backbone)), str(tmp_path / "model")).strip().endswith("blocked")
    )


def test_add_pipe_does_not_look_for_the_model(tmp_path: Path) -> None:
    """Neither for a backbone on the hub nor for a checkpoint: names are looked up when weights are needed."""
    code = (
        NO_NETWORK
        + """
import spacy
nlp = spacy.blank("en")
nlp.add_pipe("gliner", name="one", config={"model": "someone/some-checkpoint"})
blocks = {"encoder": {"backbone": {"model": "someone/some-model"}}}
nlp.add_pipe("gliner", name="two", config={"model": blocks})
print(nlp.pipe_names)
"""
    )
    assert python(code, cwd=tmp_path).strip() == "['one', 'two']"
