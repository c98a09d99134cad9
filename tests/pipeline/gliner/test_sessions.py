"""Sessions of the component: text that arrives piece by piece."""

from __future__ import annotations

import itertools
import random
import re
from pathlib import Path
from typing import Any

import pytest
import spacy
import torch
from conftest import gliner_config, make_causal_lm
from spacy.training import Example

from gliner_pipe.errors import ConfigError, DataError

LABELS = ["person", "city"]
WIDTH = 4
TEXT = (
    "Maria Lindqvist joined Oslo University on 3 March 2019.  The baker from Lima, who had\n"
    "measles, bought a well-known painting for $40 in Berlin. "
)
#: Context on the right in sessions where there is some.
RIGHT = 3


@pytest.fixture(scope="module")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_causal_lm(tmp_path_factory.mktemp("language_model"), kind="qwen2")


def made(language_model: Path, span_rep: str = "markerV0", **settings: Any) -> Any:
    """A component over a causal encoder whose scores are far apart."""
    encoder = {
        "@encoders": "causal_encoder",
        "backbone": {"@backbones": "causal_transformer", "model": str(language_model), "window": 80},
        "right_context": RIGHT,
    }
    model = {
        "@architectures": "gliner_pipe.GLiNER.v1",
        "encoder": {**encoder, **settings.pop("encoder", {})},
        "span_rep": {"@span_reps": span_rep, "max_width": WIDTH},
        **settings.pop("blocks", {}),
    }
    nlp = spacy.blank("en")
    component: Any = nlp.add_pipe("gliner", config={"model": model, "labels": LABELS, **settings})
    torch.manual_seed(1)
    component.gliner.build()
    for parameter in component.gliner.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.15)
    component.gliner.eval()
    return component


@pytest.fixture(scope="module")
def component(language_model: Path) -> Any:
    return made(language_model)


def fed(session: Any, pieces: list[str]) -> list[Any]:
    return [entity for piece in pieces for entity in session.feed(piece)] + session.finish()


def cut(text: str, seed: int) -> list[str]:
    """Cut a text anywhere."""
    places = sorted(random.Random(seed).sample(range(1, len(text)), 12))
    return [text[start:stop] for start, stop in zip([0, *places], [*places, len(text)], strict=True)]


def same(found: list[Any], wanted: list[Any]) -> bool:
    scores = [[one["score"] for one in some] for some in (found, wanted)]
    rest = [[{**one, "score": 0} for one in some] for some in (found, wanted)]
    return rest[0] == rest[1] and scores[0] == pytest.approx(scores[1], abs=1e-5)


@pytest.mark.parametrize(
    "pieces", [[TEXT], list(TEXT), re.findall(r"\s*\S+", TEXT), cut(TEXT, 1), cut(TEXT, 2)], ids=len
)
def test_pieces_may_end_anywhere(component: Any, pieces: list[str]) -> None:
    """Without context on the right, a session finds what is found in the whole text, wherever it is cut."""
    for options in ({}, {"flat_ner": False, "multi_label": True}):
        wanted = component.predict_entities(TEXT.strip(), threshold=0.4, **options)
        assert len(wanted) > 5
        assert same(fed(component.session(threshold=0.4, **options), pieces), wanted)


def test_whitespace_ends_a_word(component: Any) -> None:
    session = component.session(threshold=0.0)
    for piece in ("", " ", "Mar", "ia", "\n", "  ", "Lind"):
        assert session.feed(piece) == []
    assert session._spans.n_words == 1
    assert [one["text"] for one in session.finish()][-1].endswith("Lind")


@pytest.mark.parametrize(("span_rep", "right"), [("markerV0", 0), ("markerV2", RIGHT)])
def test_entities_are_returned_once_nothing_can_change_them(
    language_model: Path, span_rep: str, right: int
) -> None:
    """Each is returned at the first word that makes it certain; none is taken back."""
    component = made(language_model, span_rep)
    plain = re.sub(r"[^\w\s]", "", TEXT).split()
    every = fed(component.session(threshold=0.0, flat_ner=False, multi_label=True), [" ".join(plain)])
    threshold = sorted(one["score"] for one in every)[
        -8
    ]  # of few spans, as others may wait for their neighbours
    session = component.session(threshold=threshold)
    waited = [
        number - plain.index(entity["text"].split()[-1])
        for number, word in enumerate(plain, 1)
        for entity in session.feed(f"{word} ")
    ]
    assert waited and min(waited) == right + WIDTH


def test_texts_of_any_length(language_model: Path) -> None:
    """The memory is replaced once the positions are used up; entities are found to the end."""
    component = made(language_model, "markerV2", encoder={"max_session_tokens": 60})
    session = component.session(threshold=0.6)
    text, found = "", []
    for number in range(60):
        piece = f"{TEXT} {number} "
        text += piece
        found += session.feed(piece)
        engine = session._spans
        assert len(engine._ids) <= engine.room < 60
        assert len(session._text) < 600 and len(session._offsets) < 60
        assert engine._memory.get_seq_length() <= 60
    found += session.finish()
    assert all(text[one["start"] : one["end"]] == one["text"] for one in found)
    assert found[-1]["end"] > len(text) - 60
    starts = [one["start"] for one in found]
    assert starts == sorted(starts)
    assert all(one["end"] <= other["start"] for one, other in itertools.pairwise(found))


