"""Settings that choose, restrict and explain entities: what wins, candidates, patterns, given spans, class scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import spacy
import torch
from conftest import gliner_config
from spacy.tokens import Doc, Span

from gliner_pipe.errors import ConfigError, DataError
from gliner_pipe.pipeline.annotate import NOT_MATCHING
from gliner_pipe.pipeline.gliner.restrictions import INPUT_TOO_WIDE, INPUT_UNALIGNED, NO_INPUT_SPANS

LABELS = ["person", "city", "date"]
TEXTS = [
    "Ada Lovelace met Charles Babbage in London on 3 May .",
    "Paris",
    "",
    "Yesterday the mayor of Little Hampton spoke to the press about the new bridge over the river Arun .",
]
SPAN_REPS: dict[str, dict[str, Any]] = {
    "spans": {"@span_reps": "markerV0", "max_width": 4},
    "tokens": {"@span_reps": "token_level"},
}


def make(backbone: Path, span_rep: dict[str, Any] = SPAN_REPS["spans"], **settings: Any) -> Any:
    """A random component whose scores are far apart; the longest text has several windows."""
    torch.manual_seed(0)
    nlp = spacy.blank("en")
    config = gliner_config(backbone, labels=LABELS, **{"flat_ner": False, "multi_label": True, **settings})
    config["model"]["span_rep"] = span_rep
    config["model"]["encoder"]["backbone"]["window"] = 40
    nlp.add_pipe("gliner", config=config)
    nlp.initialize()
    with torch.no_grad():
        for weights in nlp.get_pipe("gliner").gliner.span_rep.parameters():
            weights.mul_(3.0)
    return nlp


@pytest.fixture(scope="module", params=SPAN_REPS)
def pipeline(request: pytest.FixtureRequest, backbone: Path) -> Any:
    return make(backbone, SPAN_REPS[request.param])


@pytest.fixture
def nlp(pipeline: Any) -> Any:
    component = pipeline.get_pipe("gliner")
    before, component.report = component.cfg, type(component.report)()
    component.cfg = dict(before)
    yield pipeline
    component.cfg, component.labels = before, LABELS


def found(doc: Doc, key: str = "gliner") -> dict[tuple[int, int, str], float]:
    group = doc.spans[key]
    spans = {(s.start, s.end, s.label_): p for s, p in zip(group, group.attrs["scores"], strict=True)}
    assert len(spans) == len(group)
    return spans


def close(left: Any, right: Any) -> bool:
    return left.keys() == right.keys() and all(abs(left[key] - right[key]) < 1e-5 for key in left)


def everything(nlp: Any, threshold: float = 0.0) -> list[dict[tuple[int, int, str], float]]:
    """All spans above a threshold, without decoding."""
    component = nlp.get_pipe("gliner")
    before = component.cfg
    component.cfg = {**before, "threshold": threshold, "partial_overlaps": True, "candidate_threshold": None}
    docs = list(nlp.pipe(TEXTS))
    component.cfg = before
    return [found(doc) for doc in docs]


def middle(nlp: Any, share: float = 0.5) -> float:
    scores = sorted(score for one in everything(nlp) for score in one.values())
    at = int(len(scores) * share)
    return (scores[at] + scores[at + 1]) / 2


# -- what wins ---------------------------------------------------------------------------------------------------------


def test_the_longest_and_partial_overlaps(nlp: Any) -> None:
    component = nlp.get_pipe("gliner")
    threshold = middle(nlp, 0.7)
    candidates = everything(nlp, threshold)
    component.cfg |= {"threshold": threshold, "flat_ner": True, "multi_label": False, "prefer": "longest"}
    for doc, every in zip(nlp.pipe(TEXTS), candidates, strict=True):
        kept = found(doc)
        assert [(e.start, e.end) for e in doc.ents] == sorted(place[:2] for place in kept)
        for start, end, _ in every:
            rivals = [(e - s) for s, e, _ in kept if s < end and start < e]
            assert rivals and max(rivals) >= end - start
    component.cfg |= {"partial_overlaps": True, "prefer": "score"}
    more = [found(doc) for doc in nlp.pipe(TEXTS)]
    pairs = [(a[:2], b[:2]) for one in more for a in one for b in one if a[:2] != b[:2]]
    assert any(a[0] < b[0] < a[1] < b[1] for a, b in pairs)
    assert not any(a[0] <= b[0] and b[1] <= a[1] for a, b in pairs)


# -- candidates below the threshold ------------------------------------------------------------------------------------


def test_candidates_are_the_spans_between_two_thresholds(nlp: Any) -> None:
    component = nlp.get_pipe("gliner")
    low, high = middle(nlp, 0.3), middle(nlp, 0.8)
    component.threshold = high
    before = [found(doc) for doc in nlp.pipe(TEXTS)]
    assert "gliner_candidates" not in nlp(TEXTS[0]).spans
    component.cfg["candidate_threshold"] = low
    docs = list(nlp.pipe(TEXTS))
    for doc, entities, every in zip(docs, before, everything(nlp, low), strict=True):
        assert close(found(doc), entities)
        assert close(found(doc, "gliner_candidates"), {k: p for k, p in every.items() if p <= high})
        assert [span._.score for span in doc.spans["gliner_candidates"]] == list(
            found(doc, "gliner_candidates").values()
        )
    assert sum(len(doc.spans["gliner_candidates"]) for doc in docs) > 10
    component.labels = ["person", {"label": "city", "threshold": low}, "date"]
    assert not any(label == "city" for _, _, label in found(nlp(TEXTS[3]), "gliner_candidates"))


def test_candidates_need_scores_that_do_not_depend_on_the_threshold(backbone: Path) -> None:
    nlp = make(backbone, {**SPAN_REPS["tokens"], "represent_spans": True}, candidate_threshold=0.1)
    with pytest.raises(ConfigError, match=r"components\.gliner\.candidate_threshold"):
        nlp("Ada")


# -- patterns ----------------------------------------------------------------------------------------------------------


def test_entities_match_the_pattern_of_their_label(nlp: Any) -> None:
    component = nlp.get_pipe("gliner")
    component.labels = [{"label": "person", "pattern": "^[A-Z][a-z]+$"}, "city", "date"]
    every = everything(nlp)
    component.labels = LABELS
    kept = 0
    for doc, with_pattern, without in zip(nlp.pipe(TEXTS), every, everything(nlp), strict=True):
        wanted = {
            key: p
            for key, p in without.items()
            if key[2] != "person" or (key[1] - key[0] == 1 and doc[key[0]].text.istitle())
        }
        assert close(with_pattern, wanted)
        kept += sum(label == "person" for *_, label in wanted)
    assert kept and component.report[NOT_MATCHING] > 0


def test_a_weaker_entity_that_matches_takes_the_place(backbone: Path) -> None:
    nlp = make(backbone, flat_ner=True, multi_label=False, threshold=0.0)
    free = nlp("Ada met Bob")
    component = nlp.get_pipe("gliner")
    component.labels = [{"label": label, "pattern": "Bob"} for label in LABELS]
    checked = nlp("Ada met Bob")
    assert [ent.text for ent in checked.ents] == ["Bob"] != [ent.text for ent in free.ents]


PATTERN = {"label": "email", "pattern": r"[\w.+-]+@\w{2,}(\.\w+)*$|\$[0-9]"}


def test_a_pattern_is_saved_and_a_broken_one_refused(backbone: Path, tmp_path: Path) -> None:
    nlp = make(backbone)
    component = nlp.get_pipe("gliner")
    component.labels = [PATTERN, "city"]
    nlp.to_disk(tmp_path)
    again = spacy.load(tmp_path).get_pipe("gliner")
    assert again.label_data == [PATTERN, "city"]
    with pytest.raises(ConfigError, match=r"labels\[0\]\.pattern"):
        component.labels = [{"label": "email", "pattern": "(a"}]
    with pytest.raises(ConfigError, match=r"labels\[0\]\.pattern"):
        component.labels = [{"label": "email", "pattern": 3}]
    config = gliner_config(backbone, labels=[PATTERN])
    made = spacy.blank("en")
    made.add_pipe("gliner", config=config)
    again = spacy.blank("en").from_config(made.config.copy().from_str(made.config.to_str()))
    assert again.get_pipe("gliner").label_data == [PATTERN]


# -- given spans -------------------------------------------------------------------------------------------------------


def test_only_given_spans_are_scored(nlp: Any) -> None:
    component = nlp.get_pipe("gliner")
    component.cfg |= {"threshold": 0.0, "partial_overlaps": True}
    every = everything(nlp)
    docs = [nlp.make_doc(text) for text in TEXTS]
    given = [[(0, 2), (1, 3), (5, 6)], None, [], [(3, 6), (16, 18)]]
    docs[0]._.gliner_input_spans = [docs[0][0:2], {"start": 4, "end": 16}, [33, 35]]
    docs[2]._.gliner_input_spans = []
    docs[3]._.gliner_input_spans = [docs[3][start:end] for start, end in given[3]]
    assert docs[0]._.gliner_input_spans == [(0, 12), (4, 16), (33, 35)]
    total = 0
    for doc, places, scores in zip(nlp.pipe(docs), given, every, strict=True):
        wanted = {key: p for key, p in scores.items() if places is None or key[:2] in places}
        assert close(found(doc), wanted)
        total += len(wanted)
    assert total == 3 * (3 + 1 + 2)  # each with each label
    component.cfg["multi_label"] = False
    docs[0].spans.clear()
    best = found(nlp(docs[0]))
    assert {key[:2] for key in best} == set(given[0])
    for place, score in best.items():
        assert score == pytest.approx(
            max(q for other, q in every[0].items() if other[:2] == place[:2]), abs=1e-5
        )


def test_given_spans_of_a_group_and_what_cannot_be_scored(nlp: Any) -> None:
    component = nlp.get_pipe("gliner")
    component.cfg |= {"threshold": 0.0, "input_spans_key": "chunks"}
    doc = nlp.make_doc(TEXTS[0])
    doc.spans["chunks"] = [doc[0:2], doc[0:7]]
    assert {key[:2] for key in found(nlp(doc))} <= {(0, 2), (0, 7)}
    wide = component.max_width is not None
    assert component.report[INPUT_TOO_WIDE] == wide
    assert found(nlp("Ada")) == {} and component.report[NO_INPUT_SPANS] == 1
    component.cfg["input_spans_key"] = "ents"
    doc = nlp.make_doc("Ada met Bob")
    doc.ents = [Span(doc, 2, 3, "x")]
    assert {key[:2] for key in found(nlp(doc))} == {(2, 3)}
    doc = nlp.make_doc("Ada met Bob")
    doc._.gliner_input_spans = [(0, 2)]
    assert found(nlp(doc)) == {} and component.report[INPUT_UNALIGNED] == 1


@pytest.mark.parametrize("span", ["Ada", (0, 99), (3, 3), {"start": 0}, (0, 1.5), 7])
def test_given_spans_of_another_form(nlp: Any, span: Any) -> None:
    doc = nlp.make_doc("Ada met Bob")
    with pytest.raises(DataError, match="gliner_input_spans"):
        doc._.gliner_input_spans = [span]


# -- class scores ------------------------------------------------------------------------------------------------------


def test_class_scores(nlp: Any) -> None:
    component = nlp.get_pipe("gliner")
    component.threshold = middle(nlp, 0.6)
    assert "class_scores" not in nlp(TEXTS[0]).spans["gliner"].attrs
    component.cfg["class_scores"] = True
    docs = [nlp.make_doc(text) for text in TEXTS]
    docs[1]._.gliner_labels = ["person"]
    docs[1]._.gliner_input_spans = None
    every, checked = everything(nlp), 0
    for at, doc in enumerate(nlp.pipe(docs)):
        group = doc.spans["gliner"]
        assert len(group.attrs["class_scores"]) == len(group)
        for span, score, classes in zip(
            group, group.attrs["scores"], group.attrs["class_scores"], strict=True
        ):
            labels = ["person"] if at == 1 else LABELS
            assert sorted(classes) == sorted(labels)
            assert list(classes.values()) == sorted(classes.values(), reverse=True)
            assert classes[span.label_] == pytest.approx(score, abs=1e-6)
            if at != 1:  # other labels in the prompt, other scores
                wanted = {label: every[at][span.start, span.end, label] for label in labels}
                assert classes == pytest.approx(wanted, abs=1e-5)
                checked += 1
    assert checked > 3


def test_several_processes(backbone: Path) -> None:
    nlp = make(
        backbone, threshold=0.0, class_scores=True, candidate_threshold=0.0, flat_ner=True, multi_label=False
    )
    docs = [nlp.make_doc(text) for text in TEXTS]
    docs[0]._.gliner_input_spans = [(0, 12)]
    for doc in nlp.pipe(docs, n_process=2):
        assert [span._.score for span in doc.spans["gliner"]] == doc.spans["gliner"].attrs["scores"]
        assert all(type(ent._.score) is float for ent in doc.ents)
    assert [list(map(str, doc.ents)) for doc in nlp.pipe(docs[:1], n_process=2)] == [["Ada Lovelace"]]


def test_relations_do_not_depend_on_candidates(backbone: Path) -> None:
    """A relation layer that attends reads all spans, but none below its threshold."""
    torch.manual_seed(0)
    config = gliner_config(backbone, relations=["knows"], relation_threshold=0.0, adjacency_threshold=0.0)
    config["model"]["encoder"]["rel_token"] = "<<REL>>"
    config["model"]["relation_layer"] = {"@relation_layers": "attention"}
    nlp = spacy.blank("en")
    component: Any = nlp.add_pipe("gliner", config=config)
    nlp.initialize()
    component.threshold = 0.0
    scores = sorted(nlp(TEXTS[3]).spans["gliner"].attrs["scores"])
    component.threshold = scores[len(scores) // 2]
    before = nlp(TEXTS[3])
    component.cfg["candidate_threshold"] = 0.0
    after = nlp(TEXTS[3])
    assert len(after.spans["gliner_candidates"]) > len(after.spans["gliner"]) > 1
    found = [[(r.head.text, r.tail.text, r.score) for r in doc._.relations] for doc in (before, after)]
    assert found[0] and found[0] == found[1]
