"""Labels that a language model writes: learned by heart, written, constrained and saved."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import spacy
import torch
from conftest import gliner_config, make_backbone, make_causal_lm
from spacy.language import Language
from spacy.tokens import Doc, DocBin, Span
from spacy.training import Example

from gliner_pipe.data.annotations import set_supervision
from gliner_pipe.errors import ConfigError
from gliner_pipe.pipeline.gliner.training_batch import NO_SLOT

DATA: list[tuple[str, list[tuple[int, int, str]]]] = [
    ("Ada lives in Rome .", [(0, 1, "person"), (3, 4, "city")]),
    ("Berlin is far from Acme .", [(0, 1, "city"), (4, 5, "company")]),
    ("Nothing of note happened .", []),
]
EXPECTED = [[("Ada", "person"), ("Rome", "city")], [("Berlin", "city"), ("Acme", "company")], []]


def config(backbone: Path, causal: Path, mode: str = "span", **changes: Any) -> Any:
    sampling = {"all_labels": True, "shuffle": False}
    made = gliner_config(backbone, **{"labels": [], "label_sampling": sampling, **changes})
    model = made["model"]
    model["dropout"] = 0.0
    model["span_rep"]["dropout"] = 0.0
    model["encoder"]["embed_ent_token"] = mode == "prompt"
    model["decoder"] = {
        "@decoders": "generative",
        "model": str(causal),
        "mode": mode,
        "dropout": 0.0,
        "blank_entity_prob": 0.5,
        "max_new_tokens": 6,
    }
    return made


def example(nlp: Language, text: str, spans: Any, **fields: Any) -> Example:
    doc = Doc(nlp.vocab, words=text.split())
    doc.spans["gliner"] = [Span(doc, start, end, label=label) for start, end, label in spans]
    set_supervision(doc, **fields)
    return Example(Doc(nlp.vocab, words=text.split()), doc)


def trained(settings: Any, data: Any = DATA, steps: int = 300, **fields: Any) -> Language:
    """Learn by heart: until ten losses in a row are next to nothing, in `steps` at most."""
    torch.manual_seed(0)
    nlp = spacy.blank("en")
    component: Any = nlp.add_pipe("gliner", config=settings)
    gold = [example(nlp, *one, **fields) for one in data]
    nlp.initialize(lambda: gold)
    model = component.gliner.train()
    component._rng = random.Random(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.0)
    calm = 0
    for _ in range(steps):
        optimizer.zero_grad()
        loss = component.get_loss(gold).total
        calm = calm + 1 if float(loss.detach()) < 0.1 else 0
        if calm == 10:
            break
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
    model.eval()
    return nlp


@pytest.fixture(scope="module")
def causal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_causal_lm(tmp_path_factory.mktemp("causal"))


@pytest.fixture(scope="module")
def learned(causal: Path, tmp_path_factory: pytest.TempPathFactory) -> Language:
    return trained(config(make_backbone(tmp_path_factory.mktemp("backbone")), causal))


@pytest.fixture
def nlp(learned: Language) -> Any:
    """The trained pipeline, with its settings put back at the end."""
    component: Any = learned.get_pipe("gliner")
    before, labels = dict(component.cfg), component.label_items
    yield learned
    component.cfg, component.labels = before, labels


def docs_of(nlp: Language) -> list[Doc]:
    return [Doc(nlp.vocab, words=text.split()) for text, _ in DATA]


def written(doc: Doc) -> list[tuple[str, str]]:
    group = doc.spans["gliner"]
    return [(s.text, one[0]) for s, one in zip(group, group.attrs["generated_labels"], strict=True)]


def test_learned_by_heart(nlp: Any) -> None:
    docs = list(nlp.pipe(docs_of(nlp)))
    assert [written(doc) for doc in docs] == EXPECTED
    assert [[(s.text, s.label_) for s in doc.spans["gliner"]] for doc in docs] == EXPECTED


def test_labels_are_written_where_none_is_known(nlp: Any) -> None:
    component = nlp.get_pipe("gliner")
    component.labels = ["entity"]
    docs = list(nlp.pipe(docs_of(nlp)))
    assert [written(doc) for doc in docs] == EXPECTED
    assert {s.label_ for doc in docs for s in doc.spans["gliner"]} == {"entity"}
    component.cfg["use_generated_labels"] = True
    docs = list(nlp.pipe(docs_of(nlp)))
    assert [[(s.text, s.label_) for s in doc.spans["gliner"]] for doc in docs] == EXPECTED
    assert [(e.text, e.label_) for e in docs[0].ents] == EXPECTED[0]


def test_the_batch_changes_nothing(nlp: Any) -> None:
    component = nlp.get_pipe("gliner")
    component.cfg |= {"threshold": 0.2, "n_sequences": 2}
    alone = [component.predict([doc])[0] for doc in docs_of(nlp)]
    together = component.predict(docs_of(nlp))
    generated = [[entity.generated for entity in one.entities] for one in alone]
    assert generated == [[entity.generated for entity in one.entities] for one in together]
    assert {len(labels) for some in generated for labels in some} == {2}


def test_constraints(nlp: Any) -> None:
    component = nlp.get_pipe("gliner")
    allowed = ["a rather long label that is not a word", "city", "person"]
    component.cfg |= {"generate_constraints": allowed, "n_sequences": 3}
    docs = list(nlp.pipe(docs_of(nlp)))
    for doc in docs:
        for labels in doc.spans["gliner"].attrs["generated_labels"]:
            assert sorted(labels) == allowed
    assert written(docs[0]) == EXPECTED[0]
    component.cfg |= {"generate_constraints": ["city"], "use_generated_labels": True}
    docs = list(nlp.pipe(docs_of(nlp)))
    assert {s.label_ for doc in docs for s in doc.spans["gliner"]} == {"city"}


def test_several_labels_of_a_span_are_written_once(nlp: Any) -> None:
    component = nlp.get_pipe("gliner")
    component.cfg |= {"threshold": 0.0, "multi_label": True}
    (prediction,) = component.predict(docs_of(nlp)[:1])
    by_span: dict[Any, set[Any]] = {}
    for entity in prediction.entities:
        by_span.setdefault(entity[:2], set()).add(entity.generated)
    assert len(prediction.entities) > len(by_span)  # several labels on some span
    assert all(len(labels) == 1 for labels in by_span.values())


def test_texts_without_entities(nlp: Any) -> None:
    nlp.get_pipe("gliner").threshold = 1.0
    for doc in nlp.pipe(["", " ", "Nothing of note", DATA[0][0]]):
        assert list(doc.spans["gliner"].attrs["generated_labels"]) == []


def test_written_labels_survive_bytes(nlp: Any) -> None:
    doc = nlp(docs_of(nlp)[0])
    assert written(Doc(nlp.vocab).from_bytes(doc.to_bytes())) == EXPECTED[0]
    (binned,) = DocBin(docs=[doc], store_user_data=True).get_docs(nlp.vocab)
    assert written(binned) == EXPECTED[0]


def test_saved_and_loaded(nlp: Any, tmp_path: Path) -> None:
    component = nlp.get_pipe("gliner")
    component.cfg |= {
        "generate_constraints": ["city", "person"],
        "use_generated_labels": True,
        "n_sequences": 2,
    }
    expected = component.predict(docs_of(nlp))
    assert expected[0].entities[0].generated[0] == "person"
    nlp.to_disk(tmp_path / "model")
    loaded: Any = spacy.load(tmp_path / "model")
    assert loaded.get_pipe("gliner").cfg == component.cfg
    assert loaded.get_pipe("gliner").predict(docs_of(loaded)) == expected
    other: Any = spacy.util.load_model_from_config(nlp.config).from_bytes(nlp.to_bytes())
    assert other.get_pipe("gliner").predict(docs_of(other)) == expected


# -- training ----------------------------------------------------------------------------------------------------------


def collate(nlp: Language, data: Any, seed: int = 0) -> Any:
    component: Any = nlp.get_pipe("gliner")
    return component.collate([example(nlp, *one) for one in data], random.Random(seed))


def test_targets(nlp: Any) -> None:
    decoder = nlp.get_pipe("gliner").gliner.decoder
    before = decoder.blank_entity_prob
    try:
        decoder.blank_entity_prob = 0.0
        batch = collate(nlp, DATA)
        assert batch.label_generation.spans.tolist() == [[0, 0, 0], [0, 3, 3], [1, 0, 0], [1, 4, 4]]
        assert batch.label_generation.words == (("Ada",), ("Rome",), ("Berlin",), ("Acme",))
        assert batch.label_generation.labels == ("person", "city", "city", "company")
        assert len(batch.inputs.queries[0].entities) == 3
        decoder.blank_entity_prob = 1.0
        blank = collate(nlp, DATA)
    finally:
        decoder.blank_entity_prob = before
    assert {query.entities for query in blank.inputs.queries} == {("entity",)}
    assert blank.gold[:, 3].tolist() == [0] * 4
    assert blank.label_generation.labels == batch.label_generation.labels
    torch.testing.assert_close(blank.label_generation.spans, batch.label_generation.spans)


def test_blank_batches_are_as_many_as_asked_for(nlp: Any) -> None:
    queries = [collate(nlp, DATA, seed).inputs.queries for seed in range(40)]
    blank = [all(query.entities == ("entity",) for query in some) for some in queries]
    assert 10 <= sum(blank) <= 30  # one half
    assert all(len({len(query.entities) for query in some}) == 1 for some in queries)  # a batch as a whole


@pytest.mark.parametrize("mode", ["span", "prompt"])
@pytest.mark.parametrize("span_rep", ["markerV0", "token_level", "conv_max"])
def test_loss(backbone: Path, causal: Path, mode: str, span_rep: str) -> None:
    settings = config(backbone, causal, mode)
    settings["model"]["span_rep"] = {"@span_reps": span_rep}
    settings["model"]["relation_layer"] = {"@relation_layers": "dot"}
    settings["model"]["encoder"]["rel_token"] = "<<REL>>"
    nlp = spacy.blank("en")
    component: Any = nlp.add_pipe("gliner", config=settings)
    gold = [example(nlp, *one, relations=[[0, 1, "r"]] if one[1] else []) for one in DATA]
    nlp.initialize(lambda: gold)
    model = component.gliner.train()
    loss = component.get_loss(gold)
    assert {"label", "relation"} <= set(loss.parts) and float(loss.parts["label"]) > 0
    loss.total.backward()
    learns = model.decoder.projection or model.decoder.decoder
    assert any(p.grad is not None and float(p.grad.abs().sum()) > 0 for p in learns.parameters())
    bare = component.get_loss([gold[2]])  # no entity at all
    assert float(bare.parts["label"]) == 0.0 and torch.isfinite(bare.total)
    bare.total.backward()


# -- a prompt without labels -------------------------------------------------------------------------------------------


def test_a_prompt_without_labels(backbone: Path, causal: Path, tmp_path: Path) -> None:
    nlp = trained(config(backbone, causal, "prompt", prompt_slots=3))
    component: Any = nlp.get_pipe("gliner")
    component.labels = []  # none is read
    docs = list(nlp.pipe(docs_of(nlp)))
    assert [[(s.text, s.label_) for s in doc.spans["gliner"]] for doc in docs] == EXPECTED
    assert [written(doc) for doc in docs] == EXPECTED
    nlp.to_disk(tmp_path / "model")
    loaded: Any = spacy.load(tmp_path / "model")
    assert loaded.get_pipe("gliner").predict(docs_of(loaded)) == component.predict(docs_of(nlp))


def test_slots(backbone: Path, causal: Path) -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("gliner", config=config(backbone, causal, "prompt", prompt_slots=2, labels=["x"]))
    nlp.initialize()
    text = "Ada lives in Rome or Acme or Berlin ."
    spans = [(7, 8, "city"), (0, 1, "person"), (3, 4, "city"), (5, 6, "company")]
    batch = collate(nlp, [(text, spans), DATA[2]])
    assert {query.entities for query in batch.inputs.queries} == {("", "")}
    # slots in the order of the text: person, city; company has none left
    assert sorted(batch.gold.tolist()) == [[0, 0, 0, 0], [0, 3, 0, 1], [0, 7, 0, 1]]
    assert sorted(zip(batch.label_generation.spans.tolist(), batch.label_generation.labels, strict=True)) == [
        ([0, 0, 0], "person"),
        ([0, 1, 1], "city"),
    ]
    assert batch.dropped == {NO_SLOT: 1}
    assert batch.inputs.windows.prompt_mask.sum(1).tolist() == [2, 2]


# -- mistakes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", [{"embed_ent_token": False}, {"@encoders": "bi_encoder"}])
def test_encoders_that_need_label_texts(backbone: Path, causal: Path, change: dict[str, Any]) -> None:
    settings = config(backbone, causal, "prompt", labels=["x"])
    settings["model"]["encoder"] |= change
    if "@encoders" in change:
        settings["model"]["encoder"]["label_model"] = str(backbone)
        del settings["model"]["encoder"]["embed_ent_token"]
    nlp = spacy.blank("en")
    nlp.add_pipe("gliner", config=settings)
    with pytest.raises(ConfigError, match=r"components\.gliner\.model\.decoder\.mode\].*'prompt'"):
        nlp.initialize()


@pytest.mark.parametrize(
    ("setting", "value"),
    [("use_generated_labels", True), ("generate_constraints", ["a"]), ("n_sequences", 2)],
)
def test_generation_settings_need_a_label_generator(backbone: Path, setting: str, value: Any) -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("gliner", config=gliner_config(backbone, **{setting: value}))
    nlp.initialize()
    with pytest.raises(ConfigError, match=rf"^\[components\.gliner\.{setting}\].*generative"):
        nlp("text")


@pytest.mark.parametrize(
    ("setting", "value", "allowed"),
    [
        ("generate_constraints", "city", "a list, or null"),
        ("generate_constraints", [" "], "a string that is not blank, of characters that UTF-8 can encode"),
        ("n_sequences", 0, "a whole number of at least 1, or null"),
        ("prompt_slots", 0, "a whole number of at least 1"),
        ("use_generated_labels", 1, "true or false"),
    ],
)
def test_values_that_are_not_allowed(backbone: Path, setting: str, value: Any, allowed: str) -> None:
    nlp = spacy.blank("en")
    with pytest.raises(ConfigError) as error:
        nlp.add_pipe("gliner", config=gliner_config(backbone, **{setting: value}))
    assert (error.value.where, error.value.allowed) == (f"components.gliner.{setting}", allowed)


def test_other_models_generate_no_labels(backbone: Path) -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("gliner", config=gliner_config(backbone, threshold=0.0))
    nlp.initialize()
    doc = nlp("Ada lives here")
    assert len(doc.spans["gliner"]) and "generated_labels" not in doc.spans["gliner"].attrs
