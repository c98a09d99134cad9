"""Each triple scorer that is a distance learns relations by heart, and finds them at the default threshold."""

from __future__ import annotations

from pathlib import Path

import pytest
from relation_pipeline import DATA, EXPECTED, config, docs_of, found, trained

NAMES = ["complex", "se", "transe", "transf", "transh", "pairre", "triplere", "um"]


@pytest.mark.parametrize("name", NAMES)
def test_relations_are_found_with_the_defaults_of_a_triple(name: str, backbone: Path) -> None:
    data, expected = DATA, EXPECTED
    if name == "um":  # it scores all relations of a pair alike: one relation only
        data = [
            (text, spans, [[0, 1, "works for"]] if spans[:1] == [(0, 1, "person")] else [])
            for text, spans, _ in DATA
        ]
        expected = [{("Ada", "works for", "Acme")}, {("Bert", "works for", "Initech")}, set(), set()]
    settings = config(backbone)
    settings["model"]["triple"] = {"@triples": name}
    nlp = trained(settings, data, steps=400 if name == "se" else 120)
    assert [found(doc) for doc in nlp.pipe(docs_of(nlp))] == expected
