"""Saving over a pipeline: a process that is killed, and a reader beside it, leave and see the old or the new one.

The environment variable ``ROUNDS`` sets the number of kills and loads; a hundred take some minutes.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import spacy
import torch
from conftest import gliner_config
from forked import Forked
from spacy.language import Language

import gliner_pipe
from gliner_pipe.errors import GlinerPipeError
from gliner_pipe.util.atomic import save_pipeline

ROUNDS = int(os.environ.get("ROUNDS", "6"))


def made(backbone: Path, mark: float) -> Language:
    """A pipeline whose weights, settings and config all say which one it is."""
    nlp = spacy.blank("en")
    labels = [f"label {mark}", f"other {mark}"]
    nlp.add_pipe("gliner", config=gliner_config(backbone, threshold=mark, labels=labels))
    nlp.initialize()
    component: Any = nlp.get_pipe("gliner")
    with torch.no_grad():
        for weight in component.gliner.parameters():
            weight.fill_(mark)
    return nlp


def marks(nlp: Language) -> set[float]:
    """What the parts of a loaded pipeline say: one value, or it is a mixture."""
    component: Any = nlp.get_pipe("gliner")
    found = {round(float(weight.detach().mean()), 4) for weight in component.gliner.parameters()}
    found |= {component.threshold, nlp.config["components"]["gliner"]["threshold"]}
    return found | {float(label.split()[1]) for label in component.labels}


def plain(nlp: Language, path: Path) -> None:
    nlp.to_disk(path)


WRITERS: list[Callable[[Language, Path], Any]] = [plain, save_pipeline]


@pytest.fixture
def pipelines(backbone: Path) -> list[Language]:
    return [made(backbone, 0.25), made(backbone, 0.75)]


@pytest.mark.parametrize("write", WRITERS)
def test_kills(pipelines: list[Language], write: Callable[[Language, Path], Any], tmp_path: Path) -> None:
    """After a kill there is the old or the new pipeline, or what is there is refused; then it can be saved again."""
    rng = random.Random(int(os.environ.get("SEED", "0")))
    target = tmp_path / "model"
    began = time.perf_counter()
    write(pipelines[0], target)
    once = time.perf_counter() - began
    outcomes: Counter[str] = Counter()
    for number in range(ROUNDS):
        old, new = pipelines[number % 2], pipelines[1 - number % 2]
        forked = Forked(lambda new=new: write(new, target), [], tmp_path / "run")
        time.sleep(rng.uniform(0, 1.5 * once))
        forked.kill()
        try:
            found = marks(gliner_pipe.load(target))
        except GlinerPipeError as error:
            assert write is plain, error  # nlp.to_disk itself writes several files
            outcomes["refused"] += 1
        else:
            assert len(found) == 1, found
            outcomes["old" if found == marks(old) else "new"] += 1
        write(new, target)
        assert marks(spacy.load(target)) == marks(new)
    assert not [path.name for path in (*tmp_path.iterdir(), *target.iterdir()) if path.name.startswith(".")]
    print(f"{ROUNDS} kills of {write.__name__}: {dict(outcomes)}")


@pytest.mark.parametrize("load", [spacy.load, gliner_pipe.load])
@pytest.mark.parametrize("write", WRITERS)
def test_a_reader_beside_a_writer(
    pipelines: list[Language], write: Callable[[Language, Path], Any], load: Any, tmp_path: Path
) -> None:
    """A reader gets the old or the new pipeline, never a mixture."""
    target = tmp_path / "model"
    write(pipelines[0], target)

    def save_again_and_again() -> None:
        while True:
            for nlp in pipelines:
                write(nlp, target)

    writer = Forked(save_again_and_again, [], tmp_path / "run")
    outcomes: Counter[str] = Counter()
    try:
        for _ in range(ROUNDS):
            try:
                found = marks(load(target))
            except (ValueError, OSError) as error:
                assert (write, load) != (save_pipeline, gliner_pipe.load), error
                outcomes[f"refused: {type(error).__name__}"] += 1
            else:
                outcomes[", ".join(map(str, sorted(found)))] += 1
                assert len(found) == 1, found
        assert writer.process.is_alive(), (writer.folder / "stderr").read_text("utf8")
    finally:
        writer.kill()
        print(f"{ROUNDS} loads by {load.__module__}.load beside {write.__name__}: {dict(outcomes)}")