def test_one_long_piece_is_like_a_piece_and_its_rest(language_model: Path) -> None:
    component = made(language_model, encoder={"max_session_tokens": 60})
    text = TEXT * 10
    one, several = (fed(component.session(threshold=0.6), pieces) for pieces in ([text], cut(text, 3)))
    assert one and one[-1]["end"] > len(text) - 60
    assert several and several[-1]["end"] > len(text) - 60


def test_a_word_longer_than_the_memory(language_model: Path) -> None:
    component = made(language_model, encoder={"max_session_tokens": 40})
    fed(component.session(threshold=0.6), ["Maria " + "xyzq" * 100 + " Lima"])
    assert sum(component.report.values()) == 1


def test_sessions_do_not_see_each_other(component: Any) -> None:
    wanted = [fed(component.session(threshold=0.5), [TEXT]), fed(component.session(["date"], 0.5), [TEXT])]
    one, other = component.session(threshold=0.5), component.session(["date"], threshold=0.5)
    found: list[list[Any]] = [[], []]
    for piece in cut(TEXT, 4):
        found[0] += one.feed(piece)
        found[1] += other.feed(piece)
    found[0] += one.finish()
    found[1] += other.finish()
    assert all(same(*pair) for pair in zip(found, wanted, strict=True))
    assert {entity["label"] for entity in found[1]} == {"date"}
    assert component.labels == tuple(LABELS)


def test_labels_with_thresholds_and_patterns_and_all_scores(language_model: Path) -> None:
    labels = [
        {"label": "person", "threshold": 0.2, "pattern": "[A-Z].*"},
        {"label": "city", "description": "a large town", "threshold": 0.5},
    ]
    component = made(language_model, class_scores=True)
    component.labels = labels
    wanted = component.predict_entities(TEXT.strip())
    found = fed(component.session(), cut(TEXT, 5))
    assert same([{**one, "class_scores": 0} for one in found], [{**one, "class_scores": 0} for one in wanted])
    for one, other in zip(found, wanted, strict=True):
        assert one["class_scores"] == pytest.approx(other["class_scores"], abs=1e-5)
    assert all(one["text"][0].isupper() for one in found if one["label"] == "person")


def test_a_context_in_both_directions_makes_nothing_certain(language_model: Path) -> None:
    component = made(language_model, blocks={"context": {"@context_encoders": "lstm"}})
    session = component.session(threshold=0.5)
    assert session.feed(TEXT) == []
    assert same(session.finish(), component.predict_entities(TEXT.strip(), threshold=0.5))


def test_after_the_end(component: Any) -> None:
    session = component.session(threshold=0.5)
    assert session.close() == []
    assert session.finish() == []
    with pytest.raises(DataError):
        session.feed("Maria ")
    with pytest.raises(DataError):
        component.session().feed(b"Maria ")


@pytest.mark.filterwarnings("ignore:The component 'gliner' has no labels")
def test_no_labels_and_no_text(component: Any) -> None:
    assert fed(component.session([]), [TEXT]) == []
    assert fed(component.session(threshold=0.0), []) == []
    assert fed(component.session(threshold=0.0), ["  ", "\n"]) == []


def test_models_without_sessions(backbone: Path, language_model: Path) -> None:
    component: Any = spacy.blank("en").add_pipe("gliner", config=gliner_config(backbone))
    component.gliner.build()
    with pytest.raises(ConfigError, match=r"components\.gliner\.model\.encoder\]"):
        component.session()
    with pytest.raises(ConfigError, match=r"components\.gliner\.model\.encoder\.max_session_tokens\]"):
        made(language_model, encoder={"max_session_tokens": 5}).session()


def test_training_with_an_adapter(language_model: Path) -> None:
    """A step changes what was kept of a prompt, too."""
    nlp = spacy.blank("en")
    backbone = {"@backbones": "causal_transformer", "model": str(language_model), "window": 80}
    encoder = {
        "@encoders": "causal_encoder",
        "backbone": {**backbone, "adapter": {"@adapters": "lora", "r": 2}},
    }
    blocks = {"encoder": encoder, "span_rep": {"@span_reps": "markerV2"}}
    config = {
        "model": {"@architectures": "gliner_pipe.GLiNER.v1", **blocks},
        "labels": LABELS,
        "max_learn_rate": None,
    }
    component: Any = nlp.add_pipe("gliner", config=config)
    gold = Example.from_dict(nlp.make_doc("Maria lives in Oslo"), {"entities": [(0, 5, "person")]})
    optimizer = nlp.initialize(lambda: [gold])
    losses, found = [], []
    for _ in range(30):
        found.append(component.predict_entities("Maria lives in Oslo", threshold=0.0))
        nlp.update([gold], sgd=optimizer, losses=(loss := {}))
        losses.append(loss["gliner"])
    assert losses[-1] < losses[0] / 2
    assert found[0] != found[1]
    assert component.predict_entities("Maria lives in Oslo")[0]["text"] == "Maria"
    assert fed(component.session(), ["Maria lives in Oslo "])[0]["text"] == "Maria"
