"""Token models of the `gliner` package give the same scores and entities here."""

from __future__ import annotations

import pytest
from checkpoint_parity import (
    TEXTS,
    cases,
    check,
    check_case,
    load,
    make_peer,
    our_entities,
    save,
    their_entities,
)

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("case", cases("uni", token=True))
def test_combinations_of_options(tmp_path, case):
    check_case(case, tmp_path)


@pytest.mark.parametrize("seed", range(4))
def test_batches_of_unequal_texts(tmp_path, seed):
    model = make_peer(seed=seed, span_mode="token_level")
    check(model, load(save(model, tmp_path)))


@pytest.mark.parametrize("seed", range(1, 5))
@pytest.mark.parametrize("context", [None, "rnn", "deberta-v2"])
def test_spans_that_are_scored_once_more(tmp_path, seed, context):
    """GLiNER 0.2.29 fault: texts of unequal length in one batch fail; here they are what each is by itself."""
    settings = {"span_encoder_config": {"model_type": context}} if context else {}
    model = make_peer(seed=seed, span_mode="token_level", represent_spans=True, **settings)
    check(model, load(save(model, tmp_path)), alone=True)


def test_a_context_encoder_that_nothing_uses(tmp_path):
    """Words are scored without it, and GLiNER makes it only where spans are scored, too."""
    settings = {"span_mode": "token_level", "span_encoder_config": {"model_type": "rnn"}}
    model = make_peer(**settings)
    component = load(save(model, tmp_path))
    assert component.gliner.context is None
    check(model, component)


def test_entities_wider_than_any_span(tmp_path):
    model = make_peer(span_mode="token_level", max_width=2)
    component = load(save(model, tmp_path))
    options = {"threshold": 0.02, "flat_ner": False, "multi_label": True}
    (theirs,) = their_entities(model, TEXTS[2:], **options)
    (ours,) = our_entities(component, TEXTS[2:], **options)
    assert ours == pytest.approx(theirs, abs=1e-4)
    assert max(end - start for start, end, _ in ours) > 40
