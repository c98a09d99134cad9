"""All pieces of a word as targets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import spacy
from tagging_pipeline import config, example

from gliner_pipe.errors import ConfigError

WORDS = ["Lovelace", "Smith", "lives", "\u200b", "in", "Manchester"]
SPANS = [(0, 1, "person"), (5, 5, "city")]


def component(backbone: Path, **decoder: Any) -> tuple[Any, Any]:
    nlp = spacy.blank("en")
    made = nlp.add_pipe(
        "token_classifier", config=config(backbone, {"@decoders": "softmax", "all_pieces": True, **decoder})
    )
    gold = [example(nlp, WORDS, SPANS), example(nlp, WORDS * 6, SPANS)]
    nlp.initialize(lambda: gold)
    return made, gold


@pytest.mark.parametrize(
    ("scheme", "first", "later"),
    [("bio", "B-city", "I-city"), ("io", "I-city", "I-city"), ("bioul", "U-city", "U-city")],
)
def test_pieces_behind_the_first_are_inside(backbone: Path, scheme: str, first: str, later: str) -> None:
    made, gold = component(backbone, scheme=scheme)
    batch = made.collate(gold[:1])
    decoder, backbone_ = made.network.decoder, made.network.encoder.backbone
    counts = backbone_.tokenize([WORDS])[0].counts.tolist()
    assert counts[3] == 0 and counts[5] > 1 and sum(counts) > len(WORDS)
    tags = [decoder.tags[tag] for tag in batch.gold[0, :, 0].tolist()]
    assert len(tags) == sum(counts) == batch.count
    assert tags[-counts[5] :] == [first, *[later] * (counts[5] - 1)]
    assert [tag[2:] for tag in tags[: counts[0] + counts[1]]] == ["person"] * (counts[0] + counts[1])
    windows = batch.inputs.windows
    assert windows.piece_count.max() == 1 and int(windows.piece_count[0].sum()) == sum(counts)
    assert windows.piece_start[0, 0] == 1


def test_long_texts(backbone: Path) -> None:
    """Each piece is once in the chains of a text, in whichever window."""
    made, gold = component(backbone)
    batch = made.collate(gold[1:])
    counts = made.network.encoder.backbone.tokenize([WORDS * 6])[0]
    assert len(batch.inputs.windows.input_ids) > 1
    assert batch.mask.sum() == sum(counts.counts)
    ids = batch.inputs.windows.input_ids
    places = batch.inputs.windows.piece_start
    rows, columns = batch.places[batch.mask] // places.shape[1], batch.places[batch.mask] % places.shape[1]
    read = ids[rows, places[rows, columns]][batch.inputs.windows.piece_count[rows, columns] > 0]
    assert read.tolist() == counts.ids.tolist()


def test_backbones_that_read_words(backbone: Path) -> None:
    nlp = spacy.blank("en")
    embedding = {"@backbones": "text_cnn", "embedding": config(backbone)["embedding"]}
    made: Any = nlp.add_pipe(
        "token_classifier",
        config={"embedding": embedding, "decoder": {"@decoders": "softmax", "all_pieces": True}},
    )
    gold = [example(nlp, WORDS, SPANS)]
    nlp.initialize(lambda: gold)
    with pytest.raises(ConfigError, match=r"all_pieces\] found True over TextCnn"):
        made.collate(gold)
