"""Block objects in the config of ``nlp.add_pipe``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import spacy
from spacy.tokens import Doc
from tagging_pipeline import examples

from gliner_pipe.errors import ConfigError
from gliner_pipe.modeling.backbones.transformer import Transformer
from gliner_pipe.modeling.decoders.crf import CRFTags
from gliner_pipe.modeling.encoders.uni_encoder import UniEncoder
from gliner_pipe.modeling.gliner import GLiNER
from gliner_pipe.modeling.losses.focal import FocalLoss
from gliner_pipe.modeling.span_reps.marker import MarkerV0
from gliner_pipe.pipeline.word_splitters import WhitespaceWords


def test_a_model_becomes_a_config(backbone: Path, tmp_path: Path) -> None:
    loss = FocalLoss(alpha=0.25)  # used twice
    encoder = UniEncoder(Transformer(str(backbone), window=24, stride=16, trust_remote_code=True))
    model = GLiNER(encoder, MarkerV0(max_width=3), loss=loss, relation_loss=loss)
    nlp = spacy.blank("en")
    component: Any = nlp.add_pipe("gliner", config={"model": model, "labels": ["person"]})
    assert component.max_width == 3
    stated = nlp.config["components"]["gliner"]["model"]
    assert stated["loss"] == stated["relation_loss"] == {"@losses": "gliner_pipe.focal", "alpha": 0.25}
    wanted = {"@backbones": "transformer", "model": str(backbone), "window": 24, "stride": 16}
    assert stated["encoder"]["backbone"] == wanted  # consent to run code is not saved
    nlp.initialize()
    nlp.to_disk(tmp_path / "saved")
    again = spacy.load(tmp_path / "saved")
    docs = [one(Doc(one.vocab, ["Ada", "Smith", "lives"])) for one in (nlp, again)]
    first, second = ([(span.text, span._.score) for span in doc.spans["gliner"]] for doc in docs)
    assert first == second


def test_parts_of_a_tagger(backbone: Path) -> None:
    nlp = spacy.blank("en")
    parts = {
        "embedding": Transformer(str(backbone), window=24, stride=16),
        "decoder": CRFTags(scheme="bio"),
        "word_splitter": WhitespaceWords(),
    }
    nlp.add_pipe("token_classifier", config=parts)
    nlp.initialize(lambda: examples(nlp))
    again = spacy.blank("en").from_config(nlp.config)
    tagger: Any = again.get_pipe("token_classifier")
    assert tagger.network.decoder.scheme == "bio" and isinstance(tagger.word_splitter, WhitespaceWords)


def test_an_object_of_an_unregistered_class(backbone: Path) -> None:
    class Mine(Transformer):
        pass

    nlp = spacy.blank("en")
    with pytest.raises(ConfigError, match=r"^\[@backbones\].*Mine"):
        nlp.add_pipe("gliner", config={"model": GLiNER(UniEncoder(Mine(str(backbone))), MarkerV0())})
