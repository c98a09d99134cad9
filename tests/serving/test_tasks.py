"""Classes in the answers of the server."""

from __future__ import annotations

import spacy

from gliner_pipe.data.classes import Classified, write_classes
from gliner_pipe.serving.served import _classes


def test_scores_of_classes_are_those_of_their_task() -> None:
    one = Classified("tone", {"good": 0.75, "a=b": 0.25}, "good")
    other = Classified("x=y", {"good": 0.5}, ["good"])
    for found in ([one], [other], [one, other]):
        doc = spacy.blank("en")("Ada")
        write_classes(doc, found)
        assert _classes(doc) == {item.task: {"chosen": item.chosen, "scores": item.scores} for item in found}
