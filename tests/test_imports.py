"""What is imported when, and that nothing reaches for the network."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import spacy
from conftest import gliner_config
from forked import Forked

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


#: What a user imports and calls before there is a model, from the least to the most, and what it has imported then.
LIGHT = """
import json, sys
before = set(sys.modules)
import gliner_pipe
alone = set(sys.modules) - before
import spacy
before = {name.split(".")[0] for name in sys.modules}
nlp = spacy.blank("en")
new = {name.split(".")[0] for name in sys.modules} - before
ours = "gliner_pipe.pipeline" in sys.modules
import gliner_pipe.registry, gliner_pipe.pipeline.gliner.component
nlp.add_pipe("gliner", config={"word_splitter": {"@word_splitters": "universal"}})
# neither a checkpoint nor a backbone of the hub is looked for: weights are not needed yet
nlp.add_pipe("gliner", name="one", config={"model": "someone/some-checkpoint"})
blocks = {"encoder": {"backbone": {"model": "someone/some-model"}}}
nlp.add_pipe("gliner", name="two", config={"model": blocks})
print(json.dumps([*map(sorted, (alone, new, sys.modules)), ours, nlp.pipe_names]))
"""


def test_nothing_is_imported_or_asked_for_before_a_model_is_built(tmp_path: Path) -> None:
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    env.pop("HF_HUB_OFFLINE", None)  # offline by itself, not by order
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", NO_NETWORK + LIGHT],
        capture_output=True, text=True, env=env, cwd=tmp_path, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    alone, new, loaded, ours, pipes = json.loads(done.stdout)
    assert not {"torch", "spacy"} & set(alone)
    # our entry point costs spaCy nothing but ourselves
    assert ours
    new = {name for name in new if name not in sys.stdlib_module_names and not name.startswith("_")}
    new.discard("google")  # an empty namespace: spaCy asks whether it runs in google.colab
    assert new <= {"confit", "lark", "regex", "safetensors", "spacy_legacy", "spacy_loggers"}
    assert not set(loaded) & set(HEAVY)
    assert pipes == ["gliner", "one", "two"]


@pytest.mark.skipif(sys.platform == "win32", reason="nothing is forked")
def test_no_network(backbone: Path, tmp_path: Path) -> None:
    def work() -> None:
        from huggingface_hub import constants

        constants.HF_HUB_OFFLINE = False  # offline by itself, not by order
        exec(NO_NETWORK, {})
        nlp = spacy.blank("en")
        nlp.add_pipe("gliner", config=gliner_config(backbone))
        nlp.initialize()
        nlp("Ada Lovelace met Charles Babbage.")
        nlp.to_disk(tmp_path / "model")
        spacy.load(tmp_path / "model")("Ada Lovelace met Charles Babbage.")
        try:
            socket.create_connection(("localhost", 1))
        except AssertionError:
            print("blocked")

    assert Forked(work, [], tmp_path / "process").output() == "blocked\n"
