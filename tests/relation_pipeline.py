"""Tiny pipelines that know the relations of some sentences by heart."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import spacy
import torch
from conftest import gliner_config
from spacy.language import Language
from spacy.tokens import Doc, Span
from spacy.training import Example

from gliner_pipe.data.annotations import set_supervision

# text, entities, relations
DATA: list[tuple[str, list[tuple[int, int, str]], list[list[Any]] | None]] = [
    ("Ada works for Acme .", [(0, 1, "person"), (3, 4, "company")], [[0, 1, "works for"]]),
    (
        "Bert founded Initech in Paris .",
        [(0, 1, "person"), (2, 3, "company"), (4, 5, "city")],
        [[0, 1, "founded"], [1, 2, "located in"]],
    ),
    ("Rome is far from Berlin .", [(0, 1, "city"), (4, 5, "city")], []),
    ("Nothing of note happened .", [], []),
]
CALM = {
    "labels": [],
    "relation_sampling": {"vary": 0.0},
    "label_sampling": {"all_labels": True, "shuffle": False},
}


def config(backbone: Path, encoder: str = "uni_encoder", span_rep: str = "markerV0", **changes: Any) -> Any:
    made = gliner_config(backbone, **{**CALM, **changes})
    model = made["model"]
    if encoder == "uni_encoder":
        model["encoder"]["rel_token"] = "<<REL>>"
    else:
        model["encoder"] |= {"@encoders": encoder, "label_model": str(backbone)}
    model["dropout"] = 0.0
    model["span_rep"] = {"@span_reps": span_rep, "dropout": 0.0}
    model["relation_layer"] = {"@relation_layers": "mlp"}
    model["triple"] = {"@triples": "concat", "dropout": 0.0}
    return made


def example(nlp: Language, text: str, spans: Any, relations: Any) -> Example:
    doc = Doc(nlp.vocab, words=text.split())
    doc.spans["gliner"] = [Span(doc, start, end, label=label) for start, end, label in spans]
    set_supervision(doc, relations=relations)
    return Example(Doc(nlp.vocab, words=text.split()), doc)


def fit(nlp: Language, gold: list[Example], steps: int = 400) -> None:
    """Learn by heart: until ten losses in a row are next to nothing, in `steps` at most."""
    component: Any = nlp.get_pipe("gliner")
    model = component.gliner
    model.train()
    pretrained = set(model.encoder.backbone.parameters())
    rest = [p for p in model.parameters() if p not in pretrained]
    optimizer = torch.optim.AdamW(
        [{"params": list(pretrained), "lr": 1e-3}, {"params": rest, "lr": 3e-3}], weight_decay=0.0
    )
    calm = 0
    for _ in range(steps):
        optimizer.zero_grad()
        loss = component.get_loss(gold).total
        calm = calm + 1 if float(loss.detach()) < 0.05 else 0
        if calm == 10:
            break
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
    model.eval()


def trained(settings: Any, data: Any = DATA, steps: int = 400) -> Language:
    torch.manual_seed(0)
    nlp = spacy.blank("en")
    nlp.add_pipe("gliner", config=settings)
    gold = [example(nlp, *one) for one in data]
    nlp.initialize(lambda: gold)
    fit(nlp, gold, steps)
    return nlp


def found(doc: Doc) -> set[tuple[str, str, str]]:
    return {(r.head.text, r.label, r.tail.text) for r in doc._.relations}


EXPECTED = [
    {("Ada", "works for", "Acme")},
    {("Bert", "founded", "Initech"), ("Initech", "located in", "Paris")},
    set(),
    set(),
]


def docs_of(nlp: Language) -> list[Doc]:
    return [Doc(nlp.vocab, words=text.split()) for text, _, _ in DATA]


def collate(nlp: Language, data: Any, seed: int = 0) -> Any:
    component: Any = nlp.get_pipe("gliner")
    return component.collate([example(nlp, *one) for one in data], random.Random(seed))


@contextmanager
def restored(nlp: Language) -> Iterator[None]:
    """Put the settings of the component back at the end."""
    component: Any = nlp.get_pipe("gliner")
    before, relations, labels = dict(component.cfg), component.relation_items, component.label_items
    yield
    component.cfg, component.relations, component.labels = before, relations, labels
    component.report.clear()
