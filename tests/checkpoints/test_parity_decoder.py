"""Models of the `gliner` package that write labels: the same entities, and the same labels written."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
import spacy
import torch
from checkpoint_parity import (
    TEXTS,
    cases,
    check_case,
    decoder_settings,
    gap,
    load,
    make_peer,
    prepare_peer,
    run_peer,
    save,
    valid_scores,
)

pytestmark = pytest.mark.filterwarnings("ignore")

Written = dict[tuple[int, int], str]


@pytest.mark.parametrize("case", [*cases("writes", token=False), *cases("writes", token=True)])
def test_combinations_of_options(tmp_path, case):
    check_case(case, tmp_path)


def their_labels(model: Any, text: str, threshold: float, wanted: Iterable[tuple[int, int]]) -> Written:
    """Labels that the peer writes for spans above the threshold, by first and last word.

    Its language model gets what it is meant to get: the vector of the span and the pieces of its words. GLiNER 0.2.29
    pads the words of shorter spans with zeros, which it reads as words; and token models take the words one place too
    far to the left, for the first word of the text the whole prompt.
    """
    batch = prepare_peer(model, [text])
    with torch.inference_mode():
        out = model.model(**batch, threshold=threshold)
        written: Written = {}
        tokenizer = model.data_processor.decoder_tokenizer
        for row, index in enumerate(out.decoder_span_idx[0].tolist()):
            if index < 0:  # padding
                continue
            if model.config.span_mode == "token_level":
                start, end = out.span_idx[0, index].tolist()
            else:
                start, width = divmod(index, model.config.max_width)
                end = start + width
            if (start, end) not in wanted:
                continue
            read = out.decoder_embedding[0, row]
            if model.config.full_decoder_context:
                first = read[out.decoder_embedding_mask[0, row].bool()][:1]
                places = batch["decoder_words_mask"][0]
                pieces = batch["decoder_input_ids"][0][(places > start) & (places <= end + 1)]
                read = torch.cat([first, model.model.decoder.ids_to_embeds(pieces)])
            read = read.reshape(1, 1, -1, read.shape[-1])
            ids = model.model.generate_labels(
                read,
                torch.ones(read.shape[:3], dtype=torch.bool),
                max_new_tokens=15,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
            written[start, end] = tokenizer.batch_decode(ids, skip_special_tokens=True)[0].strip()
    return written


def our_labels(component: Any, text: str, threshold: float) -> Written:
    """Labels written for all entities above the threshold."""
    component.cfg = {**component.cfg, "threshold": threshold, "flat_ner": False, "multi_label": True}
    (prediction,) = component.predict([spacy.blank("en").make_doc(text)])
    return {(entity.start, entity.end): entity.generated[0] for entity in prediction.entities}


@pytest.mark.parametrize("full_context", [True, False])
@pytest.mark.parametrize(("width", "kind"), [(32, "gpt2"), (24, "gpt2"), (24, "llama")])
def test_labels_written_for_spans(tmp_path, full_context, width, kind):
    model = make_peer(full_decoder_context=full_context, **decoder_settings(width, kind))
    component = load(save(model, tmp_path))
    lengths = [len(tokens) for tokens in prepare_peer(model, TEXTS)["tokens"]]
    threshold = gap(valid_scores(run_peer(model, TEXTS).logits, lengths), 0.93, 0.98)
    labels: list[str] = []
    for text in (TEXTS[0], TEXTS[2]):
        ours = our_labels(component, text, threshold)
        assert ours == their_labels(model, text, threshold, ours)
        labels += ours.values()
    assert len(labels) > 3
    assert len(set(labels)) > 1


def test_spans_of_one_number_of_pieces_are_written_alike_by_inference(tmp_path):
    """Where GLiNER 0.2.29 pads nothing, what it says itself is what comes out here."""
    model = make_peer(max_width=1, full_decoder_context=True, **decoder_settings())
    component = load(save(model, tmp_path))
    text = "the the and the of"
    found = model.inference([text], ["person"], threshold=0.0, do_sample=False, multi_label=True)[0]
    assert len(found) == 5
    component.labels = ["person"]
    ours = our_labels(component, text, 0.0)
    assert [e["generated_labels"][0].strip() for e in found] == [ours[at, at] for at in range(5)]


def test_labels_written_by_token_models(tmp_path):
    """There, labels are written for spans that score above 0.5, whatever the threshold."""
    count = 0
    for seed in range(1, 9):
        model = make_peer(seed=seed, span_mode="token_level", **decoder_settings(24))
        component = load(save(model, tmp_path / str(seed)))
        ours = our_labels(component, TEXTS[0], 0.2)
        some = dict(sorted(ours.items(), reverse=True)[:5])
        theirs = their_labels(model, TEXTS[0], 0.2, some)
        assert theirs == {span: ours[span] for span in theirs}
        count += len(theirs)
        if count > 3:
            return
    raise AssertionError("too few labels")


def test_constraints(tmp_path):
    model = make_peer(**decoder_settings())
    component = load(save(model, tmp_path), generate_constraints=["a person", "city"])
    assert set(our_labels(component, TEXTS[0], 0.5).values()) <= {"a person", "city"}


def test_texts_without_entities(tmp_path):
    """GLiNER 0.2.29 fails where no text of a batch has an entity and the words of spans are not read."""
    model = make_peer(full_decoder_context=False, **decoder_settings())
    component = load(save(model, tmp_path))
    assert our_labels(component, TEXTS[1], 0.999) == {}
