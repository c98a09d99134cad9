"""Work for kill_loop.py: saves two fat pipelines in turn over one path, without end."""

from __future__ import annotations

from collections.abc import Callable

import numpy
import spacy
from spacy.language import Language

from gliner_pipe.util.atomic import save_pipeline


def pipeline(label: str, rows: int) -> Language:
    nlp = spacy.blank("en")
    nlp.meta["description"] = label
    patterns = [{"label": label, "pattern": f"{label} {number}"} for number in range(2000)]
    nlp.add_pipe("entity_ruler").add_patterns(patterns)
    nlp.vocab.set_vector("fill", numpy.zeros(50, dtype="float32"))
    nlp.vocab.vectors.resize((rows, 50))
    return nlp


def prepare(path: str) -> tuple[Callable[[], None], Callable[[], None]]:
    rows = {"FIRST": 20_000, "SECOND": 30_000}
    pipelines = {label: pipeline(label, count) for label, count in rows.items()}
    save_pipeline(pipelines["FIRST"], path)

    def work() -> None:
        while True:
            save_pipeline(pipelines["SECOND"], path)
            save_pipeline(pipelines["FIRST"], path)

    def check() -> None:
        nlp = spacy.load(path)
        label = nlp.meta["description"]
        assert nlp.get_pipe("entity_ruler").labels == (label,)
        assert nlp.vocab.vectors.shape == (rows[label], 50)

    return work, check
